//! The thread that sends all datagrams of one session.
//!
//! The seats' threads only read their clients' lines and pass them on as [`SendCommand`]s. This one
//! thread feeds the senders, takes turns among the clients, keeps the session's rate and counts. It
//! begins when all released seats have come, so that no client gains by being first, and ends when
//! the last has left.

use std::{
    collections::BTreeMap,
    iter,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::{
    net::{
        self, clock,
        link_queue::LinkQueue,
        pacing::{BURST, Pacer},
    },
    proto::udp::{
        Transmit, blocks::BlockLayout, control::Report, group_sender::GroupSender, liveness::Fault,
        rate_controller::RateController, sender::BlockSender,
    },
    server::{catalog::Source, transport::TransferFailure},
    session::{SeatId, Via},
    transfer::{Evidence, Outcome},
    transport::udp::{
        block_cache::BlockCache,
        seat_counters::SeatCounters,
        socket::{SEGMENTS_MAX, SendSocket},
    },
    units::{Moment, Rate, micros},
};

/// What a seat's thread passes on.
#[derive(Debug)]
pub enum SendCommand {
    /// The seat was released and its client has a port to send to.
    Join(Destination),
    /// The seat was released and its client cannot be sent to.
    Absent,
    /// The client sent a report.
    Report(SeatId, Report),
    /// The client is done or gone. The channel is closed once nothing more is sent to it.
    Leave(SeatId, Sender<()>),
}

/// A client that is to be sent to.
#[derive(Debug)]
pub struct Destination {
    /// Its seat.
    pub seat: SeatId,
    /// Its address.
    pub to: SocketAddr,
    /// Which of the sockets sends to it.
    pub outlet: usize,
    /// The blocks that it lacks.
    pub blocks: Range<u32>,
    /// Most datagrams under way to it.
    pub window: u32,
    /// What is counted for it.
    pub counters: Arc<SeatCounters>,
    /// How many seats were released together.
    pub admitted: usize,
}

/// What one session's datagrams are made of, and where they go.
#[derive(Debug)]
pub struct StreamSpec {
    /// The transport.
    pub via: Via,
    /// The stream's number.
    pub stream: u32,
    /// The file.
    pub source: Arc<Source>,
    /// How the file is cut into blocks.
    pub layout: BlockLayout,
    /// Bytes of a full datagram.
    pub datagram: usize,
    /// The rate of the session, where it has one.
    pub rate: Option<Rate>,
    /// The sockets that send, one for each interface that a group's clients came by.
    pub sockets: Vec<SendSocket>,
    /// The group, where there is one.
    pub group: Option<SocketAddr>,
}

/// How long the first seats wait for the others of the release.
const ASSEMBLE: Duration = Duration::from_millis(500);

/// How long the thread waits for admitted seats that have not come, while it has no other.
const LINGER: Duration = Duration::from_secs(5);

/// Most commands handled between two bursts.
const COMMANDS_AT_ONCE: usize = 256;

pub(super) struct SendLoop {
    pub(super) spec: StreamSpec,
    pub(super) blocks: BlockCache,
    /// The sender to the group, where there is one.
    group: Option<Box<GroupSender>>,
    /// The senders to single clients.
    senders: BTreeMap<SeatId, BlockSender>,
    pub(super) seats: BTreeMap<SeatId, Destination>,
    /// How many of the admitted seats have come.
    arrived: usize,
    admitted: usize,
    pub(super) rate_controller: Option<RateController>,
    pub(super) pacer: Option<Pacer>,
    /// The pacer held it back for so long.
    pub(super) paced: Duration,
    link: LinkQueue,
    /// Most datagrams sent at once.
    burst: usize,
    pub(super) buffer: Vec<u8>,
    /// The seat whose turn is next.
    turn: SeatId,
}

/// Sends until every seat has left.
pub fn run(spec: StreamSpec, commands: &Receiver<SendCommand>) {
    let now = clock::now();
    // Raw is not repaired, so its rate must not follow what arrives.
    let automatic = spec.rate.is_none() && spec.via != Via::Raw;
    let group = spec.group.map(|_| Box::new(GroupSender::new(spec.layout.count(), now)));
    let send_loop = SendLoop {
        blocks: BlockCache::new(Arc::clone(&spec.source), spec.layout, now),
        group,
        senders: BTreeMap::new(),
        seats: BTreeMap::new(),
        arrived: 0,
        admitted: usize::MAX,
        rate_controller: automatic.then(|| RateController::new(spec.datagram as u64, now)),
        pacer: None,
        paced: Duration::ZERO,
        link: LinkQueue::default(),
        burst: burst(spec.rate, spec.datagram),
        buffer: Vec::with_capacity((spec.datagram + 64) * SEGMENTS_MAX),
        turn: SeatId(0),
        spec,
    };
    send_loop.run(commands);
}

/// How far the schedule may lag. What is caught up is sent at once, and raw has no window that
/// keeps it within the smallest buffer: it gets half of that buffer, for what was there before.
fn catch_up(via: Via, rate: Rate, datagram: usize, windows: impl Iterator<Item = u32>) -> Duration {
    match windows.min() {
        Some(window) if via == Via::Raw => {
            BURST.min(rate.time_for(u64::from(window / 2) * datagram as u64))
        }
        _ => BURST,
    }
}

/// Datagrams sent at once: a millisecond of the rate. Without one two calls' worth, as a client that
/// finds more is woken less often.
fn burst(rate: Option<Rate>, datagram: usize) -> usize {
    let Some(rate) = rate else {
        return 2 * SEGMENTS_MAX;
    };
    let stretch = Pacer::new(rate).stretch() / datagram as u64;
    usize::try_from(stretch).unwrap_or(usize::MAX).clamp(1, SEGMENTS_MAX)
}

/// Most datagrams of a client's turn, after the `sent` that it got: for its first ones no client
/// waits for longer than one call of each other.
fn turn(burst: usize, sent: u32) -> usize {
    if sent == 0 { burst.min(SEGMENTS_MAX) } else { burst }
}

impl SendLoop {
    fn run(mut self, commands: &Receiver<SendCommand>) {
        if !self.assemble(commands) {
            return;
        }
        // Made now and not before: a schedule lags while nothing is sent.
        self.pacer = self.spec.rate.map(|rate| {
            let windows = self.seats.values().map(|destination| destination.window);
            let burst = catch_up(self.spec.via, rate, self.spec.datagram, windows);
            Pacer::with_burst(rate, burst)
        });
        if self.group.is_some() {
            // Whenever it waits for a CPU, all clients wait.
            net::raise_priority();
        }
        loop {
            // Not all of them: a client that reports without end must not stop the sending.
            for command in commands.try_iter().take(COMMANDS_AT_ONCE) {
                self.handle_command(command);
            }
            self.remove_group_faults();
            self.adjust_rate();
            let queued = || self.spec.sockets.iter().filter_map(SendSocket::queued).max();
            self.link.update(clock::now(), queued);
            if self.send_burst() {
                continue;
            }
            let over = self.seats.is_empty();
            if over && self.arrived >= self.admitted {
                return;
            }
            let left = if over {
                LINGER
            } else {
                clock::left(self.poll_timeout()).unwrap_or(Duration::from_micros(100))
            };
            match commands.recv_timeout(left) {
                Ok(command) => self.handle_command(command),
                Err(RecvTimeoutError::Timeout) if !over => {}
                Err(_) => return,
            }
        }
    }

    /// Waits for the seats of the release; false when all their threads are gone.
    fn assemble(&mut self, commands: &Receiver<SendCommand>) -> bool {
        let mut deadline = Moment(u64::MAX);
        while self.arrived < self.admitted
            && let Some(left) = clock::left(deadline)
        {
            match commands.recv_timeout(left.min(LINGER)) {
                Ok(command) => self.handle_command(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            if self.arrived > 0 && deadline.0 == u64::MAX {
                deadline = clock::now().after(ASSEMBLE);
            }
        }
        true
    }

    fn handle_command(&mut self, command: SendCommand) {
        let now = clock::now();
        match command {
            SendCommand::Absent => self.arrived += 1,
            SendCommand::Join(destination) => self.join(destination, now),
            SendCommand::Report(seat, report) => {
                let numbered = if let Some(sender) = self.senders.get_mut(&seat) {
                    if let Err(fault) = sender.handle_report(&report, now) {
                        return self.remove_faulty(seat, fault);
                    }
                    sender.pkt
                } else if let Some(group) = &mut self.group {
                    group.handle_report(seat.0, &report, now);
                    group.pkt
                } else {
                    return;
                };
                if let Some(rate_controller) = &mut self.rate_controller {
                    rate_controller.handle_report(seat, &report, numbered, now);
                }
            }
            SendCommand::Leave(seat, answer) => {
                self.remove_seat(seat);
                drop(answer);
            }
        }
    }

    fn join(&mut self, destination: Destination, now: Moment) {
        self.arrived += 1;
        self.admitted = destination.admitted;
        if !self.spec.sockets.iter().all(|socket| socket.reports_refusals) {
            let counters = &destination.counters;
            counters.refusals_unknown.store(true, Ordering::Relaxed);
        }
        let (seat, window) = (destination.seat, destination.window);
        if let Some(group) = &mut self.group {
            group.join(seat.0, window, now);
        } else {
            let blocks = destination.blocks.clone();
            let sender = match self.spec.via {
                Via::Raw => BlockSender::raw(blocks, now),
                _ => BlockSender::reliable(blocks, window, now),
            };
            self.senders.insert(seat, sender);
        }
        self.seats.insert(seat, destination);
    }

    fn remove_seat(&mut self, seat: SeatId) {
        let alone = self.senders.remove(&seat).map(|sender| sender.full);
        if let Some(destination) = self.seats.remove(&seat) {
            let group = self.group.as_deref();
            let full = alone.or_else(|| group?.full(seat.0));
            let paced = self.spec.rate.filter(|_| self.spec.via != Via::Raw);
            let passed = group.and_then(|group| group.passed_at);
            let cuts = self.rate_controller.as_ref().filter(|_| group.is_some());
            // What was said first stands.
            let _ = destination.counters.evidence.set(Evidence {
                paced_us: paced.map(|_| micros(self.paced)),
                server_link_us: self.link.full_us(),
                buffer_full_us: full.map(micros),
                repair_us: passed.map(|passed| micros(clock::now().since(passed))),
                rate_cuts: cuts.and_then(|controller| controller.cuts(seat)),
                ..Evidence::default()
            });
        }
        if let Some(group) = &mut self.group {
            group.leave(seat.0);
        }
    }

    fn remove_faulty(&mut self, seat: SeatId, fault: Fault) {
        let outcome = match fault {
            Fault::Silent | Fault::Stuck | Fault::Unreached => Outcome::TimedOut,
            Fault::Impossible | Fault::Greedy => Outcome::Cut,
        };
        self.remove_failed(seat, TransferFailure::new(outcome, fault.reason()));
    }

    fn remove_failed(&mut self, seat: SeatId, failure: TransferFailure) {
        if let Some(destination) = self.seats.get(&seat) {
            // The first reason stands.
            let _ = destination.counters.failure.set(failure);
        }
        self.remove_seat(seat);
    }

    fn remove_group_faults(&mut self) {
        while let Some((seat, fault)) = self.group.as_mut().and_then(|group| group.poll_fault()) {
            self.remove_faulty(SeatId(seat), fault);
        }
    }

    /// Where the session has no rate, lets what was delivered set it.
    fn adjust_rate(&mut self) {
        let Some(rate_controller) = &mut self.rate_controller else {
            return;
        };
        let group = self.group.as_ref().map(|group| group.pkt);
        let senders = &self.senders;
        let numbered = |seat| senders.get(&seat).map(|sender| sender.pkt).or(group);
        if !rate_controller.update(group.is_some(), clock::now(), numbered) {
            return;
        }
        let rate = rate_controller.rate();
        match (rate, &self.pacer) {
            (Some(rate), Some(pacer)) => pacer.set_rate(rate),
            (rate, _) => self.pacer = rate.map(Pacer::new),
        }
        self.burst = burst(rate, self.spec.datagram);
    }

    fn poll_timeout(&self) -> Moment {
        let far = clock::now().after(Duration::from_millis(100));
        let each = self.senders.values().map(BlockSender::poll_timeout);
        let group = self.group.iter().filter(|group| !group.is_over());
        each.chain(group.map(|group| group.poll_timeout())).fold(far, Moment::min)
    }

    /// Sends one burst to the group or to one client; false when there is nothing to send.
    fn send_burst(&mut self) -> bool {
        let now = clock::now();
        let mut transmits = Vec::with_capacity(self.burst);
        self.poll_group(&mut transmits, now);
        let mut to = None;
        if transmits.is_empty() {
            match self.poll_senders(&mut transmits, now) {
                Ok(seat) => to = seat,
                Err((seat, fault)) => {
                    self.remove_faulty(seat, fault);
                    return true;
                }
            }
        }
        if transmits.is_empty() {
            return false;
        }
        if let Err(failure) = self.packetize(to, &transmits) {
            let seats: Vec<SeatId> = self.seats.keys().copied().collect();
            for seat in seats {
                self.remove_failed(seat, failure.clone());
            }
        }
        true
    }

    /// Gets a burst from the group's sender, and gives its stragglers senders of their own.
    fn poll_group(&mut self, transmits: &mut Vec<Transmit>, now: Moment) {
        let Some(group) = &mut self.group else {
            return;
        };
        let most = self.burst.min(SEGMENTS_MAX);
        transmits.extend(iter::from_fn(|| group.poll_transmit(now)).take(most));
        while let Some(straggler) = group.poll_straggler() {
            let seat = SeatId(straggler.client);
            log::info!("seat {seat}: the group is done, this seat is repaired alone");
            let window = self.seats.get(&seat).map_or(1, |to| to.window);
            let blocks = self.spec.layout.count();
            let mut sender =
                BlockSender::repairing(blocks, &straggler.missing, straggler.pkt, window, now);
            sender.full = straggler.full;
            self.senders.insert(seat, sender);
        }
    }

    /// Gets a burst from the next sender that has one; returns its seat.
    fn poll_senders(
        &mut self,
        transmits: &mut Vec<Transmit>,
        now: Moment,
    ) -> Result<Option<SeatId>, (SeatId, Fault)> {
        for wrapped in [false, true] {
            let senders = if wrapped {
                self.senders.range_mut(..self.turn)
            } else {
                self.senders.range_mut(self.turn..)
            };
            for (&seat, sender) in senders {
                let most = turn(self.burst, sender.pkt);
                while transmits.len() < most {
                    match sender.poll_transmit(now) {
                        Ok(Some(transmit)) => transmits.push(transmit),
                        Ok(None) => break,
                        Err(fault) => return Err((seat, fault)),
                    }
                }
                if !transmits.is_empty() {
                    self.turn = SeatId(seat.0.wrapping_add(1));
                    return Ok(Some(seat));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::udp::control::window;

    #[test]
    fn turn_is_two_calls_only_without_a_rate_and_after_the_first() {
        let free = burst(None, 1472);
        assert_eq!([0, 1, 44].map(|sent| turn(free, sent)), [44, 88, 88]);
        let paced = burst(Some(Rate(100_000_000)), 1472);
        assert!(paced < SEGMENTS_MAX, "{paced}");
        assert_eq!([0, 1].map(|sent| turn(paced, sent)), [paced; 2]);
        assert_eq!(burst(Some(Rate(100_000_000_000)), 1472), SEGMENTS_MAX);
    }

    #[test]
    fn raw_catch_up_burst_fits_the_smallest_buffer() {
        let rate = Rate(100_000_000);
        let small = window(212_992, 1472);
        let windows = || [16_000, small, 300].into_iter();
        let span = catch_up(Via::Raw, rate, 1472, windows());
        let bytes = rate.0 as f64 / 8.0 * span.as_secs_f64();
        assert!(bytes <= f64::from(small) * 1472.0 / 2.0, "{bytes}");
        assert!(bytes >= f64::from(small - 2) * 1472.0 / 2.0, "{bytes}");
        // Large buffers and low rates keep the usual, and so do ways that have windows.
        let large = catch_up(Via::Raw, rate, 1472, [16_000].into_iter());
        let slow = catch_up(Via::Raw, Rate(1_000_000), 1472, windows());
        let udp = catch_up(Via::Udp, rate, 1472, windows());
        assert_eq!([large, slow, udp], [BURST; 3]);
    }
}
