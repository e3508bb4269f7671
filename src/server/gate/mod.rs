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

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::net::clock;
use crate::proto::native::FromServer;
use crate::server::catalog::Source;
use crate::server::gate::pending::disconnected;
use crate::server::gate::release::Release;
use crate::server::session_log::LogHandle;
use crate::server::transport::SendSession;
use crate::session::SeatId;
use crate::session::SessionId;
use crate::session::Via;
use crate::units::Moment;

pub mod latch;
mod pending;
pub mod release;
pub mod seat;
mod view;

pub use pending::ClientKind;
pub use pending::MusterEnd;
pub use pending::PendingClient;
pub use seat::Seat;
pub use view::GateView;
pub use view::SeatView;

/// One session, from its first seat to its last outcome.
#[derive(Debug)]
pub struct Gate {
    /// What it will send, and to how many.
    pub plan: SessionPlan,
    state: Mutex<GateState>,
    /// Wakes the session's thread.
    changed: Condvar,
    /// Wakes the seats' threads; apart, so that a thousand of them sleep through the muster.
    decided: Condvar,
    log: LogHandle,
}

/// What a session is, fixed when it begins to muster.
#[derive(Debug)]
pub struct SessionPlan {
    /// Its number.
    pub session: SessionId,
    /// The way the bytes travel.
    pub via: Via,
    /// The file.
    pub source: Arc<Source>,
    /// How many seats there are.
    pub clients: u16,
    /// How many ready clients are enough when the muster's time is over.
    pub quorum: u16,
    /// How long the muster may last.
    pub max_wait: Duration,
    /// How long a ready or moving client may be silent.
    pub stall: Duration,
    /// Waits on when every client has left; a group that only its clients named ends then.
    pub lasting: bool,
    /// What moves the bytes after the release.
    pub carrier: Box<dyn SendSession>,
}

#[derive(Debug)]
struct GateState {
    seats: BTreeMap<SeatId, SeatState>,
    phase: GatePhase,
    deadline: Moment,
    by_hand: bool,
    stopping: bool,
    /// Somebody has sat here.
    visited: bool,
    /// Seats that still owe an outcome after the release.
    unfinished: u16,
}

#[derive(Debug)]
struct SeatState {
    guest: PendingClient,
    ready: bool,
    finished: bool,
    moved: Arc<AtomicU64>,
    /// Why the watcher took the seat away; its own thread reads it and leaves.
    evicted: Option<MusterEnd>,
}

#[derive(Debug)]
enum GatePhase {
    Mustering,
    Released(Arc<Release>),
    Ended(MusterEnd),
}

/// How often the connections of waiting seats are looked at.
const WATCH: Duration = Duration::from_millis(100);

/// How often a waiting native client is told that the server lives.
const TICK: Duration = Duration::from_secs(1);

impl Gate {
    /// Begins a muster. Its thread is [`Gate::run`], which the caller starts.
    pub fn new(plan: SessionPlan, log: LogHandle) -> Arc<Self> {
        let state = GateState {
            seats: BTreeMap::new(),
            phase: GatePhase::Mustering,
            deadline: clock::now().after(plan.max_wait),
            by_hand: false,
            stopping: false,
            visited: false,
            unfinished: 0,
        };
        Arc::new(Self {
            plan,
            state: Mutex::new(state),
            changed: Condvar::new(),
            decided: Condvar::new(),
            log,
        })
    }

    /// Takes the lowest free seat; gives the guest back when the gate has none any more.
    pub fn seat(self: &Arc<Self>, guest: PendingClient) -> Result<Seat, PendingClient> {
        let mut state = self.lock();
        let free = (1..=self.plan.clients)
            .map(SeatId)
            .find(|id| !state.seats.contains_key(id));
        let (GatePhase::Mustering, Some(id)) = (&state.phase, free) else {
            return Err(guest);
        };
        let moved = Arc::new(AtomicU64::new(0));
        let seat = Seat::new(Arc::clone(self), id, &guest, Arc::clone(&moved));
        state.visited = true;
        state.seats.insert(
            id,
            SeatState {
                guest,
                ready: false,
                finished: false,
                moved,
                evicted: None,
            },
        );
        self.changed.notify_all();
        Ok(seat)
    }

    /// True while a seat may be taken.
    pub fn has_room(&self) -> bool {
        let state = self.lock();
        matches!(state.phase, GatePhase::Mustering)
            && state.seats.len() < usize::from(self.plan.clients)
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
        let mut state = self.lock();
        state.stopping = true;
        if matches!(state.phase, GatePhase::Released(_)) {
            for taken in state.seats.values().filter(|taken| !taken.finished) {
                // A connection that is gone already needs no closing.
                let _ = taken.guest.stream.shutdown(std::net::Shutdown::Both);
            }
        }
        self.changed.notify_all();
    }

    /// The session's thread: musters, opens the gate, waits for the last outcome.
    pub fn run(self: &Arc<Self>) {
        match self.muster() {
            Ok(opening) => self.release(&opening),
            Err(ending) => {
                log::info!("session {}: {ending}", self.plan.session);
                self.lock().end(ending);
                self.decided.notify_all();
            }
        }
        self.wait_for_seats();
        self.log.close(self.plan.session);
    }

    /// Waits until the gate may open, and admits the ready.
    fn muster(&self) -> Result<Arc<Release>, MusterEnd> {
        let (mut tick, mut look) = (clock::now(), clock::now());
        let mut state = self.lock();
        loop {
            let ready = state.ready();
            let now = clock::now();
            if state.stopping {
                return Err(MusterEnd::Stopped);
            }
            let enough = ready == self.plan.clients
                || (state.by_hand && ready > 0)
                || (now >= state.deadline && ready >= self.plan.quorum);
            if enough {
                // Who has not said READY by now stays behind; who vanished is seen a last time.
                state = self.evict_disconnected(state);
                if state.ready() != ready {
                    state.by_hand &= state.ready() > 0;
                    continue;
                }
                return Ok(self.admit(&mut state));
            }
            if state.seats.is_empty() && state.visited && !self.plan.lasting {
                return Err(MusterEnd::NotEnough("every client has left".to_owned()));
            }
            if now >= state.deadline {
                return Err(MusterEnd::NotEnough(format!(
                    "{ready} of {} clients were ready after {} s",
                    self.plan.clients,
                    self.plan.max_wait.as_secs_f64()
                )));
            }
            let wait = state.deadline.since(now).min(WATCH);
            state = self
                .changed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
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

    /// Looks at every ready connection and evicts the clients that closed it or spoke.
    fn evict_disconnected<'a>(
        &'a self,
        state: MutexGuard<'a, GateState>,
    ) -> MutexGuard<'a, GateState> {
        let seen: Vec<(SeatId, Arc<TcpStream>)> = state
            .seats
            .iter()
            .filter(|(_, taken)| taken.ready && taken.evicted.is_none())
            .map(|(&id, taken)| (id, Arc::clone(&taken.guest.stream)))
            .collect();
        drop(state);
        let lost: Vec<_> = seen
            .into_iter()
            .filter_map(|(id, stream)| Some((id, disconnected(&stream)?, stream)))
            .collect();
        let mut state = self.lock();
        for (id, ending, stream) in lost {
            state.evict(id, &stream, ending);
        }
        if state.seats.values().any(|taken| taken.evicted.is_some()) {
            self.decided.notify_all();
        }
        state
    }

    /// Tells every waiting native client how far the muster is; one that cannot take a line of
    /// forty bytes has not read for minutes and is evicted.
    fn send_waits<'a>(&'a self, state: MutexGuard<'a, GateState>) -> MutexGuard<'a, GateState> {
        let line = FromServer::Wait {
            ready: state.ready(),
            clients: self.plan.clients,
        }
        .encode();
        let told: Vec<(SeatId, Arc<TcpStream>)> = state
            .seats
            .iter()
            .filter(|(_, t)| t.ready && t.evicted.is_none() && t.guest.kind == ClientKind::Native)
            .map(|(&id, taken)| (id, Arc::clone(&taken.guest.stream)))
            .collect();
        drop(state);
        let deaf: Vec<_> = told
            .into_iter()
            .filter(|(_, stream)| (&**stream).write(&line).ok() != Some(line.len()))
            .collect();
        let mut state = self.lock();
        for (id, stream) in deaf {
            state.evict(id, &stream, MusterEnd::Left);
            self.decided.notify_all();
        }
        state
    }

    /// Makes the barrier for exactly the ready, and sends the others away.
    fn admit(&self, state: &mut GateState) -> Arc<Release> {
        let mut admitted = Vec::new();
        for (&id, taken) in &mut state.seats {
            if taken.ready && taken.evicted.is_none() {
                // The watcher reads without waiting; the transfer is blocking again.
                if let Err(error) = taken.guest.stream.set_nonblocking(false) {
                    log::warn!("seat {id}: cannot make the connection blocking: {error}");
                }
                admitted.push((id, taken.guest.kind));
            } else {
                let late = "the gate opened before this client was ready";
                taken.send_away(MusterEnd::NotEnough(late.to_owned()));
            }
        }
        state.unfinished = u16::try_from(admitted.len()).expect("seats are numbered by u16");
        let opening = Arc::new(Release::new(&admitted));
        state.phase = GatePhase::Released(Arc::clone(&opening));
        self.decided.notify_all();
        opening
    }

    /// The session thread's part of the release: it is the last to come to the barrier.
    fn release(&self, opening: &Release) {
        let session = self.plan.session;
        let stream = self
            .lock()
            .seats
            .values()
            .next()
            .map(|taken| Arc::clone(&taken.guest.stream));
        let sender =
            stream.map_or_else(String::new, |stream| self.plan.carrier.description(&stream));
        // Logged before it happens: a small file's rows are written a moment after.
        self.log.release(session, opening.date(), sender);
        opening.open();
        let file = &self.plan.source.info.name;
        log::info!(
            "session {session}: released {} seats for {file}",
            opening.admitted()
        );
    }

    /// Waits until every seat has been left, which each thread does by a deadline of its own.
    fn wait_for_seats(&self) {
        let mut state = self.lock();
        let mut limits: BTreeMap<SeatId, (u64, Moment)> = BTreeMap::new();
        while !state.seats.values().all(|taken| taken.finished) || state.unfinished > 0 {
            let before = clock::now();
            state = self
                .changed
                .wait_timeout(state, TICK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if let GatePhase::Released(opening) = &state.phase {
                opening.note_gap(clock::now().since(before).saturating_sub(TICK));
                self.close_stalled(&state, &mut limits);
            }
        }
    }

    /// A last resort behind the transfer's own limits: a kernel call that dribbles for ever.
    fn close_stalled(&self, state: &GateState, limits: &mut BTreeMap<SeatId, (u64, Moment)>) {
        let now = clock::now();
        // Twice the stall limit, and the time that one call's block takes at the slowest rate.
        let patience =
            self.plan.stall * 2 + Duration::from_secs((1 << 20) / crate::net::copy::SLOWEST);
        for (&id, taken) in state.seats.iter().filter(|(_, taken)| !taken.finished) {
            let moved = taken.moved.load(Ordering::Relaxed);
            let entry = limits.entry(id).or_insert((moved, now));
            if entry.0 != moved {
                *entry = (moved, now);
            } else if moved < self.plan.source.info.bytes && now.since(entry.1) > patience {
                log::warn!(
                    "seat {id}: no progress for {} s, closing its connection",
                    patience.as_secs()
                );
                let _ = taken.guest.stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        // A thread that panicked left the count as it was: it changes one field at a time, and
        // its seat is given back by its guard.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateState {
    fn ready(&self) -> u16 {
        let ready = self
            .seats
            .values()
            .filter(|taken| taken.ready && taken.evicted.is_none())
            .count();
        u16::try_from(ready).expect("seats are numbered by u16")
    }

    /// The muster is over without a release; whoever is not ready yet is in a read.
    fn end(&mut self, ending: MusterEnd) {
        self.seats
            .values_mut()
            .filter(|taken| !taken.ready)
            .for_each(|taken| taken.send_away(ending.clone()));
        self.phase = GatePhase::Ended(ending);
    }

    /// Takes the seat away unless somebody else sits there by now.
    fn evict(&mut self, id: SeatId, stream: &Arc<TcpStream>, ending: MusterEnd) {
        if let Some(taken) = self
            .seats
            .get_mut(&id)
            .filter(|t| Arc::ptr_eq(&t.guest.stream, stream))
        {
            taken.evicted.get_or_insert(ending);
        }
    }
}

impl SeatState {
    /// Ends the wait of a client that is not ready: its thread is in a read, which returns now.
    fn send_away(&mut self, ending: MusterEnd) {
        if self.evicted.is_none() {
            self.evicted = Some(ending);
            // A connection that is gone already needs no closing.
            let _ = self.guest.stream.shutdown(std::net::Shutdown::Read);
        }
    }
}

#[cfg(test)]
mod tests;
