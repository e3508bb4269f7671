//! A counted meeting with a deadline: the fair start after the release.
//!
//! A bare barrier is not a fair start: the threads that wake first fill their socket buffers
//! before the last have run. So each seat sends its first block, waits for its client's answer,
//! and comes here; nobody goes on before all have come or the deadline is over. Whoever fails on
//! the way counts down too. This is not a barrier: it ends without the missing.

use crate::{
    net::{
        clock, lock,
        primitives::{Condvar, Mutex},
    },
    units::Moment,
};

/// A meeting of a fixed number of threads.
#[derive(Debug)]
pub struct Latch {
    missing: Mutex<usize>,
    all_here: Condvar,
}

/// A thread's duty to come; dropping it counts as having come.
#[derive(Debug)]
pub struct LatchGuard<'a> {
    meeting: &'a Latch,
}

impl Latch {
    /// A meeting of `expected` threads.
    pub fn new(expected: usize) -> Self {
        Self { missing: Mutex::new(expected), all_here: Condvar::new() }
    }

    /// The duty of one of the expected threads.
    pub fn guard(&self) -> LatchGuard<'_> {
        LatchGuard { meeting: self }
    }

    fn count_down(&self) {
        let mut missing = lock(&self.missing);
        *missing = missing.checked_sub(1).expect("each expected thread comes once");
        let all_here = *missing == 0;
        // Whoever is woken takes the lock first thing; let it be free by then.
        drop(missing);
        if all_here {
            self.all_here.notify_all();
        }
    }

    fn wait(&self, deadline: Moment) {
        let left = clock::left(deadline).unwrap_or_default();
        drop(self.all_here.wait_timeout_while(lock(&self.missing), left, |missing| *missing > 0));
    }
}

impl LatchGuard<'_> {
    /// Comes, and waits for the others until `deadline`.
    pub fn arrive_and_wait(self, deadline: Moment) {
        let meeting = self.meeting;
        drop(self);
        meeting.wait(deadline);
    }
}

impl Drop for LatchGuard<'_> {
    fn drop(&mut self) {
        self.meeting.count_down();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn nobody_leaves_before_the_last_has_come() {
        let meeting = Latch::new(8);
        let come = AtomicUsize::new(0);
        let far = clock::now().after(Duration::from_secs(60));
        thread::scope(|scope| {
            for n in 0..8 {
                let (meeting, come) = (&meeting, &come);
                scope.spawn(move || {
                    let duty = meeting.guard();
                    come.fetch_add(1, Ordering::SeqCst);
                    if n == 3 {
                        return; // One fails on its way.
                    }
                    duty.arrive_and_wait(far);
                    assert_eq!(come.load(Ordering::SeqCst), 8);
                });
            }
        });
    }

    #[test]
    fn a_deadline_ends_it_without_the_missing() {
        let meeting = Latch::new(2);
        let duty = meeting.guard();
        duty.arrive_and_wait(clock::now().after(Duration::from_millis(20)));
        assert_eq!(*meeting.missing.lock().expect("no panic"), 1);
    }
}
