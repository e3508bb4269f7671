//! The lab's table of tests: many sessions, a row each, and what repeated ones have in common.

use std::fmt::Write;

use crate::{
    report::{
        complete, is_measured, mean_client_mbit, mean_loss,
        median_range::MedianRange,
        overall, repetitions,
        session_table::{mbit, released},
        table::{Align, Table, or_dash, wrapped},
    },
    transfer::Record,
    units::{Bytes, decimal_seconds},
};

/// Many sessions: the table of tests, a row each, then for those that were repeated the medians
/// with their ranges, then every number that does not add up; in `limit` columns of a terminal.
pub fn trials(records: &[Record], limit: Option<usize>) -> String {
    // A column only where datagrams are counted.
    let counted = records.iter().any(|r| mean_loss(r).is_some());
    let mut headings = vec![
        ("test", Align::Right, 0),
        ("date", Align::Left, 4),
        ("via", Align::Left, 1),
        ("file", Align::Left, 1),
        ("size", Align::Right, 3),
        ("clients", Align::Right, 0),
        ("whole", Align::Right, 5),
        ("verified", Align::Right, 0),
        ("slowest\ns", Align::Right, 0),
        ("global\nMbit/s", Align::Right, 0),
        ("mean client\nMbit/s", Align::Right, 2),
        ("skew\nus", Align::Right, 3),
        ("figures", Align::Left, 0),
    ];
    if counted {
        headings.insert(headings.len() - 2, ("lost\n%", Align::Right, 1));
    }
    let mut table = Table::new(&headings);
    let mut invalid = String::new();
    for (test, record) in (1..).zip(records) {
        let overall = overall(record);
        let broken = record.broken_identities();
        let mut row = vec![
            test.to_string(),
            or_dash(released(record)),
            record.via.to_string(),
            record.file.name.to_string(),
            Bytes(record.file.bytes).to_string(),
            record.clients.to_string(),
            complete(record).to_string(),
            record.proven().to_string(),
            or_dash(overall.map(|(slowest, _)| decimal_seconds(slowest))),
            or_dash(overall.map(|(_, rate)| mbit(rate))),
            or_dash(mean_client_mbit(record).map(mbit)),
            or_dash(record.skew_us()),
            if broken.is_empty() { "consistent" } else { "INVALID" }.to_owned(),
        ];
        if counted {
            let lost = mean_loss(record).map(|loss| format!("{loss:.3}"));
            row.insert(row.len() - 2, or_dash(lost));
        }
        table.row(row);
        for sentence in broken {
            let _ = writeln!(invalid, "INVALID: test {test}, {sentence}");
        }
    }
    let mut text = table.fitted(limit);
    let medians = medians(records);
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
fn medians(records: &[Record]) -> Table {
    let mut table = Table::new(&[
        ("via", Align::Left, 0),
        ("file", Align::Left, 2),
        ("clients", Align::Right, 0),
        ("runs", Align::Right, 1),
        ("slowest s", Align::Right, 0),
        ("global Mbit/s", Align::Right, 1),
        ("mean client Mbit/s", Align::Right, 2),
    ]);
    let spread =
        |runs: &[&Record], shown: fn(f64) -> String, figure: fn(&Record) -> Option<f64>| {
            let spread = MedianRange::of(runs.iter().filter_map(|record| figure(record)));
            or_dash(spread.map(|spread| {
                let [median, low, high] = [spread.median, spread.low, spread.high].map(shown);
                format!("{median} ({low} to {high})")
            }))
        };
    for runs in repetitions(records).iter().filter(|runs| runs.len() > 1) {
        let first = runs[0];
        let sound: Vec<&Record> = runs.iter().copied().filter(|run| is_measured(run)).collect();
        table.row([
            first.via.to_string(),
            first.file.name.to_string(),
            first.clients.to_string(),
            of_all(sound.len(), runs.len()),
            spread(
                &sound,
                |s| format!("{s:.4}"),
                |record| overall(record).map(|(slowest, _)| slowest.as_secs_f64()),
            ),
            spread(&sound, tenths, |record| overall(record).map(|(_, rate)| rate)),
            spread(&sound, tenths, mean_client_mbit),
        ]);
    }
    table
}

/// A range has three figures, and a decimal of each is enough to compare runs by.
fn tenths(figure: f64) -> String {
    format!("{figure:.1}")
}

fn of_all(some: usize, all: usize) -> String {
    if some == all {
        return all.to_string();
    }
    format!("{some} of {all}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::sample, transfer::Outcome};

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
