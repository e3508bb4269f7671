//! The thread that sends all datagrams of one session.
//!
//! The seats' threads only listen to their clients and pass on what they say; this one thread
//! feeds the machines, takes turns among the clients, keeps the session's rate and counts. It
//! begins when all released seats have come, so that nobody gains by being first, and ends when
//! the last has left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender as Tell};

use crate::net::clock;
use crate::net::pacing::{BURST, Pacer};
use crate::proto::udp::control::Report;
use crate::proto::udp::group_sender::{GroupSender, Straggler};
use crate::proto::udp::rate_controller::RateController;
use crate::proto::udp::sender::{BlockSender, Fault};
use crate::server::catalog::Source;
use crate::server::transport::TransferFailure;
use crate::session::{SeatId, Via};
use crate::transfer::Outcome;
use crate::transport::udp::seat_counters::SeatCounters;
use crate::transport::udp::socket::{SEGMENTS_MAX, SendSocket};
use crate::units::{Moment, Rate};

/// What a seat's thread tells.
#[derive(Debug)]
pub enum SendCommand {
    /// The seat has gone through the gate and its client listens.
    Join(Destination),
    /// The seat has gone through the gate and its client cannot be sent to.
    Absent,
    /// What the client said.
    Report(SeatId, Report),
    /// The client is done or gone; answered by closing the channel when nothing more is sent.
    Leave(SeatId, Tell<()>),
}

/// A client that is to be sent to.
#[derive(Debug)]
pub struct Destination {
    /// Its seat.
    pub seat: SeatId,
    /// Where it listens.
    pub to: SocketAddr,
    /// The blocks that it lacks.
    pub blocks: Range<u32>,
    /// Most datagrams under way to it.
    pub window: u32,
    /// What is counted for it.
    pub counters: Arc<SeatCounters>,
    /// How many seats were released together.
    pub admitted: usize,
}

/// What one session's datagrams are made of.
#[derive(Debug)]
pub struct StreamSpec {
    /// The way.
    pub via: Via,
    /// The stream's number.
    pub stream: u32,
    /// The file.
    pub source: Arc<Source>,
    /// Bytes of a full datagram of data.
    pub datagram: usize,
    /// Bytes of a block.
    pub block_len: usize,
    /// How many blocks the file has.
    pub blocks: u32,
    /// The rate of the session, where it has one.
    pub rate: Option<Rate>,
    /// Where it sends from.
    pub socket: SendSocket,
    /// The group, where there is one.
    pub group: Option<SocketAddr>,
}

/// How long those that have come wait for the others of the release.
const ASSEMBLE: Duration = Duration::from_millis(500);

/// How long the thread stays when nobody is there any more and somebody is owed.
const LINGER: Duration = Duration::from_secs(5);

/// Words heard between two bursts at most.
const COMMANDS_AT_ONCE: usize = 256;

pub(super) struct SendLoop {
    pub(super) spec: StreamSpec,
    /// The group, where there is one.
    group: Option<Box<GroupSender>>,
    /// Those who are sent to by themselves.
    senders: BTreeMap<SeatId, BlockSender>,
    pub(super) rate_controller: Option<RateController>,
    /// What the watch has set.
    rate: Option<Rate>,
    pub(super) seats: BTreeMap<SeatId, Destination>,
    arrived: usize,
    admitted: usize,
    pub(super) pacer: Option<Pacer>,
    burst: usize,
    pub(super) cache: Vec<(u32, Vec<u8>)>,
    pub(super) checked_at: Moment,
    pub(super) buffer: Vec<u8>,
    turn: SeatId,
}

/// Sends until every seat has left.
pub fn run(job: StreamSpec, words: &Receiver<SendCommand>) {
    let now = clock::now();
    // Raw has no reports to find a rate by, and must not.
    let probed = job.rate.is_none() && job.via != Via::Raw;
    let watch = probed.then(|| RateController::new(job.datagram as u64, now));
    let burst = burst(job.rate, job.datagram);
    let pump = SendLoop {
        group: job
            .group
            .map(|_| Box::new(GroupSender::new(job.blocks, now))),
        senders: BTreeMap::new(),
        rate_controller: watch,
        rate: None,
        seats: BTreeMap::new(),
        arrived: 0,
        admitted: usize::MAX,
        pacer: None,
        burst,
        cache: Vec::new(),
        checked_at: now,
        buffer: Vec::with_capacity((job.datagram + 64) * SEGMENTS_MAX),
        turn: SeatId(0),
        spec: job,
    };
    pump.run(words);
}

/// How far the schedule may lag: what is caught up goes out at once, and raw has no window that keeps
/// it within the smallest buffer. Half of that is left for what was there before.
fn catch_up(via: Via, rate: Rate, datagram: usize, windows: impl Iterator<Item = u32>) -> Duration {
    match windows.min() {
        Some(window) if via == Via::Raw => {
            BURST.min(rate.time_for(u64::from(window / 2) * datagram as u64))
        }
        _ => BURST,
    }
}

/// Datagrams sent at once: a millisecond of the rate.
fn burst(rate: Option<Rate>, datagram: usize) -> usize {
    let Some(rate) = rate else {
        return SEGMENTS_MAX;
    };
    let stretch = Pacer::new(rate).stretch() / datagram as u64;
    usize::try_from(stretch)
        .unwrap_or(usize::MAX)
        .clamp(1, SEGMENTS_MAX)
}

impl SendLoop {
    fn run(mut self, words: &Receiver<SendCommand>) {
        let mut patience = Moment(u64::MAX);
        while self.arrived < self.admitted && clock::left(patience).is_some() {
            let left = clock::left(patience).unwrap_or_default();
            match words.recv_timeout(left.min(LINGER)) {
                Ok(word) => self.handle_command(word),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.arrived > 0 && patience.0 == u64::MAX {
                patience = clock::now().after(ASSEMBLE);
            }
        }
        // Not before: a schedule that nobody keeps lags.
        self.pacer = self.spec.rate.map(|rate| {
            let windows = self.seats.values().map(|joined| joined.window);
            let burst = catch_up(self.spec.via, rate, self.spec.datagram, windows);
            Pacer::with_burst(rate, burst)
        });
        loop {
            // Not all that there are: who talks without end must not keep us from sending.
            for word in words.try_iter().take(COMMANDS_AT_ONCE) {
                self.handle_command(word);
            }
            self.remove_group_faults();
            self.adjust_rate();
            if self.send_burst() {
                continue;
            }
            let over = self.seats.is_empty();
            if over && self.arrived >= self.admitted {
                return;
            }
            let until = match over {
                true => clock::now().after(LINGER),
                false => self.timeout(),
            };
            let left = clock::left(until).unwrap_or(Duration::from_micros(100));
            match words.recv_timeout(left) {
                Ok(word) => self.handle_command(word),
                Err(RecvTimeoutError::Timeout) if over => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn handle_command(&mut self, word: SendCommand) {
        let now = clock::now();
        match word {
            SendCommand::Absent => self.arrived += 1,
            SendCommand::Join(joined) => {
                self.arrived += 1;
                self.mark_unknown_refusals(&joined);
                self.admitted = joined.admitted;
                match &mut self.group {
                    Some(cast) => cast.join(joined.seat.0, joined.window, now),
                    None => {
                        let blocks = joined.blocks.clone();
                        let sender = match self.spec.via {
                            Via::Raw => BlockSender::raw(blocks, now),
                            _ => BlockSender::reliable(blocks, joined.window, now),
                        };
                        self.senders.insert(joined.seat, sender);
                    }
                }
                self.seats.insert(joined.seat, joined);
            }
            SendCommand::Report(seat, report) => {
                if let Some(sender) = self.senders.get_mut(&seat) {
                    if let Err(fault) = sender.handle_report(&report, now) {
                        return self.remove_faulty(seat, fault);
                    }
                } else if let Some(cast) = &mut self.group {
                    cast.handle_report(seat.0, &report, now);
                }
                if let Some(watch) = &mut self.rate_controller {
                    watch.handle_report(seat, &report, now);
                }
            }
            SendCommand::Leave(seat, answer) => {
                self.remove_seat(seat);
                drop(answer);
            }
        }
    }

    /// Says in what is counted for a client what cannot be counted here.
    fn mark_unknown_refusals(&self, joined: &Destination) {
        if !self.spec.socket.tells_refused() {
            joined
                .counters
                .refusals_unknown
                .store(true, Ordering::Relaxed);
        }
    }

    fn remove_seat(&mut self, seat: SeatId) {
        self.seats.remove(&seat);
        self.senders.remove(&seat);
        if let Some(cast) = &mut self.group {
            cast.leave(seat.0);
        }
    }

    fn remove_faulty(&mut self, seat: SeatId, fault: Fault) {
        let outcome = match fault {
            Fault::Silent | Fault::Stuck => Outcome::TimedOut,
            Fault::Impossible | Fault::Greedy => Outcome::Cut,
        };
        self.remove_failed(seat, &TransferFailure::new(outcome, fault.reason()));
    }

    fn remove_failed(&mut self, seat: SeatId, failure: &TransferFailure) {
        if let Some(joined) = self.seats.get(&seat) {
            // The first reason stands.
            let _ = joined.counters.failure.set(failure.clone());
        }
        self.remove_seat(seat);
    }

    fn remove_group_faults(&mut self) {
        while let Some((seat, fault)) = self.group.as_mut().and_then(|cast| cast.poll_fault()) {
            self.remove_faulty(SeatId(seat), fault);
        }
    }

    /// Lets what was delivered set the rate, where nobody gave one.
    fn adjust_rate(&mut self) {
        let now = clock::now();
        let Some(watch) = &mut self.rate_controller else {
            return;
        };
        let group = self.group.as_ref().map(|cast| cast.numbered());
        let senders = &self.senders;
        let numbered = |seat| match senders.get(&seat) {
            Some(sender) => Some(sender.numbered()),
            None => group,
        };
        if !watch.update(group.is_some(), now, numbered) {
            return;
        }
        let rate = watch.rate();
        self.rate = rate;
        match (rate, &self.pacer) {
            (Some(rate), Some(pacer)) => pacer.set_rate(rate),
            (rate, _) => self.pacer = rate.map(Pacer::new),
        }
        self.burst = burst(rate, self.spec.datagram);
    }

    fn timeout(&self) -> Moment {
        let far = clock::now().after(Duration::from_millis(100));
        let each = self.senders.values().map(BlockSender::poll_timeout);
        let group = self.group.iter().filter(|cast| !cast.is_over());
        each.chain(group.map(|cast| cast.poll_timeout()))
            .fold(far, Moment::min)
    }

    /// Sends one burst to the group or to one client; false when there is nothing to send.
    fn send_burst(&mut self) -> bool {
        let now = clock::now();
        let mut transmits = Vec::with_capacity(self.burst);
        let mut to = None;
        if let Some(cast) = &mut self.group {
            transmits.extend(std::iter::from_fn(|| cast.poll_transmit(now)).take(self.burst));
            while let Some(aside) = cast.poll_straggler() {
                let seat = SeatId(aside.client);
                log::info!("seat {seat}: the group is done, repaired by itself");
                let window = self.seats.get(&seat).map_or(1, |joined| joined.window);
                let Straggler { pkt, missing, .. } = aside;
                let sender = BlockSender::repairing(self.spec.blocks, &missing, pkt, window, now);
                self.senders.insert(seat, sender);
            }
        }
        if transmits.is_empty() {
            let order: Vec<SeatId> = self
                .senders
                .range(self.turn..)
                .chain(self.senders.range(..self.turn))
                .map(|(&seat, _)| seat)
                .collect();
            for seat in order {
                let sender = self.senders.get_mut(&seat).expect("listed");
                while transmits.len() < self.burst {
                    match sender.poll_transmit(now) {
                        Ok(Some(transmit)) => transmits.push(transmit),
                        Ok(None) => break,
                        Err(fault) => {
                            self.remove_faulty(seat, fault);
                            return true;
                        }
                    }
                }
                if !transmits.is_empty() {
                    self.turn = SeatId(seat.0.wrapping_add(1));
                    to = Some(seat);
                    break;
                }
            }
        }
        if transmits.is_empty() {
            return false;
        }
        if let Err(failure) = self.send(to, &transmits) {
            let seats: Vec<SeatId> = self.seats.keys().copied().collect();
            seats
                .into_iter()
                .for_each(|seat| self.remove_failed(seat, &failure));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::udp::control::window;

    #[test]
    fn what_raw_catches_up_at_once_fits_the_smallest_buffer() {
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
