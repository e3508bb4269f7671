//! Threads with a name and a bounded stack.

use std::{
    io,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::net::STACK;

/// Starts a thread.
///
/// # Errors
/// The system refuses it.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(body)
}

/// How long this thread has been on a CPU, and how long it could have run and waited for one: for
/// others, or for a limit on what it may use; `None` where the system does not say it.
pub fn cpu_times() -> Option<(Duration, Duration)> {
    // Linux, with the scheduler's statistics: time on a CPU and in its queue, nanoseconds.
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    let mut next = || numbers.next().flatten().map(Duration::from_nanos);
    Some((next()?, next()?))
}

/// The same since `then`, where both are known.
pub fn cpu_times_since(then: Option<(Duration, Duration)>) -> Option<(Duration, Duration)> {
    let (ran, waited) = cpu_times()?;
    then.map(|then| (ran.saturating_sub(then.0), waited.saturating_sub(then.1)))
}
