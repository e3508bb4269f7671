use std::{
    net::{TcpListener, TcpStream},
    sync::atomic::AtomicU16,
    thread,
};

use crossbeam_channel::Receiver;
use tempfile::TempDir;

use super::*;
use crate::{
    error::Result,
    server::{
        catalog,
        catalog::Catalog,
        session_log::SessionLogger,
        transport::{SendJob, SendResult},
    },
    session::{SessionId, Via},
    text::FileName,
    transfer::{Outcome, Record},
    units::Moment,
};

#[derive(Debug)]
struct Nothing;

impl SendSession for Nothing {
    fn prepare_connection(&self, _: &TcpStream) -> Result<()> {
        Ok(())
    }

    fn description(&self, _: &TcpStream) -> String {
        "nothing".to_owned()
    }

    fn send(&self, _: &SeatConnection, _: SendJob<'_>) -> SendResult {
        unreachable!("these tests end at the gate")
    }
}

/// A gate whose session thread runs.
struct Watched {
    gate: Arc<Gate>,
    logger: SessionLogger,
    records: Receiver<Record>,
    _folder: TempDir,
}

impl Watched {
    fn new(clients: u16, set: impl FnOnce(&mut MusterConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        std::fs::write(&path, b"abc").expect("room");
        let name = FileName::new("f").expect("plain");
        let catalog = Catalog::offer([path]).expect("there");
        let source = Arc::new(catalog.open(&name, &catalog::silent).expect("there"));
        let mut muster =
            MusterConfig { quorum: clients, max_wait: Duration::from_secs(60), lasting: true };
        set(&mut muster);
        let session = SessionInfo {
            id: SessionId(1),
            via: Via::Tcp,
            chosen: OnceLock::new(),
            source,
            clients,
            roster: None,
            stall: Duration::from_secs(60),
        };
        let logger = SessionLogger::start(None).expect("a thread");
        let file = session.source.info.clone();
        logger.log_handle().open(Record::new(session.id, session.via, file, clients));
        let (log, admission) = (logger.log_handle(), Admission::of_server());
        let gate = Gate::new(session, (Box::new(Nothing), None), muster, log, admission);
        let running = Arc::clone(&gate);
        thread::spawn(move || running.run());
        let records = logger.records.clone();
        Self { gate, logger, records, _folder: folder }
    }

    /// Waits until the session's thread has ended.
    fn record(self) -> Record {
        let record =
            self.records.recv_timeout(Duration::from_secs(20)).expect("every session ends");
        drop(self.gate);
        self.logger.finish().expect("no log to fail");
        record
    }
}

/// A client's end, and the server's view of it.
fn client(listener: &TcpListener, name: &str) -> (TcpStream, PendingClient) {
    let far = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    let (near, peer) = listener.accept().expect("connected");
    let client = PendingClient {
        name: name.to_owned(),
        kind: ClientKind::Native,
        stream: Arc::new(near),
        peer,
        ways: Vec::new(),
    };
    (far, client)
}

fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("a free port")
}

/// Takes a seat and waits at the gate in a thread of its own; the other end is the client's.
fn wait_at(
    gate: &Arc<Gate>,
    name: &str,
) -> (TcpStream, thread::JoinHandle<std::result::Result<Duration, MusterEnd>>) {
    let (far, client) = client(&listener(), name);
    let mut seat = Seat::take_until(gate, client, Moment(0)).expect("a free seat");
    let waiting = thread::spawn(move || {
        let woke = seat.wait()?;
        let transfer = seat.transfer();
        seat.finish(transfer);
        Ok(woke)
    });
    (far, waiting)
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = clock::now().after(Duration::from_secs(20));
    while !condition() {
        assert!(clock::left(deadline).is_some(), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn ready(gate: &Gate) -> usize {
    gate.view().seats.iter().filter(|seat| seat.ready).count()
}

/// SplitMix64, so that a seed that fails can be run again.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn the_last_ready_opens_the_gate_and_not_the_one_before() {
    let watched = Watched::new(3, |_| {});
    let (one, two) = (wait_at(&watched.gate, "1"), wait_at(&watched.gate, "2"));
    until("two ready", || ready(&watched.gate) == 2);
    // Two rounds of the watcher pass without a release.
    thread::sleep(WATCH * 2);
    assert!(watched.gate.view().released.is_none());
    let three = wait_at(&watched.gate, "3");
    for (_, thread) in [one, two, three] {
        thread.join().expect("no panic").expect("released");
    }
    let record = watched.record();
    assert!(record.released_at.is_some());
    assert_eq!(record.transfers.len(), 3);
}

#[test]
fn view_says_how_a_transfer_ended_and_what_was_kept() {
    let watched = Watched::new(2, |_| {});
    let fails = |name, fails: bool| {
        let (far, client) = client(&listener(), name);
        let mut seat = Seat::take_until(&watched.gate, client, Moment(0)).expect("a free seat");
        let thread = thread::spawn(move || {
            seat.resume(u64::from(fails));
            seat.wait().expect("released");
            let mut transfer = seat.transfer();
            transfer.verified = Some(!fails);
            if fails {
                transfer.fail(Outcome::Corrupt, "another digest");
            }
            seat.finish(transfer);
        });
        (far, thread)
    };
    for (_far, thread) in [fails("a", false), fails("b", true)] {
        thread.join().expect("no panic");
    }
    let view = watched.gate.view();
    let seats: Vec<_> = view.seats.into_iter().map(|seat| (seat.resumed, seat.end)).collect();
    let end = |outcome, reason: Option<&str>, verified| {
        Some(SeatEnd { outcome, reason: reason.map(str::to_owned), verified: Some(verified) })
    };
    assert_eq!(
        seats,
        [
            (0, end(Outcome::Complete, None, true)),
            (1, end(Outcome::Corrupt, Some("another digest"), false)),
        ]
    );
    watched.record();
}

#[test]
fn a_client_that_vanishes_frees_its_seat_within_a_second() {
    let watched = Watched::new(2, |_| {});
    let (far, thread) = wait_at(&watched.gate, "gone");
    until("one ready", || ready(&watched.gate) == 1);
    let begun = clock::now();
    drop(far);
    assert_eq!(thread.join().expect("no panic"), Err(MusterEnd::Left));
    let took = clock::now().since(begun);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(watched.gate.view().seats.is_empty());

    let both = ["a", "b"].map(|name| wait_at(&watched.gate, name));
    for (_, thread) in both {
        thread.join().expect("no panic").expect("released");
    }
    let record = watched.record();
    let mut rows: Vec<_> = record.transfers.iter().map(|t| (t.outcome, t.name.as_str())).collect();
    rows.sort_unstable();
    assert_eq!(
        rows,
        [(Outcome::Complete, "a"), (Outcome::Complete, "b"), (Outcome::Refused, "gone")]
    );
}

#[test]
fn the_quorum_is_released_at_the_deadline_and_less_is_not() {
    for (quorum, opens) in [(1, true), (2, true), (3, false)] {
        let watched = Watched::new(4, |plan| {
            plan.quorum = quorum;
            plan.max_wait = Duration::from_millis(300);
        });
        let waiting = ["a", "b"].map(|name| wait_at(&watched.gate, name));
        // A third has a seat and never becomes ready.
        let (_far, late) = client(&listener(), "late");
        let seat = Seat::take_until(&watched.gate, late, Moment(0)).expect("a free seat");
        for (_far, thread) in waiting {
            let ended = thread.join().expect("no panic");
            assert_eq!(ended.is_ok(), opens, "{quorum}: {ended:?}");
            if let Err(end) = ended {
                let says = end.to_string();
                assert_eq!(says, "2 of 4 clients were ready after 0.3 s");
            }
        }
        until("the end for who was not ready", || seat.muster_end().is_some());
        drop(seat);
        let record = watched.record();
        assert_eq!(record.released_at.is_some(), opens);
        assert_eq!(record.transfers.len(), 3);
    }
}

#[test]
fn a_hand_opens_the_gate_for_the_ready_and_for_nobody_else() {
    let watched = Watched::new(5, |_| {});
    // Nobody is there: this must not release the first that comes.
    watched.gate.release_now();
    let (_one, first) = wait_at(&watched.gate, "1");
    until("one ready", || ready(&watched.gate) == 1);
    thread::sleep(WATCH * 2);
    assert!(watched.gate.view().released.is_none());
    let (_two, second) = wait_at(&watched.gate, "2");
    until("two ready", || ready(&watched.gate) == 2);
    watched.gate.release_now();
    for thread in [first, second] {
        thread.join().expect("no panic").expect("released");
    }
    let record = watched.record();
    assert_eq!((record.clients, record.transfers.len()), (5, 2));
}

#[test]
fn a_group_that_has_left_is_not_waited_for_and_a_room_is() {
    let watched = Watched::new(3, |plan| plan.lasting = false);
    let waiting = ["a", "b"].map(|name| wait_at(&watched.gate, name));
    until("two ready", || ready(&watched.gate) == 2);
    for (far, thread) in waiting {
        drop(far);
        assert_eq!(thread.join().expect("no panic"), Err(MusterEnd::Left));
    }
    let record = watched.record();
    assert_eq!((record.released_at, record.transfers.len()), (None, 2));
}

#[test]
fn a_stopped_muster_lets_everybody_go() {
    let watched = Watched::new(3, |_| {});
    let (_far, waiting) = wait_at(&watched.gate, "a");
    let (_other, client) = client(&listener(), "b");
    let seat = Seat::take_until(&watched.gate, client, Moment(0)).expect("a free seat");
    until("one ready", || ready(&watched.gate) == 1);
    watched.gate.stop();
    assert_eq!(waiting.join().expect("no panic"), Err(MusterEnd::Stopped));
    until("an end", || seat.muster_end() == Some(MusterEnd::Stopped));
    drop(seat);
    assert!(watched.record().released_at.is_none());
}

/// 64 threads come, vanish at any moment and come again; the gate opens when the others fill it.
#[test]
fn clients_vanishing_at_random_never_open_or_hold_the_gate() {
    const SEATS: u16 = 24;
    for seed in 0..6_u64 {
        let watched = Watched::new(SEATS, |_| {});
        let released = AtomicU16::new(0);
        let at_gate = AtomicU16::new(0);
        thread::scope(|scope| {
            for number in 0..64_u64 {
                let (gate, released, at_gate) = (&watched.gate, &released, &at_gate);
                scope.spawn(move || {
                    let mut state = seed << 32 | number;
                    let listener = listener();
                    while gate.view().left.is_some() {
                        let (far, client) = client(&listener, &number.to_string());
                        let Ok(mut seat) = Seat::take_until(gate, client, Moment(0)) else {
                            thread::sleep(Duration::from_millis(next(&mut state) % 5));
                            continue;
                        };
                        let fate = next(&mut state) % 8;
                        thread::sleep(Duration::from_millis(next(&mut state) % 10));
                        if fate < 2 {
                            continue; // Before READY.
                        }
                        // Half of them stay; the others hang up at some moment near READY.
                        let mut far = Some(far);
                        if fate < 5 {
                            let after = Duration::from_millis(next(&mut state) % 150);
                            let far = far.take();
                            scope.spawn(move || {
                                thread::sleep(after);
                                drop(far);
                            });
                        }
                        at_gate.fetch_add(1, Ordering::SeqCst);
                        let woke = seat.wait();
                        if woke.is_ok() {
                            let here = at_gate.load(Ordering::SeqCst);
                            assert!(here >= SEATS, "seed {seed}: released with {here}");
                            let release = seat.release();
                            assert_eq!(release.admitted, usize::from(SEATS), "seed {seed}");
                            released.fetch_add(1, Ordering::SeqCst);
                            let transfer = seat.transfer();
                            seat.finish(transfer);
                        } else {
                            at_gate.fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(far);
                    }
                });
            }
        });
        assert_eq!(released.into_inner(), SEATS, "seed {seed}");
        let record = watched.record();
        let (complete, lost): (Vec<_>, Vec<_>) =
            record.transfers.iter().partition(|t| t.outcome == Outcome::Complete);
        let mut seats: Vec<_> = complete.iter().map(|t| t.seat.0).collect();
        seats.sort_unstable();
        assert_eq!(seats, (1..=SEATS).collect::<Vec<_>>(), "seed {seed}");
        assert!(lost.iter().all(|t| t.outcome == Outcome::Refused), "seed {seed}");
    }
}

/// Everybody vanishes sooner or later: the muster ends by its deadline, one way or the other.
#[test]
fn a_gate_of_ghosts_ends_by_its_deadline() {
    for seed in 0..4_u64 {
        let quorum = 1 + u16::try_from(seed * 7).expect("small");
        let watched = Watched::new(40, |plan| {
            plan.quorum = quorum;
            plan.max_wait = Duration::from_millis(400);
        });
        let begun = clock::now();
        let passed = AtomicU16::new(0);
        thread::scope(|scope| {
            for number in 0..64_u64 {
                let (gate, passed) = (&watched.gate, &passed);
                scope.spawn(move || {
                    let mut state = (seed + 100) << 32 | number;
                    let listener = listener();
                    while gate.view().left.is_some() {
                        let (far, client) = client(&listener, "ghost");
                        let Ok(mut seat) = Seat::take_until(gate, client, Moment(0)) else {
                            thread::sleep(Duration::from_millis(1));
                            continue;
                        };
                        let after = Duration::from_millis(next(&mut state) % 300);
                        scope.spawn(move || {
                            thread::sleep(after);
                            drop(far);
                        });
                        if seat.wait().is_ok() {
                            passed.fetch_add(1, Ordering::SeqCst);
                            let transfer = seat.transfer();
                            seat.finish(transfer);
                        }
                    }
                });
            }
        });
        let took = clock::now().since(begun);
        assert!(took < Duration::from_secs(5), "seed {seed}: {took:?}");
        let (record, passed) = (watched.record(), passed.into_inner());
        match record.released_at {
            Some(_) => assert!(passed >= quorum, "seed {seed}: {passed} of {quorum}"),
            None => assert_eq!(passed, 0, "seed {seed}"),
        }
    }
}
