//! A number of things that may happen at once, and how fast the number comes back.

use std::time::Duration;

use crate::units::Moment;

/// What has been spent, as the moment at which all of it will have come back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    whole_at: Moment,
}

/// How much there is of a [`Budget`].
#[derive(Clone, Copy, Debug)]
pub(super) struct BudgetLimit {
    /// How many at once.
    pub(super) most: u32,
    /// How long one takes to come back.
    pub(super) each: Duration,
}

impl Budget {
    /// Spends one at `now`; false, and nothing is spent, where there is none left.
    pub(super) fn spend(&mut self, limit: BudgetLimit, now: Moment) -> bool {
        let whole_at = self.whole_at.max(now).after(limit.each);
        let has_one = whole_at <= now.after(limit.each.saturating_mul(limit.most));
        if has_one {
            self.whole_at = whole_at;
        }
        has_one
    }

    /// Gives one back.
    pub(super) fn give_back(&mut self, limit: BudgetLimit) {
        let each = crate::units::micros(limit.each);
        self.whole_at = Moment(self.whole_at.0.saturating_sub(each));
    }

    /// True when nothing is missing at `now`.
    pub(super) fn is_whole(&self, now: Moment) -> bool {
        self.whole_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: BudgetLimit = BudgetLimit { most: 3, each: Duration::from_millis(100) };

    #[test]
    fn budget_is_spent_at_once_and_comes_back_with_time() {
        let mut budget = Budget::default();
        let mut spent = |at: u64| budget.spend(LIMIT, Moment(at));
        let begun = 5_000_000;
        assert_eq!([0; 5].map(|_| spent(begun)), [true, true, true, false, false]);
        assert!(!spent(begun + 99_999));
        assert!(spent(begun + 100_000));
        assert!(!spent(begun + 100_000));
        assert_eq!([0; 4].map(|_| spent(begun + 9_000_000)), [true, true, true, false]);
    }

    #[test]
    fn what_is_given_back_can_be_spent() {
        let mut budget = Budget::default();
        let now = Moment(1_000_000);
        assert!(budget.is_whole(now));
        for _ in 0..1000 {
            assert!(budget.spend(LIMIT, now));
            assert!(!budget.is_whole(now));
            budget.give_back(LIMIT);
        }
        assert!(budget.is_whole(now));
    }
}
