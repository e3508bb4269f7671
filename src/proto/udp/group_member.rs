//! What a sender to a group knows of one client.

use std::{ops::Range, time::Duration};

use crate::proto::udp::{
    control::Report,
    liveness::{Fault, Liveness},
};

/// One client of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupMember {
    pub(super) window: u32,
    /// How long it has stalled at least half the group, less how long it was stalled itself.
    pub(super) held: Duration,
    /// For how long a datagram waited for room in its buffer.
    pub(super) full: Duration,
    /// One waited when something to send was asked for last.
    pub(super) waited: bool,
    /// The number after the highest that it has seen.
    pub(super) seen: u32,
    /// The round to which `missing` is the whole answer.
    pub(super) answered: u32,
    pub(super) missing: Vec<Range<u32>>,
    /// The part of an answer that has come, and its round.
    coming: Vec<Range<u32>>,
    coming_for: u32,
    pub(super) aside: bool,
    /// It was set aside because it does not keep up, and not because it lacks much.
    pub(super) slow: bool,
    pub(super) rounds: u32,
    pub(super) liveness: Liveness,
}

/// Ranges of one client's answer that are kept: more than our receiver sends.
pub(super) const RANGES_MAX: usize = 1 << 16;

impl GroupMember {
    /// A client with room for `window` datagrams, which joins after `seen` datagrams.
    pub(super) fn new(window: u32, seen: u32, liveness: Liveness) -> Self {
        Self { window, seen, liveness, ..Self::default() }
    }

    /// How many blocks it lacks, without those of `queued`.
    pub(super) fn lacked(&self, queued: &[u32]) -> u64 {
        let before = |end| queued.partition_point(|&block| block < end) as u64;
        let lacked =
            |r: &Range<u32>| u64::from(r.end - r.start) - (before(r.end) - before(r.start));
        self.missing.iter().map(lacked).sum()
    }

    /// Adds a report's list to the answer that it is a part of.
    pub(super) fn add_answer(&mut self, report: &Report) -> Result<(), Fault> {
        if self.coming_for != report.round {
            self.coming.clear();
            self.coming_for = report.round;
        }
        // The ranges of one answer rise from line to line, or there would be no limit to them.
        let end = self.coming.last().map_or(0, |range| range.end);
        if report.missing.first().is_some_and(|range| range.start < end) {
            return Err(Fault::Impossible);
        }
        // What does not fit is reported in the next round.
        let room = RANGES_MAX - self.coming.len();
        self.coming.extend(report.missing.iter().take(room).cloned());
        if !report.more {
            self.answered = report.round;
            self.missing = std::mem::take(&mut self.coming);
        }
        Ok(())
    }
}
