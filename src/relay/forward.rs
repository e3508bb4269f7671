//! The thread of an input: receives the stream, counts it, sends it to every viewer that has it.
//!
//! See the module above for the design. A datagram's way: the socket's batch, the monitor that
//! counts it, the send batch that is made once and sent to each running viewer.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use crate::{
    net::{
        clock, datagrams,
        datagrams::{DatagramBatch, send_batch::SendBatch},
        lock,
    },
    proto::{
        mpegts::PACKET,
        relay::{ViewerState, ladder::LOOK_EVERY, log::ViewerEnd},
        rtp,
        stream::{StreamCounts, StreamMonitor},
    },
    relay::{
        atomic_histogram::bump,
        chunk::StreamChunk,
        gather::Gather,
        group::StreamGroup,
        hub::{Hub, Input},
        record::{IDLE_INTERVAL, Recording},
        send::{self, SendCounts},
        viewer::Viewer,
    },
    units::Moment,
};

/// What the source thread owns.
#[derive(Debug)]
pub(super) struct Forwarder {
    hub: Arc<Hub>,
    /// Which input it reads.
    number: usize,
    /// When it is due to choose the inputs of viewers.
    chooses: Moment,
    gather: Gather,
    monitor: StreamMonitor,
    batch: DatagramBatch,
    /// The same for the group.
    wrapped: DatagramBatch,
    viewers: Vec<Arc<Viewer>>,
    /// How many of them watch over HTTP.
    queues: u32,
    generation: Option<u64>,
    /// Which viewer is sent to first, so that none always waits for all others.
    turn: usize,
    sender: StreamSender,
}

/// Most datagrams sent on together.
const BATCH: usize = 128;

/// How often the thread checks whether it is to end when nothing comes.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Whose datagrams are the stream, and when the last one came.
#[derive(Debug, Default)]
struct StreamSender(Option<(SocketAddr, Moment)>);

/// Datagrams of another port of the sender's host are ignored until it has been silent for so long:
/// a program that was restarted goes on at once.
const SENDER_HOLD: Duration = Duration::from_millis(500);

/// Datagrams of another host are ignored until the sender has been silent for so long: a source that
/// only pauses, or is restarted, does not lose its place to whoever else sends to the input.
const HOST_HOLD: Duration = Duration::from_secs(10);

/// A viewer whose host has said for so long that nobody listens is let go.
const REFUSED_MAX: Duration = Duration::from_secs(4);

/// Linux says so once a second at most; after a longer pause somebody listens.
const REFUSAL_GAP: Duration = Duration::from_secs(2);

impl Forwarder {
    pub(super) fn new(hub: Arc<Hub>, number: usize, gather: Duration) -> Self {
        Self {
            hub,
            number,
            chooses: clock::now(),
            gather: Gather::new(gather),
            monitor: StreamMonitor::default(),
            batch: DatagramBatch::new(BATCH),
            wrapped: DatagramBatch::new(BATCH),
            viewers: Vec::new(),
            queues: 0,
            generation: None,
            turn: 0,
            sender: StreamSender::default(),
        }
    }

    /// Relays until the relay stops.
    pub(super) fn run(mut self) {
        loop {
            let drops = self.fall_asleep();
            if !self.hub.wait_running() {
                return self.group().into_iter().for_each(|group| group.announce(true));
            }
            self.wake_up(drops);
            while self.hub.running() > 0 && !self.hub.is_stopping() {
                if let Err(error) = self.forward_batch() {
                    log::warn!("the input cannot be read: {error}");
                    // It may be a passing state of the network: try again, but not at once.
                    thread::sleep(POLL_INTERVAL);
                }
            }
        }
    }

    fn input(&self) -> &Input {
        &self.hub.inputs[self.number]
    }

    /// The group, which gets the best input.
    fn group(&self) -> Option<&StreamGroup> {
        self.hub.group.as_ref().filter(|_| self.number == 0)
    }

    /// The recording, which gets the best input too.
    fn recording(&self) -> Option<&Arc<Recording>> {
        self.hub.recording_now().filter(|_| self.number == 0)
    }

    /// Forgets what is of no use to the next viewer. Returns what the system has dropped so far.
    fn fall_asleep(&mut self) -> Option<u64> {
        self.hub.set_reading(self.input(), false);
        // Sockets of viewers that left are closed with the last of these.
        self.viewers.clear();
        self.generation = None;
        self.monitor.forget_tables();
        self.monitor.rejoin();
        self.sender = StreamSender::default();
        *lock(&self.input().counted.counts) = self.monitor.counts();
        for viewer in self.hub.viewers().iter().filter(|viewer| viewer.input() == self.number) {
            let paused = viewer.state() == ViewerState::Paused;
            viewer.paused_asleep.store(paused, Ordering::SeqCst);
        }
        let drops = datagrams::drops(self.input().socket.socket());
        let input = &self.input().counted;
        if let Some(drops) = drops {
            let awake = drops.saturating_sub(input.dropped_asleep.load(Ordering::SeqCst));
            input.dropped_awake.store(awake, Ordering::SeqCst);
        }
        drops
    }

    /// Throws away what came while nobody watched; it is counted for the viewers that were paused.
    fn wake_up(&mut self, drops_before: Option<u64>) {
        let thrown = self.hub.inputs[self.number].socket.discard(&mut self.batch, clock::now());
        let thrown = thrown.unwrap_or_else(|error| {
            log::warn!("the input cannot be read: {error}");
            0
        });
        let drops = datagrams::drops(self.input().socket.socket());
        let dropped = drops.zip(drops_before).map_or(0, |(now, before)| now.saturating_sub(before));
        let input = &self.input().counted;
        bump(&input.stale, thrown);
        input.dropped_asleep.fetch_add(dropped, Ordering::SeqCst);
        for viewer in self.hub.viewers().iter().filter(|viewer| viewer.input() == self.number) {
            if viewer.paused_asleep.swap(false, Ordering::SeqCst) {
                bump(&viewer.hot.paused, thrown + dropped);
            }
        }
        self.hub.set_reading(self.input(), true);
        if !self.batch.is_empty() {
            self.forward();
        }
    }

    /// Receives one batch, if one comes, and sends it on.
    fn forward_batch(&mut self) -> io::Result<()> {
        self.batch.clear();
        self.group().into_iter().for_each(|group| group.announce(false));
        if self.number == 0 && self.hub.inputs.len() > 1 && clock::left(self.chooses).is_none() {
            self.chooses = clock::now().after(LOOK_EVERY);
            self.hub.choose_inputs();
        }
        let socket = &self.hub.inputs[self.number].socket;
        let is_idle = self.viewers.is_empty() && self.hub.viewers().is_empty();
        let patience = if is_idle { IDLE_INTERVAL } else { POLL_INTERVAL };
        socket.receive(&mut self.batch, patience)?;
        let Some(first) = self.batch.iter().next().map(|datagram| datagram.at) else {
            *lock(&self.input().counted.counts) = self.monitor.counts();
            return Ok(());
        };
        if datagrams::BATCHED {
            let gather = self.gather.time(self.viewers.len());
            if let Some(wait) = clock::left(first.after(gather)) {
                thread::sleep(wait);
                self.gather.record(socket.collect(&mut self.batch)?);
            }
        }
        self.forward();
        Ok(())
    }

    fn forward(&mut self) {
        self.keep_one_sender();
        if self.batch.is_empty() {
            return;
        }
        let generation = self.hub.generation();
        if self.generation != Some(generation)
            && let Some(viewers) = self.hub.try_viewers()
        {
            self.queues = viewers.iter().map(|viewer| u32::from(viewer.queue.is_some())).sum();
            self.viewers = viewers;
            self.generation = Some(generation);
        }
        let tables = self.tables_for_new_viewers();
        let before = self.monitor.counts();
        let chunk = self.count_batch();
        let counts = self.monitor.counts();
        let loss = SourceLoss::between(&before, &counts);
        let group = self.hub.group.as_ref().filter(|_| self.number == 0);
        if let Some(group) = group {
            group.wrap(&self.batch, counts.rtp.is_some(), &mut self.wrapped);
        }
        let entry = chunk.as_ref().and_then(|chunk| chunk.entry.as_ref());
        let batch = SendBatch::of(&self.batch);
        let many = self.viewers.len().max(1);
        self.turn = (self.turn + 1) % many;
        let (late, early) = self.viewers.split_at(self.turn.min(self.viewers.len()));
        let begun = clock::now();
        self.hub.round(|| {
            let by_group = group.map(|group| self.send_to_group(group, &loss));
            let told = (&loss, by_group.as_ref());
            for viewer in early.iter().chain(late) {
                let comes = viewer.input() != self.number;
                let entry = entry.filter(|entry| comes && viewer.comes_to(self.number, entry));
                if comes && entry.is_none() {
                    continue;
                }
                // Asked of what is in the cache for the send: see `HotCounters`.
                if let Some(socket) = &viewer.hot.socket {
                    let all = (&tables, 0);
                    let (first, next) = entry.map_or(all, |entry| (&entry.datagrams, entry.next));
                    self.send_to_viewer(viewer, socket, (&batch, first, next), told);
                } else if let Some(chunk) = &chunk {
                    queue_for(viewer, (chunk, comes), &loss);
                }
            }
        });
        self.gather.sending = clock::now().since(begun);
        if let Some((recording, chunk)) = self.recording().zip(chunk) {
            recording.offer(&chunk);
        }
        let input = self.input();
        input.last.store(begun.0, Ordering::SeqCst);
        bump(&input.counted.batches, 1);
        // Whoever reads the counts just now gets them after the next batch.
        if let Ok(mut shown) = input.counted.counts.try_lock() {
            *shown = counts;
        }
        if let Ok(mut shown) = input.counted.streams.try_lock()
            && !self.monitor.streams().eq(shown.iter().copied())
        {
            *shown = self.monitor.streams().collect();
        }
    }

    /// Counts the batch. Returns its packets where somebody watches over HTTP, or it is recorded.
    fn count_batch(&mut self) -> Option<Arc<StreamChunk>> {
        let coming = self.coming();
        if self.queues == 0 && self.recording().is_none() && coming.is_none() {
            for datagram in self.batch.iter() {
                self.monitor.handle(datagram.at, datagram.bytes);
            }
            return None;
        }
        let number = self.input().counted.batches.load(Ordering::Relaxed);
        let mut ends = Vec::new();
        let mut chunk = StreamChunk { number, queues: self.queues, ..StreamChunk::default() };
        for datagram in self.batch.iter() {
            chunk.came.push(datagram.at);
            let see = |packet: &[u8; PACKET]| chunk.packets.extend_from_slice(packet);
            self.monitor.handle_packets(datagram.at, datagram.bytes, see);
            ends.push(chunk.packets.len());
        }
        // The tables may have come in this very batch.
        chunk.tables = self.monitor.tables_before(&[]).concat();
        chunk.find_key_frame(self.monitor.video());
        if coming.is_some_and(|is_late| is_late || chunk.key_frame.is_some()) {
            chunk.add_entry(&self.monitor, &self.batch, &ends);
        }
        Some(Arc::new(chunk))
    }

    /// Whether a viewer waits for this input, and one of them for too long.
    fn coming(&self) -> Option<bool> {
        let viewers = self.viewers.iter().filter(|_| self.hub.inputs.len() > 1);
        viewers.filter_map(|viewer| viewer.waits_for(self.number)).reduce(|all, late| all || late)
    }

    /// Drops from the batch what a second sender sends while the first one does.
    fn keep_one_sender(&mut self) {
        let all = self.batch.len();
        let sender = &mut self.sender;
        self.batch.retain(|from, at| sender.accepts(from, at));
        bump(&self.input().counted.foreign, (all - self.batch.len()) as u64);
    }

    /// The tables as they were before this batch, if a viewer needs them.
    fn tables_for_new_viewers(&self) -> Vec<Vec<u8>> {
        let needed = |viewer: &Arc<Viewer>| {
            viewer.hot.needs_tables.load(Ordering::Relaxed) && viewer.input() == self.number
        };
        let next = self.batch.iter().next().filter(|_| self.viewers.iter().any(needed));
        next.map(|next| self.monitor.tables_before(next.bytes)).unwrap_or_default()
    }

    /// Sends the batch to the group. Returns what each of its viewers was sent so, in the stream's
    /// own bytes.
    fn send_to_group(&self, group: &StreamGroup, loss: &SourceLoss) -> SendCounts {
        group.next.fetch_add(self.batch.len() as u64, Ordering::SeqCst);
        let (viewer, batch) = (&group.viewer, SendBatch::of(&self.wrapped));
        let socket = viewer.hot.socket.as_ref().expect("a group has one");
        let counts = self.send_to_viewer(viewer, socket, (&batch, &[], 0), (loss, None));
        let bytes = counts.bytes - counts.sent * rtp::HEADER as u64;
        SendCounts { bytes, refused: false, ..counts }
    }

    fn send_to_viewer(
        &self,
        viewer: &Viewer,
        socket: &UdpSocket,
        (batch, first, next): (&SendBatch<'_>, &[Vec<u8>], usize),
        (loss, by_group): (&SourceLoss, Option<&SendCounts>),
    ) -> SendCounts {
        let (hot, state) = (&viewer.hot, viewer.state());
        let mut counts = SendCounts::default();
        if !matches!(state, ViewerState::Running | ViewerState::Grouped) {
            let paused = if state == ViewerState::Paused { self.batch.len() } else { 0 };
            bump(&hot.paused, paused as u64);
            return counts;
        }
        let by_group = by_group.filter(|_| state == ViewerState::Grouped);
        if hot.needs_tables.swap(false, Ordering::Relaxed) {
            for datagram in first {
                counts.attempt(1, datagram.len(), || socket.send(datagram).map(drop));
            }
        }
        for run in batch.runs_from(next) {
            let before = counts.sent;
            if by_group.is_none() {
                send::send((viewer, socket), batch, &run, &mut counts);
            }
            if counts.sent > before || by_group.is_some_and(|group| group.sent > 0) {
                let now = clock::now();
                let (first, many) = (run.datagrams.start, run.datagrams.len());
                for datagram in self.batch.iter().skip(first).take(many) {
                    hot.delay.add(now.since(datagram.at));
                }
            }
        }
        if let Some(group) = by_group {
            counts.sent += group.sent;
            counts.bytes += group.bytes;
            counts.dropped += group.dropped;
            bump(&viewer.by_group, group.sent);
        }
        bump(&hot.sent, counts.sent);
        bump(&hot.bytes, counts.bytes);
        bump(&hot.dropped, counts.dropped);
        bump(&hot.cc, loss.cc);
        bump(&hot.rtp_lost, loss.rtp_lost);
        // Of a group only this host's own routes say so, and they may come back.
        if counts.refused && !viewer.to.ip().is_multicast() {
            self.check_refusals(viewer);
        }
        counts
    }

    /// Lets a viewer go when its host has said for long enough that nobody listens there. One
    /// refusal says nothing: a player may start a moment after its client.
    fn check_refusals(&self, viewer: &Viewer) {
        let now = clock::now();
        let last = Moment(viewer.refused[1].swap(now.0, Ordering::Relaxed));
        if now.since(last) > REFUSAL_GAP {
            viewer.refused[0].store(now.0, Ordering::Relaxed);
        }
        let since = Moment(viewer.refused[0].load(Ordering::Relaxed));
        if now.since(since) >= REFUSED_MAX {
            let reason = format!("nobody listens at port {}", viewer.to.port());
            log::info!("viewer {}: {reason}", viewer.number);
            self.hub.expel(viewer, ViewerEnd::Refused, reason);
        }
    }
}

/// Leaves a batch for the thread of a viewer over HTTP, where there is room for it.
fn queue_for(viewer: &Viewer, (chunk, comes): (&Arc<StreamChunk>, bool), loss: &SourceLoss) {
    let hot = &viewer.hot;
    let datagrams = chunk.came.len() as u64;
    if let Some(queue) = viewer.queue.as_ref().filter(|_| comes) {
        bump(&hot.dropped, queue.forget_late());
    }
    match (viewer.state(), &viewer.queue) {
        (ViewerState::Paused, _) => return bump(&hot.paused, datagrams),
        (ViewerState::Running, Some(queue)) if queue.offer(chunk, comes) => {}
        (ViewerState::Running, Some(_)) => bump(&hot.dropped, datagrams),
        _ => return,
    }
    bump(&hot.cc, loss.cc);
    bump(&hot.rtp_lost, loss.rtp_lost);
}

impl StreamSender {
    /// Whether a datagram that came `from` there `at` this moment is of the stream.
    fn accepts(&mut self, from: SocketAddr, at: Moment) -> bool {
        let is_other = self.0.is_some_and(|(known, last)| {
            let hold = if known.ip() == from.ip() { SENDER_HOLD } else { HOST_HOLD };
            known != from && at.since(last) < hold
        });
        if !is_other {
            self.0 = Some((from, at));
        }
        !is_other
    }
}

/// What a batch lacked when it came.
struct SourceLoss {
    cc: u64,
    /// Below zero, wrapped, where a late datagram filled a gap of an earlier batch.
    rtp_lost: u64,
}

impl SourceLoss {
    fn between(before: &StreamCounts, after: &StreamCounts) -> Self {
        let lost = |counts: &StreamCounts| counts.rtp.map_or(0, |rtp| rtp.lost);
        Self {
            cc: after.ts.errors - before.ts.errors,
            rtp_lost: lost(after).wrapping_sub(lost(before)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_host_waits_longer_than_a_restarted_program() {
        let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (source, again) = (addr("192.0.2.1:4000"), addr("192.0.2.1:4001"));
        let other = addr("192.0.2.66:4000");
        let mut sender = StreamSender::default();
        let mut accepts = |from, ms: u64| sender.accepts(from, Moment(ms * 1000));
        assert!(accepts(source, 0));
        // It pauses for longer than a restart takes: its place is still its own.
        assert!(!accepts(other, 600));
        assert!(!accepts(other, 9_999));
        assert!(accepts(source, 9_999));
        // It is restarted, with another port.
        assert!(!accepts(again, 10_498));
        assert!(accepts(again, 10_499));
        assert!(!accepts(source, 10_500));
        // It is gone, and a spare one on another host takes over.
        assert!(!accepts(other, 20_498));
        assert!(accepts(other, 20_499));
        assert!(!accepts(again, 20_500));
    }
}
