use std::{fs, fs::OpenOptions, path::Path, thread, time::Duration};

use super::*;
use crate::{
    digest::Digest,
    session::{FileInfo, SeatId},
    text::FileName,
    transfer::Outcome,
};

fn record(session: SessionId, clients: u16) -> Record {
    let name = FileName::new("f").expect("plain");
    let file = FileInfo { name, bytes: 3, sha1: Digest::of(b"abc") };
    Record::new(session, Via::Tcp, file, clients)
}

/// One whole session of `seats` rows, each said by a thread of its own.
fn write_session(logger: &SessionLogger, session: SessionId, seats: u16) {
    let log = logger.log_handle();
    log.open(record(session, seats));
    thread::scope(|scope| {
        for seat in 1..=seats {
            let log = log.clone();
            scope.spawn(move || {
                let name = format!("{seat}\r\n | \u{1b}[2J{}", "x".repeat(usize::from(seat) % 40));
                log.finish(session, Transfer::new(SeatId(seat), name, Outcome::Cut));
            });
        }
    });
    log.close(session);
}

fn logs(folder: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.map(|path| (path.clone(), fs::read_to_string(path).expect("text"))).collect()
}

#[test]
fn lines_never_interleave_whoever_writes_and_to_how_many_logs() {
    let folder = tempfile::tempdir().expect("a folder");
    let journals =
        [0, 1].map(|_| SessionLogger::start(Some(folder.path().to_owned())).expect("thread"));
    // Two servers that log into one folder, four sessions each, side by side.
    thread::scope(|scope| {
        for (server, logger) in (0..).zip(&journals) {
            for number in 0..4 {
                scope.spawn(move || write_session(logger, SessionId(server << 8 | number), 60));
            }
        }
    });
    for logger in journals {
        logger.finish().expect("a log");
    }
    let logs = logs(folder.path());
    assert_eq!(logs.len(), 8, "a log for each session");
    for (_, log) in logs {
        let records = session_log::collect(log.as_bytes()).expect("whole lines");
        assert_eq!((records.len(), records[0].transfers.len()), (1, 60));
        assert_eq!(log.lines().count(), 61);
    }
}

#[test]
fn unwritable_log_folder_costs_the_log_and_not_the_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a file");
    fs::write(&file, b"").expect("room");
    let logger = SessionLogger::start(Some(file.join("logs"))).expect("a thread");
    let records = logger.records.clone();
    write_session(&logger, SessionId(7), 3);
    let record =
        records.recv_timeout(Duration::from_secs(20)).expect("the session is told of all the same");
    assert_eq!(record.transfers.len(), 3);
    let error = logger.finish().expect_err("no folder").to_string();
    assert!(error.starts_with("cannot write the session log ("), "{error}");
    assert!(error.contains("0000000000000007.log"), "{error}");
}

#[test]
fn a_thread_that_keeps_its_pen_does_not_hold_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let logger = SessionLogger::start(Some(folder.path().to_owned())).expect("a thread");
    let kept = logger.log_handle();
    write_session(&logger, SessionId(3), 20);
    logger.finish().expect("a log");
    let logs = logs(folder.path());
    assert_eq!(logs[0].1.lines().count(), 21, "all that was said is there");
    kept.close(SessionId(3));
}

#[test]
fn a_full_disk_is_an_error_and_not_a_panic() {
    let Ok(full) = OpenOptions::new().append(true).open("/dev/full") else {
        return;
    };
    let (publish, records) = crossbeam_channel::unbounded();
    let mut logger = LoggerThread {
        folder: LogFolder::new(WRITE, Some("/nowhere".into()), session_log::header()),
        publish,
        unread: records.clone(),
        waiting: VecDeque::new(),
        left: Budget::default(),
        history: Arc::default(),
        pages: HashMap::new(),
    };
    let session = SessionId(1);
    let (log, entries) = crossbeam_channel::unbounded();
    let log = LogHandle { entries: log, history: Arc::default() };
    log.open(record(session, 2));
    let Ok(LogEvent::Opened(opened, _)) = entries.recv() else { panic!("not opened") };
    logger.history.open(*opened);
    let page = OpenLog { log: LogFile::of(full), unlogged: None };
    logger.pages.insert(session, page);
    for seat in [1, 2] {
        log.finish(session, Transfer::new(SeatId(seat), "c", Outcome::Cut));
    }
    log.close(session);
    drop(log);
    let error = logger.run(&entries).expect_err("a full disk").to_string();
    assert!(error.contains("No space left"), "{error}");
    assert_eq!(records.recv().expect("published").transfers.len(), 2);
}

#[test]
fn records_that_nobody_takes_are_bounded_in_sessions_and_rows() {
    let logger = SessionLogger::start(None).expect("a thread");
    let (history, records) = (Arc::clone(&logger.log_handle().history), logger.records.clone());
    let write = |number: u64, rows: u16| {
        let log = logger.log_handle();
        log.open(record(SessionId(number), 1));
        for _ in 0..rows {
            log.finish(SessionId(number), Transfer::new(SeatId(1), "c", Outcome::Cut));
        }
        log.close(SessionId(number));
    };
    (1..=200).for_each(|number| write(number, 1));
    (201..=203).for_each(|number| write(number, 9000));
    let deadline = clock::now().after(Duration::from_secs(60));
    while history.totals().sessions < 203 {
        assert!(clock::left(deadline).is_some(), "the logger does not come to an end");
        thread::sleep(Duration::from_millis(1));
    }
    logger.finish().expect("no log to fail");
    let kept: Vec<u64> = records.try_iter().map(|record| record.session.0).collect();
    assert_eq!(kept, [202, 203], "18,000 rows; 27,000 are too many");

    let logger = SessionLogger::start(None).expect("a thread");
    let records = logger.records.clone();
    (1..=200).for_each(|number| write_session(&logger, SessionId(number), 1));
    logger.finish().expect("no log to fail");
    let kept: Vec<u64> = records.try_iter().map(|record| record.session.0).collect();
    assert_eq!(kept, (137..=200).collect::<Vec<_>>());
}

#[test]
fn clients_that_left_have_so_many_rows_and_then_one_for_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let logger = SessionLogger::start(Some(folder.path().to_owned())).expect("a thread");
    let (log, records) = (logger.log_handle(), logger.records.clone());
    let left = |session, count: u32| {
        for _ in 0..count {
            log.leave(session, Transfer::new(SeatId(1), "flood", Outcome::Refused));
        }
    };
    // One muster, and after it sessions of their own.
    log.open(record(SessionId(1), 1));
    left(SessionId(1), 20_000);
    log.finish(SessionId(1), Transfer::new(SeatId(1), "honest", Outcome::Complete));
    log.close(SessionId(1));
    let record = records.recv_timeout(Duration::from_secs(60)).expect("the first to end");
    for number in 2..500 {
        log.open(self::record(SessionId(number), 1));
        left(SessionId(number), 1);
        log.close(SessionId(number));
    }
    let totals = Arc::clone(&log.history);
    logger.finish().expect("a log");
    let rows = record.transfers.len();
    assert!((1002..1100).contains(&rows), "{rows} rows");
    assert!(record.transfers.iter().any(|row| row.name == "honest"));
    let says =
        |row: &&Transfer| row.reason.as_deref().is_some_and(|why| why.contains("more clients"));
    let [all] = record.transfers.iter().filter(says).collect::<Vec<_>>()[..] else {
        panic!("not one row for the others");
    };
    let count = format!("{} more clients left before the release", 20_002 - rows);
    assert!(all.reason.as_deref().unwrap_or_default().starts_with(&count), "{all:?}");
    assert_eq!(totals.totals().outcomes.iter().sum::<u64>(), 20_001 + 498, "each is counted once");
    let logs = logs(folder.path());
    assert!(logs.len() < 100, "{} logs", logs.len());
    for (_, log) in logs {
        session_log::collect(log.as_bytes()).expect("a log that can be read");
    }
}
