//! How the way of a session was chosen (`--via auto`), and how good its predictions were.

use crate::{
    report::table::{Align, ColumnOf, Table, or_dash},
    session::Via,
    text::escape,
    transfer::{AutoChoice, Record},
    units::Rate,
};

/// How far predictions may be off to count as good, percent.
const GOOD: f64 = 15.0;

/// The seconds that were expected of `via`.
pub(super) fn expected(choice: &AutoChoice, via: Via) -> Option<f64> {
    choice.figures.expected_us(via).map(|us| us as f64 / 1e6)
}

/// How many percent longer the session took than expected.
fn off(record: &Record) -> Option<f64> {
    let expected = expected(record.auto.as_ref()?, record.via).filter(|&seconds| seconds > 0.0)?;
    let took = record.all_proven().then(|| record.global().seconds).flatten()?;
    Some((took.as_secs_f64() / expected - 1.0) * 100.0)
}

/// What was measured, expected and chosen, and what it took: the lines of a session's table.
pub(super) fn lines(record: &Record) -> Option<String> {
    let choice = record.auto.as_ref()?;
    let figures = choice.figures;
    let rate = |what: &str, bits: Option<u64>| bits.map(|bits| format!("{what} {}", shown(bits)));
    let measured = [
        rate("server up", figures.server_up),
        rate("least down", figures.least_down),
        rate("group", figures.group_rate),
        figures
            .group_lost
            .filter(|&lost| lost > 0)
            .map(|lost| format!("{:.1} % lost", lost as f64 / 10.0)),
        figures.measured_us.map(|us| format!("in {:.2} s", us as f64 / 1e6)),
    ];
    let measured: Vec<_> = measured.into_iter().flatten().collect();
    let ways = [Via::Tcp, Via::Swarm, Via::Multicast];
    let predicted = ways.map(|via| Some(format!("{via} {:.2} s", expected(choice, via)?)));
    let predicted: Vec<_> = predicted.into_iter().flatten().collect();
    let mut text = String::new();
    if !measured.is_empty() {
        text += &format!("measured: {}\n", measured.join(", "));
    }
    if !predicted.is_empty() {
        text += &format!("predicted: {}\n", predicted.join(", "));
    }
    text += &format!("chosen: {}", record.via);
    if let Some(seconds) = record.global().seconds {
        text += &format!(", took {:.2} s", seconds.as_secs_f64());
    }
    if let Some(off) = off(record) {
        text += &format!(", {off:+.0} % of predicted");
    }
    if !choice.why.is_empty() {
        text += &format!(" ({})", escape(&choice.why));
    }
    Some(text + "\n")
}

/// A rate in three digits: more would only look like knowledge.
fn shown(bits: u64) -> String {
    let unit = 10u64.pow(bits.max(1).ilog10().saturating_sub(2));
    Rate((bits + unit / 2) / unit * unit).to_string()
}

/// How good the predictions of several sessions were; `None` where none made one.
pub fn predictions(records: &[Record], limit: Option<usize>) -> Option<String> {
    let of_auto: Vec<_> = records.iter().filter(|record| off(record).is_some()).collect();
    let columns: [ColumnOf<Record>; 6] = [
        ("session", Align::Left, 0, |run| run.session.to_string()),
        ("clients", Align::Right, 1, |run| run.clients.to_string()),
        ("chosen", Align::Left, 0, |run| run.via.to_string()),
        ("predicted s", Align::Right, 0, |run| {
            let choice = run.auto.as_ref();
            or_dash(choice.and_then(|choice| expected(choice, run.via)).map(|s| format!("{s:.2}")))
        }),
        ("took s", Align::Right, 0, |run| {
            or_dash(run.global().seconds.map(|span| format!("{:.2}", span.as_secs_f64())))
        }),
        ("off %", Align::Right, 0, |run| or_dash(off(run).map(|off| format!("{off:+.0}")))),
    ];
    let good = of_auto.iter().filter(|run| off(run).is_some_and(|off| off.abs() <= GOOD)).count();
    let all = of_auto.len();
    (all > 0).then(|| {
        let table = Table::of(&columns, of_auto).fitted(limit);
        format!("predictions of --via auto\n{table}{good} of {all} within {GOOD} %\n")
    })
}
