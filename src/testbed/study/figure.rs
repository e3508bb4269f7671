//! A study's plots, drawn by [`report::plot`](crate::report::plot).
//!
//! One set for each file size, rate and loss: makespan, efficiency, bytes sent, and how the
//! clients of the largest run came to their ends one after another. Where several losses were
//! measured, makespan against loss as well.

use crate::{
    report::plot::{Axis, Chart, Point, Series},
    testbed::study::{
        contender::Observed,
        results::{Results, StudyRow, StudyRun},
    },
    units::{Bytes, Rate},
};

/// A plot and its name.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The name of its file, without `.svg`.
    pub name: String,
    /// What it shows, for a page.
    pub caption: &'static str,
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
        // The plots of one set have plain names; of several, each name says which set it is of.
        let suffix = if sets.len() == 1 { String::new() } else { set.file_name() };
        let of_set = |row: &&StudyRow| PlotSet::of(row) == *set && row.makespan_s.is_some();
        let rows: Vec<&StudyRow> = results.rows.iter().filter(of_set).collect();
        let about = set.about(results);
        let charts = [
            (
                "makespan",
                "Release until the last client's last byte, against the least that the links \
                 allow.",
                makespan(results, &rows, &about),
            ),
            (
                "efficiency",
                "The least makespan that the links allow, over the makespan that was measured.",
                efficiency(results, &rows, &about),
            ),
            (
                "traffic",
                "What the links carried away from the server and from the clients, with all \
                 headers and acknowledgements.",
                traffic(results, &rows, &about),
            ),
            (
                "completion",
                "How many clients had the whole file at what time; of several runs, in the median \
                 one.",
                completion(results, *set, &about),
            ),
        ];
        figures.extend(charts.map(|(name, caption, chart)| Figure {
            name: format!("{name}{suffix}"),
            caption,
            chart,
        }));
    }
    figures.extend(against_loss(results));
    figures
}

impl PlotSet {
    fn of(row: &StudyRow) -> Self {
        Self { bytes: row.bytes, rate_mbit: row.rate_nominal_mbit, loss: row.loss }
    }

    /// `-10MB-100mbit-loss1` in letters that every file system takes.
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
        let size = Bytes(self.bytes);
        format!("{size} over {rate} links, {middle}, loss {loss} %")
    }
}

fn points(rows: &[&StudyRow], way: &str, point: impl Fn(&StudyRow) -> Option<Point>) -> Vec<Point> {
    let own = rows.iter().filter(|row| row.via == way);
    own.filter_map(|row| point(row)).collect()
}

/// One series for each way that has points, in the order of the grid.
fn by_way(
    results: &Results,
    rows: &[&StudyRow],
    point: impl Fn(&StudyRow) -> Option<Point>,
) -> Vec<Series> {
    let series = results.grid.ways.iter().map(|way| Series {
        name: way.clone(),
        points: points(rows, way, &point),
        ..Series::default()
    });
    series.filter(|series| !series.points.is_empty()).collect()
}

/// Of how many runs the figures of `rows` are.
pub(super) fn repeats(rows: &[&StudyRow]) -> String {
    let least = rows.iter().map(|row| row.runs).min().unwrap_or(0);
    let most = rows.iter().map(|row| row.runs).max().unwrap_or(0);
    match (least, most) {
        (1, 1) => "one run each".to_owned(),
        _ if least == most => format!("medians of {most} runs"),
        _ => format!("medians of {least} to {most} runs"),
    }
}

/// The same where intervals are drawn.
fn repeats_with_bars(rows: &[&StudyRow]) -> String {
    let bars = rows.iter().any(|row| row.runs > 1);
    repeats(rows) + if bars { ", bars: their intervals" } else { "" }
}

fn clients(row: &StudyRow) -> f64 {
    f64::from(row.clients)
}

/// A chart against the number of clients.
fn clients_chart(
    title: &str,
    subtitle: String,
    rows: &[&StudyRow],
    y_label: &str,
    series: Vec<Series>,
) -> Chart {
    Chart {
        title: title.to_owned(),
        subtitle,
        x: Axis::with_ticks("clients", rows.iter().map(|row| clients(row))),
        y: Axis::from_zero(y_label),
        series,
    }
}

const MAKESPAN_LABEL: &str = "release to last client's last byte (s)";

fn makespan(results: &Results, rows: &[&StudyRow], about: &str) -> Chart {
    let mut series = by_way(results, rows, |row| makespan_point(row, clients(row)));
    add_bounds(&mut series, rows, clients);
    clients_chart(
        "Makespan against number of clients",
        format!("{about}; {}", repeats_with_bars(rows)),
        rows,
        MAKESPAN_LABEL,
        series,
    )
}

fn makespan_point(row: &StudyRow, x: f64) -> Option<Point> {
    let makespan = row.makespan_s?;
    Some(Point { x, y: makespan.median, range: Some((makespan.low, makespan.high)) })
}

/// Adds the bounds, dashed: after its way and in its colour, or, where ways have the same bound,
/// one line for all of them at the end, so that none hides another.
fn add_bounds(series: &mut Vec<Series>, rows: &[&StudyRow], x: fn(&StudyRow) -> f64) {
    add_references(series, |way| points(rows, way, |row| Some(Point::new(x(row), row.bound_s))));
}

/// Adds the bound that `line` has for each way: a reference of its own, or one that several share.
fn add_references(series: &mut Vec<Series>, line: impl Fn(&str) -> Vec<Point>) {
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
            name: format!("bound of {}", ways.join(", ")),
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
    let mut series = by_way(results, rows, |row| {
        let makespan = row.makespan_s?;
        Some(Point {
            x: clients(row),
            y: row.efficiency?,
            range: Some((row.bound_s / makespan.high, row.bound_s / makespan.low)),
        })
    });
    let numbers = || rows.iter().map(|row| clients(row));
    if let (Some(first), Some(last)) = (numbers().reduce(f64::min), numbers().reduce(f64::max)) {
        series.push(Series::level("the bound", 1.0, (first, last)));
    }
    clients_chart(
        "Efficiency against number of clients",
        format!("{about}; {}", repeats_with_bars(rows)),
        rows,
        "bound / makespan",
        series,
    )
}

fn traffic(results: &Results, rows: &[&StudyRow], about: &str) -> Chart {
    type Sent = fn(&StudyRow) -> Option<f64>;
    const SENDERS: [(&str, Sent, bool); 2] = [
        ("from the server", |row| row.server_sent_bytes, false),
        ("from all clients", |row| row.clients_sent_bytes, true),
    ];
    let ways = results.grid.ways.iter();
    let ways = ways.filter(|way| rows.iter().any(|row| row.via == **way));
    let mut series: Vec<Series> = ways
        .flat_map(|way| {
            SENDERS.map(|(name, sent, companion)| Series {
                name: format!("{way}: {name}"),
                points: points(rows, way, |row| Some(Point::new(clients(row), sent(row)? / 1e6))),
                reference: false,
                companion,
            })
        })
        .collect();
    // What had to arrive, from any sender. Exact to 2^53 bytes.
    #[allow(clippy::cast_precision_loss)]
    let payload = |row: &&StudyRow| Point::new(clients(row), row.payload_bytes as f64 / 1e6);
    let mut needed: Vec<Point> = rows.iter().map(payload).collect();
    needed.sort_by(|a, b| a.x.total_cmp(&b.x));
    needed.dedup();
    series.push(Series {
        name: "file bytes to deliver".to_owned(),
        points: needed,
        reference: true,
        companion: false,
    });
    clients_chart(
        "Bytes from server and from clients",
        format!("{about}; {}, by the links' own counters", repeats(rows)),
        rows,
        "sent with headers (MB)",
        series,
    )
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
    let (mut bounds, mut which) = (Vec::new(), "run");
    for way in &results.grid.ways {
        let mut own: Vec<(f64, &Observed, f64)> = runs
            .iter()
            .filter(|run| run.cell.clients == most && run.cell.way == *way)
            .filter_map(|run| {
                let observed = run.observed.as_ref()?;
                Some((observed.makespan_s?, observed, run.bound_s))
            })
            .collect();
        own.sort_by(|a, b| a.0.total_cmp(&b.0));
        if own.len() > 1 {
            which = "median run";
        }
        let Some((_, median, bound)) = own.get(own.len().saturating_sub(1) / 2) else {
            continue;
        };
        let mut times: Vec<f64> = median.seconds().collect();
        times.sort_by(f64::total_cmp);
        let whole = (1_u16..).zip(&times);
        series.push(Series {
            name: way.clone(),
            points: whole.map(|(k, &time)| Point::new(time, f64::from(k))).collect(),
            ..Series::default()
        });
        bounds.push((way, *bound));
    }
    let all = f64::from(most);
    add_references(&mut series, |way| {
        let of_way = bounds.iter().filter(|(name, _)| *name == way);
        of_way.flat_map(|&(_, bound)| [Point::new(bound, 0.0), Point::new(bound, all)]).collect()
    });
    let mut y = Axis::from_zero("clients");
    if most <= 16 {
        y.ticks = (0..=most).map(f64::from).collect();
    }
    Chart {
        title: format!("Clients that have the whole file, of {most}"),
        subtitle: format!("{about}; each way's {which}"),
        x: Axis::from_zero("time since the release (s)"),
        y,
        series,
    }
}

/// Makespan against loss, for the most clients and the largest file, where losses differ.
fn against_loss(results: &Results) -> Option<Figure> {
    let rows = || results.rows.iter();
    let most = rows().map(|row| row.clients).max()?;
    let largest = rows().map(|row| row.bytes).max()?;
    let fastest = rows().map(|row| row.rate_nominal_mbit).reduce(f64::max)?;
    let rows: Vec<&StudyRow> = rows()
        .filter(|row| row.clients == most && row.bytes == largest)
        .filter(|row| row.rate_nominal_mbit == fastest && row.makespan_s.is_some())
        .collect();
    let percent = |row: &StudyRow| row.loss * 100.0;
    let x = Axis::with_ticks("packets lost (%)", rows.iter().map(|row| percent(row)));
    if x.ticks.len() < 2 {
        return None;
    }
    let mut series = by_way(results, &rows, |row| makespan_point(row, percent(row)));
    add_bounds(&mut series, &rows, percent);
    let (size, repeats) = (Bytes(largest), repeats_with_bars(&rows));
    Some(Figure {
        name: "loss".to_owned(),
        caption: "Makespan against random loss.",
        chart: Chart {
            title: "Makespan against loss".to_owned(),
            subtitle: format!("{size} to {most} clients over {fastest} Mbit/s links; {repeats}"),
            x,
            y: Axis::from_zero(MAKESPAN_LABEL),
            series,
        },
    })
}

#[cfg(test)]
mod tests;
