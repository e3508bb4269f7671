//! The gate: it holds the seats of one session until all are ready, then releases them together.
//!
//! A `Barrier` has no timeout and nobody can leave it, so there is none while seats fill. The
//! *muster* is a count under a lock with a deadline: seats are taken and given back freely, and
//! the session's own thread looks every `WATCH` at each ready connection, because a parked
//! thread does not see its client close. When the muster ends, and only then, a barrier is made
//! for exactly the admitted and one more, the session thread, and handed to the seats' threads,
//! all of which are running; the first thing each does with it is to wait. A client that dies
//! after that is a failed transfer and holds nobody.
//!
//! One lock, never held across an operation that can block.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, OnceLock, PoisonError},
    time::Duration,
};

use crate::{
    net::{
        clock, lock,
        primitives::{
            Condvar, Mutex, MutexGuard,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
    },
    proto::native::FromServer,
    server::{
        admission::Admission,
        gate::{
            pending::disconnected,
            release::Release,
            seat_limits::SeatLimits,
            state::{GatePhase, GateState, SeatPhase, TakenSeat},
            waiting_list::WaitingList,
        },
        session_log::LogHandle,
        transport::SendSession,
    },
    session::SeatId,
    units::Moment,
};

mod choice;
pub mod latch;
pub mod measure;
mod pending;
pub mod release;
mod roster;
mod samples;
pub mod seat;
pub(super) mod seat_connection;
mod seat_limits;
mod state;
mod vacancy;
mod view;
mod waiting_list;

pub use pending::{ClientKind, MusterEnd, PendingClient};
pub use seat::Seat;
pub use seat_connection::{SeatConnection, SessionInfo};
pub use state::{AutoSetup, SeatCall, SeatEnd};
pub(super) use vacancy::SEAT_WAIT;
pub use view::{GateView, SeatView};

/// One session, from its first seat to its last outcome.
#[derive(Debug)]
pub struct Gate {
    /// What it sends, and to how many.
    pub session: Arc<SessionInfo>,
    /// What moves the bytes after the release, unless another way is chosen.
    send_session: Box<dyn SendSession>,
    /// What the way is chosen from, where it is.
    auto: Option<AutoSetup>,
    chosen_session: OnceLock<Box<dyn SendSession>>,
    muster: MusterConfig,
    state: Mutex<GateState>,
    /// Wakes the session's thread.
    changed: Condvar,
    /// Wakes the seats' threads; apart, so that a thousand of them sleep through the muster.
    decided: Condvar,
    /// Set when the server ends.
    stopping: Arc<AtomicBool>,
    log: LogHandle,
    admission: Arc<Admission>,
}

/// When a muster ends.
#[derive(Clone, Copy, Debug)]
pub struct MusterConfig {
    /// How many ready clients are enough when the muster's time is over.
    pub quorum: u16,
    /// How long the muster may last.
    pub max_wait: Duration,
    /// Waits on when every client has left; a group that only its clients named ends then.
    pub lasting: bool,
}

/// How often the connections of waiting seats are looked at.
const WATCH: Duration = Duration::from_millis(100);

/// How often a waiting native client is told that the server lives.
const TICK: Duration = Duration::from_secs(1);

impl Gate {
    /// Begins a muster. Its thread is [`Gate::run`], which the caller starts.
    pub fn new(
        session: SessionInfo,
        (send_session, auto): (Box<dyn SendSession>, Option<AutoSetup>),
        muster: MusterConfig,
        log: LogHandle,
        admission: Arc<Admission>,
    ) -> Arc<Self> {
        let state = GateState {
            seats: BTreeMap::new(),
            phase: GatePhase::Mustering,
            deadline: clock::now().after(muster.max_wait),
            by_hand: false,
            is_expired: false,
            settle_until: Moment(0),
            visited: false,
            waiting: WaitingList::default(),
        };
        Arc::new(Self {
            session: Arc::new(session),
            send_session,
            auto,
            chosen_session: OnceLock::new(),
            muster,
            state: Mutex::new(state),
            changed: Condvar::new(),
            decided: Condvar::new(),
            stopping: Arc::default(),
            log,
            admission,
        })
    }

    /// Gives `client` the lowest free seat, or until then one that a silent client loses; gives it
    /// back when there is none.
    fn add(
        &self,
        client: PendingClient,
        moved: Arc<AtomicU64>,
        until: Moment,
    ) -> Result<(SeatId, PendingClient), PendingClient> {
        let mut state = self.lock();
        let mut is_free = state.has_room(self.session.clients);
        let own = self.own_seat(&client);
        if let Some(id) = own {
            (state, is_free) = self.wait_for_own_seat(state, id);
        } else if !is_free {
            (state, is_free) = self.wait_for_seat(state, client.peer, until);
        }
        let mut seats = (1..=self.session.clients).map(SeatId);
        let free = own.or_else(|| seats.find(|id| !state.seats.contains_key(id)));
        let (true, Some(id)) = (is_free, free) else {
            return Err(client);
        };
        state.visited = true;
        let seat = TakenSeat {
            client: client.clone(),
            phase: SeatPhase::Preparing,
            heard: clock::now(),
            moved,
            resumed: 0,
            given_up: None,
            call: None,
            samples: Vec::new(),
        };
        state.seats.insert(id, seat);
        self.changed.notify_all();
        Ok((id, client))
    }

    /// The client in `id` is ready: waits until the gate opens, or it is known that it will not, or
    /// until something is to do before.
    fn wait_for_release(&self, id: SeatId) -> Result<Result<Arc<Release>, SeatCall>, MusterEnd> {
        let mut state = self.lock();
        if let Some(seat) = state.seats.get_mut(&id)
            && matches!(seat.phase, SeatPhase::Preparing | SeatPhase::Settling)
        {
            seat.phase = SeatPhase::Ready;
        }
        self.changed.notify_all();
        loop {
            if let Some(end) = state.muster_end(id) {
                return Err(end);
            }
            if let GatePhase::Released(release) = &state.phase {
                return Ok(Ok(Arc::clone(release)));
            }
            let seat = state.seats.get_mut(&id);
            if let Some(seat) = seat
                && let Some(call) = seat.call.take()
            {
                seat.phase = SeatPhase::Settling;
                return Ok(Err(call));
            }
            state = self.decided.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Why the client in `id` cannot be released any more; `None` while it can.
    fn muster_end(&self, id: SeatId) -> Option<MusterEnd> {
        self.lock().muster_end(id)
    }

    /// The client in `id` has `bytes` bytes of an earlier session, which faces show.
    fn resume(&self, id: SeatId, bytes: u64) {
        if let Some(seat) = self.lock().seats.get_mut(&id) {
            seat.resumed = bytes;
        }
    }

    /// The client in `id` is gone before the release; or its transfer is over, with `end`.
    fn leave(&self, id: SeatId, end: Option<SeatEnd>) {
        let mut state = self.lock();
        if let Some(end) = end {
            if let Some(seat) = state.seats.get_mut(&id) {
                seat.phase = SeatPhase::Finished(end);
            }
        } else if let Some(seat) = state.seats.remove(&id) {
            state.waiting.note_lost(seat.client.peer);
        }
        self.changed.notify_all();
    }

    /// What moves the bytes.
    pub fn send_session(&self) -> &dyn SendSession {
        &**self.chosen_session.get().unwrap_or(&self.send_session)
    }

    /// True while there is a seat that nobody has and nobody waits for.
    pub fn has_room(&self) -> bool {
        self.lock().has_room(self.session.clients)
    }

    /// True until the muster has ended, one way or the other.
    pub fn is_mustering(&self) -> bool {
        matches!(self.lock().phase, GatePhase::Mustering)
    }

    /// Why the connection of the released client in `id` was closed here, if it was.
    fn given_up(&self, id: SeatId) -> Option<String> {
        self.lock().seats.get(&id)?.given_up.clone()
    }

    /// Opens the gate by hand for the clients that are ready; if there is none, nothing happens,
    /// now or when one comes.
    pub fn release_now(&self) {
        let mut state = self.lock();
        state.by_hand = state.ready() > 0;
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the muster, or cuts every running transfer: each seat's thread then ends by itself.
    pub fn stop(&self) {
        let state = self.lock();
        self.stopping.store(true, Ordering::Relaxed);
        // Where the payload goes over the connection, a seat's thread ends it with words that tell a
        // native client why.
        let is_told = |client: &PendingClient| {
            client.kind == ClientKind::Native && self.send_session().fills_control()
        };
        state.close_connections(|client| !is_told(client));
        drop(state);
        self.changed.notify_all();
    }

    /// The session's thread: musters, opens the gate, waits for the last outcome.
    pub fn run(self: &Arc<Self>) {
        let end = self.wait_for_muster();
        let absent = self.absent(end.as_ref().err());
        match &end {
            Ok(release) => self.release(release),
            Err(end) => {
                log::info!("session {}: {end}", self.session.id);
                self.lock().end(end.clone());
                self.decided.notify_all();
            }
        }
        absent.into_iter().for_each(|row| self.log.finish(self.session.id, row));
        self.wait_for_seats();
        self.log.close(self.session.id);
    }

    /// Waits until the gate may open, and admits the ready.
    fn wait_for_muster(&self) -> Result<Arc<Release>, MusterEnd> {
        let (mut tick, mut look) = (clock::now(), clock::now());
        let mut state = self.lock();
        loop {
            let ready = state.ready();
            let now = clock::now();
            if self.stopping.load(Ordering::Relaxed) {
                return Err(MusterEnd::Stopped);
            }
            let is_late = now >= state.deadline || state.is_expired;
            let enough = ready == self.session.clients
                || (state.by_hand && ready > 0)
                || (is_late && ready >= self.muster.quorum);
            if enough && !state.is_settling() {
                // Clients not READY are left out; check once more for disconnects.
                state = self.evict_disconnected(state);
                if state.ready() != ready {
                    state.by_hand &= state.ready() > 0;
                    continue;
                }
                if let Some(setup) = self.auto.as_ref().filter(|_| self.is_undecided()) {
                    state = self.choose(state, setup);
                    continue;
                }
                let release = state.admit();
                self.decided.notify_all();
                return Ok(release);
            }
            if state.is_left() {
                if !self.muster.lasting {
                    return Err(MusterEnd::NotEnough("every client has left".to_owned()));
                }
                // The time counts from the first client on, and there is none.
                state.deadline = now.after(self.muster.max_wait);
            }
            if now >= state.deadline {
                return Err(MusterEnd::NotEnough(format!(
                    "{ready} of {} clients were ready after {} s{}",
                    self.session.clients,
                    self.muster.max_wait.as_secs_f64(),
                    self.named_missing(&state)
                )));
            }
            let wait = state.deadline.since(now).min(WATCH);
            state =
                self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            // Each client that comes wakes this thread; a look at all of them for each of them would
            // be a million calls for a thousand.
            if clock::now() >= look {
                look = clock::now().after(WATCH);
                state = self.evict_disconnected(state);
            }
            if clock::now() >= tick {
                tick = clock::now().after(TICK);
                state = self.send_waits(state);
            }
        }
    }

    /// Checks every ready connection, and evicts the clients that closed it or spoke.
    fn evict_disconnected<'a>(
        &'a self,
        state: MutexGuard<'a, GateState>,
    ) -> MutexGuard<'a, GateState> {
        let ready = state.ready_streams(|_| true);
        drop(state);
        let lost: Vec<_> = ready
            .into_iter()
            .filter_map(|(id, stream)| Some((id, disconnected(&stream)?, stream)))
            // What a client says late of a measurement is passed over.
            .filter(|(_, end, _)| *end != MusterEnd::Spoke || !self.has_measured())
            .collect();
        let mut state = self.lock();
        for (id, end, stream) in lost {
            if state.evict(id, &stream, end) {
                self.decided.notify_all();
            }
        }
        state
    }

    /// Sends every waiting native client how far the muster is; one that cannot take a line of
    /// forty bytes has not read for minutes and is evicted.
    fn send_waits<'a>(&'a self, state: MutexGuard<'a, GateState>) -> MutexGuard<'a, GateState> {
        let line =
            FromServer::Wait { ready: state.ready(), clients: self.session.clients }.encode();
        let ready = state.ready_streams(|client| client.kind == ClientKind::Native);
        drop(state);
        let deaf: Vec<_> =
            ready.into_iter().filter(|(_, stream)| (&**stream).write_all(&line).is_err()).collect();
        let mut state = self.lock();
        for (id, stream) in deaf {
            if state.evict(id, &stream, MusterEnd::Left) {
                self.decided.notify_all();
            }
        }
        state
    }

    /// The session thread's part of the release: it is the last to come to the barrier.
    fn release(&self, release: &Release) {
        let session = self.session.id;
        let stream = self.lock().seats.values().next().map(|seat| Arc::clone(&seat.client.stream));
        let sender = stream.map_or_else(String::new, |stream| self.send_session().sender(&stream));
        // Logged before it happens: a small file's rows are written a moment after.
        self.log.release(session, release.date(), sender);
        release.open();
        let file = &self.session.source.info.name;
        log::info!("session {session}: released {} seats for {file}", release.admitted);
    }

    /// Waits until every seat has been left, which each thread does by a deadline of its own.
    fn wait_for_seats(&self) {
        let mut state = self.lock();
        let info = &self.session.source.info;
        let mut limits = SeatLimits::new(info.bytes, self.session.stall);
        let (mut wait, mut look) = (samples::LEAST, Duration::ZERO);
        while !state.seats.values().all(|seat| matches!(seat.phase, SeatPhase::Finished(_))) {
            let (before, stops) = (clock::now(), self.stopping.load(Ordering::Relaxed));
            let limit = if stops { TICK } else { wait };
            let waited =
                self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() && stops {
                state.close_connections(|_| true);
            }
            wait = TICK;
            if let GatePhase::Released(release) = &state.phase {
                let release = Arc::clone(release);
                release.note_gap(clock::now().since(before).saturating_sub(limit));
                limits.close_late(&mut state, &release);
                let took = clock::now().since(release.released());
                if took >= look {
                    look = samples::take(&mut state, self.send_session().fills_control(), took);
                }
                wait = look.saturating_sub(took).min(TICK);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests;
