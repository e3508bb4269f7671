//! Whether a client gets on while it is sent to.
//!
//! A client that talks and gets nothing is on a dead path, or does not tell the truth; talk alone
//! holds no session open. Time alone says nothing: at a low rate, shared by many, little is sent.

use std::time::Duration;

use crate::{
    proto::udp::{before, control::Report},
    units::Moment,
};

/// How far a client says that it has come, and since when it has not come further.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StallDetector {
    received: u32,
    cum: u32,
    /// What had been sent to it by then, questions included.
    sent: u64,
    since: Moment,
}

/// A client that gets no further for this long, while [`STUCK_AFTER`] datagrams were sent to it,
/// is given up.
pub(super) const STUCK: Duration = Duration::from_secs(10);

/// See [`STUCK`]; questions count too, because a client that holds everything up is sent nothing
/// else.
pub(super) const STUCK_AFTER: u64 = 50;

impl StallDetector {
    /// A client that has got nothing of the `sent` datagrams yet.
    pub(super) fn new(sent: u64, now: Moment) -> Self {
        Self { received: 0, cum: 0, sent, since: now }
    }

    /// Hears how far it has come, when `numbered` of the `sent` datagrams had numbers: more than
    /// those it cannot have.
    pub(super) fn record(&mut self, report: &Report, numbered: u32, sent: u64, now: Moment) {
        let received = if before(numbered, report.received) { numbered } else { report.received };
        if report.cum > self.cum || before(self.received, received) {
            *self = Self { received, cum: self.cum.max(report.cum), sent, since: now };
        }
    }

    /// True when it is to be given up.
    pub(super) fn is_stuck(&self, sent: u64, now: Moment) -> bool {
        now >= self.since.after(STUCK) && sent.saturating_sub(self.sent) >= STUCK_AFTER
    }

    /// True when it says that nothing has reached it.
    pub(super) fn is_unreached(&self) -> bool {
        self.received == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(received: u32, cum: u32) -> Report {
        Report { seen: received, received, round: 0, cum, more: false, missing: Vec::new() }
    }

    #[test]
    fn stalled_client_is_given_up_and_a_slow_one_is_not() {
        let start = Moment(0);
        let advance = StallDetector::new(7, start);
        let late = start.after(STUCK);
        assert!(!advance.is_stuck(7 + STUCK_AFTER - 1, late), "little was sent");
        assert!(!advance.is_stuck(1_000_000, Moment(late.0 - 1)), "not yet");
        assert!(advance.is_stuck(7 + STUCK_AFTER, late));
        assert!(advance.is_unreached());

        let mut talks = advance;
        talks.record(&report(0, 0), 500, 500, late);
        assert!(talks.is_stuck(500, late), "it says the same again");
        // It claims one more each time, of datagrams that were never numbered.
        talks.record(&report(20, 0), 20, 500, Moment(1));
        for more in 21..100 {
            talks.record(&report(more, 0), 20, 1000, late);
        }
        assert!(talks.is_stuck(1000, late.after(STUCK)));
        assert!(!talks.is_unreached());

        let mut slow = advance;
        for step in 1..1000_u32 {
            let now = start.after(STUCK * step);
            let sent = u64::from(step) * STUCK_AFTER * 2;
            slow.record(&report(step, 0), sent as u32, sent, now);
            assert!(!slow.is_stuck(sent, now), "one more each time");
        }
        // Numbers wrap.
        slow.received = u32::MAX;
        slow.record(&report(0, 0), 0, 9_000_000, late);
        assert_eq!(slow.sent, 9_000_000);
    }
}
