//! The stream for viewers over HTTP: a batch's packets, made once for all of them, and what waits
//! for one of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    net::datagrams::DatagramBatch,
    proto::{
        mpegts::{PACKET, TsPacket},
        stream::StreamMonitor,
    },
    relay::entry::InputEntry,
    units::Moment,
};

/// The transport packets of one batch of datagrams.
#[derive(Debug, Default)]
pub(super) struct StreamChunk {
    /// The packets, whole ones.
    pub(super) packets: Vec<u8>,
    /// When each of its datagrams came.
    pub(super) came: Vec<Moment>,
    /// What a player needs before its packets: the tables.
    pub(super) tables: Vec<u8>,
    /// Where the first picture begins that needs no earlier one.
    pub(super) key_frame: Option<usize>,
    /// How viewers of other inputs come to this one with it.
    pub(super) entry: Option<InputEntry>,
    /// Counts the batches.
    pub(super) number: u64,
    /// How many viewers over HTTP get it.
    pub(super) queues: u32,
}

/// A batch, and whether the viewer comes to its input with it.
pub(super) type QueuedChunk = (Arc<StreamChunk>, bool);

/// The relay's end of what waits for one viewer.
#[derive(Debug)]
pub(super) struct ChunkQueue {
    sender: Sender<QueuedChunk>,
    late: Receiver<QueuedChunk>,
    waiting: AtomicUsize,
    most: usize,
}

/// Most bytes that wait for one viewer: a quarter of a second at 60 Mbit/s, beside what its
/// connection holds. All who wait share them.
pub(super) const WAITING_MAX: usize = 2 << 20;

/// How long a viewer waits for the first picture that needs no earlier one: of a source that marks
/// none it gets what comes.
pub(super) const KEY_FRAME_LIMIT: Duration = Duration::from_secs(5);

/// What a datagram costs beside its packets, bytes: one without a packet costs too.
const DATAGRAM_COST: usize = 64;

impl StreamChunk {
    /// Finds where a player can begin; pictures are in the packets of the PIDs `video`.
    pub(super) fn find_key_frame(&mut self, video: &[u16]) {
        let (packets, _) = self.packets.as_chunks();
        let is_key = |packet: TsPacket<'_>| {
            packet.random_access() && packet.starts_unit() && video.contains(&packet.pid())
        };
        let first = packets.iter().position(|bytes| is_key(TsPacket::new(bytes)));
        self.key_frame = first.map(|packet| packet * PACKET);
    }

    /// Adds the way by which viewers of other inputs come; its packets are those of `batch`, of which
    /// `ends` says where those of each datagram end.
    pub(super) fn add_entry(
        &mut self,
        monitor: &StreamMonitor,
        batch: &DatagramBatch,
        ends: &[usize],
    ) {
        let (packets, tables) = ((&*self.packets, ends), self.tables.clone());
        self.entry = Some(InputEntry::new(monitor, batch, packets, self.key_frame, tables));
    }

    fn cost(&self) -> usize {
        self.packets.len() + self.tables.len() + DATAGRAM_COST * self.came.len()
    }
}

impl ChunkQueue {
    /// A queue of at most `most` bytes, and the viewer's end of it.
    pub(super) fn new(most: usize) -> (Self, Receiver<QueuedChunk>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let late = receiver.clone();
        (Self { sender, late, waiting: AtomicUsize::new(0), most }, receiver)
    }

    /// Empties it where its viewer is late. Returns how many datagrams that were.
    pub(super) fn forget_late(&self) -> u64 {
        let is_late = self.waiting.load(Ordering::Relaxed) > self.most / 2;
        let late = self.late.try_iter().take(if is_late { usize::MAX } else { 0 });
        late.inspect(|(chunk, _)| self.release(chunk))
            .map(|(chunk, _)| chunk.came.len() as u64)
            .sum()
    }

    /// Adds `chunk`, with which its viewer `comes` to another input or not; `false` where there is no
    /// room for it.
    pub(super) fn offer(&self, chunk: &Arc<StreamChunk>, comes: bool) -> bool {
        let has_room = self.waiting.load(Ordering::Relaxed) + chunk.cost() <= self.most;
        if has_room {
            self.waiting.fetch_add(chunk.cost(), Ordering::Relaxed);
            // Where its thread has ended, the viewer is about to be removed.
            let _ = self.sender.send((Arc::clone(chunk), comes));
        }
        has_room
    }

    /// `chunk`, which has left the queue, is of no more use.
    pub(super) fn release(&self, chunk: &StreamChunk) {
        self.waiting.fetch_sub(chunk.cost(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::sample;

    #[test]
    fn key_frame_is_a_picture_that_needs_no_other() {
        let key = |pid| {
            let mut packet = sample::adapted(pid, 0, 0x40, 0, true);
            packet[1] |= 0x40;
            packet
        };
        let middle = sample::adapted(0x100, 0, 0x40, 0, true);
        let packets = [sample::packet(0x100, 0, 1), key(0x101), middle, key(0x100), key(0x100)];
        let mut chunk = StreamChunk { packets: packets.concat(), ..StreamChunk::default() };
        chunk.find_key_frame(&[0x100]);
        assert_eq!(chunk.key_frame, Some(3 * PACKET));
        chunk.find_key_frame(&[]);
        assert_eq!(chunk.key_frame, None);
    }

    #[test]
    fn queue_takes_what_has_room_and_no_more() {
        let (queue, waiting) = ChunkQueue::new(WAITING_MAX);
        let mut chunk = StreamChunk::default();
        chunk.packets.resize(WAITING_MAX / 4 - DATAGRAM_COST, 0);
        chunk.came.push(Moment(1));
        let chunk = Arc::new(chunk);
        assert!((0..4).all(|_| queue.offer(&chunk, false)), "a quarter each");
        assert!(!queue.offer(&chunk, false));
        queue.release(&waiting.recv().expect("the first").0);
        assert!(queue.offer(&chunk, false) && !queue.offer(&chunk, false));
        // A late viewer that comes to another input begins anew there, one in time keeps what it has.
        assert_eq!(queue.forget_late(), 4);
        assert!((0..2).all(|_| queue.offer(&chunk, true)) && queue.forget_late() == 0);
        assert!(waiting.len() == 2 && waiting.recv().expect("it waits").1);
        // Datagrams that hold nothing have their bound too.
        let mut empty = StreamChunk::default();
        empty.came.push(Moment(1));
        let (empty, (queue, _waiting)) = (Arc::new(empty), ChunkQueue::new(WAITING_MAX));
        assert_eq!((0..1_000_000).filter(|_| queue.offer(&empty, false)).count(), 32_768);
    }
}
