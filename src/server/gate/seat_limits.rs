//! When a session gives up a released seat: a last resort behind the transfer's own limits.

use std::{collections::BTreeMap, net::Shutdown, time::Duration};

use crate::{
    net::{clock, copy::SLOWEST, primitives::atomic::Ordering},
    server::gate::{
        release::Release,
        state::{GateState, SeatPhase, TakenSeat},
    },
    session::SeatId,
    units::Moment,
};

/// Watches the seats of one session.
pub(super) struct SeatLimits {
    bytes: u64,
    /// How long a seat may make no progress.
    patience: Duration,
    /// How far each seat was when it last made progress.
    progress: BTreeMap<SeatId, (u64, Moment)>,
    /// When half of the seats had everything, from the release.
    half: Option<Duration>,
}

/// Once half of the seats have everything, a seat may take so many times as long as they did, ...
const LATE_FACTOR: u32 = 10;

/// ... and in any case so long, ...
const LATE_LEAST: Duration = Duration::from_secs(600);

/// ... and as long as its bytes take at this rate, bytes per second: 51 min for 100 MB.
const LATE_RATE: u64 = 32 * 1024;

impl SeatLimits {
    /// For a session of `bytes` whose transfers stall after `stall`.
    pub(super) fn new(bytes: u64, stall: Duration) -> Self {
        // Twice the stall limit, and the time that one call's block takes at the slowest rate: a
        // kernel call that dribbles for ever.
        let patience = stall * 2 + Duration::from_secs((1 << 20) / SLOWEST);
        Self { bytes, patience, progress: BTreeMap::new(), half: None }
    }

    /// Closes the connections of the seats that are over a limit.
    pub(super) fn close_late(&mut self, state: &mut GateState, release: &Release) {
        let now = clock::now();
        let took = now.since(release.released());
        let is_whole = |seat: &&TakenSeat| {
            matches!(seat.phase, SeatPhase::Finished(_))
                && seat.moved.load(Ordering::Relaxed) >= self.bytes
        };
        let whole = state.seats.values().filter(is_whole).count();
        let late = self.is_late(whole, release.admitted, took);
        for (&id, seat) in &mut state.seats {
            if matches!(seat.phase, SeatPhase::Finished(_)) || seat.given_up.is_some() {
                continue;
            }
            let moved = seat.moved.load(Ordering::Relaxed);
            let reason = if late {
                format!(
                    "too slow: not done after {} s, and half of the others were",
                    took.as_secs()
                )
            } else if self.is_stalled(id, moved, now) {
                format!("no progress for {} s", self.patience.as_secs())
            } else {
                continue;
            };
            log::warn!("seat {id}: {reason}, closing its connection");
            let _ = seat.client.stream.shutdown(Shutdown::Both);
            seat.given_up = Some(reason);
        }
    }

    fn is_stalled(&mut self, id: SeatId, moved: u64, now: Moment) -> bool {
        let entry = self.progress.entry(id).or_insert((moved, now));
        if entry.0 != moved {
            *entry = (moved, now);
        }
        moved < self.bytes && now.since(entry.1) > self.patience
    }

    /// Whether a session of which `whole` of the `admitted` seats have everything waits for the
    /// others no longer, so long after its release.
    fn is_late(&mut self, whole: usize, admitted: usize, took: Duration) -> bool {
        if self.half.is_none() && whole * 2 >= admitted {
            self.half = Some(took);
        }
        let slowest = Duration::from_secs(self.bytes / LATE_RATE);
        self.half.is_some_and(|half| took > (half * LATE_FACTOR).max(LATE_LEAST).max(slowest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn session_waits_for_slow_seats_only_so_long() {
        let limits = || SeatLimits::new(100_000_000, SECOND * 30);
        // 24 of 25 have the file after 8 s, and one reads as slowly as it can.
        let mut slow = limits();
        assert!(!slow.is_late(12, 25, SECOND * 8), "not half");
        assert!(!slow.is_late(13, 25, SECOND * 8));
        assert!(!slow.is_late(24, 25, SECOND * 3051));
        assert!(slow.is_late(24, 25, SECOND * 3052), "not for 27 hours");
        // Where all are slow nobody is late.
        let mut all = limits();
        assert!(!all.is_late(0, 25, SECOND * 100_000));
        assert!(!all.is_late(13, 25, SECOND * 100_001));
        assert!(!all.is_late(24, 25, SECOND * 999_999));
        assert!(all.is_late(24, 25, SECOND * 1_000_011));
        // A small file has ten minutes.
        let mut small = SeatLimits::new(1000, SECOND * 30);
        assert!(!small.is_late(1, 2, SECOND));
        assert!(!small.is_late(1, 2, SECOND * 600));
        assert!(small.is_late(1, 2, SECOND * 601));
    }

    #[test]
    fn seat_is_stalled_when_it_makes_no_progress() {
        let mut limits = SeatLimits::new(100, SECOND);
        let at = |second: u64| Moment(second * 1_000_000);
        assert!(!limits.is_stalled(SeatId(1), 5, at(0)));
        assert!(!limits.is_stalled(SeatId(1), 5, at(1026)));
        assert!(limits.is_stalled(SeatId(1), 5, at(1027)));
        assert!(!limits.is_stalled(SeatId(1), 6, at(1028)));
        assert!(!limits.is_stalled(SeatId(1), 6, at(2000)));
    }
}
