//! A batch of received datagrams.

use std::{net::SocketAddr, ops::Range};

use crate::{text::debug_fields, units::Moment};

/// Datagrams received together, in the order in which they came.
pub struct DatagramBatch {
    pub(super) slots: Box<[u8]>,
    pub(super) entries: Vec<ReceivedSlot>,
    pub(super) capacity: usize,
}

/// One datagram of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// What it holds.
    pub bytes: &'a [u8],
    /// When the system received it, or when it was read where the system does not tell.
    pub at: Moment,
    /// Its sender.
    pub from: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedSlot {
    pub(super) slot: usize,
    pub(super) len: usize,
    pub(super) at: Moment,
    pub(super) from: SocketAddr,
}

/// Largest UDP payload of IPv4 is 65,507 bytes; a byte more than any shows what was cut.
pub(super) const SLOT: usize = 65_536;

/// From one slot to the next: not a power of two, or all datagrams of a batch would compete for
/// the same lines of the processor's caches.
pub(super) const STRIDE: usize = SLOT + 17 * 64;

impl DatagramBatch {
    /// Room for `capacity` datagrams of any size. Memory is taken as it is used.
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: vec![0; capacity * STRIDE].into_boxed_slice(),
            entries: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Makes room again.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// How many datagrams it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The datagrams, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.entries.iter().map(|entry| Datagram {
            bytes: &self.slots[entry.slot * STRIDE..][..entry.len],
            at: entry.at,
            from: entry.from,
        })
    }

    /// Keeps the datagrams for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(SocketAddr, Moment) -> bool) {
        self.entries.retain(|entry| keep(entry.from, entry.at));
    }

    /// Adds a datagram of `header` and `payload`, which together UDP can carry; there must be room.
    pub fn push(&mut self, header: &[u8], payload: &[u8], at: Moment, from: SocketAddr) {
        let (slot, len) = (self.next_slot(), header.len() + payload.len());
        let (front, back) = self.slots[slot * STRIDE..][..len].split_at_mut(header.len());
        front.copy_from_slice(header);
        back.copy_from_slice(payload);
        self.entries.push(ReceivedSlot { slot, len, at, from });
    }

    /// Leaves of each datagram the part that `keep` names, or nothing of it.
    pub fn trim(&mut self, mut keep: impl FnMut(Datagram<'_>) -> Option<Range<usize>>) {
        self.entries.retain_mut(|entry| {
            let slot = &mut self.slots[entry.slot * STRIDE..][..entry.len];
            let part = keep(Datagram { bytes: slot, at: entry.at, from: entry.from });
            entry.len = part.as_ref().map_or(0, Range::len);
            part.map(|part| slot.copy_within(part, 0)).is_some()
        });
    }

    pub(super) fn next_slot(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.slot + 1)
    }
}

debug_fields!(DatagramBatch, entries);
