//! A client that is not ready gives up its seat for one that finds none.
//!
//! A seat is taken by JOIN. So whoever asks for all seats of a muster and never says READY could
//! hold up everybody else, or scatter a group over several musters. Where a muster is full and not
//! ready, others wait for a moment, and a client that has been silent for [`SILENCE`] loses its seat
//! to one of them: of the address whose clients have given up or lost the fewest seats.

use std::{cmp::Reverse, net::SocketAddr, sync::PoisonError, time::Duration};

use crate::{
    net::{clock, primitives::MutexGuard},
    server::gate::{
        Gate, WATCH,
        pending::MusterEnd,
        state::{GatePhase, GateState, SeatPhase, TakenSeat},
    },
    session::SeatId,
    units::Moment,
};

/// How long a client may hold a seat in silence before READY while another one wants it. Our
/// clients are ready within milliseconds, and say each second how far they have hashed.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a client waits for a seat of a full muster: until all were silent for too long and their
/// threads have gone, and once more, as the first time another one may have come before it.
pub(in crate::server) const SEAT_WAIT: Duration = Duration::from_secs(11);

impl Gate {
    /// Waits until a seat of the full muster is free for the client at `peer`, no longer than `until`.
    /// False where there is none to wait for.
    pub(super) fn wait_for_seat<'a>(
        &'a self,
        mut state: MutexGuard<'a, GateState>,
        peer: SocketAddr,
        until: Moment,
    ) -> (MutexGuard<'a, GateState>, bool) {
        let clients = self.session.clients;
        if !state.waiting.wait(peer, clients) {
            return (state, false);
        }
        let is_free = loop {
            let now = clock::now();
            let is_first = state.waiting.first() == Some(peer);
            if is_first && state.free(clients) > 0 {
                break true;
            }
            if now >= until || !state.may_have_room(clients) {
                break false;
            }
            if is_first {
                state.take_silent(clients, now);
            }
            let waited = self.changed.wait_timeout(state, WATCH);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting.go(peer);
        // Another one is first now.
        self.changed.notify_all();
        (state, is_free)
    }

    /// True while a client that is not ready has a seat, and so may lose it.
    pub fn may_have_room(&self) -> bool {
        self.lock().may_have_room(self.session.clients)
    }

    /// The client of this seat has got further on its way to READY.
    pub(super) fn note_progress(&self, id: SeatId) {
        if let Some(seat) = self.lock().seats.get_mut(&id) {
            seat.heard = clock::now();
        }
    }
}

impl GateState {
    /// How many of `clients` seats nobody has; zero once the muster is over.
    pub(super) fn free(&self, clients: u16) -> usize {
        match self.phase {
            GatePhase::Mustering => usize::from(clients).saturating_sub(self.seats.len()),
            GatePhase::Released(_) | GatePhase::Ended(_) => 0,
        }
    }

    /// Whether there is a seat that nobody has and nobody waits for.
    pub(super) fn has_room(&self, clients: u16) -> bool {
        self.free(clients) > self.waiting.len()
    }

    /// Whether a seat is free, or may become free before the release.
    fn may_have_room(&self, clients: u16) -> bool {
        let may_go =
            |seat: &TakenSeat| matches!(seat.phase, SeatPhase::Preparing | SeatPhase::Evicted(_));
        let is_mustering = matches!(self.phase, GatePhase::Mustering);
        is_mustering && (self.free(clients) > 0 || self.seats.values().any(may_go))
    }

    /// Takes a seat from a silent client for everybody who waits: of the address that has lost the
    /// most, the one that was heard the longest ago.
    fn take_silent(&mut self, clients: u16, now: Moment) {
        let is_going = |seat: &&TakenSeat| matches!(seat.phase, SeatPhase::Evicted(_));
        let going = self.seats.values().filter(is_going).count() + self.free(clients);
        let waiting = &self.waiting;
        let rank = |seat: &&mut TakenSeat| (waiting.lost(seat.client.peer), Reverse(seat.heard));
        let mut silent: Vec<_> =
            self.seats.values_mut().filter(|seat| seat.is_silent(now)).collect();
        silent.sort_by_key(|seat| Reverse(rank(seat)));
        for seat in silent.into_iter().take(self.waiting.len().saturating_sub(going)) {
            let reason = format!(
                "another client has this seat: this one was not ready after {} s",
                SILENCE.as_secs()
            );
            seat.send_away(MusterEnd::NotEnough(reason));
        }
    }
}

impl TakenSeat {
    /// Whether its client is not ready and has said nothing for too long.
    fn is_silent(&self, now: Moment) -> bool {
        matches!(self.phase, SeatPhase::Preparing) && now.since(self.heard) >= SILENCE
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        net::{TcpListener, TcpStream},
        sync::Arc,
    };

    use super::*;
    use crate::server::gate::{
        pending::{ClientKind, PendingClient},
        waiting_list::WaitingList,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    /// A full muster; `seats` says of each who has it, when it was heard, and whether it is ready.
    fn full(seats: &[(SocketAddr, Duration, bool)]) -> GateState {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let stream = Arc::new(TcpStream::connect(addr).expect("listening"));
        let seat = |&(peer, heard, is_ready): &(SocketAddr, Duration, bool)| TakenSeat {
            client: PendingClient {
                name: "c".to_owned(),
                kind: ClientKind::Native,
                stream: Arc::clone(&stream),
                peer,
                ways: Vec::new(),
            },
            phase: if is_ready { SeatPhase::Ready } else { SeatPhase::Preparing },
            heard: Moment(0).after(heard),
            moved: Arc::default(),
            resumed: 0,
            call: None,
            samples: Vec::new(),
            given_up: None,
        };
        let seats: BTreeMap<_, _> = (1..).map(SeatId).zip(seats.iter().map(seat)).collect();
        GateState {
            seats,
            phase: GatePhase::Mustering,
            deadline: Moment(0).after(SECOND * 60),
            by_hand: false,
            is_expired: false,
            settle_until: Moment(0),
            visited: true,
            waiting: WaitingList::default(),
        }
    }

    fn lost(state: &GateState) -> Vec<u16> {
        let evicted =
            state.seats.iter().filter(|(_, seat)| matches!(seat.phase, SeatPhase::Evicted(_)));
        evicted.map(|(id, _)| id.0).collect()
    }

    #[test]
    fn silent_client_loses_its_seat_only_to_one_that_waits() {
        let zero = Duration::ZERO;
        let mut state =
            full(&[(peer(1, 1), zero, true), (peer(2, 1), zero, false), (peer(2, 2), zero, false)]);
        state.take_silent(3, Moment(0).after(SECOND * 1000));
        assert_eq!(lost(&state), [0_u16; 0], "nobody wants one");
        assert!(state.waiting.wait(peer(1, 2), 9));
        state.take_silent(3, Moment(0).after(SILENCE - SECOND));
        assert_eq!(lost(&state), [0_u16; 0], "they may still become ready");
        for _ in 0..3 {
            state.take_silent(3, Moment(0).after(SILENCE));
            assert_eq!(lost(&state).len(), 1, "one for one");
        }
        assert!([peer(1, 3), peer(1, 4)].into_iter().all(|peer| state.waiting.wait(peer, 9)));
        state.take_silent(3, Moment(0).after(SILENCE));
        assert_eq!(lost(&state), [2, 3], "never the one that is ready");
    }

    #[test]
    fn address_that_lost_most_loses_the_oldest() {
        let seats = [(1, 0), (2, 2), (2, 1), (2, 3), (3, 0), (3, 0)]
            .map(|(host, heard)| (peer(host, 1), SECOND * heard, false));
        let mut state = full(&seats);
        assert!(state.waiting.wait(peer(4, 1), 9));
        state.waiting.note_lost(peer(3, 9));
        state.waiting.note_lost(peer(2, 8));
        state.waiting.note_lost(peer(2, 9));
        state.take_silent(6, Moment(0).after(SECOND * 100));
        assert_eq!(lost(&state), [3]);
    }

    /// It says how far it has hashed what it has, each second.
    #[test]
    fn client_that_gets_further_keeps_its_seat() {
        let mut state = full(&[(peer(1, 1), SECOND * 96, false), (peer(1, 2), SECOND * 95, false)]);
        assert!([peer(2, 1), peer(2, 2)].into_iter().all(|peer| state.waiting.wait(peer, 9)));
        state.take_silent(2, Moment(0).after(SECOND * 100));
        assert_eq!(lost(&state), [2]);
    }

    #[test]
    fn full_muster_has_hope_while_one_is_not_ready() {
        let zero = Duration::ZERO;
        let one = full(&[(peer(1, 1), zero, true), (peer(2, 1), zero, false)]);
        assert!(one.may_have_room(2));
        let all = full(&[(peer(1, 1), zero, true), (peer(2, 1), zero, true)]);
        assert!(!all.may_have_room(2), "the next session is at once");
    }
}
