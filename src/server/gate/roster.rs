//! Seats that have a name: each client of a roster has its own, and whoever is missing is known.

use std::{sync::PoisonError, time::Duration};

use crate::{
    net::primitives::MutexGuard,
    proto::{hosts::HostEntry, native::REASON_MAX},
    server::gate::{
        Gate,
        pending::{MusterEnd, PendingClient},
        state::{GatePhase, GateState, SeatPhase, TakenSeat},
    },
    session::SeatId,
    text::some_of,
    transfer::{ABSENT, Outcome, Transfer},
};

/// How long a seat that is taken is waited for: until its connection has been looked at, as its client
/// may have been started anew.
const LEAVE_WAIT: Duration = Duration::from_millis(500);

/// Bytes of names in the reason of a muster that ends; what stands around them fits beside.
const NAMES_ROOM: usize = REASON_MAX - 100;

impl Gate {
    /// The seat of a client that the roster has; `None` where there is no roster.
    pub(super) fn own_seat(&self, client: &PendingClient) -> Option<SeatId> {
        // The lobby has let nobody through who is not on it.
        self.session.roster.as_ref()?.seat_of(&client.name, client.peer.ip()).ok()
    }

    /// Waits for a moment until the seat `id` is free. False where another client keeps it, or the
    /// muster is over.
    pub(super) fn wait_for_own_seat<'a>(
        &'a self,
        state: MutexGuard<'a, GateState>,
        id: SeatId,
    ) -> (MutexGuard<'a, GateState>, bool) {
        let is_taken = |state: &mut GateState| state.seats.contains_key(&id);
        let waited = self.changed.wait_timeout_while(state, LEAVE_WAIT, is_taken);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let is_open = matches!(state.phase, GatePhase::Mustering);
        let is_free = is_open && !state.seats.contains_key(&id);
        (state, is_free)
    }

    /// Those of the roster who have no seat for which `is_there` holds.
    pub(super) fn missing<'a>(
        &'a self,
        state: &'a GateState,
        is_there: fn(&TakenSeat) -> bool,
    ) -> impl Iterator<Item = (SeatId, &'a HostEntry)> {
        let seats = self.session.roster.iter().flat_map(|roster| roster.seats());
        seats.filter(move |(id, _)| !state.seats.get(id).is_some_and(is_there))
    }

    /// Who is not ready, as the end of a sentence; empty without a roster.
    pub(super) fn named_missing(&self, state: &GateState) -> String {
        let missing = self.missing(state, |seat| matches!(seat.phase, SeatPhase::Ready));
        match &*some_of(missing.map(|(_, host)| host.name.as_str()), NAMES_ROOM) {
            "" => String::new(),
            names => format!("; missing: {names}"),
        }
    }

    /// The rows of those who have no seat when the muster is over; `end` is why there is no release.
    pub(super) fn absent(&self, end: Option<&MusterEnd>) -> Vec<Transfer> {
        let outcome = end.map_or(Outcome::TimedOut, MusterEnd::outcome);
        let reason = end.map_or_else(|| ABSENT.to_owned(), MusterEnd::to_string);
        let row = |(id, host): (SeatId, &HostEntry)| {
            let mut row = Transfer::new(id, host.name.as_str(), outcome);
            row.reason = Some(reason.clone());
            row
        };
        self.missing(&self.lock(), |_| true).map(row).collect()
    }
}
