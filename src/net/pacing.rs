//! Holds a session's rate: an absolute schedule that all its senders share.
//!
//! Each sender takes the next stretch of the schedule and sleeps until it begins. The schedule
//! may lag behind the clock by at most [`BURST`], so that a sender that was held up catches up a
//! little and never floods. No sender spins, and one that is slow leaves its share to the others.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::{
    net::clock,
    units::{Moment, Rate, micros},
};

/// A rate shared by any number of threads.
#[derive(Debug)]
pub struct Pacer {
    /// Bits per second.
    rate: AtomicU64,
    /// Nanoseconds after `epoch` at which the next stretch begins.
    next: AtomicU64,
    epoch: Moment,
    burst: Duration,
}

/// How far the schedule may lag behind the clock.
pub const BURST: Duration = Duration::from_millis(20);

/// The shortest sleep: what a system adds to any (measured: 75 us on Linux), twice.
const DOZE: Duration = Duration::from_micros(150);

/// How often one that sleeps looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Most bytes granted at once.
const GRANT_MAX: u64 = 64 * 1024;

/// Fewest bytes granted at once, where so many are wanted: one Ethernet segment of payload.
const GRANT_MIN: u64 = 1448;

impl Pacer {
    /// A schedule of `rate` that begins now.
    pub fn new(rate: Rate) -> Self {
        Self::with_burst(rate, BURST)
    }

    /// A schedule that may lag behind the clock by `burst` at most: what is lost by being held up
    /// longer is not caught up.
    pub fn with_burst(rate: Rate, burst: Duration) -> Self {
        Self { rate: AtomicU64::new(rate.0), next: AtomicU64::new(0), epoch: clock::now(), burst }
    }

    /// Keeps another rate from now on.
    pub fn set_rate(&self, rate: Rate) {
        self.rate.store(rate.0, Ordering::Relaxed);
    }

    fn rate(&self) -> Rate {
        Rate(self.rate.load(Ordering::Relaxed))
    }

    /// Takes at most `wanted` bytes of the schedule, sleeps until they are due, and says how many.
    pub fn grant(&self, wanted: u64) -> u64 {
        let (bytes, due) = self.reserve(wanted, clock::now());
        if let Some(wait) = clock::left(due) {
            thread::sleep(wait);
        }
        bytes
    }

    /// Takes exactly `bytes` of the schedule, however many, and sleeps until they are due: for
    /// datagrams, which cannot be cut. A wait below `DOZE` is left to the next call, because no
    /// system sleeps as short as that; so it is a burst of at most that length.
    pub fn charge(&self, bytes: u64) {
        self.charge_unless(bytes, &AtomicBool::new(false));
    }

    /// The same, and the sleep ends when `stop` is set: true if the bytes may be sent.
    pub fn charge_unless(&self, bytes: u64, stop: &AtomicBool) -> bool {
        let (_, due) = self.take(bytes, clock::now());
        while !stop.load(Ordering::Relaxed) {
            match clock::left(due).filter(|wait| *wait > DOZE) {
                Some(wait) => thread::sleep(wait.min(LOOK_EVERY)),
                None => return true,
            }
        }
        false
    }

    /// How many bytes a sender should send at once: a millisecond of the rate.
    pub fn stretch(&self) -> u64 {
        self.rate().0 / 8 / 1000
    }

    /// The bytes granted, and when they are due.
    fn reserve(&self, wanted: u64, now: Moment) -> (u64, Moment) {
        // A few milliseconds of the rate at a time: even, and not a call for every packet.
        let stretch = self.rate().0 / 8 / 250;
        self.take(wanted.min(stretch.clamp(GRANT_MIN, GRANT_MAX)), now)
    }

    /// Takes `bytes` of the schedule; returns them, and when they are due.
    fn take(&self, bytes: u64, now: Moment) -> (u64, Moment) {
        let cost = u64::try_from(self.rate().time_for(bytes).as_nanos()).unwrap_or(u64::MAX);
        let floor = now.since(self.epoch).saturating_sub(self.burst);
        let floor = u64::try_from(floor.as_nanos()).unwrap_or(u64::MAX);
        let mut begins = 0;
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            begins = next.max(floor);
            Some(begins.saturating_add(cost))
        });
        debug_assert!(taken.is_ok(), "the closure always gives a value");
        (bytes, self.epoch.after(Duration::from_micros(micros(Duration::from_nanos(begins)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the schedule in virtual time: a sender that asks again as soon as it is due.
    fn bytes_until(pacer: &Pacer, until: Duration) -> u64 {
        let mut now = pacer.epoch;
        let mut sum = 0;
        loop {
            let (bytes, due) = pacer.reserve(u64::MAX, now);
            now = Moment(now.0.max(due.0));
            if now.since(pacer.epoch) > until {
                return sum;
            }
            sum += bytes;
        }
    }

    #[test]
    fn the_schedule_keeps_its_rate() {
        for rate in [9_600, 1_000_000, 100_000_000, 10_000_000_000] {
            let pacer = Pacer::new(Rate(rate));
            let sent = bytes_until(&pacer, Duration::from_secs(10));
            // A grant's time is cut to whole nanoseconds, which shows at the highest rates.
            let right = rate / 8 * 10;
            let slack = GRANT_MAX + right / 10_000;
            let (least, most) = (right.saturating_sub(slack), right + slack);
            assert!((least..=most).contains(&sent), "{rate}: {sent} of {most}");
        }
    }

    #[test]
    fn whole_datagrams_keep_the_rate_too() {
        let rate = Rate(97_000_000);
        let pacer = Pacer::new(rate);
        let (mut now, mut sum) = (pacer.epoch, 0_u64);
        while now.since(pacer.epoch) < Duration::from_secs(10) {
            sum += 1472 * 8;
            now = Moment(now.0.max(pacer.take(1472 * 8, now).1.0));
        }
        let right = rate.0 / 8 * 10;
        assert!(sum.abs_diff(right) < right / 10_000 + 3 * 1472 * 8, "{sum} of {right}");
    }

    #[test]
    fn a_pause_is_caught_up_by_one_burst_only() {
        let rate = Rate(100_000_000);
        let pacer = Pacer::new(rate);
        let late = pacer.epoch.after(Duration::from_secs(5));
        let mut burst = 0;
        loop {
            let (bytes, due) = pacer.reserve(u64::MAX, late);
            if due > late {
                break;
            }
            burst += bytes;
        }
        let allowed = rate.0 / 8 / 50 + GRANT_MAX;
        assert!(burst <= allowed, "{burst} of {allowed}");
        assert!(burst >= rate.0 / 8 / 60, "{burst}");
    }
}
