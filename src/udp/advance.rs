//! Whether a client comes further while it is sent to.

use std::time::Duration;

use crate::runtime::way::Failure;
use crate::transfer::Outcome;
use crate::units::Moment;

/// How far a client says that it has come, and since when it has not come further.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advance {
    received: u32,
    offered: u64,
    since: Moment,
}

/// How long a client may report that nothing more has arrived, while [`STUCK_AFTER`] datagrams
/// were sent to it: its path is dead, or it does not tell the truth.
const STUCK: Duration = Duration::from_secs(10);

/// See [`STUCK`].
const STUCK_AFTER: u64 = 50;

impl Advance {
    pub(super) fn new(since: Moment) -> Self {
        Self {
            received: 0,
            offered: 0,
            since,
        }
    }

    /// Hears that `received` datagrams have arrived of the `offered`.
    pub(super) fn hear(&mut self, received: u32, offered: u64, now: Moment) -> Result<(), Failure> {
        if received > self.received {
            *self = Self {
                received,
                offered,
                since: now,
            };
            return Ok(());
        }
        let vain = offered.saturating_sub(self.offered);
        if now <= self.since.after(STUCK) || vain < STUCK_AFTER {
            return Ok(());
        }
        let why = format!(
            "received nothing more of the {vain} datagrams sent to it in {} s",
            STUCK.as_secs()
        );
        Err(Failure::new(Outcome::TimedOut, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_comes_no_further_is_given_up_and_a_slow_one_is_not() {
        let start = Moment(0);
        let late = start.after(STUCK * 2);
        let stuck = |offered| Advance::new(start).hear(0, offered, late);
        assert!(stuck(STUCK_AFTER - 1).is_ok(), "little was sent to it");
        let failure = stuck(STUCK_AFTER).expect_err("nothing arrives");
        assert_eq!(failure.outcome, Outcome::TimedOut);

        let mut slow = Advance::new(start);
        for step in 1..1000_u32 {
            let now = start.after(STUCK * step);
            slow.hear(step, u64::from(step) * STUCK_AFTER, now)
                .expect("one more each time");
        }
    }
}
