//! A study's plots, drawn by [`report::plot`](crate::report::plot).
//!
//! One set for each file size, rate and loss: makespan, efficiency, bytes sent, and how the
//! clients of the largest run came to their ends one after another. Where several losses were
//! measured, makespan against loss as well.

use crate::report::plot::Axis;
use crate::report::plot::Chart;
use crate::report::plot::Point;
use crate::report::plot::Series;
use crate::testbed::study::results::Results;
use crate::testbed::study::results::StudyRow;
use crate::testbed::study::results::StudyRun;
use crate::units::Bytes;
use crate::units::Rate;

/// A plot and its name.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The name of its file, without `.svg`.
    pub name: String,
    /// What it shows, for a page.
    pub caption: String,
    /// The plot.
    pub chart: Chart,
}

/// What all rows of one set of plots have in common.
#[derive(Clone, Copy, PartialEq)]
struct PlotSet {
    bytes: u64,
    rate_mbit: f64,
    loss: f64,
}

/// All plots of a study.
pub fn all(results: &Results) -> Vec<Figure> {
    let mut sets: Vec<PlotSet> = Vec::new();
    for row in &results.rows {
        let set = PlotSet::of(row);
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    let mut figures = Vec::new();
    for set in &sets {
        // One set has plain names; several say whose they are.
        let end = match sets.len() {
            1 => String::new(),
            _ => set.file_name(),
        };
        let rows: Vec<&StudyRow> = results
            .rows
            .iter()
            .filter(|row| PlotSet::of(row) == *set && row.makespan_s.is_some())
            .collect();
        let mut add = |name: &str, caption: &str, chart: Chart| {
            figures.push(Figure {
                name: format!("{name}{end}"),
                caption: caption.to_owned(),
                chart,
            });
        };
        let about = set.about(results);
        add(
            "makespan",
            "Release until the last client's last byte, against the least that the links allow.",
            makespan(results, &rows, &about),
        );
        add(
            "efficiency",
            "The least makespan that the links allow, over the makespan that was measured.",
            efficiency(results, &rows, &about),
        );
        add(
            "traffic",
            "What the links carried away from the server and from the clients, with all headers \
             and acknowledgements.",
            traffic(results, &rows, &about),
        );
        add(
            "completion",
            "How many clients had the whole file at what time, in the median run.",
            completion(results, *set, &about),
        );
    }
    figures.extend(against_loss(results));
    figures
}

impl PlotSet {
    fn of(row: &StudyRow) -> Self {
        Self {
            bytes: row.bytes,
            rate_mbit: row.rate_nominal_mbit,
            loss: row.loss,
        }
    }

    /// `-10MB-100mbit-loss1%` in letters that every file system takes.
    fn file_name(self) -> String {
        let size = Bytes(self.bytes).to_string().replace([' ', '.'], "");
        let loss = format!("{}", self.loss * 100.0).replace('.', "_");
        format!("-{size}-{}mbit-loss{loss}", self.rate_mbit)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Whole bits once.
    fn about(self, results: &Results) -> String {
        let rate = Rate((self.rate_mbit * 1e6).round() as u64);
        let loss = self.loss * 100.0;
        let middle = &results.environment.middle;
        format!(
            "{} over {rate} links, {middle}, loss {loss} %",
            Bytes(self.bytes)
        )
    }
}

/// One series for each way, in the order of the grid; a way without points has none.
fn by_way(
    results: &Results,
    rows: &[&StudyRow],
    mut series: impl FnMut(&str, &[&StudyRow]) -> Vec<Series>,
) -> Vec<Series> {
    let mut all = Vec::new();
    for way in &results.grid.ways {
        let own: Vec<&StudyRow> = rows.iter().filter(|row| row.via == *way).copied().collect();
        if !own.is_empty() {
            all.extend(series(way, &own));
        }
    }
    all
}

fn clients_axis(rows: &[&StudyRow]) -> Axis {
    let mut ticks: Vec<f64> = rows.iter().map(|row| f64::from(row.clients)).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    Axis {
        label: "clients".to_owned(),
        logarithmic: false,
        from_zero: false,
        ticks,
    }
}

fn repeats(rows: &[&StudyRow]) -> String {
    let least = rows.iter().map(|row| row.runs).min().unwrap_or(0);
    let most = rows.iter().map(|row| row.runs).max().unwrap_or(0);
    match (least, most) {
        (1, 1) => "one run each".to_owned(),
        _ if least == most => format!("medians of {most}"),
        _ => format!("medians of {least} to {most}"),
    }
}

/// The same where intervals are drawn.
fn repeats_with_bars(rows: &[&StudyRow]) -> String {
    match rows.iter().any(|row| row.runs > 1) {
        true => format!("{}, bars: their intervals", repeats(rows)),
        false => repeats(rows),
    }
}

fn makespan(results: &Results, rows: &[&StudyRow], about: &str) -> Chart {
    let mut series = by_way(results, rows, |way, own| {
        vec![Series {
            name: way.to_owned(),
            points: own.iter().filter_map(|row| makespan_point(row)).collect(),
            ..Series::default()
        }]
    });
    with_bounds(&mut series, rows, |row| f64::from(row.clients));
    Chart {
        title: "Makespan against number of clients".to_owned(),
        subtitle: format!("{about}; {}", repeats_with_bars(rows)),
        x: clients_axis(rows),
        y: Axis {
            label: "release to last client's last byte (s)".to_owned(),
            from_zero: true,
            ..Axis::default()
        },
        series,
    }
}

fn makespan_point(row: &StudyRow) -> Option<Point> {
    let middle = row.makespan_s?;
    Some(Point {
        x: f64::from(row.clients),
        y: middle.median,
        range: Some((middle.low, middle.high)),
    })
}

/// Adds the bounds, dashed: after its way and in its colour, or, where ways have the same bound,
/// one line for all of them at the end, so that none hides another.
fn with_bounds(series: &mut Vec<Series>, rows: &[&StudyRow], x: fn(&StudyRow) -> f64) {
    let line = |way: &str| -> Vec<Point> {
        let own = rows.iter().filter(|row| row.via == way);
        own.map(|row| Point::new(x(row), row.bound_s)).collect()
    };
    add_references(series, line, |names| format!("bound of {names}"));
}

/// Adds what `line` has for each way: a reference of its own, or one that several share.
fn add_references(
    series: &mut Vec<Series>,
    line: impl Fn(&str) -> Vec<Point>,
    name: impl Fn(&str) -> String,
) {
    let mut lines: Vec<(Vec<String>, Vec<Point>)> = Vec::new();
    for way in series.iter().map(|series| series.name.clone()) {
        let points = line(&way);
        match lines.iter_mut().find(|(_, there)| is_same(there, &points)) {
            Some((ways, _)) => ways.push(way),
            None => lines.push((vec![way], points)),
        }
    }
    for (ways, points) in lines {
        let reference = Series {
            name: name(&ways.join(", ")),
            points,
            reference: true,
            companion: ways.len() == 1,
        };
        let after = series.iter().position(|series| series.name == ways[0]);
        match after {
            Some(place) if ways.len() == 1 => series.insert(place + 1, reference),
            _ => series.push(reference),
        }
    }
}

/// True when two lines would be drawn upon each other.
fn is_same(a: &[Point], b: &[Point]) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 0.002 * a.abs().max(b.abs());
    let same = |(a, b): (&Point, &Point)| near(a.x, b.x) && near(a.y, b.y);
    a.len() == b.len() && a.iter().zip(b).all(same)
}

fn efficiency(results: &Results, rows: &[&StudyRow], about: &str) -> Chart {
    let mut series = by_way(results, rows, |way, own| {
        let point = |row: &&StudyRow| {
            let middle = row.makespan_s?;
            Some(Point {
                x: f64::from(row.clients),
                y: row.efficiency?,
                range: Some((row.bound_s / middle.high, row.bound_s / middle.low)),
            })
        };
        vec![Series {
            name: way.to_owned(),
            points: own.iter().filter_map(point).collect(),
            ..Series::default()
        }]
    });
    let numbers = || rows.iter().map(|row| f64::from(row.clients));
    if let (Some(first), Some(last)) = (numbers().reduce(f64::min), numbers().reduce(f64::max)) {
        series.push(Series::level("the bound", 1.0, (first, last)));
    }
    Chart {
        title: "Efficiency against number of clients".to_owned(),
        subtitle: format!("{about}; {}", repeats_with_bars(rows)),
        x: clients_axis(rows),
        y: Axis {
            label: "bound / makespan".to_owned(),
            from_zero: true,
            ..Axis::default()
        },
        series,
    }
}

fn traffic(results: &Results, rows: &[&StudyRow], about: &str) -> Chart {
    let mut series = by_way(results, rows, |way, own| {
        let line = |name: &str, of: fn(&StudyRow) -> Option<f64>, companion| Series {
            name: format!("{way}: {name}"),
            points: own
                .iter()
                .filter_map(|row| Some(Point::new(f64::from(row.clients), of(row)? / 1e6)))
                .collect(),
            reference: false,
            companion,
        };
        vec![
            line("from the server", |row| row.server_sent_bytes, false),
            line("from all clients", |row| row.clients_sent_bytes, true),
        ]
    });
    // What had to arrive, whoever sent it. Exact to 2^53 bytes.
    #[allow(clippy::cast_precision_loss)]
    let payload =
        |row: &&StudyRow| Point::new(f64::from(row.clients), row.payload_bytes as f64 / 1e6);
    let mut needed: Vec<Point> = rows.iter().map(payload).collect();
    needed.sort_by(|a, b| a.x.total_cmp(&b.x));
    needed.dedup();
    series.push(Series {
        name: "file bytes to deliver".to_owned(),
        points: needed,
        reference: true,
        companion: false,
    });
    Chart {
        title: "Bytes from server and from clients".to_owned(),
        subtitle: format!("{about}; {}, by the links' own counters", repeats(rows)),
        x: clients_axis(rows),
        y: Axis {
            label: "sent with headers (MB)".to_owned(),
            from_zero: true,
            ..Axis::default()
        },
        series,
    }
}

/// The clients of the largest number, in each way's median run.
fn completion(results: &Results, set: PlotSet, about: &str) -> Chart {
    let of_set = |run: &&StudyRun| {
        run.is_proven()
            && run.cell.bytes == set.bytes
            && run.cell.rate_mbit() == set.rate_mbit
            && run.cell.loss_fraction() == set.loss
    };
    let runs: Vec<&StudyRun> = results.measurements.iter().filter(of_set).collect();
    let most = runs.iter().map(|run| run.cell.clients).max().unwrap_or(0);
    let mut series = Vec::new();
    let mut bounds = Vec::new();
    for way in &results.grid.ways {
        let mut own: Vec<(f64, &StudyRun)> = runs
            .iter()
            .filter(|run| run.cell.clients == most && run.cell.way == *way)
            .filter_map(|run| Some((run.observed.as_ref()?.makespan_s?, *run)))
            .collect();
        own.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, median)) = own.get(own.len().saturating_sub(1) / 2) else {
            continue;
        };
        let mut times: Vec<f64> = median.observed.iter().flat_map(|o| o.seconds()).collect();
        times.sort_by(f64::total_cmp);
        let done = (1_u16..).zip(&times);
        series.push(Series {
            name: way.clone(),
            points: done
                .map(|(k, &time)| Point::new(time, f64::from(k)))
                .collect(),
            ..Series::default()
        });
        bounds.push((way, median.bound_s));
    }
    let line = |way: &str| {
        let bound = bounds.iter().find(|(name, _)| *name == way);
        let ends = |&(_, bound): &(_, f64)| {
            vec![Point::new(bound, 0.0), Point::new(bound, f64::from(most))]
        };
        bound.map_or_else(Vec::new, ends)
    };
    add_references(&mut series, line, |names| format!("bound of {names}"));
    Chart {
        title: format!("Clients that have the whole file, of {most}"),
        subtitle: format!("{about}; each way's median run"),
        x: Axis {
            label: "time since the release (s)".to_owned(),
            from_zero: true,
            ..Axis::default()
        },
        y: Axis {
            label: "clients".to_owned(),
            from_zero: true,
            ticks: match most {
                0..=16 => (0..=most).map(f64::from).collect(),
                _ => Vec::new(),
            },
            ..Axis::default()
        },
        series,
    }
}

/// Makespan against loss, for the most clients and the largest file, where losses differ.
fn against_loss(results: &Results) -> Option<Figure> {
    let most = results.rows.iter().map(|row| row.clients).max()?;
    let largest = results.rows.iter().map(|row| row.bytes).max()?;
    let fastest = results
        .rows
        .iter()
        .map(|row| row.rate_nominal_mbit)
        .reduce(f64::max)?;
    let rows: Vec<&StudyRow> = results
        .rows
        .iter()
        .filter(|row| row.clients == most && row.bytes == largest)
        .filter(|row| row.rate_nominal_mbit == fastest && row.makespan_s.is_some())
        .collect();
    let mut ticks: Vec<f64> = rows.iter().map(|row| row.loss * 100.0).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    if ticks.len() < 2 {
        return None;
    }
    let mut series = by_way(results, &rows, |way, own| {
        let point = |row: &&StudyRow| {
            let point = makespan_point(row)?;
            Some(Point {
                x: row.loss * 100.0,
                ..point
            })
        };
        vec![Series {
            name: way.to_owned(),
            points: own.iter().filter_map(point).collect(),
            ..Series::default()
        }]
    });
    with_bounds(&mut series, &rows, |row| row.loss * 100.0);
    let size = Bytes(largest);
    Some(Figure {
        name: "loss".to_owned(),
        caption: "Makespan against random loss.".to_owned(),
        chart: Chart {
            title: "Makespan against loss".to_owned(),
            subtitle: format!(
                "{size} to {most} clients over {fastest} Mbit/s links; {}",
                repeats_with_bars(&rows)
            ),
            x: Axis {
                label: "packets lost (%)".to_owned(),
                ticks,
                ..Axis::default()
            },
            y: Axis {
                label: "release to last client's last byte (s)".to_owned(),
                from_zero: true,
                ..Axis::default()
            },
            series,
        },
    })
}

#[cfg(test)]
mod tests;
