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

use crate::units::Moment;
use crate::units::Rate;

/// Finds a session's rate.
#[derive(Clone, Debug)]
pub struct Probe {
    rate: Option<Rate>,
    state: State,
    /// The share that arrives when no queue is full.
    base: f64,
    since: Moment,
    sent: u64,
}

/// What clients have told in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Datagrams that were sent to one or more of them.
    pub seen: u64,
    /// Of these, arrived.
    pub received: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was lost that would tell of a queue.
    Free,
    /// Much was lost, and more arrived than the narrow link carries, for it filled a queue: what
    /// arrives next is what it carries.
    Full,
    /// The rate was cut for a share this low, thousandths; what is under way drains.
    Cut { share: u16, settled: bool },
    /// The rate is right; so many intervals until more is tried.
    Hold(u8),
    /// More is tried; what held before.
    Try(Rate),
}

/// How often the rate is judged.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Datagrams that must have been told of before the share that arrived is believed.
pub const TOLD_MIN: u64 = 32;

/// With a lower share arriving than this a session that is not held back is cut.
const FREE_LEAST: f64 = 0.85;

/// With a lower share arriving a rate that was cut is cut again, if that helped.
const RIGHT_LEAST: f64 = 0.94;

/// The least rate: a datagram in a few milliseconds.
const LEAST: Rate = Rate(2_000_000);

/// Intervals between two tries.
const HOLD: u8 = 8;

/// How much more is tried.
const MORE: f64 = 1.15;

impl Probe {
    /// Nothing is known yet, and nothing held back.
    pub fn new(now: Moment) -> Self {
        Self {
            rate: None,
            state: State::Free,
            base: 1.0,
            since: now,
            sent: 0,
        }
    }

    /// The rate of datagrams' bytes; `None` holds nothing back.
    pub fn rate(&self) -> Option<Rate> {
        self.rate
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
    pub fn handle(&mut self, told: Told, now: Moment) -> bool {
        let span = now.since(self.since).as_secs_f64();
        if now < self.poll_timeout() || told.seen < TOLD_MIN {
            return false;
        }
        let share = (told.received as f64 / told.seen as f64).min(1.0);
        // As wide as chance makes it: three standard deviations at a twentieth lost.
        let margin = 0.03 + 0.65 / (told.seen as f64).sqrt();
        let going = self.sent as f64 * 8.0 / span;
        self.since = now;
        self.sent = 0;
        self.judge(share, margin, going);
        true
    }

    fn judge(&mut self, share: f64, margin: f64, going: f64) {
        let Some(rate) = self.rate else {
            match (share < FREE_LEAST, self.state) {
                (true, State::Full) => self.cut(going, share),
                (true, _) => self.state = State::Full,
                (false, _) => self.state = State::Free,
            }
            return;
        };
        let rate_now = rate.0 as f64;
        let congested = share < self.base - margin;
        let mut hold = HOLD;
        match self.state {
            State::Free | State::Full => {}
            State::Cut {
                share: before,
                settled: false,
            } => {
                self.state = State::Cut {
                    share: before,
                    settled: true,
                };
                return;
            }
            State::Cut { share: before, .. } => {
                // What is still lost at the rate of what arrived is no queue's doing, unless it
                // was less than half of it.
                let before = f64::from(before) / 1000.0;
                if 1.0 - share > (1.0 - before) / 2.0 {
                    self.base = share;
                    return self.more(rate);
                }
                if share < RIGHT_LEAST {
                    return self.cut(going, share);
                }
                self.base = share;
            }
            _ if congested => {
                let narrower = match self.state {
                    State::Try(held) => held.0 as f64,
                    _ => going.min(rate_now) * share / self.base * 0.98,
                };
                self.set(narrower);
            }
            State::Try(_) => {
                self.base = (self.base * 0.995).max(share);
                return self.more(rate);
            }
            State::Hold(left) => {
                self.base = (self.base * 0.995).max(share);
                // Where something else holds it back, more would tell nothing.
                let used = going > rate_now * 0.8;
                match (left, used) {
                    (0, true) => return self.more(rate),
                    (0, false) => hold = 0,
                    _ => hold = left - 1,
                }
            }
        }
        self.state = State::Hold(hold);
    }

    fn cut(&mut self, going: f64, share: f64) {
        self.set(going * share);
        self.state = State::Cut {
            share: (share * 1000.0) as u16,
            settled: false,
        };
    }

    fn more(&mut self, held: Rate) {
        self.state = State::Try(held);
        self.set(held.0 as f64 * MORE);
    }

    fn set(&mut self, bits: f64) {
        self.rate = Some(Rate(bits as u64).max(LEAST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A narrower link behind the sender's own: its rate, its queue, and what it loses at random.
    struct Link {
        own: f64,
        narrow: f64,
        loss: f64,
    }

    /// Sends for `seconds`, in steps of a millisecond; what arrived of what the link could have
    /// carried, what was sent of what arrived, and the rate at the end.
    fn run(probe: &mut Probe, link: &Link, seconds: u64, seed: u64) -> (f64, f64) {
        const SIZE: f64 = 1472.0 * 8.0;
        let mut random = seed;
        let mut chance = move || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as f64 / (1_u64 << 31) as f64
        };
        let (mut queue, mut credit) = (0.0, 0.0);
        let (mut sent, mut arrived) = (0_u64, 0_u64);
        let mut told = Told::default();
        let begun = probe.since;
        for ms in 1..=seconds * 1000 {
            let rate = probe
                .rate()
                .map_or(link.own, |rate| (rate.0 as f64).min(link.own));
            credit += rate / 1000.0;
            queue = f64::max(0.0, queue - link.narrow / 1000.0);
            while credit >= SIZE {
                credit -= SIZE;
                sent += 1;
                told.seen += 1;
                probe.sent(1472);
                // Fifty milliseconds of queue.
                if queue + SIZE <= link.narrow / 20.0 {
                    queue += SIZE;
                    if chance() >= link.loss {
                        arrived += 1;
                        told.received += 1;
                    }
                }
            }
            if probe.handle(told, begun.after(Duration::from_millis(ms))) {
                told = Told::default();
            }
        }
        let possible = link.narrow.min(link.own) * seconds as f64 / SIZE * (1.0 - link.loss);
        (arrived as f64 / possible, sent as f64 / arrived as f64)
    }

    #[test]
    fn a_link_of_the_senders_own_is_full_from_the_first_datagram() {
        for loss in [0.0, 0.01, 0.05] {
            let mut probe = Probe::new(Moment(0));
            let link = Link {
                own: 1e8,
                narrow: 1e8,
                loss,
            };
            let (used, _) = run(&mut probe, &link, 10, 7);
            assert_eq!(probe.rate(), None, "{loss}: nothing is held back");
            assert!(used > 0.99, "{loss}: {used}");
        }
    }

    #[test]
    fn behind_a_narrower_link_what_arrives_sets_the_rate() {
        for narrow in [1e7, 3e7, 5e7] {
            for loss in [0.0, 0.01, 0.05] {
                let mut probe = Probe::new(Moment(0));
                let link = Link {
                    own: 1e8,
                    narrow,
                    loss,
                };
                let (used, cost) = run(&mut probe, &link, 20, 7);
                assert!(used > 0.88, "{narrow} {loss}: {used} of it used");
                let least = 1.0 / (1.0 - loss);
                assert!(
                    cost < least * 1.15,
                    "{narrow} {loss}: {cost} sent for each that arrived"
                );
            }
        }
    }

    #[test]
    fn random_loss_costs_what_it_takes_and_not_the_rate() {
        for loss in [0.2, 0.3, 0.5] {
            let mut probe = Probe::new(Moment(0));
            let link = Link {
                own: 1e8,
                narrow: 1e8,
                loss,
            };
            let (used, _) = run(&mut probe, &link, 20, 7);
            assert!(used > 0.85, "{loss}: {used}");
        }
    }

    #[test]
    fn a_link_that_changes_is_followed_both_ways() {
        let mut probe = Probe::new(Moment(0));
        let mut link = Link {
            own: 1e8,
            narrow: 2e7,
            loss: 0.01,
        };
        run(&mut probe, &link, 10, 7);
        link.narrow = 6e7;
        run(&mut probe, &link, 10, 8);
        let (used, _) = run(&mut probe, &link, 10, 9);
        assert!(used > 0.9, "wider: {used}");
        link.narrow = 1e7;
        run(&mut probe, &link, 5, 10);
        let (used, cost) = run(&mut probe, &link, 10, 11);
        assert!(used > 0.88 && cost < 1.2, "narrower: {used} {cost}");
    }

    #[test]
    fn few_datagrams_and_short_times_are_not_judged() {
        let mut probe = Probe::new(Moment(0));
        let all_lost = |seen| Told { seen, received: 0 };
        assert!(!probe.handle(all_lost(TOLD_MIN - 1), Moment(0).after(INTERVAL)));
        assert!(!probe.handle(all_lost(1000), Moment(0).after(INTERVAL / 2)));
        assert_eq!(probe.rate(), None);
        probe.sent(1_000_000);
        assert!(probe.handle(all_lost(1000), Moment(0).after(INTERVAL)));
        assert_eq!(probe.rate(), None, "once may be a queue that fills");
        probe.sent(1_000_000);
        assert!(probe.handle(all_lost(1000), Moment(0).after(INTERVAL * 2)));
        assert_eq!(probe.rate(), Some(LEAST), "never nothing at all");
    }

    #[test]
    fn one_whose_own_words_are_wild_makes_no_wild_rate() {
        let mut probe = Probe::new(Moment(0));
        probe.sent(u64::from(u32::MAX));
        let told = Told {
            seen: 100,
            received: u64::MAX,
        };
        assert!(probe.handle(told, Moment(0).after(INTERVAL)));
        assert_eq!(probe.rate(), None);
    }
}
