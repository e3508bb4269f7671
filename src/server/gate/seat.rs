//! A client's place at a gate, held by its connection's thread.
//!
//! Dropping a seat writes its row of the log and gives it back: before the release the seat is
//! free again, after it the client has an outcome, even if its thread panicked.

use std::{ops::Deref, sync::Arc, time::Duration};

use crate::{
    net::{self, primitives::atomic::AtomicU64},
    server::{
        gate::{
            Gate,
            pending::{MusterEnd, PendingClient},
            seat_connection::SeatConnection,
            state::{SeatCall, SeatEnd},
        },
        transport::SendSession,
    },
    transfer::{Outcome, Transfer},
    units::Moment,
};

/// A client's place.
#[derive(Debug)]
pub struct Seat {
    gate: Arc<Gate>,
    connection: SeatConnection,
    /// The row of the log, once it is known how the client's part ended.
    row: Option<Transfer>,
}

impl Deref for Seat {
    type Target = SeatConnection;

    fn deref(&self) -> &SeatConnection {
        &self.connection
    }
}

impl Seat {
    /// The same, but waits until then for one that a silent client loses.
    pub fn take_until(
        gate: &Arc<Gate>,
        client: PendingClient,
        until: Moment,
    ) -> Result<Self, PendingClient> {
        let moved = Arc::new(AtomicU64::new(0));
        let (id, client) = gate.add(client, Arc::clone(&moved), until)?;
        let (session, stopping) = (Arc::clone(&gate.session), Arc::clone(&gate.stopping));
        Ok(Self {
            gate: Arc::clone(gate),
            connection: SeatConnection::new(id, &client, moved, session, stopping),
            row: None,
        })
    }

    /// What moves its bytes.
    pub fn send_session(&self) -> &dyn SendSession {
        self.gate.send_session()
    }

    /// The client has `bytes` bytes of an earlier session already.
    pub fn resume(&self, bytes: u64) {
        self.gate.resume(self.id, bytes);
    }

    /// The client has got further on its way to READY.
    pub fn note_progress(&self) {
        self.gate.note_progress(self.id);
    }

    /// The client is ready; waits at the gate and goes through it. Returns how long after the
    /// release this thread woke.
    ///
    /// # Errors
    /// The muster ended, or this client left it.
    pub fn wait(&mut self) -> Result<Duration, MusterEnd> {
        loop {
            if let SeatCall::Released(woke) = self.wait_for_call()? {
                return Ok(woke);
            }
        }
    }

    /// The same, or something is to do before.
    ///
    /// # Errors
    /// The muster ended, or this client left it.
    pub fn wait_for_call(&mut self) -> Result<SeatCall, MusterEnd> {
        self.gate.admission.set_ready(self.connection.peer);
        // From here the gate's watcher reads the connection, and it must not wait.
        let release = match self.stream.set_nonblocking(true) {
            Ok(()) => self.gate.wait_for_release(self.id),
            Err(_) => Err(MusterEnd::Left),
        };
        match release {
            Ok(Err(call)) => Ok(call),
            Ok(Ok(release)) => {
                if self.send_session().has_fair_start() {
                    net::raise_priority();
                }
                // Nothing stands between being handed the barrier and waiting at it.
                let woke = release.wait();
                self.connection.set_release(release);
                Ok(SeatCall::Released(woke))
            }
            Err(end) => {
                let _ = self.stream.set_nonblocking(false);
                self.set_row(end.outcome(), end.to_string());
                Err(end)
            }
        }
    }

    /// Why the client cannot be released any more, where that is so before it is ready.
    pub fn muster_end(&self) -> Option<MusterEnd> {
        self.gate.muster_end(self.id)
    }

    /// The client lost its seat before the release.
    pub fn lose(mut self, outcome: Outcome, reason: impl Into<String>) {
        self.set_row(outcome, reason);
    }

    /// The transfer is over, however it ended.
    pub fn finish(mut self, mut transfer: Transfer) {
        match self.gate.given_up(self.id) {
            _ if transfer.is_proven() => {}
            Some(reason) => transfer.fail(Outcome::TimedOut, reason),
            // We have closed the connection: it was not the client that broke it.
            None if self.is_stopping() && transfer.outcome == Outcome::Cut => {
                transfer.fail(Outcome::Cut, MusterEnd::Stopped.to_string());
            }
            None => {}
        }
        if self.is_released() {
            let fills_control = self.send_session().fills_control();
            transfer.evidence = transfer.evidence.or(self.evidence(fills_control));
            let known = self.gate.lock().seats.get(&self.id).map(|seat| seat.samples.clone());
            transfer.samples = known.unwrap_or_default();
        }
        if transfer.reason.is_none() && self.is_released() {
            transfer.reason = self.release().disturbed();
        }
        self.row = Some(transfer);
    }

    fn set_row(&mut self, outcome: Outcome, reason: impl Into<String>) {
        let mut transfer = self.transfer();
        transfer.fail(outcome, reason);
        self.row = Some(transfer);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.row.is_none() {
            if self.is_released() {
                self.set_row(Outcome::Cut, "internal error in the server's thread");
            } else {
                self.set_row(Outcome::Refused, "left before the release");
            }
        }
        let mut end = None;
        if let Some(row) = self.row.take() {
            end = self.is_released().then(|| SeatEnd::of(&row));
            let (log, session) = (&self.gate.log, self.gate.session.id);
            // While seats fill, any number of clients can come and leave.
            if self.is_released() || !self.gate.is_mustering() {
                log.finish(session, row);
            } else {
                log.leave(session, row);
            }
        }
        self.gate.leave(self.id, end);
    }
}
