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
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender as Tell;

use crate::proto::udp::Transmit;
use crate::proto::udp::before;
use crate::proto::udp::cast::Aside;
use crate::proto::udp::cast::Cast;
use crate::proto::udp::control::Report;
use crate::proto::udp::packet::Body;
use crate::proto::udp::packet::Packet;
use crate::proto::udp::probe::Probe;
use crate::proto::udp::probe::TOLD_MIN;
use crate::proto::udp::probe::Told;
use crate::proto::udp::receiver::place;
use crate::proto::udp::sender::Fault;
use crate::proto::udp::sender::Sender;
use crate::proto::udp::xor;
use crate::runtime::catalog::Source;
use crate::runtime::clock;
use crate::runtime::copy;
use crate::runtime::pace::Pacer;
use crate::runtime::way::Failure;
use crate::session::SeatId;
use crate::session::Via;
use crate::transfer::Outcome;
use crate::udp::socket::Outlet;
use crate::udp::socket::SEGMENTS_MAX;
use crate::units::Moment;
use crate::units::Rate;

/// What a seat's thread tells.
#[derive(Debug)]
pub enum Word {
    /// The seat has gone through the gate and its client listens.
    Join(Joined),
    /// The seat has gone through the gate and its client cannot be sent to.
    Absent,
    /// Parts of the client's copy are damaged: it says which, in a stream of its own.
    Mend(Joined),
    /// What the client said.
    Report(SeatId, Report),
    /// The client is done or gone; answered by closing the channel when nothing more is sent.
    Leave(SeatId, Tell<()>),
}

/// A client that is to be sent to.
#[derive(Debug)]
pub struct Joined {
    /// Its seat.
    pub seat: SeatId,
    /// Where it listens.
    pub to: SocketAddr,
    /// The number of the stream that it listens for.
    pub stream: u32,
    /// The blocks that it lacks.
    pub blocks: Range<u32>,
    /// Most datagrams under way to it.
    pub window: u32,
    /// What is counted for it.
    pub tally: Arc<Tally>,
    /// How many seats were released together.
    pub admitted: usize,
}

/// What is counted for one seat, read by its thread.
#[derive(Debug, Default)]
pub struct Tally {
    /// Payload bytes.
    pub payload: AtomicU64,
    /// Payload bytes that had been sent before.
    pub again: AtomicU64,
    /// Datagrams.
    pub offered: AtomicU64,
    /// Datagrams that the client has not got, as it said last.
    pub lost: AtomicU64,
    /// Datagrams that this host refused.
    pub refused: AtomicU64,
    /// When the first went out, microseconds; zero before.
    pub first_us: AtomicU64,
    /// Why the client is not sent to any more.
    pub failure: OnceLock<Failure>,
}

/// What one session's datagrams are made of.
#[derive(Debug)]
pub struct Job {
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
    pub outlet: Outlet,
    /// The group, where there is one.
    pub group: Option<SocketAddr>,
}

/// How long those that have come wait for the others of the release.
const ASSEMBLE: Duration = Duration::from_millis(500);

/// How long the thread stays when nobody is there any more and somebody is owed.
const LINGER: Duration = Duration::from_secs(5);

/// Words heard between two bursts at most.
const WORDS_AT_ONCE: usize = 256;

/// How often the source is looked at while parts of it are read again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Blocks read from the file at once, and how many such stretches are kept: clients that move
/// at one pace read each once.
const STRETCH: u32 = 64;
const STRETCHES: usize = 16;

struct Pump {
    job: Job,
    /// The group, where there is one.
    cast: Option<Box<Cast>>,
    /// Those who are sent to by themselves.
    senders: BTreeMap<SeatId, Sender>,
    watch: Option<Watch>,
    seats: BTreeMap<SeatId, Joined>,
    came: usize,
    admitted: usize,
    pacer: Option<Pacer>,
    burst: usize,
    cache: Vec<(u32, Vec<u8>)>,
    looked_at: Moment,
    buffer: Vec<u8>,
    turn: SeatId,
}

/// What clients tell of a session that has no rate of its own.
struct Watch {
    probe: Probe,
    /// What each said last: the datagrams that it knows of, and how many of them it has.
    last: BTreeMap<SeatId, (u32, u32)>,
    told: BTreeMap<SeatId, Told>,
}

/// Sends until every seat has left.
pub fn run(job: Job, words: &Receiver<Word>) {
    let now = clock::now();
    // Raw has no reports to find a rate by, and must not.
    let probed = job.rate.is_none() && job.via != Via::Raw;
    let watch = probed.then(|| Watch {
        probe: Probe::new(now),
        last: BTreeMap::new(),
        told: BTreeMap::new(),
    });
    let burst = burst(job.rate, job.datagram);
    let pump = Pump {
        cast: job.group.map(|_| Box::new(Cast::new(job.blocks, now))),
        senders: BTreeMap::new(),
        watch,
        seats: BTreeMap::new(),
        came: 0,
        admitted: usize::MAX,
        pacer: None,
        burst,
        cache: Vec::new(),
        looked_at: now,
        buffer: Vec::with_capacity((job.datagram + 64) * SEGMENTS_MAX),
        turn: SeatId(0),
        job,
    };
    pump.run(words);
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

impl Pump {
    fn run(mut self, words: &Receiver<Word>) {
        let mut patience = Moment(u64::MAX);
        while self.came < self.admitted && clock::left(patience).is_some() {
            let left = clock::left(patience).unwrap_or_default();
            match words.recv_timeout(left.min(LINGER)) {
                Ok(word) => self.hear(word),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.came > 0 && patience.0 == u64::MAX {
                patience = clock::now().after(ASSEMBLE);
            }
        }
        self.pacer = self.job.rate.map(Pacer::new);
        loop {
            // Not all that there are: who talks without end must not keep us from sending.
            for word in words.try_iter().take(WORDS_AT_ONCE) {
                self.hear(word);
            }
            self.drop_failed();
            self.judge();
            if self.step() {
                continue;
            }
            let over = self.seats.is_empty();
            if over && self.came >= self.admitted {
                return;
            }
            let until = match over {
                true => clock::now().after(LINGER),
                false => self.timeout(),
            };
            let left = clock::left(until).unwrap_or(Duration::from_micros(100));
            match words.recv_timeout(left) {
                Ok(word) => self.hear(word),
                Err(RecvTimeoutError::Timeout) if over => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn hear(&mut self, word: Word) {
        let now = clock::now();
        match word {
            Word::Absent => self.came += 1,
            Word::Join(joined) => {
                self.came += 1;
                self.admitted = joined.admitted;
                match &mut self.cast {
                    Some(cast) => cast.join(joined.seat.0, joined.window, now),
                    None => {
                        let blocks = joined.blocks.clone();
                        let sender = match self.job.via {
                            Via::Raw => Sender::raw(blocks, now),
                            _ => Sender::reliable(blocks, joined.window, now),
                        };
                        self.senders.insert(joined.seat, sender);
                    }
                }
                self.seats.insert(joined.seat, joined);
            }
            Word::Mend(joined) => {
                self.came += 1;
                self.admitted = joined.admitted;
                let sender = Sender::repairing(self.job.blocks, &[], 0, joined.window, now);
                self.senders.insert(joined.seat, sender);
                if let Some(watch) = &mut self.watch {
                    watch.last.remove(&joined.seat);
                }
                self.seats.insert(joined.seat, joined);
            }
            Word::Report(seat, report) => {
                if let Some(sender) = self.senders.get_mut(&seat) {
                    if let Err(fault) = sender.handle_report(&report, now) {
                        return self.fail(seat, fault);
                    }
                } else if let Some(cast) = &mut self.cast {
                    cast.handle_report(seat.0, &report, now);
                }
                if let Some(watch) = &mut self.watch {
                    watch.hear(seat, &report);
                }
            }
            Word::Leave(seat, answer) => {
                self.forget(seat);
                drop(answer);
            }
        }
    }

    fn forget(&mut self, seat: SeatId) {
        self.seats.remove(&seat);
        self.senders.remove(&seat);
        if let Some(cast) = &mut self.cast {
            cast.leave(seat.0);
        }
    }

    fn fail(&mut self, seat: SeatId, fault: Fault) {
        let outcome = match fault {
            Fault::Silent | Fault::Stuck => Outcome::TimedOut,
            Fault::Impossible | Fault::Greedy => Outcome::Cut,
        };
        self.fail_with(seat, &Failure::new(outcome, fault.reason()));
    }

    fn fail_with(&mut self, seat: SeatId, failure: &Failure) {
        if let Some(joined) = self.seats.get(&seat) {
            // The first reason stands.
            let _ = joined.tally.failure.set(failure.clone());
        }
        self.forget(seat);
    }

    fn drop_failed(&mut self) {
        while let Some((seat, fault)) = self.cast.as_mut().and_then(|cast| cast.poll_fault()) {
            self.fail(SeatId(seat), fault);
        }
    }

    /// Lets what was delivered set the rate, where nobody gave one.
    fn judge(&mut self) {
        let now = clock::now();
        let Some(watch) = &mut self.watch else {
            return;
        };
        if now < watch.probe.poll_timeout() || !watch.judge(self.cast.is_some(), now) {
            return;
        }
        let rate = watch.probe.rate();
        match (rate, &self.pacer) {
            (Some(rate), Some(pacer)) => pacer.set_rate(rate),
            (rate, _) => self.pacer = rate.map(Pacer::new),
        }
        self.burst = burst(rate, self.job.datagram);
    }

    fn timeout(&self) -> Moment {
        let far = clock::now().after(Duration::from_millis(100));
        let each = self.senders.values().map(Sender::poll_timeout);
        let group = self.cast.iter().filter(|cast| !cast.is_over());
        each.chain(group.map(|cast| cast.poll_timeout()))
            .fold(far, Moment::min)
    }

    /// Sends one burst to the group or to one client; false when there is nothing to send.
    fn step(&mut self) -> bool {
        let now = clock::now();
        let mut transmits = Vec::with_capacity(self.burst);
        let mut to = None;
        if let Some(cast) = &mut self.cast {
            transmits.extend(std::iter::from_fn(|| cast.poll_transmit(now)).take(self.burst));
            while let Some(aside) = cast.poll_aside() {
                let seat = SeatId(aside.client);
                log::info!("seat {seat}: the group is done, repaired by itself");
                let window = self.seats.get(&seat).map_or(1, |joined| joined.window);
                let Aside { pkt, missing, .. } = aside;
                let sender = Sender::repairing(self.job.blocks, &missing, pkt, window, now);
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
                            self.fail(seat, fault);
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
                .for_each(|seat| self.fail_with(seat, &failure));
        }
        true
    }

    /// Makes the datagrams and sends them, as few calls as their lengths allow.
    fn send(&mut self, seat: Option<SeatId>, transmits: &[Transmit]) -> Result<(), Failure> {
        let mut pending = Pending::default();
        self.buffer.clear();
        let joined = seat.and_then(|seat| self.seats.get(&seat));
        let stream = joined.map_or(self.job.stream, |joined| joined.stream);
        for transmit in transmits {
            let begin = self.buffer.len();
            let (payload, again) = self.append(stream, transmit)?;
            let len = self.buffer.len() - begin;
            if pending.segment != 0 && len > pending.segment || pending.closed {
                self.flush(seat, &mut pending, begin);
            }
            if pending.segment == 0 {
                pending.segment = len;
            }
            pending.closed = len < pending.segment;
            pending.payload += payload;
            pending.again += again;
            pending.numbered += u64::from(!matches!(transmit, Transmit::End { .. }));
        }
        let end = self.buffer.len();
        self.flush(seat, &mut pending, end);
        Ok(())
    }

    /// Sends what stands in the buffer up to `end` and takes it out.
    fn flush(&mut self, seat: Option<SeatId>, pending: &mut Pending, end: usize) {
        if pending.segment == 0 {
            return;
        }
        if let Some(pacer) = &self.pacer {
            pacer.charge(end as u64);
        }
        if let Some(watch) = &mut self.watch {
            watch.probe.sent(end as u64);
        }
        let to = match seat {
            Some(seat) => self.seats.get(&seat).map(|joined| joined.to),
            None => self.job.group,
        };
        if let Some(to) = to {
            let at = clock::now().0.max(1);
            let bytes = &self.buffer[..end];
            let tallies = || {
                let joined = self.seats.values();
                joined.filter(move |joined| seat.is_none_or(|seat| seat == joined.seat))
            };
            // Counted before it is sent, because a client may answer before the send returns.
            for Joined { tally, .. } in tallies() {
                let _ =
                    tally
                        .first_us
                        .compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
                tally.payload.fetch_add(pending.payload, Ordering::Relaxed);
                tally.again.fetch_add(pending.again, Ordering::Relaxed);
                tally.offered.fetch_add(pending.numbered, Ordering::Relaxed);
            }
            let refused = self.job.outlet.send(bytes, pending.segment, to);
            if refused > 0 {
                for Joined { tally, .. } in tallies() {
                    let count = refused.min(pending.numbered);
                    tally.refused.fetch_add(count, Ordering::Relaxed);
                }
            }
            if refused > 0 {
                // The local queue is full: give it time to send what it has.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.buffer.drain(..end);
        *pending = Pending::default();
    }

    /// Appends one datagram to the buffer; returns its payload, and how much of it is repeated.
    fn append(&mut self, stream: u32, transmit: &Transmit) -> Result<(u64, u64), Failure> {
        let sent_us = clock::now().0 as u32;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut sum;
        let (pkt, body, repeated) = match transmit {
            Transmit::Data { pkt, block, again } => {
                let payload = self.block(*block, *again)?;
                let body = Body::Data {
                    block: *block,
                    again: *again,
                    payload,
                };
                (*pkt, body, *again)
            }
            Transmit::Xor { pkt, blocks } => {
                sum = vec![0; self.job.block_len];
                for &block in blocks {
                    xor::add(&mut sum, self.block(block, true)?);
                }
                let body = Body::Xor {
                    blocks: blocks.clone(),
                    payload: &sum,
                };
                (*pkt, body, true)
            }
            Transmit::End { pkts, upto, round } => {
                let body = Body::End {
                    upto: *upto,
                    round: *round,
                };
                (*pkts, body, false)
            }
        };
        let payload = match &body {
            Body::Data { payload, .. } | Body::Xor { payload, .. } => payload.len() as u64,
            Body::End { .. } => 0,
        };
        Packet {
            stream,
            pkt,
            sent_us,
            body,
        }
        .encode(&mut buffer);
        self.buffer = buffer;
        Ok((payload, if repeated { payload } else { 0 }))
    }

    /// One block's bytes. What is read a second time is the file that was offered: it is looked
    /// at, because a repair from a changed file would put new bytes into an old copy.
    fn block(&mut self, block: u32, again: bool) -> Result<&[u8], Failure> {
        let now = clock::now();
        if again && now >= self.looked_at.after(LOOK_EVERY) {
            self.looked_at = now;
            self.job
                .source
                .unchanged()
                .map_err(|error| changed(&error.to_string()))?;
        }
        let first = block / STRETCH * STRETCH;
        let at = match self.cache.iter().position(|(start, _)| *start == first) {
            Some(at) => at,
            None => {
                let bytes = self.read(first)?;
                if self.cache.len() == STRETCHES {
                    self.cache.remove(0);
                }
                self.cache.push((first, bytes));
                self.cache.len() - 1
            }
        };
        let (offset, len) = place(self.job.source.info.bytes, self.job.block_len, block);
        let base = u64::from(first) * self.job.block_len as u64;
        let from = (offset - base) as usize;
        Ok(&self.cache[at].1[from..from + len])
    }

    fn read(&self, first: u32) -> Result<Vec<u8>, Failure> {
        let base = u64::from(first) * self.job.block_len as u64;
        let left = self.job.source.info.bytes.saturating_sub(base);
        let want = left.min(u64::from(STRETCH) * self.job.block_len as u64);
        let mut bytes = vec![0; want as usize];
        let mut done = 0;
        while done < bytes.len() {
            let at = base + done as u64;
            match copy::read_at(&self.job.source.file, &mut bytes[done..], at) {
                Ok(read) => done += read,
                Err(copy::Stop::Disk(error)) => {
                    return Err(changed(&format!("the source cannot be read: {error}")));
                }
                Err(_) => {
                    let reason = match self.job.source.unchanged() {
                        Err(error) => error.to_string(),
                        Ok(()) => format!("the source ended at byte {at}"),
                    };
                    return Err(changed(&reason));
                }
            }
        }
        Ok(bytes)
    }
}

fn changed(reason: &str) -> Failure {
    Failure {
        outcome: Outcome::Cut,
        reason: reason.to_owned(),
        source_changed: true,
    }
}

impl Watch {
    /// Takes what a client says; one that cannot have so many is believed as far as it can be.
    fn hear(&mut self, seat: SeatId, report: &Report) {
        let (seen, received) = self.last.get(&seat).copied().unwrap_or_default();
        if !before(seen, report.seen) {
            return;
        }
        self.last.insert(seat, (report.seen, report.received));
        let told = self.told.entry(seat).or_default();
        let new = report.seen.wrapping_sub(seen);
        told.seen += u64::from(new);
        told.received += u64::from(report.received.saturating_sub(received).min(new));
    }

    /// Judges by all clients together, or in a group by one that a quarter of them is worse than:
    /// the few that are far behind the others are repaired after them and do not slow them down.
    fn judge(&mut self, group: bool, now: Moment) -> bool {
        let enough = |told: &&Told| told.seen >= TOLD_MIN;
        let told = match group {
            false => self.told.values().fold(Told::default(), |sum, told| Told {
                seen: sum.seen + told.seen,
                received: sum.received + told.received,
            }),
            true => {
                let mut all: Vec<Told> = self.told.values().filter(enough).copied().collect();
                // By the share that arrived, without a division.
                all.sort_by(|a, b| (a.received * b.seen).cmp(&(b.received * a.seen)));
                all.get(all.len() / 4).copied().unwrap_or_default()
            }
        };
        let judged = self.probe.handle(told, now);
        if judged {
            self.told.clear();
        }
        judged
    }
}

/// Datagrams that wait in the buffer.
#[derive(Default)]
struct Pending {
    segment: usize,
    /// A shorter one stands at the end, and nothing may follow it.
    closed: bool,
    payload: u64,
    again: u64,
    numbered: u64,
}
