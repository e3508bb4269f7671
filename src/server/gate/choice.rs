//! How a session that asked for the fastest way gets one: by a measurement of its ready seats.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    error::Result,
    net::{
        clock, lock,
        primitives::{Mutex, MutexGuard, TcpStream},
    },
    server::{
        gate::{
            Gate,
            measure::Measurement,
            pending::{ClientKind, MusterEnd, PendingClient},
            state::{AutoSetup, GateState, SeatCall, SeatPhase},
        },
        transport::{SendPlan, Transport},
    },
    session::{SeatId, Via},
    transfer::auto::{self, AUTO_WAYS, AutoChoice, MeasuredSeat},
    units::micros,
};

/// How long the seats may take to get ready for the chosen way before the gate may open without one,
/// where it does not wait for all.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Most addresses of this host from which the train is sent.
const OUTLETS_MAX: usize = 8;

impl AutoSetup {
    /// What a session may choose from; a way that cannot be prepared is not among it.
    pub fn new(transports: &[Box<dyn Transport>], plan: &SendPlan) -> Self {
        let is_other = |via: Via| AUTO_WAYS.contains(&via) && via != Via::Tcp;
        let others = || transports.iter().filter(|transport| is_other(transport.via()));
        let prepared = others().filter_map(|transport| {
            let session = transport.prepare(plan);
            let failed = |error: &_| log::warn!("not via {}: {error}", transport.via());
            Some((transport.via(), session.inspect_err(failed).ok()?))
        });
        Self {
            ways: Mutex::new(prepared.collect()),
            group: others().find_map(|transport| transport.group_route()),
            rate: plan.rate,
        }
    }
}

impl PendingClient {
    /// Whether its session may be measured though nobody asked for it.
    pub fn may_be_measured(&self) -> bool {
        self.kind == ClientKind::Native && !self.is_local()
    }

    /// Whether it is on this machine, as far as its address says.
    fn is_local(&self) -> bool {
        let here = self.stream.local_addr();
        here.is_ok_and(|here| here.ip().to_canonical() == self.peer.ip().to_canonical())
    }
}

impl Gate {
    /// Whether the way is still to be chosen.
    pub(in crate::server) fn is_undecided(&self) -> bool {
        self.auto.is_some() && self.session.chosen.get().is_none()
    }

    /// Whether the seats were asked what they hear.
    pub(super) fn has_measured(&self) -> bool {
        self.auto.is_some() && !self.is_undecided()
    }

    /// Chooses the way for the ready seats, and has each offered it.
    pub(super) fn choose<'a>(
        &'a self,
        mut state: MutexGuard<'a, GateState>,
        setup: &AutoSetup,
    ) -> MutexGuard<'a, GateState> {
        let bytes = self.session.source.info.bytes;
        let until = clock::now().after(SETTLE_LIMIT);
        state.is_expired |= clock::now() >= state.deadline;
        state.deadline = state.deadline.max(until);
        state.settle_until = until;
        let (seats, from) = state.to_measure();
        let known = auto::without_measuring(bytes, seats.iter().map(|(&id, seat)| (id, seat)));
        let (via, choice) = match known {
            Some(known) => known,
            None => {
                let measurement = Arc::new(Measurement::new(seats, setup.group));
                state.call(|| SeatCall::Measure(Arc::clone(&measurement)), |_| Ok(()));
                drop(state);
                self.decided.notify_all();
                let found = measurement.run(bytes, setup.rate, &from);
                state = self.lock();
                let seats = found.seats.iter().map(|(&id, seat)| (id, seat));
                let (via, mut choice) = auto::choose(bytes, setup.rate, &found.sent, seats);
                choice.figures.measured_us = Some(micros(found.took));
                (via, choice)
            }
        };
        self.settle(&mut state, setup, via, choice);
        self.decided.notify_all();
        state
    }

    fn settle(&self, state: &mut GateState, setup: &AutoSetup, via: Via, choice: AutoChoice) {
        // Those that were not chosen end here.
        let ways = std::mem::take(&mut *lock(&setup.ways));
        let session = ways.into_iter().find(|(other, _)| *other == via);
        let via = session.as_ref().map_or(Via::Tcp, |(via, _)| *via);
        log::info!("session {}: {via} was chosen: {choice:?}", self.session.id);
        let _ = self.session.chosen.set(via);
        self.log.choose(self.session.id, via, choice);
        let Some((_, session)) = session else { return };
        let prepare = |seat: &TcpStream| session.prepare_connection(seat);
        state.call(|| SeatCall::Offer, prepare);
        let _ = self.chosen_session.set(session);
    }
}

impl GateState {
    /// The ready seats, and the addresses of this host by which their clients came.
    fn to_measure(&self) -> (BTreeMap<SeatId, MeasuredSeat>, Vec<IpAddr>) {
        let mut from = BTreeSet::new();
        let is_ready = |phase: &SeatPhase| matches!(phase, SeatPhase::Ready);
        let ready = self.seats.iter().filter(|(_, seat)| is_ready(&seat.phase));
        let seats = ready.map(|(&id, seat)| {
            let here =
                seat.client.stream.local_addr().map(|addr: SocketAddr| addr.ip().to_canonical());
            from.extend(here.as_ref().ok().filter(|ip| ip.is_ipv4()));
            let measured = MeasuredSeat {
                name: seat.client.name.clone(),
                ways: seat.client.ways.clone(),
                is_local: seat.client.is_local(),
                ..MeasuredSeat::default()
            };
            (id, measured)
        });
        let seats = seats.collect();
        (seats, from.into_iter().take(OUTLETS_MAX).collect())
    }

    /// Calls the threads of the ready seats, and of those that were called already; a client that is
    /// not ready is sent away, as what it was offered may not be what it gets.
    fn call(&mut self, call: impl Fn() -> SeatCall, prepare: impl Fn(&TcpStream) -> Result<()>) {
        for seat in self.seats.values_mut() {
            match seat.phase {
                SeatPhase::Ready | SeatPhase::Settling => match prepare(&seat.client.stream) {
                    Ok(()) => (seat.phase, seat.call) = (SeatPhase::Settling, Some(call())),
                    Err(error) => {
                        seat.phase = SeatPhase::Evicted(MusterEnd::NotEnough(error.to_string()));
                    }
                },
                SeatPhase::Preparing => {
                    let late = "the way was chosen before this client was ready";
                    seat.send_away(MusterEnd::NotEnough(late.to_owned()));
                }
                SeatPhase::Evicted(_) | SeatPhase::Released | SeatPhase::Finished(_) => {}
            }
        }
    }

    /// Whether a seat measures, or gets ready for the chosen way.
    pub(super) fn is_settling(&self) -> bool {
        clock::now() < self.settle_until
            && self.seats.values().any(|seat| matches!(seat.phase, SeatPhase::Settling))
    }
}
