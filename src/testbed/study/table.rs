//! A study's rows as a table for a terminal, and as comma-separated values.

use crate::report::table::Align;
use crate::report::table::Table;
use crate::testbed::study::results::Results;
use crate::testbed::study::results::StudyRow;
use crate::units::Bytes;
use crate::units::Rate;

/// The table. Columns that are the same in every row are said above it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Mbit/s that were whole bits.
pub fn table(results: &Results) -> String {
    let rows = &results.rows;
    let same = |of: fn(&StudyRow) -> u64| rows.windows(2).all(|pair| of(&pair[0]) == of(&pair[1]));
    let rate = |row: &StudyRow| (row.rate_nominal_mbit * 1e6).round() as u64;
    let loss = |row: &StudyRow| (row.loss * 1e6).round() as u64;
    let (one_size, one_rate, one_loss) = (same(|row| row.bytes), same(rate), same(loss));
    let percent = |row: &StudyRow| format!("{} %", loss(row) as f64 / 1e4);
    let mut text = String::new();
    if let Some(row) = rows.first() {
        let mut fixed = Vec::new();
        if one_size {
            fixed.push(format!("file of {}", Bytes(row.bytes)));
        }
        if one_rate {
            fixed.push(format!("links of {}", Rate(rate(row))));
        }
        if one_loss {
            fixed.push(format!("loss {}", percent(row)));
        }
        fixed.push(results.links.clone());
        text += &format!("{}\n\n", fixed.join(", "));
    }
    let mut columns = vec![("via", Align::Left), ("clients", Align::Right)];
    let mut optional: Vec<fn(&StudyRow) -> String> = Vec::new();
    if !one_size {
        columns.push(("file", Align::Right));
        optional.push(|row| Bytes(row.bytes).to_string());
    }
    if !one_rate {
        columns.push(("rate", Align::Right));
        optional.push(|row| Rate((row.rate_nominal_mbit * 1e6).round() as u64).to_string());
    }
    if !one_loss {
        columns.push(("loss", Align::Right));
        optional.push(|row| format!("{} %", (row.loss * 1e6).round() / 1e4));
    }
    columns.extend([
        ("runs", Align::Right),
        ("makespan\ns", Align::Right),
        ("interval\ns", Align::Right),
        ("bound\ns", Align::Right),
        ("effi-\nciency", Align::Right),
        ("mean\nclient s", Align::Right),
        ("first to\nlast %", Align::Right),
        ("server\nsent MB", Align::Right),
        ("clients\nsent MB", Align::Right),
        ("CPU s\nserver", Align::Right),
        ("CPU s\nclients", Align::Right),
        ("CPU s\nothers", Align::Right),
        ("verified", Align::Left),
    ]);
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells = vec![row.via.clone(), row.clients.to_string()];
        cells.extend(optional.iter().map(|cell| cell(row)));
        cells.extend(figures(row));
        table.row(cells);
    }
    text += &table.to_string();
    if let Some(coverage) = rows.iter().find_map(|row| Some(row.makespan_s?.coverage)) {
        let uniform = rows
            .iter()
            .filter_map(|row| row.makespan_s)
            .all(|middle| middle.coverage == coverage);
        if uniform && coverage > 0.0 {
            text += &format!(
                "\nThe interval holds the true median with {:.1} %.\n",
                coverage * 100.0
            );
        }
    }
    text
}

fn figures(row: &StudyRow) -> [String; 13] {
    let fixed = |value: Option<f64>, digits: usize, factor: f64| {
        value.map_or_else(
            || "-".to_owned(),
            |value| format!("{:.digits$}", value * factor),
        )
    };
    let middle = row.makespan_s;
    [
        row.runs.to_string(),
        fixed(middle.map(|middle| middle.median), 3, 1.0),
        middle.map_or_else(
            || "-".to_owned(),
            |middle| format!("{:.3}..{:.3}", middle.low, middle.high),
        ),
        format!("{:.3}", row.bound_s),
        fixed(row.efficiency, 3, 1.0),
        fixed(row.client_mean_s, 3, 1.0),
        fixed(row.spread, 1, 100.0),
        fixed(row.server_sent_bytes, 1, 1e-6),
        fixed(row.clients_sent_bytes, 1, 1e-6),
        fixed(row.cpu_server_s, 2, 1.0),
        fixed(row.cpu_clients_s, 2, 1.0),
        fixed(row.cpu_others_s, 2, 1.0),
        match (row.failed, row.disturbed) {
            (0, 0) => "all".to_owned(),
            (0, disturbed) => format!("all, {disturbed} disturbed"),
            (failed, _) => format!("{failed} of {} runs FAILED", row.runs),
        },
    ]
}

/// All rows as comma-separated values (RFC 4180). A missing value is an empty field.
pub fn csv(results: &Results) -> String {
    const HEADER: &str = "via,clients,file_bytes,rate_nominal_mbit_per_s,loss,runs,failed_runs,disturbed_runs,\
                          makespan_s,makespan_low_s,makespan_high_s,interval_coverage,bound_s,\
                          bound_nominal_s,efficiency,verified,verified_s,client_mean_s,spread,\
                          payload_bytes,server_sent_bytes,clients_sent_bytes,from_server_bytes,\
                          from_peers_bytes,cpu_server_s,cpu_clients_s,cpu_others_s\r\n";
    let or_empty = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let mut text = HEADER.to_owned();
    for row in &results.rows {
        let middle = row.makespan_s;
        let cells = [
            row.via.clone(),
            row.clients.to_string(),
            row.bytes.to_string(),
            row.rate_nominal_mbit.to_string(),
            row.loss.to_string(),
            row.runs.to_string(),
            row.failed.to_string(),
            row.disturbed.to_string(),
            or_empty(middle.map(|middle| middle.median)),
            or_empty(middle.map(|middle| middle.low)),
            or_empty(middle.map(|middle| middle.high)),
            or_empty(middle.map(|middle| middle.coverage)),
            row.bound_s.to_string(),
            row.bound_nominal_s.to_string(),
            or_empty(row.efficiency),
            row.verified.to_string(),
            or_empty(row.verified_s),
            or_empty(row.client_mean_s),
            or_empty(row.spread),
            row.payload_bytes.to_string(),
            or_empty(row.server_sent_bytes),
            or_empty(row.clients_sent_bytes),
            or_empty(row.from_server_bytes),
            or_empty(row.from_peers_bytes),
            or_empty(row.cpu_server_s),
            or_empty(row.cpu_clients_s),
            or_empty(row.cpu_others_s),
        ];
        text += &cells.join(",");
        text += "\r\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::study::results::tests::sample;

    #[test]
    fn a_study_as_a_table() {
        insta::assert_snapshot!(table(&sample()), @r"
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
    fn a_study_as_comma_separated_values() {
        let text = csv(&sample());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        let of = |name: &str| {
            lines[0]
                .iter()
                .position(|column| *column == name)
                .expect("there")
        };
        assert_eq!(lines[2][of("clients")], "4");
        assert_eq!(lines[2][of("makespan_s")], "3.6");
        assert_eq!(lines[2][of("from_peers_bytes")], "", "missing is empty");
    }
}
