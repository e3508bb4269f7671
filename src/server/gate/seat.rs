//! A client's place at a gate, held by its connection's thread.
//!
//! Dropping a seat gives it back: before the release the seat is free again, after it the client
//! has an outcome in the log, even if its thread panicked.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::server::gate::ClientKind;
use crate::server::gate::Gate;
use crate::server::gate::GatePhase;
use crate::server::gate::MusterEnd;
use crate::server::gate::PendingClient;
use crate::server::gate::Release;
use crate::server::gate::SessionPlan;
use crate::session::SeatId;
use crate::transfer::Outcome;
use crate::transfer::Transfer;

/// A client's place.
#[derive(Debug)]
pub struct Seat {
    gate: Arc<Gate>,
    id: SeatId,
    kind: ClientKind,
    name: String,
    peer: SocketAddr,
    stream: Arc<TcpStream>,
    moved: Arc<AtomicU64>,
    opening: Option<Arc<Release>>,
    finished: bool,
    /// Why the client lost the seat before the release.
    lost: Option<(Outcome, String)>,
}

impl Seat {
    pub(crate) fn new(
        gate: Arc<Gate>,
        id: SeatId,
        guest: &PendingClient,
        moved: Arc<AtomicU64>,
    ) -> Self {
        Self {
            gate,
            id,
            kind: guest.kind,
            name: guest.name.clone(),
            peer: guest.peer,
            stream: Arc::clone(&guest.stream),
            moved,
            opening: None,
            finished: false,
            lost: None,
        }
    }

    /// Its number.
    pub fn id(&self) -> SeatId {
        self.id
    }

    /// The kind of its client.
    pub fn kind(&self) -> ClientKind {
        self.kind
    }

    /// Its session.
    pub fn plan(&self) -> &SessionPlan {
        &self.gate.plan
    }

    /// Its client's connection.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Counts the payload bytes sent to it.
    pub fn moved(&self) -> &AtomicU64 {
        &self.moved
    }

    /// The opening that it went through; `None` before.
    pub fn release(&self) -> Option<&Arc<Release>> {
        self.opening.as_ref()
    }

    /// A row for the log with what is known of this client.
    pub fn transfer(&self) -> Transfer {
        let mut transfer = Transfer::new(self.id, self.name.clone(), Outcome::Complete);
        transfer.client = Some(self.peer);
        transfer.server = self.stream.local_addr().ok();
        transfer
    }

    /// The client is ready; waits at the gate and goes through it. Returns how long after the
    /// release this thread woke.
    ///
    /// # Errors
    /// The muster ended, or this client left it.
    pub fn wait(&mut self) -> Result<Duration, MusterEnd> {
        let opening = self.wait_for_release();
        match opening {
            Ok(opening) => {
                // Nothing stands between being handed the barrier and waiting at it.
                let woke = opening.wait();
                self.opening = Some(opening);
                Ok(woke)
            }
            Err(ending) => {
                let _ = self.stream.set_nonblocking(false);
                self.lost = Some((ending.outcome(), ending.to_string()));
                Err(ending)
            }
        }
    }

    fn wait_for_release(&self) -> Result<Arc<Release>, MusterEnd> {
        // From here the gate's watcher reads the connection, and it must not wait.
        if self.stream.set_nonblocking(true).is_err() {
            return Err(MusterEnd::Left);
        }
        let mut state = self.gate.lock();
        if let Some(taken) = state.seats.get_mut(&self.id) {
            taken.ready = true;
        }
        self.gate.changed.notify_all();
        loop {
            let evicted = state
                .seats
                .get(&self.id)
                .and_then(|taken| taken.evicted.clone());
            if let Some(ending) = evicted {
                return Err(ending);
            }
            match &state.phase {
                GatePhase::Mustering => {}
                GatePhase::Released(opening) => return Ok(Arc::clone(opening)),
                GatePhase::Ended(ending) => return Err(ending.clone()),
            }
            state = self
                .gate
                .decided
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The muster's end, where it ended while this client was not ready yet.
    pub fn muster_end(&self) -> Option<MusterEnd> {
        let state = self.gate.lock();
        match &state.phase {
            GatePhase::Ended(ending) => Some(ending.clone()),
            _ => state.seats.get(&self.id)?.evicted.clone(),
        }
    }

    /// The server is ending: whoever waits for more of this client goes on without it.
    pub fn is_stopping(&self) -> bool {
        self.gate.lock().stopping
    }

    /// The client lost its seat before the release.
    pub fn lose(mut self, outcome: Outcome, reason: impl Into<String>) {
        self.lost = Some((outcome, reason.into()));
    }

    /// The transfer is over, however it ended.
    pub fn finish(mut self, mut transfer: Transfer) {
        if transfer.reason.is_none() {
            transfer.reason = self
                .opening
                .as_ref()
                .and_then(|opening| opening.disturbed());
        }
        self.gate.log.finish(self.gate.plan.session, transfer);
        self.finished = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.finished {
            let mut transfer = self.transfer();
            let (outcome, reason) = match (&self.opening, self.lost.take()) {
                (_, Some(lost)) => lost,
                (None, None) => (Outcome::Refused, "left before the release".to_owned()),
                (Some(_), None) => (
                    Outcome::Cut,
                    "internal error in the server's thread".to_owned(),
                ),
            };
            transfer.fail(outcome, reason);
            self.gate.log.finish(self.gate.plan.session, transfer);
        }
        let mut state = self.gate.lock();
        if self.opening.is_some() {
            state.unfinished = state.unfinished.saturating_sub(1);
            if let Some(taken) = state.seats.get_mut(&self.id) {
                taken.finished = true;
            }
        } else {
            state.seats.remove(&self.id);
        }
        self.gate.changed.notify_all();
    }
}
