//! For how long the queue of this machine's own link held what a sender had handed to the system.

use std::time::Duration;

use crate::units::{Moment, micros};

/// So many bytes of one connection, two Ethernet segments, in the queue of the own link say that this
/// link is full. Behind a free link there are mostly none.
pub const QUEUED_MIN: u64 = 2 * 1448;

/// How often the queue is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One look counts for so long at most: whoever looks less often lacks a CPU, not a link.
const LOOK_MAX: Duration = Duration::from_millis(150);

/// Looks at the queue from time to time.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkQueue {
    looked_at: Option<Moment>,
    full: Option<Duration>,
}

impl LinkQueue {
    /// Looks again if it is time to: `queued` says how many bytes are in the queue, where the system
    /// tells.
    pub fn update(&mut self, now: Moment, queued: impl FnOnce() -> Option<u64>) {
        let span = now.since(*self.looked_at.get_or_insert(now));
        if span >= LOOK_EVERY
            && let Some(queued) = queued()
        {
            self.looked_at = Some(now);
            let counts = if queued >= QUEUED_MIN { span.min(LOOK_MAX) } else { Duration::ZERO };
            self.full = Some(self.full.unwrap_or_default() + counts);
        }
    }

    /// For how long the link was full so far, microseconds; `None` where nobody tells.
    pub fn full_us(&self) -> Option<u64> {
        self.full.map(micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_looks(every_ms: u64, queued: Option<u64>) -> Option<u64> {
        let mut queue = LinkQueue::default();
        for look in 0..=(1000 / every_ms) {
            queue.update(Moment(look * every_ms * 1000), || queued);
        }
        queue.full_us()
    }

    #[test]
    fn link_is_full_while_its_queue_holds_two_segments() {
        assert_eq!(after_looks(10, Some(QUEUED_MIN)), Some(1_000_000));
        assert_eq!(after_looks(100, Some(u64::MAX)), Some(1_000_000));
        assert_eq!(after_looks(100, Some(QUEUED_MIN - 1)), Some(0));
        assert_eq!(after_looks(100, None), None);
    }

    #[test]
    fn sender_that_looks_rarely_lacks_a_cpu_and_no_link() {
        assert_eq!(after_looks(500, Some(u64::MAX)), Some(300_000));
    }
}
