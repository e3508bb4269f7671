//! What the bounds say about numbers of clients that cannot be tried out, and how near to its
//! bound each way came in a study. No network, no clock: arithmetic.

use crate::{
    report::table::{Align, ColumnOf, Table, or_dash, wrapped},
    session::Via,
    testbed::study::{
        bound::{Bound, Capacity},
        results::{Results, StudyRow},
    },
    units::{Bytes, Rate},
};

/// The scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// File size, bytes.
    pub bytes: u64,
    /// Number of clients.
    pub clients: u64,
    /// The server's uplink.
    pub server_up: Rate,
    /// Each client's uplink.
    pub up: Rate,
    /// Each client's downlink.
    pub down: Rate,
}

/// What is expected of one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The way.
    pub via: Via,
    /// The formula of its bound.
    pub bound: Bound,
    /// The least makespan, seconds, of nominal rates.
    pub bound_s: f64,
    /// Share of the nominal bound that the study reached; `None` when it has nothing on this way.
    pub efficiency: Option<f64>,
    /// With how many clients that was measured.
    pub measured_with: Option<u16>,
    /// The expected makespan, seconds.
    pub expected_s: Option<f64>,
}

/// The ways that can be planned with: each with its bound. `raw` repairs nothing and so has no
/// time at which all is there.
const WAYS: [(Via, Bound); 6] = [
    (Via::Tcp, Bound::Unicast),
    (Via::Http, Bound::Unicast),
    (Via::Udp, Bound::Unicast),
    (Via::Multicast, Bound::Multicast),
    (Via::Swarm, Bound::Swarm),
    (Via::Chain, Bound::Chain),
];

/// What to expect of each way, fastest first. A way that was not measured stands where the least
/// efficiency that was measured puts it: a bound alone would beat every measurement.
pub fn forecasts(scenario: &Scenario, study: Option<&Results>) -> Vec<Forecast> {
    let links = Capacity {
        server_up: scenario.server_up.bytes_per_second(),
        peers_up: scenario.up.bytes_per_second() * scenario.clients as f64,
        least_down: scenario.down.bytes_per_second(),
    };
    let mut all: Vec<Forecast> = WAYS
        .into_iter()
        .map(|(via, bound)| {
            let bound_s = bound.seconds(scenario.bytes, scenario.clients, &links);
            let row = study.and_then(|study| nearest(study, via, scenario));
            let efficiency = row.and_then(nominal_efficiency);
            Forecast {
                via,
                bound,
                bound_s,
                efficiency,
                measured_with: row.map(|row| row.clients),
                expected_s: efficiency.map(|efficiency| bound_s / efficiency),
            }
        })
        .collect();
    let least = all.iter().filter_map(|of| of.efficiency).fold(1.0, f64::min);
    all.sort_by(|a, b| {
        let time = |of: &Forecast| of.expected_s.unwrap_or(of.bound_s / least);
        time(a).total_cmp(&time(b)).then(a.expected_s.is_none().cmp(&b.expected_s.is_none()))
    });
    all
}

/// The row whose number of clients is nearest to the scenario's, and of several the one whose
/// file is: efficiency changes with both.
fn nearest<'a>(study: &'a Results, via: Via, scenario: &Scenario) -> Option<&'a StudyRow> {
    let distance = |a: u64, b: u64| (a.max(1) as f64 / b.max(1) as f64).ln().abs();
    let rows = study
        .rows
        .iter()
        .filter(|row| row.via == via.word() && row.loss == 0.0 && row.efficiency.is_some());
    rows.min_by(|a, b| {
        let far = |row: &StudyRow| distance(u64::from(row.clients), scenario.clients);
        let size = |row: &StudyRow| distance(row.bytes, scenario.bytes);
        far(a).total_cmp(&far(b)).then(size(a).total_cmp(&size(b)))
    })
}

/// What was reached of the bound of nominal rates: headers are charged, as in the plan's bound
/// they are not.
fn nominal_efficiency(row: &StudyRow) -> Option<f64> {
    let makespan = row.makespan_s?.median;
    Some(row.bound_nominal_s? / makespan).filter(|_| makespan > 0.0)
}

/// The answer in words and a table, in `limit` columns of a terminal.
pub fn table(scenario: &Scenario, answers: &[Forecast], limit: Option<usize>) -> String {
    let columns: [ColumnOf<Forecast>; 6] = [
        ("via", Align::Left, 0, |of| of.via.to_string()),
        ("bound", Align::Right, 0, |of| span(of.bound_s)),
        // Short, so that the table fits a terminal.
        ("formula", Align::Left, 2, |of| match of.bound {
            Bound::Swarm => "max(F/u_s, F/d, N F/(u_s+sum u))".to_owned(),
            other => other.formula().to_owned(),
        }),
        ("efficiency", Align::Right, 1, |of| {
            or_dash(of.efficiency.map(|share| format!("{share:.3}")))
        }),
        ("measured\nwith clients", Align::Right, 2, |of| or_dash(of.measured_with)),
        ("expected", Align::Right, 0, |of| or_dash(of.expected_s.map(span))),
    ];
    let Scenario { bytes, clients, server_up, up, down } = scenario;
    let (size, table) = (Bytes(*bytes), Table::of(&columns, answers).fitted(limit));
    let links = format!("server {server_up} up, clients {up} up and {down} down");
    let mut text = format!("{size} to {clients} clients; {links}\n\n{table}\n");
    let Some(best) = answers.first() else {
        return wrapped(&text, limit);
    };
    // Ways of one bound are equally fast as far as arithmetic goes.
    let equal: Vec<String> = answers
        .iter()
        .filter(|other| {
            other.bound_s == best.bound_s && best.expected_s.is_none() && other.expected_s.is_none()
        })
        .map(|other| other.via.to_string())
        .collect();
    text += &match (equal.len(), best.expected_s) {
        (0 | 1, None) => format!("fastest by its bound: {}\n", best.via),
        (_, None) => format!("fastest by their bounds: {}\n", equal.join(" and ")),
        (_, Some(expected)) => format!("fastest: {}, about {}\n", best.via, span(expected)),
    };
    let from_few = answers.iter().any(|answer| {
        let measured = answer.measured_with.map(u64::from);
        measured.is_some_and(|measured| *clients > measured.saturating_mul(2))
    });
    if from_few {
        text += "The efficiencies were measured with far fewer clients; what a switch, a server's \
                 memory or a tracker does with so many is not in them.\n";
    }
    wrapped(&text, limit)
}

/// Seconds for people: `4.2 s`, `3 min 20 s`, `2 h 46 min`, `11.6 days`.
fn span(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 99.95 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", whole / 60, whole % 60),
        s if s < 86_400.0 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::table::WIDTH_MIN, text::width};

    const MANY: Scenario = Scenario {
        bytes: 1_000_000_000,
        clients: 10_000,
        server_up: Rate(1_000_000_000),
        up: Rate(100_000_000),
        down: Rate(100_000_000),
    };

    #[test]
    fn plan_without_a_study_has_bounds_only() {
        let answers = forecasts(&MANY, None);
        assert_eq!(answers[0].via, Via::Multicast);
        assert_eq!(answers[0].bound_s, 80.0);
        let tcp = answers.iter().find(|answer| answer.via == Via::Tcp);
        assert_eq!(tcp.map(|tcp| tcp.bound_s), Some(80_000.0));
        assert!(answers.iter().all(|answer| answer.expected_s.is_none()));
        let text = table(&MANY, &answers, None);
        assert!(text.contains("fastest by their bounds: multicast and swarm"), "{text}");
        assert!(text.contains("22 h 13 min"), "{text}");
        for limit in WIDTH_MIN..=250 {
            for line in table(&MANY, &answers, Some(limit)).lines() {
                assert!(width(line) <= limit, "{limit}: {line}");
            }
        }
    }

    #[test]
    fn plan_with_a_study_has_expected_times() {
        let study = crate::testbed::study::results::tests::sample();
        let answers = forecasts(&MANY, Some(&study));
        let tcp = answers.iter().find(|answer| answer.via == Via::Tcp).expect("there");
        assert_eq!(tcp.measured_with, Some(4));
        let efficiency = tcp.efficiency.expect("measured");
        assert!((efficiency - 3.2 / 3.6).abs() < 1e-9, "{efficiency}");
        let expected = tcp.expected_s.expect("measured");
        assert!((expected - 80_000.0 / efficiency).abs() < 1e-6);
        assert!(table(&MANY, &answers, None).contains("far fewer clients"));
    }

    #[test]
    fn millions_of_clients_are_only_numbers() {
        let scenario = Scenario { clients: 5_000_000, ..MANY };
        for answer in forecasts(&scenario, None) {
            assert!(answer.bound_s.is_finite() && answer.bound_s >= 80.0, "{answer:?}");
        }
    }

    #[test]
    fn times_for_people() {
        for (seconds, shown) in [
            (0.25, "250 ms"),
            (0.9999, "1.0 s"),
            (42.0, "42.0 s"),
            (200.0, "3 min 20 s"),
            (10_000.0, "2 h 46 min"),
            (1_000_000.0, "11.6 days"),
        ] {
            assert_eq!(span(seconds), shown);
        }
    }
}
