//! The rate of a session to which nobody gave one (`--rate auto`): what is delivered sets it.
//!
//! Nothing is held back as long as most of what is sent arrives: then the clients' buffers and
//! the sender's own queue, which makes its sends wait, set the pace, and a link that is the
//! sender's own is full from the first datagram. Where much is lost, somewhere behind that queue
//! is a narrower link: from then on what is sent is what was delivered. Loss that this does not
//! mend is no queue's: it is borne, and the rate goes up again. Random loss therefore costs what it
//! takes and never the rate. Every now and then a little more is tried, and kept if it arrives.
//!
//! What is delivered is told exactly: a client's reports say how many of the datagrams up to a
//! number have come, so neither delay nor the moment of a report is in the share that arrived.

use std::time::Duration;

use crate::units::{Moment, Rate};

/// Finds a session's rate.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The rate of datagrams' bytes; `None` holds nothing back.
    pub rate: Option<Rate>,
    state: ProbeState,
    /// The share that arrives when no queue is full.
    base: f64,
    since: Moment,
    sent: u64,
    /// Bytes of a datagram.
    datagram: u64,
}

/// What clients have told in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Datagrams that were sent to one or more of them.
    pub seen: u64,
    /// Of these, arrived.
    pub received: u64,
    /// How many arrived in a second, whenever they were sent.
    pub per_second: u64,
}

impl Arrivals {
    /// The share that arrived, 0 to 1.
    pub fn share(&self) -> f64 {
        (self.received as f64 / self.seen as f64).min(1.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeState {
    /// Nothing was lost that would tell of a queue.
    Free,
    /// Much was lost, or far less arrived than was sent: one such interval may be the beginning,
    /// or a machine that had other things to do.
    Full,
    /// The rate was cut for a share this low, thousandths; what is under way drains.
    Cut { share: u16, settled: bool },
    /// The rate is right; so many intervals until more is tried.
    Hold(u8),
    /// More is tried; what arrives of it is told one interval later.
    Try { settled: bool },
}

/// How often the rate is judged.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Datagrams that must have been told of before the share that arrived is believed.
pub const REPORTED_MIN: u64 = 32;

/// With a lower share arriving than this a session that is not held back is cut.
const FREE_LEAST: f64 = 0.85;

/// With a lower share arriving a rate that was cut is cut again, if that helped.
const RIGHT_LEAST: f64 = 0.94;

/// With a lower share of what is sent arriving in the same time a session that is not held back
/// is cut, before anything is known to be lost: a queue fills. Far below what a machine with more
/// clients than processors makes of it.
const FREE_FOLLOWS: f64 = 0.33;

/// A rate is followed when this share of it arrives, of what arrives at all; a queue takes the rest.
const FOLLOWS: f64 = 0.95;

/// What is kept of the rate at which a full queue is emptied, so that it is.
const BELOW: f64 = 0.98;

/// The least rate: a datagram in a few milliseconds.
const LEAST: Rate = Rate(2_000_000);

/// Intervals between two tries.
const HOLD: u8 = 8;

/// A rate of which less is used is not what holds the session back.
const USED: f64 = 0.8;

/// How much more is tried.
const MORE: f64 = 1.15;

impl Probe {
    /// Nothing is known yet of a session with datagrams of so many bytes, and nothing held back.
    pub fn new(datagram: u64, now: Moment) -> Self {
        Self { rate: None, state: ProbeState::Free, base: 1.0, since: now, sent: 0, datagram }
    }

    /// So many bytes of datagrams were sent.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// When [`Probe::handle`] has something to judge.
    pub fn poll_timeout(&self) -> Moment {
        self.since.after(INTERVAL)
    }

    /// Judges what clients told since it was last asked; true when it has, and the next interval
    /// begins. Nothing is judged before [`Probe::poll_timeout`], or by a few datagrams.
    pub fn handle(&mut self, told: Arrivals, now: Moment) -> bool {
        let span = now.since(self.since).as_secs_f64();
        if now < self.poll_timeout() || told.seen < REPORTED_MIN {
            return false;
        }
        let share = told.share();
        // As wide as chance makes it: three standard deviations, at a twentieth lost or more.
        let spread = (self.base * (1.0 - self.base)).max(0.05 * 0.95).sqrt();
        let margin = 0.03 + 3.0 * spread / (told.seen as f64).sqrt();
        let going = self.sent as f64 * 8.0 / span;
        let arrives = told.per_second as f64 * self.datagram as f64 * 8.0;
        self.since = now;
        self.sent = 0;
        self.judge(share, margin, going, arrives);
        true
    }

    fn judge(&mut self, share: f64, margin: f64, going: f64, arrives: f64) {
        let Some(rate) = self.rate else {
            let full = share < FREE_LEAST || arrives < going * FREE_FOLLOWS;
            match (full, self.state) {
                (true, ProbeState::Full) => self.cut(arrives, share),
                (true, _) => self.state = ProbeState::Full,
                (false, _) => self.state = ProbeState::Free,
            }
            return;
        };
        let rate_now = rate.0 as f64;
        let congested = share < self.base - margin;
        // What the narrowest link carries, while its queue is full.
        let carries = (arrives / self.base).min(rate_now) * BELOW;
        let mut hold = HOLD;
        match self.state {
            ProbeState::Free | ProbeState::Full => {}
            ProbeState::Cut { share: before, settled: false } => {
                self.state = ProbeState::Cut { share: before, settled: true };
                return;
            }
            ProbeState::Cut { share: before, .. } => {
                // What is still lost at the rate of what arrived is no queue's doing, unless it
                // was less than half of it.
                let before = f64::from(before) / 1000.0;
                if 1.0 - share > (1.0 - before) / 2.0 {
                    self.base = share;
                    return self.more(rate);
                }
                if share < RIGHT_LEAST {
                    return self.cut(arrives, share);
                }
                self.base = share;
            }
            _ if congested => self.set(carries),
            ProbeState::Try { settled: false } => {
                self.state = ProbeState::Try { settled: true };
                return;
            }
            ProbeState::Try { settled: true } => {
                self.learn(share);
                if going < rate_now * USED {
                    // Where something else holds it back, more would tell nothing.
                    hold = 0;
                } else if arrives >= going * share * FOLLOWS {
                    return self.more(rate);
                } else {
                    self.set((arrives / share).min(rate_now) * BELOW);
                }
            }
            ProbeState::Hold(left) => {
                self.learn(share);
                match (left, going > rate_now * USED) {
                    (0, true) => return self.more(rate),
                    (0, false) => hold = 0,
                    _ => hold = left - 1,
                }
            }
        }
        self.state = ProbeState::Hold(hold);
    }

    /// What arrives where no queue is full: up by a fifth of what chance may have made of it, down
    /// no faster than a queue could hide in.
    fn learn(&mut self, share: f64) {
        let up = self.base + (share - self.base) / 5.0;
        self.base = up.max(self.base * 0.995);
    }

    fn cut(&mut self, arrives: f64, share: f64) {
        self.set(arrives);
        self.state = ProbeState::Cut { share: (share * 1000.0) as u16, settled: false };
    }

    fn more(&mut self, held: Rate) {
        self.state = ProbeState::Try { settled: false };
        self.set(held.0 as f64 * MORE);
    }

    fn set(&mut self, bits: f64) {
        self.rate = Some(Rate(bits as u64).max(LEAST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_ignores_few_datagrams_and_short_times() {
        let mut probe = Probe::new(1472, Moment(0));
        let all_lost = |seen| Arrivals { seen, ..Arrivals::default() };
        assert!(!probe.handle(all_lost(REPORTED_MIN - 1), Moment(0).after(INTERVAL)));
        assert!(!probe.handle(all_lost(1000), Moment(0).after(INTERVAL / 2)));
        assert_eq!(probe.rate, None);
        probe.sent(1_000_000);
        assert!(probe.handle(all_lost(1000), Moment(0).after(INTERVAL)));
        assert_eq!(probe.rate, None, "once may be a queue that fills");
        probe.sent(1_000_000);
        assert!(probe.handle(all_lost(1000), Moment(0).after(INTERVAL * 2)));
        assert_eq!(probe.rate, Some(LEAST), "never nothing at all");
    }

    #[test]
    fn wild_reports_make_no_wild_rate() {
        let mut probe = Probe::new(1472, Moment(0));
        probe.sent(u64::from(u32::MAX));
        let told = Arrivals { seen: 100, received: u64::MAX, per_second: u64::MAX };
        assert!(probe.handle(told, Moment(0).after(INTERVAL)));
        assert_eq!(probe.rate, None);
    }
}
