//! What must hold in every execution, whatever came when.
//!
//! It sees what the server writes to each connection, what each client says, when a user or a
//! deadline could have opened the gate, and the records of the log. Nothing here yields, so that it
//! changes no schedule.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    net::{clock, primitives::Barrier},
    session::SessionId,
    transfer::{Outcome, Record},
    units::Moment,
};

/// What one client met.
#[derive(Debug, Default)]
struct Trace {
    session: Option<SessionId>,
    /// When it began to say READY.
    ready: Option<u64>,
    /// When its thread came through the gate.
    admitted: Option<(u64, Moment)>,
    /// When the first byte of GO was written to it.
    go: Option<u64>,
    /// Bytes of the opening write that are not in the connection yet.
    opening: usize,
    /// Its first block is out, or never will be.
    is_through: bool,
    /// How long it waits for the first blocks of others.
    fair_until: Option<Moment>,
    /// It has sent a receipt for a whole copy.
    is_proven: bool,
}

/// One session, as far as it is known before its record.
#[derive(Debug)]
struct Session {
    clients: u16,
    /// Before its deadline began to run.
    prepared: Moment,
    /// How many a release was for, from its first seat on.
    admitted: Option<usize>,
}

/// What the execution was allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    pub quorum: Option<u16>,
    pub max_wait: Duration,
    /// No client loses its seat but by its own doing.
    pub is_kind: bool,
    /// There is one session at most.
    pub one_off: bool,
}

#[derive(Debug, Default)]
struct Judge {
    step: u64,
    allowed: Allowed,
    traces: BTreeMap<u16, Trace>,
    sessions: BTreeMap<u64, Session>,
    /// When a hand began to ask for the release, and whether anybody had said READY by its end.
    hands: Vec<(u64, Option<bool>)>,
    is_stopped: bool,
}

thread_local! {
    static JUDGE: RefCell<Judge> = RefCell::default();
}

macro_rules! counters {
    ($($name:ident),+) => {
        /// How often each thing happened in all executions: a property of what never happens says
        /// nothing.
        #[allow(non_upper_case_globals)]
        pub mod count {
            $(pub static $name: super::AtomicU64 = super::AtomicU64::new(0);)+
            pub fn all() -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), $name.load(super::Ordering::Relaxed))),+]
            }
        }
    };
}

counters! {
    schedules, sessions, full, by_hand, at_deadline, not_released, admitted, complete, failed,
    lost_before, late, unfair
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn with<T>(body: impl FnOnce(&mut Judge) -> T) -> T {
    JUDGE.with_borrow_mut(|judge| {
        judge.step += 1;
        body(judge)
    })
}

pub fn begin(allowed: Allowed) {
    add(&count::schedules);
    Barrier::forget();
    JUDGE.set(Judge { allowed, ..Judge::default() });
}

/// A client is about to say READY.
pub fn ready(port: u16) {
    with(|judge| {
        let step = judge.step;
        judge.traces.entry(port).or_default().ready = Some(step);
    });
}

/// A client is about to send the receipt of a whole copy.
pub fn proven(port: u16) {
    with(|judge| judge.traces.entry(port).or_default().is_proven = true);
}

/// A hand is about to ask for the release.
pub fn hand() {
    with(|judge| {
        let step = judge.step;
        judge.hands.push((step, None));
    });
}

/// The hand has asked.
pub fn hand_is_done() {
    with(|judge| {
        let anybody = judge.traces.values().any(|trace| trace.ready.is_some());
        judge.hands.last_mut().expect("begun").1 = Some(anybody);
    });
}

pub fn stop() {
    with(|judge| judge.is_stopped = true);
}

/// A client has a seat.
pub fn seated(port: u16, session: SessionId, clients: u16, prepared: Moment) {
    with(|judge| {
        judge.traces.entry(port).or_default().session = Some(session);
        judge.sessions.entry(session.0).or_insert(Session { clients, prepared, admitted: None });
    });
}

/// A seat's thread has come through the gate, which opened for `admitted`.
pub fn admitted(port: u16, admitted: usize, is_dated: bool) {
    with(|judge| {
        let now = (judge.step, clock::now());
        let trace = judge.traces.get_mut(&port).expect("seated");
        assert!(trace.admitted.replace(now).is_none(), "released twice: {port}");
        let session = trace.session.expect("seated");
        assert!(is_dated, "the release is logged before it happens");
        assert!(Barrier::has_opened(admitted + 1), "nobody passes but through the barrier");
        let known = &mut judge.sessions.get_mut(&session.0).expect("seated").admitted;
        assert_eq!(*known.get_or_insert(admitted), admitted, "one release");
        assert!(judge.is_allowed(session, now, admitted), "released early: {port} {judge:#?}");
    });
}

/// Whether the gate has opened.
pub fn is_open() -> bool {
    with(|judge| judge.traces.values().any(|trace| trace.admitted.is_some()))
}

/// A seat's thread begins to send, and waits for the others' first blocks until `fair_until`.
pub fn sends(port: u16, fair_until: Moment) {
    with(|judge| judge.traces.get_mut(&port).expect("seated").fair_until = Some(fair_until));
}

/// A seat's thread sends nothing more, or ended without having sent.
pub fn sent(port: u16) {
    with(|judge| judge.traces.get_mut(&port).expect("seated").is_through = true);
}

/// The server is about to write `bytes` to the client at `port`.
pub fn before_write(port: u16, bytes: &[u8]) {
    with(|judge| {
        let step = judge.step;
        let trace = judge.traces.entry(port).or_default();
        if bytes.starts_with(b"GO ") {
            assert!(trace.admitted.is_some(), "bytes before the gate: {port}");
            trace.go = Some(step);
            trace.opening = bytes.len();
        } else if trace.go.is_some() && trace.opening == 0 && trace.fair_until.is_some() {
            judge.body(port);
        }
    });
}

/// It has written so much.
pub fn after_write(port: u16, written: Option<usize>) {
    with(|judge| {
        let trace = judge.traces.entry(port).or_default();
        if trace.go.is_some() && trace.opening > 0 {
            trace.opening = written.map_or(0, |written| trace.opening.saturating_sub(written));
            trace.is_through |= trace.opening == 0;
        }
    });
}

impl Judge {
    /// Whether the gate of `session` may be open for `admitted` seats at `now`.
    fn is_allowed(&self, session: SessionId, now: (u64, Moment), admitted: usize) -> bool {
        let known = &self.sessions[&session.0];
        let Allowed { quorum, max_wait, .. } = self.allowed;
        let quorum = usize::from(quorum.unwrap_or(known.clients).clamp(1, known.clients));
        let is_full = admitted == usize::from(known.clients);
        let is_by_hand = self.hands.iter().any(|hand| hand.0 < now.0 && hand.1 != Some(false));
        let is_over = now.1 >= known.prepared.after(max_wait) && admitted >= quorum;
        is_full || is_by_hand || is_over
    }

    /// The body of `port` begins: every seat's first block is out, or its wait is over.
    fn body(&mut self, port: u16) {
        let trace = self.traces.get_mut(&port).expect("it is written to");
        let until = trace.fair_until.take().expect("looked at");
        let session = trace.session;
        let of_session = self.traces.values().filter(|other| other.session == session);
        let through = of_session.filter(|t| t.admitted.is_some() && t.is_through).count();
        let wanted = session.and_then(|session| self.sessions[&session.0].admitted).unwrap_or(0);
        if through < wanted {
            add(&count::unfair);
            let now = clock::now();
            assert!(
                now >= until,
                "{port}: a body after {through} of {wanted} first blocks: {self:#?}"
            );
        }
    }
}

/// The execution is over: `records` is the whole log.
pub fn end(records: &[Record]) {
    JUDGE.with_borrow(|judge| {
        let seated: BTreeSet<_> = judge.sessions.keys().copied().collect();
        let logged: BTreeSet<_> = records.iter().map(|record| record.session.0).collect();
        assert!(logged.is_superset(&seated), "every session has a record");
        assert!(!judge.allowed.one_off || records.len() <= 1, "one session: {records:#?}");
        for record in records {
            judge.record(record);
        }
    });
}

impl Judge {
    fn record(&self, record: &Record) {
        add(&count::sessions);
        let what = || format!("{record:#?} {self:#?}");
        let broken = record.broken_identities();
        assert!(broken.is_empty(), "{broken:?} {}", what());
        let of_session = |&(_, trace): &(&u16, &Trace)| trace.session == Some(record.session);
        let seated: Vec<u16> =
            self.traces.iter().filter(of_session).map(|(port, _)| *port).collect();
        let mut rows: Vec<u16> =
            record.transfers.iter().map(|row| row.client.expect("known").port()).collect();
        rows.sort_unstable();
        assert_eq!(rows, seated, "a row for each seat: {}", what());

        let admitted: Vec<_> = self
            .traces
            .values()
            .filter(|t| t.session == Some(record.session) && t.admitted.is_some())
            .collect();
        assert_eq!(record.released_at.is_some(), !admitted.is_empty(), "{}", what());
        let Some(session) = self.sessions.get(&record.session.0) else {
            // Its first client was gone before it had a seat.
            return add(&count::not_released);
        };
        assert_eq!(
            session.admitted.unwrap_or(0),
            admitted.len(),
            "exactly the admitted: {}",
            what()
        );
        let first = admitted.iter().filter_map(|trace| trace.go).min();
        for trace in &admitted {
            let ready = trace.ready.expect("only the ready are admitted");
            assert!(first.is_none_or(|first| ready < first), "bytes before READY: {}", what());
        }
        for row in &record.transfers {
            self.row(row, what);
        }
        let (now, is_full) = (
            admitted.iter().filter_map(|t| t.admitted).min(),
            admitted.len() == usize::from(record.clients),
        );
        add(match now {
            None => &count::not_released,
            Some(_) if is_full => &count::full,
            Some(now) if now.1 >= session.prepared.after(self.allowed.max_wait) => {
                &count::at_deadline
            }
            Some(_) => &count::by_hand,
        });
    }

    fn row(&self, row: &crate::transfer::Transfer, what: impl Fn() -> String) {
        let trace = &self.traces[&row.client.expect("known").port()];
        let is_complete = row.outcome == Outcome::Complete;
        let reason = row.reason.as_deref().unwrap_or("");
        if trace.admitted.is_some() {
            add(&count::admitted);
            add(if is_complete { &count::complete } else { &count::failed });
            assert!(!reason.contains("before the release"), "{}", what());
        } else {
            assert!(trace.go.is_none() && !is_complete && row.woke.is_none(), "{}", what());
            add(if reason.contains("before this client was ready") {
                &count::late
            } else {
                &count::lost_before
            });
        }
        assert!(!is_complete || trace.is_proven && row.verified == Some(true), "{}", what());
        assert!(is_complete || !row.is_proven(), "{}", what());
        let is_evicted =
            reason == "left before the release" || reason == "spoke before the release";
        assert!(!self.allowed.is_kind || row.name != "Honest" || !is_evicted, "{}", what());
        assert!(self.is_stopped || !reason.contains("server was stopped"), "{}", what());
    }
}
