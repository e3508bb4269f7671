//! A study's rows as a table for a terminal, and as comma-separated values.

use crate::{
    report::{
        csv::or_empty,
        table::{Align, ColumnOf, Table, or_dash, wrapped},
    },
    testbed::study::results::{Results, StudyRow},
    units::{Bytes, Rate},
};

/// The columns that are in the table where their values differ, each with what stands before its
/// value above the table where they do not.
const VARYING_COLUMNS: [(ColumnOf<StudyRow>, &str); 3] = [
    (("file", Align::Right, 1, |row| Bytes(row.bytes).to_string()), "file of"),
    (
        ("rate", Align::Right, 1, |row| {
            or_dash(row.rate_nominal_mbit.map(|mbit| Rate((mbit * 1e6).round() as u64)))
        }),
        "links of",
    ),
    (
        // In a room nothing is known of the links.
        ("loss", Align::Right, 1, |row| {
            let loss = format!("{} %", (row.loss * 1e6).round() / 1e4);
            or_dash(row.rate_nominal_mbit.map(|_| loss))
        }),
        "loss",
    ),
];

const COLUMNS: [ColumnOf<StudyRow>; 13] = [
    ("runs", Align::Right, 3, |row| row.runs.to_string()),
    ("makespan\ns", Align::Right, 0, |row| fixed(row.makespan_s.map(|m| m.median), 3, 1.0)),
    ("interval\ns", Align::Right, 2, |row| {
        or_dash(row.makespan_s.map(|middle| format!("{:.3}..{:.3}", middle.low, middle.high)))
    }),
    ("bound\ns", Align::Right, 1, |row| fixed(row.bound_s, 3, 1.0)),
    ("effi-\nciency", Align::Right, 0, |row| fixed(row.efficiency, 3, 1.0)),
    ("mean\nclient s", Align::Right, 3, |row| fixed(row.client_mean_s, 3, 1.0)),
    ("first to\nlast %", Align::Right, 4, |row| fixed(row.spread, 1, 100.0)),
    ("server\nsent MB", Align::Right, 4, |row| fixed(row.server_sent_bytes, 1, 1e-6)),
    ("clients\nsent MB", Align::Right, 4, |row| fixed(row.clients_sent_bytes, 1, 1e-6)),
    ("CPU s\nserver", Align::Right, 5, |row| fixed(row.cpu_server_s, 2, 1.0)),
    ("CPU s\nclients", Align::Right, 5, |row| fixed(row.cpu_clients_s, 2, 1.0)),
    ("CPU s\nothers", Align::Right, 5, |row| fixed(row.cpu_others_s, 2, 1.0)),
    ("verified", Align::Left, 0, |row| match (row.failed, row.disturbed) {
        (0, 0) => "all".to_owned(),
        (0, disturbed) => format!("all, {disturbed} disturbed"),
        (failed, _) => format!("{failed} of {} runs FAILED", row.runs),
    }),
];

fn fixed(value: Option<f64>, digits: usize, factor: f64) -> String {
    or_dash(value.map(|value| format!("{:.digits$}", value * factor)))
}

/// The table, in `limit` columns of a terminal.
pub fn table(results: &Results, limit: Option<usize>) -> String {
    let rows = &results.rows;
    let (fixed, varying): (Vec<_>, Vec<_>) = VARYING_COLUMNS
        .iter()
        .partition(|((.., cell), _)| rows.windows(2).all(|pair| cell(&pair[0]) == cell(&pair[1])));
    let mut text = String::new();
    if let Some(row) = rows.first() {
        let known = fixed.iter().map(|((.., cell), above)| (above, cell(row)));
        let known = known.filter(|(_, cell)| cell != "-");
        let known = known.map(|(above, cell)| format!("{above} {cell}"));
        let fixed: Vec<String> = known.chain([results.links.clone()]).collect();
        text += &format!("{}\n\n", fixed.join(", "));
    }
    let mut columns: Vec<ColumnOf<StudyRow>> = vec![
        ("via", Align::Left, 0, |row| row.via.clone()),
        ("clients", Align::Right, 0, |row| row.clients.to_string()),
    ];
    columns.extend(varying.into_iter().map(|(column, _)| column));
    columns.extend(COLUMNS);
    text += &Table::of(&columns, rows).fitted(limit);
    if let Some(coverage) = rows.iter().find_map(|row| Some(row.makespan_s?.coverage)) {
        let mut all = rows.iter().filter_map(|row| row.makespan_s);
        if coverage > 0.0 && all.all(|middle| middle.coverage == coverage) {
            let percent = coverage * 100.0;
            text += &format!("\nThe interval holds the true median with {percent:.1} %.\n");
        }
    }
    // As the table shows it, with three digits.
    if rows.iter().any(|row| row.efficiency.is_some_and(|share| share >= 1.0005)) {
        text += ABOVE_BOUND;
    }
    wrapped(&text, limit)
}

/// Why a way may be faster than its bound.
const ABOVE_BOUND: &str = "
An efficiency above 1: the bound is calculated from rates measured before the
runs. A link can carry a little more in a run: what a shaper lets through at
once after a pause, and what the calibration was off. Small files show it most.
";

/// A column of the CSV: its heading, and what stands in it.
type StudyCsvColumn = (&'static str, fn(&StudyRow) -> String);

/// The columns of the comma-separated values, in the order of the table's.
const CSV_COLUMNS: [StudyCsvColumn; 27] = [
    ("via", |row| row.via.clone()),
    ("clients", |row| row.clients.to_string()),
    ("file_bytes", |row| row.bytes.to_string()),
    ("rate_nominal_mbit_per_s", |row| or_empty(row.rate_nominal_mbit)),
    ("loss", |row| row.loss.to_string()),
    ("runs", |row| row.runs.to_string()),
    ("failed_runs", |row| row.failed.to_string()),
    ("disturbed_runs", |row| row.disturbed.to_string()),
    ("makespan_s", |row| or_empty(row.makespan_s.map(|middle| middle.median))),
    ("makespan_low_s", |row| or_empty(row.makespan_s.map(|middle| middle.low))),
    ("makespan_high_s", |row| or_empty(row.makespan_s.map(|middle| middle.high))),
    ("interval_coverage", |row| or_empty(row.makespan_s.map(|middle| middle.coverage))),
    ("bound_s", |row| or_empty(row.bound_s)),
    ("bound_nominal_s", |row| or_empty(row.bound_nominal_s)),
    ("efficiency", |row| or_empty(row.efficiency)),
    ("verified_s", |row| or_empty(row.verified_s)),
    ("client_mean_s", |row| or_empty(row.client_mean_s)),
    ("spread", |row| or_empty(row.spread)),
    ("payload_bytes", |row| row.payload_bytes.to_string()),
    ("server_sent_bytes", |row| or_empty(row.server_sent_bytes)),
    ("clients_sent_bytes", |row| or_empty(row.clients_sent_bytes)),
    ("from_server_bytes", |row| or_empty(row.from_server_bytes)),
    ("from_peers_bytes", |row| or_empty(row.from_peers_bytes)),
    ("cpu_server_s", |row| or_empty(row.cpu_server_s)),
    ("cpu_clients_s", |row| or_empty(row.cpu_clients_s)),
    ("cpu_others_s", |row| or_empty(row.cpu_others_s)),
    ("verified", |row| row.verified.to_string()),
];

/// All rows as comma-separated values (RFC 4180). A missing value is an empty field.
pub fn csv(results: &Results) -> String {
    let mut text = CSV_COLUMNS.map(|(name, _)| name).join(",") + "\r\n";
    for row in &results.rows {
        text += &CSV_COLUMNS.map(|(_, cell)| cell(row)).join(",");
        text += "\r\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::table::WIDTH_MIN, testbed::study::results::tests::sample, text::width};

    #[test]
    fn study_is_a_table() {
        insta::assert_snapshot!(table(&sample(), None), @r"
        file of 10 MB, links of 100 Mbit/s, loss 0 %, sample links

                            makespan      interval  bound   effi-      mean  first to   server  clients   CPU s    CPU s   CPU s
        via  clients  runs         s             s      s  ciency  client s    last %  sent MB  sent MB  server  clients  others  verified
        ---  -------  ----  --------  ------------  -----  ------  --------  --------  -------  -------  ------  -------  ------  --------
        tcp        1     3     0.900  0.850..0.950  0.840   0.933     0.900       0.0      0.0      0.0    0.10     0.20       -  all
        tcp        4     3     3.600  3.550..3.650  3.360   0.933     3.330      15.0      0.0      0.0    0.10     0.20       -  all

        The interval holds the true median with 75.0 %.
        ");
    }

    #[test]
    fn no_line_of_a_study_is_wider_than_the_terminal() {
        let mut wide = sample();
        wide.rows[0].bytes += 1;
        wide.rows[0].failed = 2;
        for limit in WIDTH_MIN..=250 {
            for line in table(&wide, Some(limit)).lines() {
                assert!(width(line) <= limit, "{limit}: {line}");
            }
        }
    }

    #[test]
    fn efficiency_above_one_is_explained() {
        let mut results = sample();
        results.rows[1].efficiency = Some(1.0004);
        assert!(!table(&results, None).contains("above 1"), "the table shows 1.000");
        results.rows[1].efficiency = Some(1.027);
        let text = table(&results, None);
        assert!(text.contains("1.027") && text.contains("An efficiency above 1: "), "{text}");
    }

    #[test]
    fn study_is_comma_separated_values() {
        let text = csv(&sample());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        let of = |name: &str| lines[0].iter().position(|column| *column == name).expect("there");
        assert_eq!(lines[2][of("clients")], "4");
        assert_eq!(lines[2][of("makespan_s")], "3.6");
        assert_eq!(lines[2][of("from_peers_bytes")], "", "missing is empty");
    }
}
