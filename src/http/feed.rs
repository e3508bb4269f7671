//! The one snapshot of the server's sessions that every subscriber gets.
//!
//! No thread stands behind it: the first subscriber that comes [`POLL_INTERVAL`] after the last
//! poll polls the sessions for all of them, so that an unwatched server does no work. A slow
//! subscriber finds the newest state when it comes back, and never a queue.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    http::{config::Documents, event},
    net::{clock, http::events, lock},
    proto::http::text,
    server::{
        gate::{GateView, SeatView},
        lobby::Lobby,
    },
    session::SessionId,
    transfer::Record,
    units::Moment,
};

/// The latest state, and the sessions that have ended.
#[derive(Debug)]
pub struct StateFeed {
    documents: Documents,
    latest: Mutex<LatestState>,
}

/// The state of a server at one moment.
#[derive(Clone, Debug, Default)]
pub struct ServerSnapshot {
    /// Grows with every change that subscribers are told.
    pub id: u64,
    /// The state, as a `gatecast.event/1` on one line.
    pub state: Arc<str>,
    /// The same as a subscriber is sent it, as all events are that subscribers share.
    pub state_event: Arc<str>,
    /// The ended sessions, newest last: each with its `session` event as a subscriber is sent it,
    /// if this build writes documents.
    pub ended: VecDeque<(SessionId, Option<Arc<str>>)>,
}

#[derive(Debug, Default)]
struct LatestState {
    snapshot: ServerSnapshot,
    polled: Option<Moment>,
    written: Option<Moment>,
    milestones: Vec<Milestones>,
}

/// What of a session is told at once when it changes: whether it is released, and how many seats
/// are taken, ready and finished.
type Milestones = (SessionId, bool, usize, usize, usize);

/// How often the sessions are polled while somebody subscribes.
pub const POLL_INTERVAL: Duration = events::POLL_INTERVAL;

/// How often progress is told between two changes.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

impl StateFeed {
    /// An empty feed, which writes ended sessions by `documents`.
    pub fn new(documents: Documents) -> Self {
        Self { documents, latest: Mutex::default() }
    }

    /// The snapshot, no older than [`POLL_INTERVAL`].
    pub fn poll(&self, lobby: &Lobby) -> ServerSnapshot {
        let mut latest = lock(&self.latest);
        let now = clock::now();
        if (latest.polled).is_none_or(|at| now.since(at) >= POLL_INTERVAL) {
            latest.polled = Some(now);
            latest.update(lobby, self.documents);
        }
        latest.snapshot.clone()
    }
}

impl LatestState {
    fn update(&mut self, lobby: &Lobby, documents: Documents) {
        // Views first: a session that ends in between is then in both, and not in neither.
        let views = lobby.views();
        let ended = lobby.history().ended();
        let has_ended = self.add_ended(&ended, documents);
        let milestones: Vec<_> = views.iter().map(milestones).collect();
        let now = clock::now();
        let due = (self.written).is_none_or(|at| now.since(at) >= PROGRESS_INTERVAL);
        let moving = views.iter().any(|view| !view.seats.is_empty());
        let changed = has_ended || milestones != self.milestones || self.written.is_none();
        if changed || (due && moving) {
            self.milestones = milestones;
            self.written = Some(now);
            self.snapshot.id += 1;
            let state = event::state(self.snapshot.id, &views, &ended, lobby);
            self.snapshot.state_event = text::event("state", self.snapshot.id, &state).into();
            self.snapshot.state = state.into();
        }
    }

    /// Adds the sessions that have ended since; returns whether the list has changed.
    fn add_ended(&mut self, ended: &[Arc<Record>], documents: Documents) -> bool {
        // Of the state that is told next.
        let number = self.snapshot.id + 1;
        let known = &mut self.snapshot.ended;
        let before = known.len();
        known.retain(|(id, _)| ended.iter().any(|record| record.session == *id));
        let mut changed = known.len() != before;
        for record in ended {
            if known.iter().all(|(id, _)| *id != record.session) {
                let event =
                    (documents.json).map(|write| event::ended_with("session", &write(record)));
                let event = event.map(|event| text::event("session", number, &event).into());
                known.push_back((record.session, event));
                changed = true;
            }
        }
        changed
    }
}

fn milestones(view: &GateView) -> Milestones {
    let count = |is: fn(&&SeatView) -> bool| view.seats.iter().filter(is).count();
    let (ready, finished) = (count(|seat| seat.ready), count(|seat| seat.end.is_some()));
    (view.session, view.released.is_some(), view.seats.len(), ready, finished)
}
