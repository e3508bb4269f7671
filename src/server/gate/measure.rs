//! The measurement before a release (`--via auto`), within [`MEASURE_LIMIT`] of its beginning.
//!
//! Each seat's own thread sends bursts over its connection and reads what the client heard; the
//! session's thread sends the train to the group. Nobody waits for a seat beyond the limit: what it
//! says later is passed over, and a way for which its word is needed is out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::PoisonError,
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::{
        clock, copy,
        datagrams::options::limit_send_buffer,
        line_stream::LineStream,
        lock,
        primitives::{Condvar, Mutex, TcpStream, thread},
        tcp_info,
    },
    proto::native::{
        FromClient, FromServer,
        probe::{BURST_MAX, GroupProbe, STEPS_MAX, TrainHead},
    },
    server::transport::GroupRoute,
    session::SeatId,
    transfer::auto::{self, Burst, HeardStep, MeasuredSeat, SentStep, TRAIN_DATAGRAM},
    units::{Moment, Rate, micros},
};

/// One measurement.
#[derive(Debug)]
pub struct Measurement {
    begun: Moment,
    /// Bytes with which each connection's burst begins.
    first: u64,
    random: u64,
    group: Option<GroupRoute>,
    state: Mutex<MeasureState>,
    changed: Condvar,
}

#[derive(Debug)]
struct MeasureState {
    seats: BTreeMap<SeatId, MeasuredSeat>,
    sent: Vec<SentStep>,
    /// Seats whose burst is not over, and those that have not ended.
    bursting: usize,
    running: usize,
    is_over: bool,
}

/// What a measurement has found.
pub(super) struct Findings {
    pub(super) seats: BTreeMap<SeatId, MeasuredSeat>,
    pub(super) sent: Vec<SentStep>,
    pub(super) took: Duration,
}

/// How long a measurement may take in all: a second, less what threads need to wake up.
pub const MEASURE_LIMIT: Duration = Duration::from_millis(970);

/// When the train is over at the latest: the last words need some time.
const TRAIN_LIMIT: Duration = Duration::from_millis(780);

/// When no more answers are waited for.
const ANSWERS_END: Duration = Duration::from_millis(900);

/// How long the bursts take; the second half of it counts.
const BURST: Duration = Duration::from_millis(240);

/// How long after them it is waited for what is on its way.
const DRAIN_LIMIT: Duration = Duration::from_millis(260);

/// Bytes that may wait unsent in a connection: what is in a slow one must go before the release.
const UNSENT_MAX: u64 = 16 << 10;

/// Bytes with which all bursts together begin, and one at least. A connection may have so much under
/// way, and as much again as has come: a slow link for many clients is not filled for longer than the
/// measurement takes.
const FIRST: (u64, u64) = (128 << 10, SEGMENT);

/// Bytes of a segment on its way, about.
const SEGMENT: u64 = 1448;

/// Segments that may be unanswered at the end of a burst: a system answers the last one late.
const UNANSWERED: u32 = 2;

/// The first step of the train, and the last at most, bit/s.
const STEPS: (u64, u64) = (4_000_000, 1_000_000_000);

/// How often a rate is tried at most that a seat does not follow.
const TRIES: usize = 3;

/// How long a step is sent.
const STEP: Duration = Duration::from_millis(20);

/// How long after a step it is waited for what the seats heard of it.
const ANSWER_LIMIT: Duration = Duration::from_millis(80);

/// How long it is waited for all of them, before most are enough.
const ANSWER_GRACE: Duration = Duration::from_millis(20);

/// How often a thread looks whether the measurement is over.
const LOOK: Duration = Duration::from_millis(5);

impl Measurement {
    pub(super) fn new(seats: BTreeMap<SeatId, MeasuredSeat>, group: Option<GroupRoute>) -> Self {
        let count = seats.len();
        let state = MeasureState {
            seats,
            sent: Vec::new(),
            bursting: count,
            running: count,
            is_over: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let first = (FIRST.0 / count.max(1) as u64).clamp(FIRST.1, UNSENT_MAX);
        Self { begun: clock::now(), first, random: clock::random(), group, state, changed }
    }

    /// The part of the seat `id`, in its own thread.
    ///
    /// # Errors
    /// Its client is gone or broke the protocol.
    pub fn measure_seat(
        &self,
        id: SeatId,
        stream: &TcpStream,
        lines: &mut LineStream<'_>,
    ) -> Result<()> {
        // What the client says too late is no word of the transfer.
        lines.pass_over(&["HEARD ", "PROBED "]);
        let burst = stream
            .set_nonblocking(false)
            .map_err(Error::io("measure", id))
            .and_then(|()| self.burst(stream, lines));
        self.with(|state| {
            state.bursting -= 1;
            if let (Ok(burst), Some(seat)) = (&burst, state.seats.get_mut(&id)) {
                seat.burst = *burst;
            }
        });
        let heard = burst.and_then(|_| self.read_answers(id, lines));
        self.with(|state| {
            state.running -= 1;
            if heard.is_err() {
                state.seats.remove(&id);
            }
        });
        heard
    }

    /// Sends bytes over the connection; returns how many came to the client's system, and when.
    fn burst(&self, stream: &TcpStream, lines: &LineStream<'_>) -> Result<Option<Burst>> {
        let group = self.group.map(|route| route.group);
        lines.write_line(&FromServer::Probe(GroupProbe { group, random: self.random }).encode())?;
        let until = self.begun.after(BURST);
        let chunk = vec![0; BURST_MAX as usize];
        let (mut half, base) = (None, tcp_info::acked(stream).map_or(0, |(acked, ..)| acked));
        while let Some(left) = clock::left(until) {
            let acked = tcp_info::acked(stream);
            if left <= BURST / 2 && half.is_none() {
                half = acked.map(|(acked, ..)| (clock::now(), acked));
            }
            let room = acked.map_or(u64::MAX, |(acked, unsent, moving)| {
                let under_way = unsent + u64::from(moving) * SEGMENT;
                let room = (self.first + acked.saturating_sub(base)).saturating_sub(under_way);
                if unsent > UNSENT_MAX { 0 } else { room }
            });
            if room < SEGMENT {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            let part = chunk.get(..room as usize).unwrap_or(&chunk);
            let line = FromServer::Burst { bytes: part.len() as u32 }.encode();
            let mut bytes = lines.sealed(&line).into_owned();
            bytes.extend_from_slice(part);
            let deadline = self.begun.after(MEASURE_LIMIT);
            if let Err(stop) = copy::send_all(stream, &bytes, deadline) {
                let what = format!("the connection took no burst: {stop:?}");
                return Err(Error::protocol(lines.peer, what));
            }
            if acked.is_none() {
                // Nobody tells what came: some bytes warm the connection up, and no more.
                break;
            }
        }
        lines.write_line(&FromServer::Burst { bytes: 0 }.encode())?;
        // What waits in a queue on the way comes at the link's rate, and the train must not wait behind.
        let drained = until.after(DRAIN_LIMIT);
        let end = loop {
            let acked = tcp_info::acked(stream);
            let is_over = |(_, unsent, moving): (_, _, _)| unsent == 0 && moving <= UNANSWERED;
            if acked.is_none_or(is_over) || clock::left(drained).is_none() {
                break acked.map(|(acked, ..)| (clock::now(), acked));
            }
            thread::sleep(Duration::from_millis(1));
        };
        Ok(half.zip(end).and_then(|((from, before), (to, after))| {
            let since = |at: Moment| micros(at.since(self.begun));
            let bytes = after.saturating_sub(before);
            let burst = Burst { bytes, from_us: since(from), to_us: since(to) };
            (bytes > 0 && burst.to_us > burst.from_us).then_some(burst)
        }))
    }

    /// Reads what the client hears, until the measurement is over and the client has said so.
    fn read_answers(&self, id: SeatId, lines: &mut LineStream<'_>) -> Result<()> {
        let last = self.begun.after(MEASURE_LIMIT);
        let mut said = false;
        loop {
            if !said && lock(&self.state).is_over {
                lines.write_line(&FromServer::Probed.encode())?;
                said = true;
            }
            if clock::left(last).is_none() {
                return Ok(());
            }
            let line = match lines.read_any(clock::now().after(LOOK).min(last), Phase::Ready) {
                Ok(line) => line,
                Err(Error::TimedOut { .. }) => continue,
                Err(error) => return Err(error),
            };
            match FromClient::decode(&line) {
                Ok(FromClient::Heard(heard)) => self.note(id, heard),
                Ok(FromClient::Probed { datagrams }) if said => {
                    self.with(|state| {
                        if let Some(seat) = state.seats.get_mut(&id) {
                            seat.total = Some(datagrams);
                        }
                    });
                    return Ok(());
                }
                _ => {
                    let what = "no message for a measurement";
                    return Err(Error::protocol(lines.peer, what));
                }
            }
        }
    }

    fn note(&self, id: SeatId, heard: HeardStep) {
        self.with(|state| {
            let seat = state.seats.get_mut(&id);
            if let Some(seat) = seat.filter(|seat| seat.heard.len() < usize::from(STEPS_MAX)) {
                seat.heard.push(heard);
            }
        });
    }

    fn with(&self, change: impl FnOnce(&mut MeasureState)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    /// Waits until `is_done`, or until then.
    fn wait(&self, until: Moment, is_done: impl Fn(&MeasureState) -> bool) -> bool {
        let left = clock::left(until).unwrap_or_default();
        let not_done = |state: &mut MeasureState| !is_done(state);
        let waited = self.changed.wait_timeout_while(lock(&self.state), left, not_done);
        is_done(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// The session thread's part: the train, and the end. `from` are this host's addresses by which
    /// the clients came.
    pub(super) fn run(&self, bytes: u64, rate: Option<Rate>, from: &[IpAddr]) -> Findings {
        self.wait(self.begun.after(BURST + DRAIN_LIMIT + LOOK * 4), |state| state.bursting == 0);
        let is_short = auto::is_short(bytes, lock(&self.state).seats.values());
        if let Some(route) = self.group.filter(|_| !is_short) {
            let sockets: Result<Vec<_>> = from.iter().map(|&ip| open(ip, &route)).collect();
            match sockets {
                Ok(sockets) => self.send_train(&sockets, route.group, rate),
                Err(error) => log::warn!("nothing was sent to the group: {error}"),
            }
        }
        self.with(|state| state.is_over = true);
        self.wait(self.begun.after(MEASURE_LIMIT), |state| state.running == 0);
        let state = lock(&self.state);
        let (seats, sent) = (state.seats.clone(), state.sent.clone());
        Findings { seats, sent, took: clock::now().since(self.begun) }
    }

    /// Climbs until a seat no longer follows: more would wait in its queue and delay the transfer.
    fn send_train(&self, sockets: &[UdpSocket], group: SocketAddr, rate: Option<Rate>) {
        let most = rate.map_or(STEPS.1, |rate| rate.0.min(STEPS.1));
        let (mut wanted, mut tries) = (STEPS.0.min(most), 0);
        for step in 0..STEPS_MAX {
            let sent = self.send_step(sockets, group, (step, wanted));
            self.with(|state| state.sent.push(sent));
            self.wait_for_answers(step);
            let all_follow = {
                let state = lock(&self.state);
                state.seats.values().all(|seat| seat.may_follow(&state.sent, wanted))
            };
            let is_late = clock::now() >= self.begun.after(TRAIN_LIMIT);
            let is_blocked = sent.span_us > micros(STEP) * 5 / 4;
            tries += 1;
            if is_late || all_follow && (is_blocked || wanted == most) {
                return;
            }
            let is_deaf = |seat: &MeasuredSeat| seat.heard.is_empty();
            let heard = !lock(&self.state).seats.values().any(is_deaf);
            // A busy machine may miss a step that its link takes; not where its own link is full, or
            // a seat hears nothing.
            if all_follow {
                (wanted, tries) = ((wanted * 2).min(most), 0);
            } else if tries == TRIES || tries > 1 && (is_blocked || !heard) {
                return;
            }
        }
    }

    /// Waits for what the seats heard of `step`. One answer of four may come late, as TCP sends again
    /// what was lost, where that of the step before is there.
    fn wait_for_answers(&self, step: u16) {
        let until = clock::now().after(ANSWER_LIMIT).min(self.begun.after(ANSWERS_END));
        let has = |seat: &MeasuredSeat, step| seat.heard.iter().any(|heard| heard.step == step);
        let all = |state: &MeasureState| state.seats.values().all(|seat| has(seat, step));
        if self.wait(clock::now().after(ANSWER_GRACE), all) {
            return;
        }
        self.wait(until, |state| {
            let late = state.seats.values().filter(|seat| !has(seat, step));
            let is_near =
                |seat: &MeasuredSeat| step.checked_sub(1).is_none_or(|one| has(seat, one));
            late.clone().count() * 4 <= state.seats.len() && late.clone().all(is_near)
        });
    }

    /// Sends one step at `rate`, bit/s, evenly.
    fn send_step(
        &self,
        sockets: &[UdpSocket],
        group: SocketAddr,
        (step, rate): (u16, u64),
    ) -> SentStep {
        let bits = TRAIN_DATAGRAM as u64 * 8;
        let of = u32::try_from(rate * micros(STEP) / 1_000_000 / bits).unwrap_or(0).max(4);
        let mut datagram = vec![0; TRAIN_DATAGRAM];
        let begun = clock::now();
        for number in 0..of {
            let due = Duration::from_micros(u64::from(number) * bits * 1_000_000 / rate);
            if let Some(early) = clock::left(begun.after(due)).filter(|left| *left > LOOK / 10) {
                thread::sleep(early);
            }
            TrainHead { random: self.random, step, number, of }.encode(&mut datagram);
            for socket in sockets {
                // What this host refuses is not heard, and counts so.
                let _ = socket.send_to(&datagram, group);
            }
            if clock::left(begun.after(STEP * 3)).is_none() {
                let span_us = micros(clock::now().since(begun));
                return SentStep { rate, datagrams: number + 1, span_us };
            }
        }
        SentStep { rate, datagrams: of, span_us: micros(clock::now().since(begun)).max(1) }
    }
}

fn open(ip: IpAddr, route: &GroupRoute) -> Result<UdpSocket> {
    let failed = || Error::io("open a UDP socket", ip);
    let socket = UdpSocket::bind((ip, 0)).map_err(failed())?;
    socket.set_multicast_ttl_v4(route.ttl).map_err(failed())?;
    limit_send_buffer(&socket);
    Ok(socket)
}
