//! How many requests wait at one peer: enough that it is never idle, and no more, because what was
//! requested of one peer is not requested of another.

use std::time::Duration;

use crate::{proto::bt::wire::BLOCK_LEN, units::Moment};

/// The request pipeline of one peer.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// The most requests that it lets wait.
    pub(super) limit: usize,
    /// It did not answer in time: one request at a time until it does.
    pub(super) snubbed: bool,
    /// Bytes per second in the last interval.
    rate: f64,
    /// Bytes in the present interval, and when that began.
    bytes: u64,
    since: Option<Moment>,
    /// The shortest time from a request to its block: little more than a round trip.
    fastest_answer: Option<Duration>,
}

/// Bytes that are requested of a peer at least.
const DEPTH_MIN: usize = 2 * BLOCK_LEN as usize;

/// Bytes that are requested of all peers together at least, so that the first seconds need no rate.
/// With more, some uplinks would have much to do at the end and others nothing.
const DEPTH_ALL: usize = 64 * BLOCK_LEN as usize;

/// For how long a peer's requests last at its rate, where answers take no time.
const DEPTH_SECONDS: f64 = 0.12;

/// For how long they last beyond twice the fastest answer: requests go out when half of them are
/// answered, and the rest must last until their answers come.
const DEPTH_BEYOND: f64 = 0.04;

/// Longest time of an answer for which that is done, seconds.
const ANSWER_MAX: f64 = 1.0;

/// Most requests sent at a time: at a long round trip half of all would be too many.
const BATCH_MAX: usize = 64;

/// Length of the intervals in which the rate is measured.
const RATE_INTERVAL: Duration = Duration::from_millis(250);

impl Pipeline {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), ..Self::default() }
    }

    /// How many requests for blocks of `block` bytes should wait at the peer, one of `peers`.
    pub(super) fn depth(&self, block: u32, peers: usize) -> usize {
        if self.snubbed {
            return 1;
        }
        let answer = self.fastest_answer.map_or(0.0, |time| time.as_secs_f64());
        let seconds = DEPTH_SECONDS.max(2.0 * answer.min(ANSWER_MAX) + DEPTH_BEYOND);
        let by_rate = (self.rate * seconds) as usize;
        let wanted = by_rate.max(DEPTH_ALL / peers.max(1)).max(DEPTH_MIN);
        wanted.div_ceil(block as usize).clamp(1, self.limit)
    }

    /// True when so few of `depth` requests are pending that the next batch should go out.
    pub(super) fn is_low(depth: usize, pending: usize) -> bool {
        pending <= (depth / 2).max(depth.saturating_sub(BATCH_MAX))
    }

    /// A requested block of `len` bytes has come, so long after the request.
    pub(super) fn received(&mut self, len: u32, took: Duration, now: Moment) {
        self.snubbed = false;
        // A long block says nothing about the round trip; only a simulation has such blocks.
        if len <= BLOCK_LEN {
            self.fastest_answer = Some(self.fastest_answer.map_or(took, |least| least.min(took)));
        }
        let since = *self.since.get_or_insert(now);
        self.bytes += u64::from(len);
        let span = now.since(since);
        if span >= RATE_INTERVAL {
            let rate = self.bytes as f64 / span.as_secs_f64();
            // A pause between two intervals must not look like a slow peer: halve at most.
            self.rate = rate.max(self.rate / 2.0);
            self.bytes = 0;
            self.since = Some(now);
        }
    }
}
