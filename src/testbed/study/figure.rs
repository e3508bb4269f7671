//! A study's plots, drawn by [`report::plot`](crate::report::plot).
//!
//! One set for each file size, rate and loss: makespan, mean time, efficiency, bytes sent, and how the
//! clients of the largest run came to their ends one after another. Where several losses were
//! measured, makespan against loss as well.

use crate::{
    report::{
        median_range::MedianRange,
        plot::{Axis, Chart, Point, Series},
    },
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

/// What all rows of one set of plots have in common: the file's size, the rate and the loss.
type PlotSet = (u64, Option<f64>, f64);

/// The rows of one set that have a makespan.
struct Plotted<'a> {
    results: &'a Results,
    set: PlotSet,
    rows: Vec<&'a StudyRow>,
}

/// All plots of a study.
pub fn all(results: &Results) -> Vec<Figure> {
    let of = |row: &StudyRow| (row.bytes, row.rate_nominal_mbit, row.loss);
    let mut sets: Vec<PlotSet> = Vec::new();
    for set in results.rows.iter().map(of) {
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    let mut figures = Vec::new();
    for &set in &sets {
        let of_set = |row: &&StudyRow| of(row) == set && row.makespan_s.is_some();
        let rows = results.rows.iter().filter(of_set).collect();
        let plotted = Plotted { results, set, rows };
        // The plots of one set have plain names; of several, each name says which set it is of.
        let suffix = if sets.len() == 1 { String::new() } else { plotted.file_name() };
        let charts = [
            (
                "makespan",
                "Release until the last client's last byte, against the least that the links \
                 allow where that is known.",
                plotted.makespan(),
            ),
            (
                "mean",
                "Release until a client's last byte, the mean of all clients.",
                plotted.mean(),
            ),
            (
                "efficiency",
                "The least makespan that the links allow, over the makespan that was measured.",
                plotted.efficiency(),
            ),
            (
                "traffic",
                "What the links carried away from the server and from the clients, with all \
                 headers and acknowledgements.",
                plotted.traffic(),
            ),
            (
                "completion",
                "How many clients had the whole file at what time; of several runs, in the median \
                 one.",
                plotted.completion(),
            ),
        ];
        for (name, caption, chart) in charts {
            let mut own = chart.series.iter().filter(|series| !series.reference);
            // A room has no bounds and no counters of links: nothing to draw of them.
            if set.1.is_some() || own.any(|series| !series.points.is_empty()) {
                figures.push(Figure { name: format!("{name}{suffix}"), caption, chart });
            }
        }
    }
    figures.extend(against_loss(results));
    figures
}

impl Plotted<'_> {
    /// `-10MB-100mbit-loss1` in letters that every file system takes.
    fn file_name(&self) -> String {
        let (bytes, rate, loss) = self.set;
        let size = Bytes(bytes).to_string().replace([' ', '.'], "");
        let Some(rate) = rate else {
            return format!("-{size}");
        };
        let loss = format!("{}", loss * 100.0).replace('.', "_");
        format!("-{size}-{rate}mbit-loss{loss}")
    }

    fn about(&self) -> String {
        let (bytes, rate, loss) = self.set;
        let (middle, size) = (&self.results.environment.middle, Bytes(bytes));
        let Some(mbit) = rate else {
            return format!("{size}, {middle}");
        };
        let rate = Rate((mbit * 1e6).round() as u64);
        format!("{size} over {rate} links, {middle}, loss {} %", loss * 100.0)
    }

    /// A chart against the number of clients; `how` its figures came about.
    fn chart(&self, title: &str, how: &str, y_label: &str, series: Vec<Series>) -> Chart {
        Chart {
            title: title.to_owned(),
            subtitle: format!("{}; {how}", self.about()),
            x: Axis::with_ticks("clients", self.rows.iter().map(|row| clients(row))),
            y: Axis::from_zero(y_label),
            series,
        }
    }

    fn makespan(&self) -> Chart {
        let mut series = by_way(self.results, &self.rows, |row| makespan_point(row, clients(row)));
        add_bounds(&mut series, &self.rows, clients);
        let how = repeats_with_bars(&self.rows);
        self.chart("Makespan against number of clients", &how, MAKESPAN_LABEL, series)
    }

    fn mean(&self) -> Chart {
        let point = |row: &StudyRow| Some(Point::new(clients(row), row.client_mean_s?));
        let series = by_way(self.results, &self.rows, point);
        let (title, how) = ("Mean time against number of clients", repeats(&self.rows));
        self.chart(title, &how, "release to last byte, mean of clients (s)", series)
    }

    fn efficiency(&self) -> Chart {
        let mut series = by_way(self.results, &self.rows, |row| {
            let (makespan, bound) = (row.makespan_s?, row.bound_s?);
            let range = Some((bound / makespan.high, bound / makespan.low));
            Some(Point { x: clients(row), y: row.efficiency?, range })
        });
        if let Some(numbers) = MedianRange::of(self.rows.iter().map(|row| clients(row))) {
            series.push(Series::level("the bound", 1.0, (numbers.low, numbers.high)));
        }
        let how = repeats_with_bars(&self.rows);
        self.chart("Efficiency against number of clients", &how, "bound / makespan", series)
    }

    fn traffic(&self) -> Chart {
        type Sent = fn(&StudyRow) -> Option<f64>;
        const SENDERS: [(&str, Sent, bool); 2] = [
            ("from the server", |row| row.server_sent_bytes, false),
            ("from all clients", |row| row.clients_sent_bytes, true),
        ];
        let mut series = Vec::new();
        let ways = self.results.grid.ways.iter();
        for way in ways.filter(|way| self.rows.iter().any(|row| row.via == **way)) {
            series.extend(SENDERS.map(|(name, sent, companion)| {
                let point = |row: &StudyRow| Some(Point::new(clients(row), sent(row)? / 1e6));
                let points = points(&self.rows, way, point);
                Series { companion, ..Series::new(format!("{way}: {name}"), points) }
            }));
        }
        // What had to arrive, from any sender. Exact to 2^53 bytes.
        let payload = |row: &&StudyRow| Point::new(clients(row), row.payload_bytes as f64 / 1e6);
        let mut needed: Vec<Point> = self.rows.iter().map(payload).collect();
        needed.sort_by(|a, b| a.x.total_cmp(&b.x));
        needed.dedup();
        series.push(Series { reference: true, ..Series::new("file bytes to deliver", needed) });
        let how = format!("{}, by the links' own counters", repeats(&self.rows));
        self.chart("Bytes from server and from clients", &how, "sent with headers (MB)", series)
    }

    /// The clients of the largest number, in each way's median run.
    fn completion(&self) -> Chart {
        let of_set = |run: &&StudyRun| {
            let cell = &run.cell;
            run.is_proven() && (cell.bytes, cell.rate_mbit(), cell.loss_fraction()) == self.set
        };
        let runs: Vec<&StudyRun> = self.results.measurements.iter().filter(of_set).collect();
        let most = runs.iter().map(|run| run.cell.clients).max().unwrap_or(0);
        let (mut series, mut bounds, mut which) = (Vec::new(), Vec::new(), "run");
        for way in &self.results.grid.ways {
            let own = runs.iter().filter(|run| run.cell.clients == most && run.cell.way == *way);
            let mut own: Vec<(f64, &Observed, Option<f64>)> = own
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
            let whole = (1_u16..).zip(times).map(|(k, time)| Point::new(time, f64::from(k)));
            series.push(Series::new(way, whole.collect()));
            bounds.extend(bound.map(|bound| (way, bound)));
        }
        let all = f64::from(most);
        add_references(&mut series, |way| {
            let of_way = bounds.iter().filter(|(name, _)| *name == way);
            of_way
                .flat_map(|&(_, bound)| [Point::new(bound, 0.0), Point::new(bound, all)])
                .collect()
        });
        let mut y = Axis::from_zero("clients");
        if most <= 16 {
            y.ticks = (0..=most).map(f64::from).collect();
        }
        Chart {
            title: format!("Clients that have the whole file, of {most}"),
            subtitle: format!("{}; each way's {which}", self.about()),
            x: Axis::from_zero("time since the release (s)"),
            y,
            series,
        }
    }
}

const MAKESPAN_LABEL: &str = "release to last client's last byte (s)";

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
    let ways = results.grid.ways.iter();
    let series = ways.map(|way| Series::new(way, points(rows, way, &point)));
    series.filter(|series| !series.points.is_empty()).collect()
}

/// Of how many runs the figures of `rows` are.
pub(super) fn repeats(rows: &[&StudyRow]) -> String {
    let runs = || rows.iter().map(|row| row.runs);
    match (runs().min().unwrap_or(0), runs().max().unwrap_or(0)) {
        (1, 1) => "one run each".to_owned(),
        (least, most) if least == most => format!("medians of {most} runs"),
        (least, most) => format!("medians of {least} to {most} runs"),
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

fn makespan_point(row: &StudyRow, x: f64) -> Option<Point> {
    let makespan = row.makespan_s?;
    Some(Point { x, y: makespan.median, range: Some((makespan.low, makespan.high)) })
}

/// Adds the bounds, dashed: after its way and in its colour, or, where ways have the same bound,
/// one line for all of them at the end, so that none hides another.
fn add_bounds(series: &mut Vec<Series>, rows: &[&StudyRow], x: fn(&StudyRow) -> f64) {
    add_references(series, |way| points(rows, way, |row| Some(Point::new(x(row), row.bound_s?))));
}

/// Adds the bound that `line` has for each way: a reference of its own, or one that several share.
fn add_references(series: &mut Vec<Series>, line: impl Fn(&str) -> Vec<Point>) {
    let mut lines: Vec<(Vec<String>, Vec<Point>)> = Vec::new();
    for way in series.iter().map(|series| series.name.clone()) {
        let points = line(&way);
        if points.is_empty() {
            continue;
        }
        match lines.iter_mut().find(|(_, there)| is_same(there, &points)) {
            Some((ways, _)) => ways.push(way),
            None => lines.push((vec![way], points)),
        }
    }
    for (ways, points) in lines {
        let companion = ways.len() == 1;
        let bound = Series::new(format!("bound of {}", ways.join(", ")), points);
        let reference = Series { reference: true, companion, ..bound };
        let after = series.iter().position(|series| series.name == ways[0]);
        match after {
            Some(place) if companion => series.insert(place + 1, reference),
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

/// Makespan against loss, for the most clients and the largest file, where losses differ.
fn against_loss(results: &Results) -> Option<Figure> {
    let rows = || results.rows.iter();
    let most = rows().map(|row| row.clients).max()?;
    let largest = rows().map(|row| row.bytes).max()?;
    let fastest = rows().filter_map(|row| row.rate_nominal_mbit).reduce(f64::max)?;
    let rows: Vec<&StudyRow> = rows()
        .filter(|row| row.clients == most && row.bytes == largest)
        .filter(|row| row.rate_nominal_mbit == Some(fastest) && row.makespan_s.is_some())
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
