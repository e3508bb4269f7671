//! What live relaying was like: relay logs read back and summed, and what one viewer lost where.
//!
//! As the rest of the report: starts from what was logged or counted and ends in text. A figure
//! that nobody told stays `-`; a sum of which a part is missing says how many parts it has.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::proto::relay::log;
use crate::proto::relay::log::ViewerRecord;
use crate::proto::relay::reports::ReceiverReport;
use crate::proto::relay::reports::SenderReport;
use crate::proto::relay::reports::whole_us;
use crate::relay::snapshot::RelaySnapshot;
use crate::relay::watch::WatchSnapshot;
use crate::report::LOG_MAX;
use crate::report::table::Align;
use crate::report::table::Table;
use crate::units::mbit_per_second;
use crate::units::total;

#[cfg(feature = "cli")]
pub mod events;

/// True when the file begins as a relay log does; anything else is left to the session log's
/// reader, which says what is wrong with it.
pub fn is_relay_log(path: &Path) -> bool {
    let header = log::header();
    // Looked at before it is opened: to open a FIFO is to wait for its writer.
    if !std::fs::metadata(path).is_ok_and(|about| about.is_file()) {
        return false;
    }
    let mut first = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(header.len() as u64).read_to_end(&mut first));
    read.is_ok() && first == header.as_bytes()
}

/// Reads one relay log.
///
/// # Errors
/// A path that is no readable file or too large, and a log with a line that is wrong: the error
/// names the path and the line.
pub fn read_relay_log(path: &Path) -> Result<Vec<ViewerRecord>> {
    let at = path.display();
    let file = File::open(path).map_err(Error::io("open the log", &at))?;
    let mut lines = BufReader::new(file.take(LOG_MAX));
    let (mut records, mut line) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        line.clear();
        let limit = log::LINE_MAX as u64 + 1;
        let read = lines.by_ref().take(limit).read_until(b'\n', &mut line);
        if read.map_err(Error::io("read the log", &at))? == 0 {
            break;
        }
        let place = || format!("{at}, line {number},");
        let text =
            std::str::from_utf8(&line).map_err(|_| Error::protocol(place(), "it is not UTF-8"))?;
        if number == 1 {
            if text != log::header() {
                return Err(Error::protocol(place(), "it is no relay log"));
            }
            continue;
        }
        let visit =
            ViewerRecord::decode(text).map_err(|why| Error::protocol(place(), why.to_string()))?;
        records.push(visit);
    }
    records.sort_by_key(|visit| (visit.relay.0, visit.viewer));
    Ok(records)
}

/// One row per visit, and the sums.
pub fn viewer_table(records: &[ViewerRecord]) -> String {
    let mut table = Table::new(&[
        ("viewer", Align::Right),
        ("to", Align::Left),
        ("watched\ns", Align::Right),
        ("\nsent", Align::Right),
        ("\nMbit/s", Align::Right),
        ("relay\ndropped", Align::Right),
        ("\npaused", Align::Right),
        ("\nreceived", Align::Right),
        ("network\nlost", Align::Right),
        ("host\ndropped", Align::Right),
        ("source\nCC", Align::Right),
        ("viewer\nCC", Align::Right),
        ("jitter\nms", Align::Right),
        ("delay ms\np50", Align::Right),
        ("\np99", Align::Right),
        ("\nworst", Align::Right),
        ("\nend", Align::Left),
    ]);
    for visit in records {
        let (sent, got) = (&visit.sent, visit.received.as_ref());
        table.row([
            visit.viewer.to_string(),
            visit.to.to_string(),
            format!("{:.1}", visit.watched.as_secs_f64()),
            sent.sent.to_string(),
            mbit_per_second(sent.bytes, visit.watched)
                .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}")),
            sent.dropped.to_string(),
            sent.paused.to_string(),
            shown(got.map(|got| got.datagrams)),
            shown(sent.network_lost(got)),
            shown(got.and_then(|got| got.host_drop)),
            sent.cc.to_string(),
            shown(got.map(|got| got.cc)),
            milliseconds(got.and_then(|got| got.jitter_us)),
            milliseconds(sent.p50_us),
            milliseconds(sent.p99_us),
            milliseconds(sent.worst_us),
            match &visit.reason {
                Some(reason) => format!("{}: {}", visit.end, crate::text::escape(reason)),
                None => visit.end.to_string(),
            },
        ]);
    }
    format!("{table}{}\n", sums(records))
}

/// The sums of `visits` as one sentence.
fn sums(visits: &[ViewerRecord]) -> String {
    let sum =
        |of: fn(&SenderReport) -> u64| total(visits.iter().map(|visit| of(&visit.sent)));
    let told: Vec<(&SenderReport, &ReceiverReport)> = visits
        .iter()
        .filter_map(|visit| Some((&visit.sent, visit.received.as_ref()?)))
        .collect();
    let mut text = format!(
        "{}: {} datagrams and {} bytes sent, {} dropped by the relay, {} paused",
        match visits.len() {
            1 => "1 viewer".to_owned(),
            many => format!("{many} viewers"),
        },
        sum(|sent| sent.sent),
        sum(|sent| sent.bytes),
        sum(|sent| sent.dropped),
        sum(|sent| sent.paused),
    );
    if !told.is_empty() {
        let lost = |(sent, got): &(&SenderReport, &ReceiverReport)| sent.network_lost(Some(got));
        let known = told.iter().filter_map(lost);
        text.push_str(&format!(
            "; of the {} that tell: {} received, {} lost by the network{}",
            told.len(),
            total(told.iter().map(|(_, got)| got.datagrams)),
            total(known.clone()),
            match known.clone().count() {
                all if all == told.len() => String::new(),
                some => format!(" (of {some})"),
            },
        ));
    }
    text
}

/// Visits as comma-separated values; the log's own columns, a missing value empty.
pub fn viewer_csv(visits: &[ViewerRecord]) -> String {
    let line = |line: &str| {
        let cells = line
            .trim_end_matches('\n')
            .split(" | ")
            .map(|cell| match cell {
                "-" => String::new(),
                // Escaped text: a comma or quote is all that a reader could stumble on.
                text if text.contains([',', '"']) => format!("\"{}\"", text.replace('"', "\"\"")),
                text => text.to_owned(),
            });
        cells.collect::<Vec<_>>().join(",") + "\r\n"
    };
    let rows = visits.iter().map(|visit| line(&visit.encode()));
    line(&log::header()) + &rows.collect::<String>()
}

/// Where one viewer's datagrams were lost, from the source on.
pub fn loss_table(view: &WatchSnapshot) -> String {
    let receipt = ReceiverReport::of(&view.received, view.host_drop);
    let sent = view.sent.as_ref();
    let mut table = Table::new(&[
        ("where", Align::Left),
        ("datagrams", Align::Right),
        ("CC errors", Align::Right),
        ("RTP lost", Align::Right),
    ]);
    let none = || "-".to_owned();
    let before = |place: &str, datagrams: String| [place.to_owned(), datagrams, none(), none()];
    table.row([
        "lost before the relay".to_owned(),
        none(),
        shown(sent.map(|sent| sent.cc)),
        shown(sent.and_then(|sent| sent.rtp_lost)),
    ]);
    table.row(before(
        "dropped by the relay",
        shown(sent.map(|sent| sent.dropped)),
    ));
    table.row(before(
        "passed in pauses",
        shown(sent.map(|sent| sent.paused)),
    ));
    table.row(before(
        "sent by the relay",
        shown(sent.map(|sent| sent.sent)),
    ));
    let network = sent.and_then(|sent| sent.network_lost(Some(&receipt)));
    table.row(before("lost by the network", shown(network)));
    table.row(before("dropped by this host", shown(view.host_drop)));
    table.row([
        "received".to_owned(),
        receipt.datagrams.to_string(),
        receipt.cc.to_string(),
        shown(receipt.rtp_lost),
    ]);
    let delay = |of: fn(&SenderReport) -> Option<u64>| milliseconds(sent.and_then(of));
    format!(
        "{table}jitter {} ms here, {} ms at the relay; through the relay p50 {} ms, p99 {} ms, worst {} ms\n",
        milliseconds(receipt.jitter_us),
        delay(|sent| sent.jitter_us),
        delay(|sent| sent.p50_us),
        delay(|sent| sent.p99_us),
        delay(|sent| sent.worst_us),
    )
}

/// One viewer's stream in a sentence.
pub fn summary(view: &WatchSnapshot) -> String {
    let received = &view.received;
    let sent = view.sent.as_ref();
    format!(
        "received {} datagrams and {} bytes in {:.1} s; CC errors {}, of them before the relay {}",
        received.datagrams,
        received.bytes,
        view.watched.as_secs_f64(),
        received.ts.errors,
        shown(sent.map(|sent| sent.cc)),
    )
}

/// A relay's input in a sentence.
pub fn input(snapshot: &RelaySnapshot) -> String {
    let input = &snapshot.input;
    format!(
        "source: {} datagrams and {} bytes read, {} dropped unread, {} thrown away while nobody watched; CC errors {}, RTP lost {}, jitter {} ms\n",
        input.datagrams,
        input.bytes,
        shown(snapshot.dropped),
        snapshot.stale,
        input.ts.errors,
        shown(input.rtp.map(|rtp| rtp.lost)),
        milliseconds(input.jitter_us.map(whole_us)),
    )
}

fn shown(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn milliseconds(us: Option<u64>) -> String {
    us.map_or_else(
        || "-".to_owned(),
        |us| format!("{}.{:02}", us / 1_000, us % 1_000 / 10),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;
    use crate::proto::relay::log::ViewerEnd;
    use crate::session::SessionId;

    fn two() -> [ViewerRecord; 2] {
        let lab = ViewerRecord {
            relay: SessionId(7),
            viewer: 1,
            at: datetime!(2026-11-21 00:12:13 UTC),
            to: "127.0.0.1:5000".parse().expect("an address"),
            watched: Duration::from_secs(10),
            sent: SenderReport {
                sent: 1_000,
                bytes: 1_316_000,
                dropped: 2,
                p50_us: Some(1_490),
                p99_us: Some(3_210),
                worst_us: Some(4_005),
                ..SenderReport::default()
            },
            received: None,
            end: ViewerEnd::Closed,
            reason: Some("reset, \"by\" peer".to_owned()),
        };
        let ours = ViewerRecord {
            viewer: 2,
            received: Some(ReceiverReport {
                datagrams: 990,
                bytes: 1_302_840,
                cc: 5,
                host_drop: Some(3),
                jitter_us: Some(120),
                rtp_lost: None,
            }),
            end: ViewerEnd::Left,
            reason: None,
            ..lab.clone()
        };
        [lab, ours]
    }

    #[test]
    fn visits_are_rows_and_sums() {
        insta::assert_snapshot!(viewer_table(&two()), @r#"
                                watched                  relay                    network     host  source  viewer  jitter  delay ms
        viewer  to                    s  sent  Mbit/s  dropped  paused  received     lost  dropped      CC      CC      ms       p50   p99  worst  end
        ------  --------------  -------  ----  ------  -------  ------  --------  -------  -------  ------  ------  ------  --------  ----  -----  ------------------------
             1  127.0.0.1:5000     10.0  1000    1.05        2       0         -        -        -       0       -       -      1.49  3.21   4.00  closed: reset, "by" peer
             2  127.0.0.1:5000     10.0  1000    1.05        2       0       990        7        3       0       5    0.12      1.49  3.21   4.00  left
        2 viewers: 2000 datagrams and 2632000 bytes sent, 4 dropped by the relay, 0 paused; of the 1 that tell: 990 received, 7 lost by the network
        "#);
    }

    #[test]
    fn a_log_comes_back_and_a_damaged_one_names_its_line() {
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("a.log");
        let text = two().iter().map(ViewerRecord::encode).collect::<String>();
        std::fs::write(&path, log::header() + &text).expect("room");
        assert!(is_relay_log(&path));
        assert_eq!(read_relay_log(&path).expect("sound"), two());
        std::fs::write(&path, log::header() + &text.replacen("1000", "1001", 2)).expect("room");
        let error = read_relay_log(&path).expect_err("the last line does not add up");
        assert!(error.to_string().contains("line 3"), "{error}");
        std::fs::write(&path, text).expect("room");
        assert!(!is_relay_log(&path));
        assert!(read_relay_log(&path).is_err());
    }

    #[test]
    fn numbers_that_nobody_can_have_seen_are_summed_all_the_same() {
        let mut visits = two();
        for visit in &mut visits {
            visit.sent.sent = u64::MAX;
            visit.received = Some(ReceiverReport {
                datagrams: u64::MAX,
                host_drop: Some(0),
                ..ReceiverReport::default()
            });
        }
        let text = sums(&visits);
        assert!(
            text.starts_with("2 viewers: 36893488147419103230 datagrams"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "of the 2 that tell: 36893488147419103230 received, 0 lost by the network"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_spreadsheet_gets_empty_cells_and_quoted_text() {
        let csv = viewer_csv(&two());
        let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
        assert_eq!(rows.len(), 3);
        assert!(rows[0].starts_with("relay,viewer,date,time,to,watched_s,sent,"));
        assert!(
            rows[1].ends_with(r#",,closed,"reset, ""by"" peer""#),
            "{}",
            rows[1]
        );
        assert!(rows[2].ends_with(",120,left,"), "{}", rows[2]);
    }
}
