//! Threads with a name and a bounded stack.

use std::{
    cell::Cell,
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

thread_local! {
    static IS_RAISED: Cell<bool> = const { Cell::new(false) };
}

/// Runs this thread before all that have no real-time priority, until [`lower_priority`]: for the few
/// calls that open a seat, each of which delays the others' seats, and for the one thread that sends
/// to a whole group. Linux allows it to root, to `CAP_SYS_NICE` and below `RLIMIT_RTPRIO` (sched(7));
/// elsewhere the thread stays as it is.
pub fn raise_priority() {
    IS_RAISED.set(set_real_time(1));
}

/// Ends what [`raise_priority`] began.
pub fn lower_priority() {
    if IS_RAISED.replace(false) {
        set_real_time(0);
    }
}

/// Gives this thread a real-time priority, 0 for none; false where the system does not.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
#[allow(unsafe_code, reason = "no safe call sets it")]
fn set_real_time(priority: i32) -> bool {
    use nix::libc;

    let policy = if priority == 0 { libc::SCHED_OTHER } else { libc::SCHED_RR };
    // By its number: musl's `sched_setscheduler` refuses. Linux's `sched_param` is the priority alone.
    // SAFETY: 0 is the calling thread, and the system reads `priority`, which outlives the call.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) == 0 }
}

/// This system has none.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
fn set_real_time(_: i32) -> bool {
    false
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

#[cfg(all(test, target_os = "linux", feature = "sockopt"))]
mod tests {
    use super::*;

    /// The policy of this thread, as the system says it: field 41 of its `stat`, proc_pid_stat(5).
    fn policy() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        fields.split_whitespace().nth(38).expect("41 fields and more").to_owned()
    }

    #[test]
    fn raised_priority_is_real_time_until_it_is_lowered() {
        lower_priority();
        assert_eq!(policy(), "0");
        raise_priority();
        // 2 is SCHED_RR; a system that does not allow it leaves what was.
        assert_eq!(policy(), if IS_RAISED.get() { "2" } else { "0" });
        assert_eq!(IS_RAISED.get(), set_real_time(1));
        lower_priority();
        assert_eq!(policy(), "0");
    }
}
