//! What a gate knows of its seats: one phase for the gate, one for each seat.

use std::{collections::BTreeMap, net::Shutdown, sync::Arc, time::Duration};

use crate::{
    net::primitives::{Mutex, TcpStream, atomic::AtomicU64},
    server::{
        gate::{
            measure::Measurement,
            pending::{MusterEnd, PendingClient},
            release::Release,
            waiting_list::WaitingList,
        },
        transport::{GroupRoute, SendSession},
    },
    session::{SeatId, Via},
    transfer::{Outcome, Transfer},
    units::{Moment, Rate},
};

/// Everything under the gate's lock.
#[derive(Debug)]
pub(super) struct GateState {
    pub(super) seats: BTreeMap<SeatId, TakenSeat>,
    pub(super) phase: GatePhase,
    pub(super) deadline: Moment,
    /// The user has asked for the release.
    pub(super) by_hand: bool,
    /// The muster's time was over when the way was chosen.
    pub(super) is_expired: bool,
    /// How long the seats that measure are waited for.
    pub(super) settle_until: Moment,
    /// At least one client has had a seat.
    pub(super) visited: bool,
    /// Who waits for a seat of the full muster.
    pub(super) waiting: WaitingList,
}

/// A seat that has a client.
#[derive(Debug)]
pub(super) struct TakenSeat {
    pub(super) client: PendingClient,
    pub(super) phase: SeatPhase,
    /// When its client asked for it, or last got further.
    pub(super) heard: Moment,
    pub(super) moved: Arc<AtomicU64>,
    /// Why the session's thread has closed its connection, if it has.
    pub(super) given_up: Option<String>,
    /// Bytes that the client has of an earlier session.
    pub(super) resumed: u64,
    /// What its thread is to do.
    pub(super) call: Option<SeatCall>,
    /// How far it was when.
    pub(super) samples: Vec<(u64, u64)>,
}

/// What a seat's thread is to do while it waits.
#[derive(Clone, Debug)]
pub enum SeatCall {
    /// Go through the gate; this thread woke so long after the release.
    Released(Duration),
    /// Measure.
    Measure(Arc<Measurement>),
    /// Another way was chosen than the client was offered: offer it that.
    Offer,
}

/// What a session can choose from; it is prepared for TCP besides.
#[derive(Debug)]
pub struct AutoSetup {
    /// The other ways.
    pub ways: Mutex<Vec<(Via, Box<dyn SendSession>)>>,
    /// Where the train to the group goes.
    pub group: Option<GroupRoute>,
    /// What the user allows the session in all.
    pub rate: Option<Rate>,
}

/// Where a gate stands.
#[derive(Debug)]
pub(super) enum GatePhase {
    Mustering,
    Released(Arc<Release>),
    Ended(MusterEnd),
}

/// Where a seat stands.
#[derive(Debug)]
pub(super) enum SeatPhase {
    /// The client has not said READY.
    Preparing,
    /// The client is ready; its thread waits for the release.
    Ready,
    /// The client was ready; its thread measures, or offers it the chosen way.
    Settling,
    /// The client lost the seat before the release; its thread reads why, and leaves.
    Evicted(MusterEnd),
    /// The client is admitted, and its transfer is not over.
    Released,
    /// The transfer is over.
    Finished(SeatEnd),
}

/// How a seat's transfer ended, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// Why; not escaped.
    pub reason: Option<String>,
    /// Whether the copy is proven; `None` where its client cannot prove one.
    pub verified: Option<bool>,
}

impl SeatEnd {
    pub(super) fn of(row: &Transfer) -> Self {
        Self { outcome: row.outcome, reason: row.reason.clone(), verified: row.verified }
    }
}

impl GateState {
    /// How many seats are ready.
    pub(super) fn ready(&self) -> u16 {
        let ready =
            self.seats.values().filter(|seat| matches!(seat.phase, SeatPhase::Ready)).count();
        u16::try_from(ready).expect("seats are numbered by u16")
    }

    /// True when nobody has a seat any more, or waits for one.
    pub(super) fn is_left(&self) -> bool {
        self.visited && self.seats.is_empty() && self.waiting.is_empty()
    }

    /// The connections of the ready seats for which `wanted` holds.
    pub(super) fn ready_streams(
        &self,
        wanted: impl Fn(&PendingClient) -> bool,
    ) -> Vec<(SeatId, Arc<TcpStream>)> {
        self.seats
            .iter()
            .filter(|(_, seat)| matches!(seat.phase, SeatPhase::Ready) && wanted(&seat.client))
            .map(|(&id, seat)| (id, Arc::clone(&seat.client.stream)))
            .collect()
    }

    /// The muster is over without a release; a client that is not ready yet is in a read.
    pub(super) fn end(&mut self, end: MusterEnd) {
        for seat in self.seats.values_mut() {
            if matches!(seat.phase, SeatPhase::Preparing | SeatPhase::Settling) {
                seat.send_away(end.clone());
            }
        }
        self.phase = GatePhase::Ended(end);
    }

    /// Closes the connections of the released clients for which `wanted` holds, so that their
    /// threads end.
    pub(super) fn close_connections(&self, wanted: impl Fn(&PendingClient) -> bool) {
        if !matches!(self.phase, GatePhase::Released(_)) {
            return;
        }
        for seat in self.seats.values().filter(|seat| wanted(&seat.client)) {
            if !matches!(seat.phase, SeatPhase::Finished(_)) {
                // A connection that is gone already needs no closing.
                let _ = seat.client.stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Takes the seat away unless it is another client's by now. True if it did.
    pub(super) fn evict(&mut self, id: SeatId, stream: &Arc<TcpStream>, end: MusterEnd) -> bool {
        match self.seats.get_mut(&id) {
            Some(seat)
                if Arc::ptr_eq(&seat.client.stream, stream)
                    && matches!(seat.phase, SeatPhase::Ready) =>
            {
                seat.phase = SeatPhase::Evicted(end);
                true
            }
            _ => false,
        }
    }

    /// Admits the ready seats, and sends the others away.
    pub(super) fn admit(&mut self) -> Arc<Release> {
        let mut admitted = 0;
        for (id, seat) in &mut self.seats {
            match seat.phase {
                SeatPhase::Ready => {
                    // The watcher reads without waiting; the transfer is blocking again.
                    if let Err(error) = seat.client.stream.set_nonblocking(false) {
                        log::warn!("seat {id}: cannot make the connection blocking: {error}");
                    }
                    seat.phase = SeatPhase::Released;
                    admitted += 1;
                }
                SeatPhase::Preparing | SeatPhase::Settling => {
                    let late = "the gate opened before this client was ready";
                    seat.send_away(MusterEnd::NotEnough(late.to_owned()));
                }
                SeatPhase::Evicted(_) | SeatPhase::Released | SeatPhase::Finished(_) => {}
            }
        }
        let release = Arc::new(Release::new(admitted));
        self.phase = GatePhase::Released(Arc::clone(&release));
        release
    }

    /// Why the client in `id` cannot be released any more; `None` while it can.
    pub(super) fn muster_end(&self, id: SeatId) -> Option<MusterEnd> {
        match (&self.phase, self.seats.get(&id).map(|seat| &seat.phase)) {
            (_, Some(SeatPhase::Evicted(end))) | (GatePhase::Ended(end), _) => Some(end.clone()),
            _ => None,
        }
    }
}

impl TakenSeat {
    /// Ends the wait of a client that is not ready: its thread is in a read, which returns now.
    pub(super) fn send_away(&mut self, end: MusterEnd) {
        self.phase = SeatPhase::Evicted(end);
        // A connection that is gone already needs no closing.
        let _ = self.client.stream.shutdown(Shutdown::Read);
    }
}
