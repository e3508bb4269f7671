//! The one monotonic clock of a process, and wall time as a label.
//!
//! With feature `sockopt` on Linux the clock is the host's own, so that moments of two processes
//! on one host compare; elsewhere its epoch is the process's start. [`id`] tells which.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    io::Read,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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

/// A random number that nobody can guess, for tokens, keys and cookies as well: from the system's own
/// source. Where there is none it is the hash of a count under a key that std takes from the system,
/// which tells as little of the next one.
pub fn random() -> u64 {
    static SOURCE: LazyLock<Option<File>> = LazyLock::new(|| File::open("/dev/urandom").ok());
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 8];
    match SOURCE.as_ref().map(|mut source| source.read_exact(&mut bytes)) {
        Some(Ok(())) => u64::from_ne_bytes(bytes),
        _ => KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_differ_in_every_bit() {
        let drawn: Vec<u64> = (0..4096).map(|_| random()).collect();
        for bit in 0..64 {
            let set = drawn.iter().filter(|number| (*number >> bit) & 1 == 1).count();
            // 2048 is expected; 12 standard deviations are 384.
            assert!((1664..2432).contains(&set), "bit {bit} is set in {set} of 4096");
        }
        let mut unique = drawn.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), drawn.len());
    }
}
