//! The lab's table of tests: many sessions, a row each, and what repeated ones have in common.

use std::fmt::Write;

use crate::{
    report::{
        complete, grouped, is_measured,
        layout::{Layout, RateUnit},
        mean_client_mbit, mean_loss,
        median_range::MedianRange,
        overall,
        session_table::{mbit, released},
        table::{Align, ColumnOf, Table, or_dash, wrapped},
    },
    transfer::Record,
    units::{Bytes, decimal_seconds},
};

/// The heading of the mean loss.
const LOST: &str = "lost\n%";

/// Many sessions: the table of tests, a row each, then for those that were repeated the medians
/// with their ranges, then every number that does not add up.
pub fn trials(records: &[Record], layout: impl Into<Layout>) -> String {
    let Layout { width: limit, unit } = layout.into();
    let mut columns: Vec<ColumnOf<(usize, &Record)>> = vec![
        ("test", Align::Right, 0, |(test, _)| test.to_string()),
        ("date", Align::Left, 4, |(_, r)| or_dash(released(r))),
        ("via", Align::Left, 1, |(_, r)| r.via.to_string()),
        ("file", Align::Left, 1, |(_, r)| r.file.name.to_string()),
        ("size", Align::Right, 3, |(_, r)| Bytes(r.file.bytes).to_string()),
        ("clients", Align::Right, 0, |(_, r)| r.clients.to_string()),
        ("whole", Align::Right, 5, |(_, r)| complete(r).to_string()),
        ("verified", Align::Right, 0, |(_, r)| r.proven().to_string()),
        ("slowest\ns", Align::Right, 0, |(_, r)| {
            or_dash(overall(r).map(|(slowest, _)| decimal_seconds(slowest)))
        }),
        ("global\nMbit/s", Align::Right, 0, |(_, r)| {
            or_dash(overall(r).map(|(_, rate)| mbit(rate)))
        }),
        ("global\nMB/s", Align::Right, 0, |(_, r)| or_dash(overall(r).map(|all| mb(all.1)))),
        ("mean client\nMbit/s", Align::Right, 2, |(_, r)| or_dash(mean_client_mbit(r).map(mbit))),
        ("mean client\nMB/s", Align::Right, 2, |(_, r)| or_dash(mean_client_mbit(r).map(mb))),
        (LOST, Align::Right, 1, |(_, r)| or_dash(mean_loss(r).map(|loss| format!("{loss:.3}")))),
        ("skew\nus", Align::Right, 3, |(_, r)| or_dash(r.skew_us())),
        ("figures", Align::Left, 0, |(_, r)| {
            if r.broken_identities().is_empty() { "consistent" } else { "INVALID" }.to_owned()
        }),
    ];
    // A column only where datagrams are counted.
    let counted = records.iter().any(|r| mean_loss(r).is_some());
    columns.retain(|&(heading, ..)| (counted || heading != LOST) && unit.has(heading));
    let tests: Vec<(usize, &Record)> = (1..).zip(records).collect();
    let table = Table::of(&columns, &tests);
    let mut invalid = String::new();
    for (test, record) in tests {
        for sentence in record.broken_identities() {
            let _ = writeln!(invalid, "INVALID: test {test}, {sentence}");
        }
    }
    let mut text = table.fitted(limit);
    let medians = medians(records, unit);
    if !medians.is_empty() {
        let medians = medians.fitted(limit);
        let _ = write!(text, "\nmedian (low to high) of the repeated tests\n{medians}");
    }
    if !invalid.is_empty() {
        let _ = write!(text, "\n{invalid}");
    }
    wrapped(&text, limit)
}

/// A row for each test that was run more than once; of its runs only the sound ones count, for
/// the others have figures of fewer clients.
fn medians(records: &[Record], unit: RateUnit) -> Table {
    // Repetitions of one test.
    let tests = grouped(records.iter(), |run| (&run.file, run.via, run.clients));
    let repeated = tests.iter().filter(|runs| runs.len() > 1);
    let mut columns: Vec<ColumnOf<Vec<&Record>>> = vec![
        ("via", Align::Left, 0, |runs| runs[0].via.to_string()),
        ("file", Align::Left, 2, |runs| runs[0].file.name.to_string()),
        ("clients", Align::Right, 0, |runs| runs[0].clients.to_string()),
        ("runs", Align::Right, 1, |runs| match measured(runs).count() {
            all if all == runs.len() => all.to_string(),
            some => format!("{some} of {}", runs.len()),
        }),
        ("slowest s", Align::Right, 0, |runs| {
            let shown = |seconds| format!("{seconds:.4}");
            spread(runs, shown, |run| Some(overall(run)?.0.as_secs_f64()))
        }),
        ("global Mbit/s", Align::Right, 1, |runs| {
            spread(runs, tenths, |run| Some(overall(run)?.1))
        }),
        ("global MB/s", Align::Right, 1, |runs| spread(runs, mb, |run| Some(overall(run)?.1))),
        ("mean client Mbit/s", Align::Right, 2, |runs| spread(runs, tenths, mean_client_mbit)),
        ("mean client MB/s", Align::Right, 2, |runs| spread(runs, mb, mean_client_mbit)),
    ];
    columns.retain(|&(heading, ..)| unit.has(heading));
    Table::of(&columns, repeated)
}

/// The runs whose figures are of all clients.
fn measured<'a>(runs: &[&'a Record]) -> impl Iterator<Item = &'a Record> {
    runs.iter().copied().filter(|run| is_measured(run))
}

/// The median of a figure over the measured ones of `runs`, and its range.
fn spread(
    runs: &[&Record],
    shown: fn(f64) -> String,
    figure: fn(&Record) -> Option<f64>,
) -> String {
    or_dash(MedianRange::of(measured(runs).filter_map(figure)).map(|spread| {
        let [median, low, high] = [spread.median, spread.low, spread.high].map(shown);
        format!("{median} ({low} to {high})")
    }))
}

/// A rate of so many Mbit/s in MB/s.
fn mb(mbit: f64) -> String {
    format!("{:.3}", mbit / 8.0)
}

/// A range has three figures, and a decimal of each is enough to compare runs by.
fn tenths(figure: f64) -> String {
    format!("{figure:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::sample, transfer::Outcome};

    #[test]
    fn units_have_columns_of_their_own() {
        let records = [sample::session(1, 2, 80), sample::session(2, 2, 60)];
        let shown = |unit| trials(&records, Layout { width: None, unit });
        insta::assert_snapshot!(shown(RateUnit::Both), @"
                                                                                      slowest   global  global  mean client  mean client  skew
        test  date                     via  file     size  clients  whole  verified         s   Mbit/s    MB/s       Mbit/s         MB/s    us  figures
        ----  -----------------------  ---  -------  ----  -------  -----  --------  --------  -------  ------  -----------  -----------  ----  ----------
           1  2026-09-21 14:13:21 UTC  tcp  1MB.bin  1 MB        2      2         2  0.082120  194.837  24.355       98.163       12.270    20  consistent
           2  2026-09-21 14:13:22 UTC  tcp  1MB.bin  1 MB        2      2         2  0.062120  257.566  32.196      130.090       16.261    20  consistent

        median (low to high) of the repeated tests
        via  file     clients  runs                  slowest s           global Mbit/s                global MB/s     mean client Mbit/s           mean client MB/s
        ---  -------  -------  ----  -------------------------  ----------------------  -------------------------  ---------------------  -------------------------
        tcp  1MB.bin        2     2  0.0721 (0.0621 to 0.0821)  226.2 (194.8 to 257.6)  28.275 (24.355 to 32.196)  114.1 (98.2 to 130.1)  14.266 (12.270 to 16.261)
        ");
        let bytes = shown(RateUnit::Mb);
        assert_eq!(
            (bytes.matches("MB/s").count(), bytes.matches("bit/s").count()),
            (4, 0),
            "{bytes}"
        );
        let bits = shown(RateUnit::Mbit);
        assert_eq!((bits.matches("MB/s").count(), bits.matches("bit/s").count()), (0, 4), "{bits}");
    }

    #[test]
    fn many_sessions_make_a_table_with_medians_of_repeats() {
        let mut records = vec![
            sample::session(1, 2, 80),
            sample::session(2, 2, 60),
            sample::session(3, 2, 70),
            sample::session(4, 25, 80),
            sample::troubled(),
        ];
        records[3].transfers[0].bytes_client = Some(1);
        let mut lame = sample::session(6, 2, 20);
        lame.transfers[0].fail(Outcome::Cut, "gone");
        records.push(lame);
        insta::assert_snapshot!(trials(&records, None), @r#"
                                                                                      slowest    global  mean client  skew
        test  date                     via  file     size  clients  whole  verified         s    Mbit/s       Mbit/s    us  figures
        ----  -----------------------  ---  -------  ----  -------  -----  --------  --------  --------  -----------  ----  ----------
           1  2026-09-21 14:13:21 UTC  tcp  1MB.bin  1 MB        2      2         2  0.082120   194.837       98.163    20  consistent
           2  2026-09-21 14:13:22 UTC  tcp  1MB.bin  1 MB        2      2         2  0.062120   257.566      130.090    20  consistent
           3  2026-09-21 14:13:23 UTC  tcp  1MB.bin  1 MB        2      2         2  0.072120   221.852      111.894    20  consistent
           4  2026-09-21 14:13:24 UTC  tcp  1MB.bin  1 MB       25     25        25  0.105120  1826.484       82.594   480  INVALID
           5  2026-09-21 14:13:27 UTC  tcp  1MB.bin  1 MB        4      2         1  0.083120   192.493       98.765    40  consistent
           6  2026-09-21 14:13:26 UTC  tcp  1MB.bin  1 MB        2      1         1  0.022120   361.664      363.636    20  consistent

        median (low to high) of the repeated tests
        via  file     clients    runs                  slowest s           global Mbit/s     mean client Mbit/s
        ---  -------  -------  ------  -------------------------  ----------------------  ---------------------
        tcp  1MB.bin        2  3 of 4  0.0721 (0.0621 to 0.0821)  221.9 (194.8 to 257.6)  111.9 (98.2 to 130.1)

        INVALID: test 4, seat 1: complete with 1 bytes at the client and 0 from before, of 1000000
        "#);
    }
}
