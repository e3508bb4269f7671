//! How long a client that works in silence is waited for: as long as it gets further.

use std::time::Duration;

use crate::units::Moment;

/// How long a client may work in silence before READY and after its last byte.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Waits by progress: a sign of life counts only when it has got further, and only until the
/// slowest honest client would be done.
pub(super) struct Patience {
    pub(super) deadline: Moment,
    /// No sign of life moves the deadline beyond.
    pub(super) last: Moment,
    bytes: u64,
}

impl Patience {
    /// For work that takes at most `longest`.
    pub(super) fn new(now: Moment, longest: Duration) -> Self {
        let deadline = now.after(SIGN_OF_LIFE);
        Self { deadline, last: deadline.after(longest), bytes: 0 }
    }

    /// For what is to be over at `last`, and may be silent for `first` before its first sign.
    pub(super) fn until(last: Moment, first: Duration, now: Moment) -> Self {
        Self { deadline: last.min(now.after(first)), last, bytes: 0 }
    }

    /// The client says that it has come to `bytes` of `size`. True if it has got further.
    pub(super) fn renew(&mut self, bytes: u64, size: u64, now: Moment) -> bool {
        let further = bytes > self.bytes && bytes <= size;
        if further {
            self.bytes = bytes;
            self.deadline = self.deadline.max(now.after(SIGN_OF_LIFE).min(self.last));
        }
        further
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When a client that gets `step` bytes further every second of `size` is given up.
    fn given_up(size: u64, step: u64, longest: Duration) -> Duration {
        let begun = Moment(0);
        let mut patience = Patience::new(begun, longest);
        let (mut now, mut bytes) = (begun, 0_u64);
        while now < patience.deadline {
            now = now.after(SECOND);
            bytes = bytes.saturating_add(step);
            patience.renew(bytes, size, now);
        }
        patience.deadline.since(begun)
    }

    #[test]
    fn patience_is_renewed_only_by_real_progress() {
        // The slowest honest client: as long as its work may take, and a sign of life beyond.
        let longest = SECOND * 1000;
        assert_eq!(given_up(1_000_000, 1_000, longest), longest + SIGN_OF_LIFE);
        assert_eq!(given_up(1_000_000, 0, longest), SIGN_OF_LIFE);
        assert_eq!(
            given_up(u64::MAX, 1, longest),
            longest + SIGN_OF_LIFE,
            "a byte a second is no way to stay for ever"
        );
        assert_eq!(
            given_up(10, 11, longest),
            SIGN_OF_LIFE,
            "beyond the file's end there is nothing to hash"
        );
    }

    #[test]
    fn a_sign_of_life_never_takes_time_away() {
        let mut patience = Patience::new(Moment(0), SECOND * 600);
        patience.deadline = patience.last;
        patience.renew(5, 10, Moment(1));
        assert_eq!(patience.deadline, Moment(0).after(SECOND * 630));
    }
}
