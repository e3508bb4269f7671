//! How long a batch waits for more datagrams, to be worth its sends.

use std::time::Duration;

/// What waiting was good for.
#[derive(Debug)]
pub(super) struct Gather {
    limit: Duration,
    /// How many more came in a wait, smoothed.
    gained: f64,
    /// Batches since the last wait.
    unwaited: u32,
    /// How long the last batch took to be sent to all.
    pub(super) sending: Duration,
}

/// A wait costs what so many sends do: it must gain more, over all viewers.
const WAIT_SENDS: f64 = 8.0;

/// Where a wait gains too little, only every so manieth batch waits, to learn whether it still does.
const TRY_EVERY: u32 = 16;

impl Gather {
    /// No datagram is to be older than `limit` when it has been sent to all, where waiting is to blame.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, gained: 0.0, unwaited: 0, sending: Duration::ZERO }
    }

    /// How old the first of the next batch may get while it waits for others: not at all where that
    /// gains so little, as where a source sends its datagrams in bursts, that it would not save the
    /// sends to `viewers` that it costs.
    pub(super) fn time(&mut self, viewers: usize) -> Duration {
        self.unwaited += 1;
        if self.gained * (viewers as f64) < WAIT_SENDS && self.unwaited < TRY_EVERY {
            return Duration::ZERO;
        }
        self.limit.saturating_sub(self.sending)
    }

    /// In a wait `count` more have come.
    pub(super) fn record(&mut self, count: usize) {
        self.gained += (count as f64 - self.gained) / 8.0;
        self.unwaited = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(400);

    #[test]
    fn batch_waits_only_where_others_come_meanwhile() {
        let waits = |gather: &mut Gather, viewers, gain| {
            let waits = |_: &u32| {
                let waits = gather.time(viewers) == LIMIT;
                if waits {
                    gather.record(gain);
                }
                waits
            };
            (0..1600).filter(waits).count()
        };
        let mut gather = Gather::new(LIMIT);
        // One more each time: it saves 25 sends, then one, which is less than a wait costs.
        assert!(waits(&mut gather, 25, 1) > 1500, "found within a few tries");
        assert_eq!(waits(&mut gather, 1, 1), 100);
        assert!(waits(&mut gather, 1, 17) > 1500);
        // A source that sends in bursts: all of a burst is there already.
        assert!((100..150).contains(&waits(&mut gather, 25, 0)));
        assert!(waits(&mut gather, 25, 1) > 1500);
    }

    #[test]
    fn time_of_the_sends_is_part_of_the_limit() {
        let mut gather = Gather::new(LIMIT);
        (0..9).for_each(|_| gather.record(9));
        gather.sending = LIMIT / 4;
        assert_eq!(gather.time(25), LIMIT * 3 / 4);
        gather.sending = LIMIT * 2;
        assert_eq!(gather.time(25), Duration::ZERO);
    }
}
