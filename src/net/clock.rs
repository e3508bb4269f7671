//! The one monotonic clock of a process, and wall time as a label.
//!
//! With feature `sockopt` on Linux the clock is the host's own, so that moments of two processes
//! on one host compare; elsewhere its epoch is the process's start. [`id`] tells which.

use std::{sync::LazyLock, time::Duration};

use time::OffsetDateTime;

use crate::{transfer::ClockId, units::Moment};

/// The present moment.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub fn now() -> Moment {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("Linux always has a monotonic clock");
    Moment(crate::units::micros(Duration::from(now)))
}

/// The present moment.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub fn now() -> Moment {
    static EPOCH: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    Moment(crate::units::micros(EPOCH.elapsed()))
}

/// Which clock [`now`] reads.
pub fn id() -> ClockId {
    static ID: LazyLock<ClockId> = LazyLock::new(|| {
        let host = cfg!(all(target_os = "linux", feature = "sockopt"))
            .then(|| std::fs::read("/proc/sys/kernel/random/boot_id").ok())
            .flatten();
        match host {
            Some(mut boot) => {
                // A time namespace may shift the clock for the processes in it.
                let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
                boot.extend(namespace.as_os_str().as_encoded_bytes());
                let digest = crate::digest::Digest::of(&boot);
                let (head, _) = digest.as_bytes().split_at(8);
                ClockId(head.iter().fold(0, |id, &byte| id << 8 | u64::from(byte)))
            }
            None => ClockId(random()),
        }
    });
    *ID
}

/// Wall time, UTC, cut to microseconds: a label, never an operand.
pub fn wall() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now - Duration::from_nanos(u64::from(now.nanosecond() % 1000))
}

/// The time left until `deadline`, or `None` when it has passed.
pub fn left(deadline: Moment) -> Option<Duration> {
    Some(deadline.since(now())).filter(|left| !left.is_zero())
}

/// A random number, from the seed that std takes from the system for its hash maps.
pub fn random() -> u64 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(std::process::id())
}
