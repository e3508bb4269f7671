//! The plots of single sessions: each client's rate, and the rate of all clients over time. Of the
//! sessions of one test, which are of one way, file and number of clients, the median one is drawn.

use crate::{
    report::{
        arrived, grouped, median_session,
        plot::{Axis, Chart, Point, Series},
    },
    transfer::{Record, Transfer},
    units::mbit_per_second,
};

/// How much of the distance between two seats the bars of a seat take.
const BARS_WIDTH: f64 = 0.8;

/// Into how many equal parts the time of a session is cut.
const PARTS: u32 = 50;

/// The payload rate of each client, a bar for each seat, from the release to its last byte.
pub fn clients(records: &[Record]) -> Chart {
    let tests = tests(records);
    let width = BARS_WIDTH / tests.len().max(1) as f64;
    let bars = |(place, (name, record)): (usize, (String, &Record))| {
        let rate = |transfer: &Transfer| {
            let (bytes, span) = arrived(record, transfer)?;
            Some(Point::new(transfer.seat.0.into(), mbit_per_second(bytes, span)?))
        };
        let left = BARS_WIDTH / 2.0 - width * place as f64;
        let bars = Some((left, width - left));
        Series { bars, ..Series::new(name, record.transfers.iter().filter_map(rate).collect()) }
    };
    let series: Vec<Series> = tests.into_iter().enumerate().map(bars).collect();
    let seats = series.iter().flat_map(|series| series.points.iter().map(|point| point.x));
    let x = Axis::with_ticks("seat", seats);
    chart("Rate of each client", "a client without a whole copy has no bar", x, series)
}

/// The payload rate of all clients together, from the release to the last byte: from the samples
/// of each client, between which its rate is taken for constant.
pub fn over_time(records: &[Record]) -> Chart {
    let line = |(name, record): (String, &Record)| {
        let curves: Vec<_> = record.transfers.iter().map(curve).collect();
        let steps = || curves.iter().flat_map(|curve| curve.windows(2));
        let part = steps().map(|step| step[1].0).fold(0.0, f64::max) / f64::from(PARTS);
        let point = |number: u32| {
            let (from, to) = (f64::from(number) * part, f64::from(number + 1) * part);
            let moved = |step: &[(f64, f64)]| {
                let ((begin, had), (end, has)) = (step[0], step[1]);
                (to.min(end) - from.max(begin)).max(0.0) * (has - had) / (end - begin)
            };
            Point::new((from + to) / 2.0, steps().map(moved).sum::<f64>() * 8e-6 / part)
        };
        Series::new(name, (0..PARTS).map(point).collect())
    };
    let how = "from samples of each client; one without any has its mean rate";
    let x = Axis::from_zero("time since the release (s)");
    chart("Rate of all clients over time", how, x, tests(records).into_iter().map(line).collect())
}

fn chart(title: &str, how: &str, x: Axis, series: Vec<Series>) -> Chart {
    let subtitle = format!("{how}; of repeated sessions the median one");
    Chart { title: title.to_owned(), subtitle, x, y: Axis::from_zero("rate (Mbit/s)"), series }
}

/// The median session of each test, with the test's name.
fn tests(records: &[Record]) -> Vec<(String, &Record)> {
    let tests = grouped(records.iter(), |record| (record.via, &record.file, record.clients));
    let named = |r: &'_ Record| format!("{} to {}, {}", r.via, r.clients, r.file.name);
    tests.into_iter().filter_map(median_session).map(|record| (named(record), record)).collect()
}

/// How many bytes a client had at which second, from its first byte to its last.
fn curve(transfer: &Transfer) -> Vec<(f64, f64)> {
    let seconds = transfer.seconds_server.or(transfer.seconds_client);
    let end = seconds.zip(transfer.bytes_client.or(transfer.bytes_server));
    let end = end.map(|(span, bytes)| (span.as_secs_f64(), bytes as f64));
    let first = transfer.first_server.unwrap_or_default().as_secs_f64();
    let (last, most) = end.unwrap_or((f64::INFINITY, f64::INFINITY));
    let sample = |&(us, bytes): &(u64, u64)| (us as f64 / 1e6, (bytes as f64).min(most));
    let samples = transfer.samples.iter().map(sample).filter(|at| first < at.0 && at.0 < last);
    [(first, 0.0)].into_iter().chain(samples).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        report::sample,
        transfer::{Outcome, samples},
    };

    /// The left, floor, top and right of each bar.
    fn bars(svg: &str) -> Vec<[f64; 4]> {
        let shapes = svg
            .lines()
            .filter_map(|line| line.strip_prefix("<path d=\"M")?.split_once("z\" fill=\"#"));
        let numbers = |(shape, _): (&str, &str)| {
            let numbers: Vec<f64> =
                shape.split([' ', 'V', 'H']).filter_map(|n| n.parse().ok()).collect();
            [numbers[0], numbers[1], numbers[2], numbers[3]]
        };
        shapes.map(numbers).collect()
    }

    #[test]
    fn bars_are_as_high_as_their_rates() {
        let mut record = sample::session(1, 4, 80);
        for (transfer, ms) in record.transfers.iter_mut().zip([100, 200, 400, 50]) {
            transfer.seconds_client = Some(Duration::from_millis(ms));
        }
        record.transfers[3].fail(Outcome::Cut, "gone");
        let chart = clients(&[record]);
        assert_eq!(
            chart.series[0].points.iter().map(|p| (p.x, p.y)).collect::<Vec<_>>(),
            [(1.0, 80.0), (2.0, 40.0), (3.0, 20.0)]
        );
        let svg = chart.to_svg();
        let bars = bars(&svg);
        assert_eq!(bars.len(), 3, "{svg}");
        let height = |bar: [f64; 4]| bar[1] - bar[2];
        assert!((height(bars[0]) / height(bars[1]) - 2.0).abs() < 1e-3, "{bars:?}");
        assert!((height(bars[0]) / height(bars[2]) - 4.0).abs() < 1e-3, "{bars:?}");
        let (width, step) = (bars[0][3] - bars[0][0], bars[1][0] - bars[0][0]);
        assert!((width / step - BARS_WIDTH).abs() < 1e-3, "{bars:?}");
        assert!(bars[0][0] >= 96.0 && bars[2][3] <= 96.0 + 640.0, "inside the frame: {bars:?}");
        assert!(!svg.contains("m-5 0a5"), "no markers");
    }

    #[test]
    fn bars_of_several_tests_stand_side_by_side() {
        let mut records = [2, 2, 5].map(|clients| sample::session(u64::from(clients), clients, 80));
        records[1] = sample::session(9, 2, 300);
        let chart = clients(&records);
        let names: Vec<&str> = chart.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["tcp to 2, 1MB.bin", "tcp to 5, 1MB.bin"]);
        // Of two sessions of one test the faster one stands for both.
        assert!((chart.series[0].points[0].y - 8000.0 / 81.0).abs() < 1e-6);
        let bars = bars(&chart.to_svg());
        assert_eq!(bars.len(), 7);
        assert!((bars[0][3] - bars[2][0]).abs() < 0.02, "seat 1 of both tests: {bars:?}");
        assert!(bars[2][3] < bars[1][0], "a gap before seat 2: {bars:?}");
    }

    /// All clients begin at once and have everything after so many milliseconds, by these samples.
    fn sampled(samples: &[&[(u64, u64)]], ms: u64) -> Record {
        let clients = u16::try_from(samples.len()).expect("few");
        let mut record = sample::session(1, clients, ms);
        for (transfer, samples) in record.transfers.iter_mut().zip(samples) {
            (transfer.first_server, transfer.seconds_server) =
                (Some(Duration::ZERO), Some(Duration::from_millis(ms)));
            samples
                .iter()
                .for_each(|&(ms, bytes)| samples::push(&mut transfer.samples, ms * 1000, bytes));
        }
        record
    }

    #[test]
    fn rate_over_time_is_what_moved_in_each_part() {
        // Half of the first client's bytes in a tenth of the time; the second one's evenly.
        let record = sampled(&[&[(100, 500_000)], &[]], 1000);
        let chart = over_time(std::slice::from_ref(&record));
        let points = &chart.series[0].points;
        assert_eq!(points.len(), 50);
        let near =
            |at: usize, rate: f64| assert!((points[at].y - rate).abs() < 1e-6, "{at}: {points:?}");
        near(0, 40.0 + 8.0);
        near(4, 40.0 + 8.0);
        near(5, 4.0 / 0.9 + 8.0);
        near(49, 4.0 / 0.9 + 8.0);
        assert_eq!(points[0].x, 0.01);
        let moved: f64 = points.iter().map(|point| point.y * 0.02 / 8e-6).sum();
        assert!((moved - 2e6).abs() < 1e-3, "all bytes: {moved}");
        assert!(chart.to_svg().contains("Rate of all clients over time"));
    }

    #[test]
    fn cut_client_counts_as_far_as_it_was_sampled() {
        let mut record = sampled(&[&[(250, 250_000), (500, 500_000)], &[(900, 2_000_000)]], 1000);
        let cut = &mut record.transfers[0];
        cut.fail(Outcome::Cut, "gone");
        (cut.seconds_server, cut.seconds_client) = (None, None);
        let points = &over_time(&[record]).series[0].points;
        // The other one has no more than its file, whatever its connection carried besides.
        let half = 8.0 / 0.9;
        assert!(
            (points[24].y - 8.0 - half).abs() < 1e-6 && (points[25].y - half).abs() < 1e-6,
            "{points:?}"
        );
        assert!(points[46].y.abs() < 1e-6, "{points:?}");
    }

    #[test]
    fn session_without_times_has_no_data() {
        let mut record = sample::session(1, 2, 80);
        record.transfers.iter_mut().for_each(|t| *t = Transfer::new(t.seat, "c", Outcome::Cut));
        for chart in [clients(&[record.clone()]), over_time(&[record])] {
            let svg = chart.to_svg();
            assert!(svg.contains("no data") && !svg.contains("NaN"), "{svg}");
        }
    }
}
