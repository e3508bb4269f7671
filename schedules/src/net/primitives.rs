//! shuttle's primitives under the names of `src/net/primitives.rs`. A wait with a limit registers a
//! timer, which the clock's thread lets pass at any step.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, LockResult, PoisonError},
    time::Duration,
};

pub use shuttle::sync::{Mutex, MutexGuard, atomic};

use crate::net::clock;
pub use crate::net::{channel, stream::TcpStream};

/// As [`std::thread`].
pub mod thread {
    pub use shuttle::thread::{Builder, JoinHandle, spawn, yield_now};

    pub use crate::net::clock::sleep;
}

/// As [`std::sync::Condvar`].
#[derive(Debug)]
pub struct Condvar(Arc<shuttle::sync::Condvar>);

/// As [`std::sync::WaitTimeoutResult`].
#[derive(Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub fn new() -> Self {
        Self(Arc::new(shuttle::sync::Condvar::new()))
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let until = clock::now().after(limit);
        let timer = clock::Timer::set(until, Arc::clone(&self.0));
        let guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        drop(timer);
        Ok((guard, WaitTimeoutResult(clock::left(until).is_none())))
    }

    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let deadline = clock::now().after(limit);
        while condition(&mut guard) {
            let Some(left) = clock::left(deadline) else { break };
            guard = self.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok((guard, WaitTimeoutResult(clock::left(deadline).is_none())))
    }
}

thread_local! {
    /// How many threads each barrier of this execution that has opened was for.
    static OPENED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// As [`std::sync::Barrier`].
pub struct Barrier {
    threads: usize,
    inner: shuttle::sync::Barrier,
}

impl Barrier {
    pub fn new(threads: usize) -> Self {
        Self { threads, inner: shuttle::sync::Barrier::new(threads) }
    }

    pub fn wait(&self) {
        let leads = self.inner.wait().is_leader();
        if leads {
            OPENED.with_borrow_mut(|opened| opened.push(self.threads));
        }
    }

    /// Forgets the barriers of the last execution.
    pub fn forget() {
        OPENED.with_borrow_mut(Vec::clear);
    }

    /// Whether a barrier for so many threads has opened.
    pub fn has_opened(threads: usize) -> bool {
        OPENED.with_borrow(|opened| opened.contains(&threads))
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("threads", &self.threads).finish_non_exhaustive()
    }
}
