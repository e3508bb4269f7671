//! The plots of sessions: rates, and losses, against the number of clients.

use std::collections::BTreeMap;

use crate::{
    report::{
        arrivals, client_rates_mbit, grouped, is_measured, is_sound, losses_of,
        median_range::{MedianRange, mean},
        overall,
        plot::{Axis, Chart, Point, Series},
    },
    transfer::Record,
    units::Bytes,
};

/// Ratio of the largest to the smallest number of clients from which their axis is logarithmic:
/// beyond it the smaller numbers of a linear one have no room for their labels.
const CLIENTS_LINEAR_MAX: f64 = 30.0;

/// The same for rates: beyond it a client's rate lies on the floor of the plot, where its bars
/// cannot be read.
const RATES_LINEAR_MAX: f64 = 10.0;

/// The global rate and the mean rate of a client against the number of clients, for each way and
/// file. Points are medians over repeated sessions. Bars span the sessions' global rates, and the
/// rates of all their clients. Sessions that measured nothing have no points; the subtitle has
/// their number.
pub fn rates(records: &[Record]) -> Chart {
    let figures: [(&str, SessionFigures); 2] = [
        ("global rate", |record| Some(vec![overall(record)?.1])),
        ("mean client rate", |record| Some(client_rates_mbit(record).collect())),
    ];
    let mut rates = chart(records, &figures, "Rate against number of clients", "rate (Mbit/s)");
    if records.iter().any(|r| is_measured(r) && !is_sound(r)) {
        rates.subtitle += "; raw: of what arrived";
    }
    rates
}

/// The loss against the number of clients, for each way that counts datagrams and each file: of a
/// hundred datagrams that the server made for a client, how many never came, the mean over the
/// clients. Points are medians over repeated sessions, bars span the loss of all their clients.
pub fn losses(records: &[Record]) -> Chart {
    chart(records, &[("mean client loss", losses_of)], "Loss against number of clients", "loss (%)")
}

/// The time to the last byte against the number of clients, for each way and file: of the slowest
/// client, and the mean over the clients. Points are medians, bars span the times of all their clients.
pub fn times(records: &[Record]) -> Chart {
    let figures: [(&str, SessionFigures); 2] = [
        ("slowest", |record| Some(vec![overall(record)?.0.as_secs_f64()])),
        ("mean", |record| Some(arrivals(record).map(|(_, span)| span.as_secs_f64()).collect())),
    ];
    chart(records, &figures, "Time against number of clients", "time (s)")
}

/// One chart of some figures, each named, against the number of clients.
fn chart(records: &[Record], figures: &[(&str, SessionFigures)], title: &str, unit: &str) -> Chart {
    let measured = records.iter().filter(|record| is_measured(record));
    let groups = grouped(measured, |record| (record.via, &record.file));
    let one_file = groups.windows(2).all(|pair| pair[0][0].file == pair[1][0].file);
    let mut series = Vec::new();
    for group in &groups {
        let (via, file) = (group[0].via, &group[0].file);
        let of = if one_file {
            via.to_string()
        } else {
            format!("{via}, {}, {}", file.name, Bytes(file.bytes))
        };
        let mut companion = false;
        for (name, figure) in figures {
            let mut line = against_clients(format!("{name} ({of})"), group, *figure);
            if !line.points.is_empty() {
                line.companion = companion;
                companion = true;
                series.push(line);
            }
        }
    }
    let mut subtitle = "points: medians, bars: least to largest".to_owned();
    if let Some(group) = groups.first().filter(|_| one_file) {
        let file = &group[0].file;
        subtitle = format!("{}, {}; {subtitle}", file.name, Bytes(file.bytes));
    }
    match records.iter().filter(|record| !is_measured(record)).count() {
        0 => {}
        1 => subtitle += "; 1 session that failed is left out",
        count => subtitle += &format!("; {count} sessions that failed are left out"),
    }
    let points = || series.iter().flat_map(|series| &series.points);
    let x = Axis::with_ticks("clients", points().map(|point| point.x));
    let x = Axis { logarithmic: spans(x.ticks.iter().copied(), CLIENTS_LINEAR_MAX), ..x };
    let y = Axis {
        logarithmic: spans(points().map(|point| point.y), RATES_LINEAR_MAX)
            && points().all(|point| point.y > 0.0),
        ..Axis::from_zero(unit)
    };
    let labelled = |mut axis: Axis| {
        axis.label += if axis.logarithmic { ", logarithmic" } else { "" };
        axis
    };
    Chart { title: title.to_owned(), subtitle, x: labelled(x), y: labelled(y), series }
}

/// What a session has of a figure: its value is their mean, and its error bar must hold them all.
type SessionFigures = fn(&Record) -> Option<Vec<f64>>;

fn against_clients(name: String, records: &[&Record], figures: SessionFigures) -> Series {
    let mut by_clients: BTreeMap<u16, Vec<Vec<f64>>> = BTreeMap::new();
    for record in records {
        by_clients.entry(record.clients).or_default().extend(figures(record));
    }
    let point = |(clients, sessions): (u16, Vec<Vec<f64>>)| {
        let means = sessions.iter().filter_map(|figures| mean(figures.iter().copied()));
        let y = MedianRange::of(means)?.median;
        let all = MedianRange::of(sessions.into_iter().flatten())?;
        Some(Point { x: f64::from(clients), y, range: Some((all.low, all.high)) })
    };
    Series::new(name, by_clients.into_iter().filter_map(point).collect())
}

/// True when the largest value is more than `ratio` times the smallest.
fn spans(values: impl Iterator<Item = f64>, ratio: f64) -> bool {
    MedianRange::of(values.filter(|&value| value > 0.0))
        .is_some_and(|spread| spread.high / spread.low > ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::sample, session::Via, text::FileName};

    #[test]
    fn points_are_medians_of_the_repeated_and_bars_hold_all() {
        let records = [
            sample::session(1, 2, 78),
            sample::session(2, 2, 158),
            sample::session(3, 2, 98),
            sample::session(4, 4, 76),
        ];
        let chart = rates(&records);
        assert_eq!(chart.series.len(), 2);
        let of = |name: &str| {
            let series = chart.series.iter().find(|series| series.name == name);
            &series.expect(name).points
        };
        let all = of("global rate (tcp)");
        assert_eq!((all[0].x, all[1].x), (2.0, 4.0));
        // 2 x 8 Mbit in 100.12 ms, the middle of the three.
        assert!((all[0].y - 16.0 / 0.100_12).abs() < 1e-6, "{all:?}");
        let (low, high) = all[0].range.expect("three runs");
        assert!((low - 16.0 / 0.160_12).abs() < 1e-6, "{low}");
        assert!((high - 16.0 / 0.080_12).abs() < 1e-6, "{high}");
        let each = of("mean client rate (tcp)");
        for (point, low_ms, high_ms) in [(each[0], 160.0, 79.0), (each[1], 80.0, 77.0)] {
            let (low, high) = point.range.expect("several clients");
            assert!((low - 8000.0 / low_ms).abs() < 1e-6, "{low}");
            assert!((high - 8000.0 / high_ms).abs() < 1e-6, "{high}");
        }
    }

    #[test]
    fn each_via_and_file_is_a_series_and_wide_ranges_are_log() {
        let mut records = [1, 10, 1000].map(|n| sample::session(u64::from(n), n, 80));
        records[1].via = Via::Udp;
        records[2].file.name = FileName::new("2.bin").expect("plain");
        let chart = rates(&records);
        let names: Vec<&str> = chart.series.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names[2], "global rate (udp, 1MB.bin, 1 MB)");
        assert_eq!(names.len(), 6);
        assert!(chart.x.logarithmic && chart.y.logarithmic);
        assert_eq!(chart.x.ticks, [1.0, 10.0, 1000.0]);
    }

    /// A session over raw whose seat k lost k of a hundred datagrams.
    fn lossy(number: u64, clients: u16) -> Record {
        let mut record = sample::session(number, clients, 80);
        record.via = Via::Raw;
        for (lost, transfer) in (1..).zip(&mut record.transfers) {
            transfer.fail(crate::transfer::Outcome::Cut, "datagrams were lost");
            transfer.verified = None;
            transfer.bytes_client = Some(1_000_000 - 10_000 * lost);
            transfer.counts.offered = Some(100);
            transfer.counts.unique = Some(100 - lost);
            transfer.counts.lost = Some(lost);
            transfer.counts.unheard = Some(0);
        }
        record
    }

    #[test]
    fn raw_session_shows_rate_of_arrived_and_loss_of_missing() {
        let records = [lossy(1, 1), lossy(2, 3), lossy(3, 3)];
        let chart = losses(&records);
        assert_eq!(chart.series.len(), 1);
        assert!(!chart.subtitle.contains("arrived"), "{chart:?}");
        assert_eq!(chart.series[0].name, "mean client loss (raw)");
        let points = &chart.series[0].points;
        assert_eq!((points[0].y, points[1].y), (1.0, 2.0));
        assert_eq!(points[1].range, Some((1.0, 3.0)));

        let chart = rates(&records);
        assert!(chart.subtitle.ends_with("; raw: of what arrived"), "{chart:?}");
        let all = &chart.series[0].points;
        // 2.94 MB in the slowest one's 83 ms.
        assert!((all[1].y - 2.94 * 8.0 / 0.083).abs() < 1e-6, "{all:?}");

        // Without the loss of one client there is no mean.
        let mut records = [lossy(1, 3), lossy(2, 3)];
        records[0].transfers[1].counts.lost = None;
        records[1].transfers[1].seconds_client = None;
        assert!(losses(&records).series.is_empty());
        assert_eq!(rates(&records[1..]).series.len(), 0);
        // A way that does not count datagrams has no loss to show.
        assert!(losses(&[sample::session(1, 3, 80)]).series.is_empty());
    }

    #[test]
    fn session_without_rates_has_no_point() {
        let mut records = vec![sample::session(1, 3, 80), sample::troubled()];
        records[0].transfers.clear();
        let chart = rates(&records);
        assert!(chart.series.is_empty());
        let svg = chart.to_svg();
        assert!(svg.contains("no data"));
        assert!(svg.contains("2 sessions that failed are left out"), "{svg}");
        // Not even one of a single client less, though it has rates.
        records[0] = sample::session(1, 3, 80);
        records[0].transfers[2].fail(crate::transfer::Outcome::Cut, "gone");
        assert!(records[0].global().rate_mbit.is_some());
        assert!(rates(&records).series.is_empty());
    }
}
