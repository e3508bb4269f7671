//! The release itself: one barrier for the admitted and the session thread.

use std::{sync::OnceLock, time::Duration};

use time::OffsetDateTime;

use crate::{
    net::{
        self, clock,
        primitives::{
            Barrier,
            atomic::{AtomicU64, AtomicUsize, Ordering},
            thread,
        },
    },
    server::gate::latch::Latch,
    units::Moment,
};

/// One opening of one gate.
#[derive(Debug)]
pub struct Release {
    barrier: Barrier,
    /// How many seats are admitted.
    pub admitted: usize,
    /// How many seats have come to the barrier.
    arrived: AtomicUsize,
    /// The moment of the release, microseconds; zero before.
    released_us: AtomicU64,
    /// The same as wall time, a label.
    released_at: OnceLock<OffsetDateTime>,
    /// The longest time, microseconds, that the session's thread overslept.
    gap_us: AtomicU64,
    /// Where the seats meet once each has its first block out.
    pub fair_start: Latch,
}

impl Release {
    /// For the `admitted` seats and the session thread.
    pub(crate) fn new(admitted: usize) -> Self {
        Self {
            barrier: Barrier::new(admitted + 1),
            admitted,
            arrived: AtomicUsize::new(0),
            released_us: AtomicU64::new(0),
            released_at: OnceLock::new(),
            gap_us: AtomicU64::new(0),
            fair_start: Latch::new(admitted),
        }
    }

    /// The moment of the release; the present while it is still to come.
    pub fn released(&self) -> Moment {
        match self.released_us.load(Ordering::Acquire) {
            0 => clock::now(),
            us => Moment(us),
        }
    }

    /// The release as wall time; `None` while it is still to come.
    pub fn released_at(&self) -> Option<OffsetDateTime> {
        self.released_at.get().copied()
    }

    /// A seat's thread comes to the barrier; returns how long after the release it woke.
    pub(crate) fn wait(&self) -> Duration {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        self.barrier.wait();
        clock::now().since(self.released())
    }

    /// Dates the release that is about to happen.
    pub(crate) fn date(&self) -> OffsetDateTime {
        *self.released_at.get_or_init(clock::wall)
    }

    /// The session thread comes last, so that its arrival is the release.
    pub(crate) fn open(&self) {
        // Every admitted thread runs and has nothing to do before it arrives; the wait is for
        // the scheduler alone. Should it take absurdly long, the barrier waits just as well and
        // the release is only dated a little early.
        let patience = clock::now().after(Duration::from_secs(5));
        while self.arrived.load(Ordering::Acquire) < self.admitted
            && clock::left(patience).is_some()
        {
            thread::sleep(Duration::from_micros(200));
        }
        // It holds the barrier's lock while it wakes the seats, which must not run before it then.
        net::raise_priority();
        self.released_us.store(clock::now().0.max(1), Ordering::Release);
        self.barrier.wait();
        net::lower_priority();
    }

    /// The session's thread, which has nothing to do but to wake each second, overslept by `gap`.
    pub(crate) fn note_gap(&self, gap: Duration) {
        self.gap_us.fetch_max(crate::units::micros(gap), Ordering::Relaxed);
    }

    /// Says that the server stood still (stopped, or a machine that could not keep up) for so
    /// long that the session's times mean little; `None` when it did not.
    pub fn disturbed(&self) -> Option<String> {
        let gap = Duration::from_micros(self.gap_us.load(Ordering::Relaxed));
        (gap >= DISTURBED)
            .then(|| format!("disturbed: the server stood still for {:.1} s", gap.as_secs_f64()))
    }
}

/// A gap that no scheduler leaves on a machine that is merely busy.
const DISTURBED: Duration = Duration::from_secs(1);
