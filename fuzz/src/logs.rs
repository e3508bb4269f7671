//! Logs and documents that are read back, and what is printed of them.

use gatecast::internals::{
    digest::Digest,
    error::Error,
    proto::{
        histogram::Delay,
        relay::{
            events,
            log::{ViewerEnd, ViewerRecord},
            reports::{ReceiverReport, SenderReport},
        },
        session_log::{Collector, LogError, encode, header},
    },
    report::{
        csv,
        diff::Difference,
        json, median_session,
        relay::{viewer_csv, viewer_table},
        scaling, session_table,
        table::Rows,
        trials,
        verdict::Verdict,
    },
    session::{FileInfo, SeatId, SessionId, Via},
    testbed::{
        plan::{self, Scenario},
        study::{
            environment::Environment,
            figure,
            grid::Grid,
            page,
            results::{Results, StudyRun},
            table,
        },
    },
    text::{FileName, is_unsafe},
    transfer::{ClockId, Counts, Outcome, Record, Transfer},
    units::{Moment, Rate},
};
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};

use crate::{
    heap::{at_most, bounded},
    input::{Input, lines},
};

/// A log of any records is read back as those records; what is read can be printed in every form.
pub fn session_log(data: &[u8]) {
    let mut input = Input(data);
    if input.flag() {
        let text = input.0;
        let limit = 4 * (text.len() + header().len());
        let _ = bounded(limit, || collect(text));
        if let Ok(records) = bounded(limit, || collect(&[header().as_bytes(), text].concat())) {
            assert_eq!(collect(log_of(&records).as_bytes()).as_ref(), Ok(&records));
            print_all(&records);
        }
        return;
    }
    let print = input.u8() < 64;
    let mut records: Vec<Record> = Vec::new();
    while !input.is_empty() && records.len() < 2 {
        let record = record(&mut input, records.len() as u64);
        if !record.transfers.is_empty() {
            records.push(record);
        }
    }
    let read = collect(log_of(&records).as_bytes()).expect("our own log");
    records.iter_mut().for_each(|record| {
        record.transfers.sort_by_key(|t| (t.outcome == Outcome::Refused, t.seat));
    });
    assert_eq!(read, records);
    if print {
        print_all(&records);
    }
}

fn collect(log: &[u8]) -> Result<Vec<Record>, LogError> {
    let mut collector = Collector::default();
    for line in log.split_inclusive(|&byte| byte == b'\n') {
        collector.push(line)?;
    }
    collector.finish()
}

fn log_of(records: &[Record]) -> String {
    let mut log = header();
    for record in records {
        let lines = record.transfers.iter().map(|transfer| encode(record, transfer));
        log.extend(lines);
    }
    log
}

fn record(input: &mut Input<'_>, number: u64) -> Record {
    let count = usize::from(input.u8() % 4);
    let mut record = Record {
        auto: None,
        machine: None,
        session: SessionId(input.u64() << 2 | number),
        via: input.pick(&["tcp", "udp", "raw", "multicast", "swarm", "http"].map(via)),
        file: FileInfo {
            name: FileName::new(&input.text()).unwrap_or_else(|_| plain_name()),
            bytes: input.number(),
            sha1: Digest::of(input.bytes(1)),
        },
        clients: 1 + input.u16() % 10_000,
        released_at: input.maybe(|input| moment(input)),
        sender: input.maybe(|input| short(input, 128)),
        key: input.flag(),
        transfers: Vec::new(),
    };
    record.transfers = (0..count).map(|_| transfer(input)).collect();
    record
}

fn via(word: &str) -> Via {
    word.parse().expect("a way")
}

fn plain_name() -> FileName {
    FileName::new("f").expect("a name")
}

/// Text that a log keeps whole.
fn short(input: &mut Input<'_>, max: usize) -> String {
    let text = input.text();
    text[..text.floor_char_boundary(max)].to_owned()
}

fn moment(input: &mut Input<'_>) -> time::OffsetDateTime {
    let seconds = i64::try_from(input.u64() % 253_402_300_800).expect("until the year 9999");
    let whole = time::OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
    whole + Duration::from_micros(input.u64() % 1_000_000)
}

fn span(input: &mut Input<'_>) -> Duration {
    Duration::from_micros(input.number())
}

fn address(input: &mut Input<'_>) -> SocketAddr {
    let port = input.u16();
    match input.flag() {
        true => ([10, 0, 0, input.u8()], port).into(),
        false => ([0, 0, 0, 0, 0, 0xffff, input.u16(), input.u16()], port).into(),
    }
}

fn transfer(input: &mut Input<'_>) -> Transfer {
    let seat = SeatId(input.u16());
    let mut transfer = Transfer::new(seat, short(input, 64), input.pick(&Outcome::ALL));
    transfer.client = input.maybe(address);
    transfer.server = input.maybe(address);
    transfer.reason = input.maybe(|input| short(input, 512));
    transfer.verified = input.maybe(Input::flag);
    transfer.bytes_client = input.maybe(Input::number);
    transfer.bytes_server = input.maybe(Input::number);
    transfer.bytes_resumed = input.number();
    transfer.seconds_client = input.maybe(span);
    transfer.seconds_server = input.maybe(span);
    transfer.seconds_verified = input.maybe(span);
    transfer.seconds_durable = input.maybe(span);
    transfer.woke = input.maybe(span);
    transfer.first_server = input.maybe(span);
    transfer.first_client = input.maybe(|input| (ClockId(input.number()), Moment(input.number())));
    let mut counts = Counts::default().values();
    counts.iter_mut().for_each(|count| *count = input.maybe(Input::number));
    transfer.counts = Counts::from_values(counts);
    transfer
}

/// Every form in which records are shown.
fn print_all(records: &[Record]) {
    for record in records {
        harmless(&session_table::session(record, Rows::All, None));
        harmless(&session_table::session(record, Rows::Failures, Some(80)));
        harmless(&session_table::client_session(record, Rows::All, Some(40)));
        let document: Value = serde_json::from_str(&json::session(record, None)).expect("JSON");
        let same = Difference::between(&document, &document, 0.0).expect("two sessions");
        assert!(!same.is_beyond(), "{}", same.to_text(None));
        for transfer in &record.transfers {
            assert!(transfer.counts.loss_percent().is_none_or(f64::is_finite));
        }
        let proven = record.transfers.iter().filter(|transfer| transfer.is_proven()).count();
        assert_eq!(record.proven(), proven);
        assert!(record.global().rate_mbit.is_none_or(|rate| rate.is_finite() && rate >= 0.0));
        let _ = (record.broken_identities(), record.skew_us(), record.skew_client_us());
    }
    if let Some(document) = json::sessions(records, None) {
        serde_json::from_str::<Value>(&document).expect("JSON");
    }
    let rows: usize = records.iter().map(|record| record.transfers.len()).sum();
    let table = csv::transfers(records);
    assert_eq!(table.matches("\r\n").count(), rows + 1);
    harmless(&table.replace("\r\n", "\n"));
    harmless(&trials::trials(records, Some(80)));
    for chart in [scaling::rates(records), scaling::losses(records)] {
        assert!(chart.to_svg().ends_with("</svg>\n"));
    }
    let _ = (median_session(records), Verdict::of_records(records));
}

/// Nothing in it moves a cursor; lines end.
fn harmless(text: &str) {
    assert!(!text.chars().any(|ch| is_unsafe(ch) && ch != '\n'), "{text:?}");
}

pub fn session_log_seeds() -> Vec<Vec<u8>> {
    let mut all = crate::input::noise();
    let (mut most, zeros) = (vec![0, 5], vec![0; 400]);
    most.extend([255; 400]);
    let record = record(&mut Input(&most[1..]), 0);
    let log = log_of(&[record]);
    let line = log.strip_prefix(&header()).expect("a header");
    all.push([&[1][..], line.as_bytes()].concat());
    all.extend([most, zeros]);
    all
}

/// A line is read as it was written; visits can be printed in every form.
pub fn relay_log(data: &[u8]) {
    let mut records = Vec::new();
    for line in data.split_inclusive(|&byte| byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        if let Ok(record) = bounded(4 * line.len(), || ViewerRecord::decode(line)) {
            assert_eq!(record.encode(), line);
            records.push(record);
        }
    }
    let made = viewer(&mut Input(data));
    assert_eq!(ViewerRecord::decode(&made.encode()), Ok(made.clone()));
    records.push(made);
    harmless(&viewer_table(&records, Some(80)));
    harmless(&viewer_csv(&records).replace("\r\n", "\n"));
    serde_json::from_str::<Value>(&events::viewers_document(&records)).expect("JSON");
}

fn viewer(input: &mut Input<'_>) -> ViewerRecord {
    ViewerRecord {
        relay: SessionId(input.u64()),
        viewer: input.number(),
        at: moment(input),
        to: address(input),
        watched: span(input),
        sent: SenderReport {
            sent: input.number(),
            bytes: input.number(),
            dropped: input.number(),
            paused: input.number(),
            cc: input.number(),
            rtp_lost: input.maybe(Input::number),
            jitter_us: input.maybe(Input::number),
            delay: Delay {
                p50_us: input.maybe(Input::number),
                p99_us: input.maybe(Input::number),
                worst_us: input.maybe(Input::number),
            },
        },
        received: input.maybe(|input| ReceiverReport {
            datagrams: input.number(),
            bytes: input.number(),
            cc: input.number(),
            rtp_lost: input.maybe(Input::number),
            jitter_us: input.maybe(Input::number),
            host_drop: input.maybe(Input::number),
        }),
        end: input.pick(&ViewerEnd::ALL),
        reason: input.maybe(|input| short(input, 190)).filter(|reason| !reason.is_empty()),
    }
}

pub fn relay_log_seeds() -> Vec<Vec<u8>> {
    let some = crate::input::noise();
    let lines = some.iter().map(|bytes| viewer(&mut Input(bytes)).encode().into_bytes());
    let lines: Vec<Vec<u8>> = lines.collect();
    some.into_iter().chain(lines).collect()
}

/// A study that is read is written as it was read and can be shown; no document differs from
/// itself. Two documents stand apart by a zero byte.
pub fn documents(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if let Ok(text) = std::str::from_utf8(first)
        && let Ok(study) = at_most(256 * text.len() + (64 << 10), || Results::parse(text, "here"))
    {
        let again = serde_json::to_string(&study).expect("JSON");
        assert_eq!(Results::parse(&again, "here").ok().as_ref(), Some(&study));
        show_study(study);
    }
    let values = [first, second].map(|text| serde_json::from_slice::<Value>(text).ok());
    if let [Some(first), _] = &values
        && let Ok(same) = Difference::between(first, first, 0.0)
    {
        harmless(&same.to_text(None));
        assert!(!same.is_beyond(), "{}", same.to_text(None));
    }
    if let [Some(first), Some(second)] = &values {
        match Difference::between(first, second, 0.1) {
            Ok(difference) => harmless(&difference.to_text(Some(60))),
            Err(error) => harmless(&error.to_string()),
        }
    }
    for line in lines(data) {
        if let Err(error) = Results::parse(line, "here") {
            assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        }
    }
}

fn show_study(mut study: Results) {
    let scenario = Scenario {
        bytes: 10_000_000,
        clients: 25,
        server_up: Rate(100_000_000),
        up: Rate(100_000_000),
        down: Rate(100_000_000),
    };
    let answers = plan::forecasts(&scenario, Some(&study));
    harmless(&plan::table(&scenario, &answers, Some(80)));
    harmless(&table::table(&study, Some(80)));
    let rows = study.rows.len();
    assert!(table::csv(&study).lines().count() > rows.min(1));
    let figures = figure::all(&study);
    assert!(page::html(&study, &figures).ends_with("</html>\n"));
    let runs: Vec<StudyRun> = std::mem::take(&mut study.measurements);
    study.rows.clear();
    runs.into_iter().take(20).for_each(|run| study.add(run));
    assert!(study.rows.len() <= 20);
    harmless(&table::table(&study, Some(80)));
}

pub fn document_seeds() -> Vec<Vec<u8>> {
    let grid = Grid {
        clients: vec![1, 4],
        ways: vec!["tcp".to_owned()],
        bytes: vec![10_000_000],
        rates: vec![100_000_000],
        losses: vec![0],
        runs: 3,
    };
    let mut study = Results::new(Environment::default(), grid, "links".to_owned());
    let run = r#"{"cell":{"rate":100000000,"loss":0,"bytes":10000000,"clients":1,"way":"tcp"},
        "repeat":0,"bound_s":0.84,"bound_nominal_s":0.8,"failed":null,"carried":[{"up":7,"down":9}],
        "cpu_others_s":null,"took_s":2.0,"observed":null}"#;
    let room = run.replace("100000000", "0").replace("0.84", "null").replace("0.8", "null");
    study.add(serde_json::from_str(run).expect("a run"));
    study.add(serde_json::from_str(&room).expect("a run in a room"));
    let study = serde_json::to_string(&study).expect("JSON").into_bytes();
    let some: Vec<u8> = (0..=255).collect();
    let session = json::session(&record(&mut Input(&some), 0), None).into_bytes();
    let both = [&session[..], b"\0", &session].concat();
    vec![study.clone(), session, both, [&study[..], b"\0", &study].concat()]
}
