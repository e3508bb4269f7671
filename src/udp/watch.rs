//! What the clients of a session tell, for the machine that sets its rate.

use std::collections::BTreeMap;

use crate::proto::udp::before;
use crate::proto::udp::control::Report;
use crate::proto::udp::probe::Probe;
use crate::proto::udp::probe::TOLD_MIN;
use crate::proto::udp::probe::Told;
use crate::session::SeatId;
use crate::units::Moment;

/// What clients tell of a session that has no rate of its own.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) probe: Probe,
    /// What each said last: the datagrams that it knows of, and how many of them it has.
    pub(super) last: BTreeMap<SeatId, (u32, u32)>,
    pub(super) told: BTreeMap<SeatId, Told>,
    /// What is told of datagrams before these numbers is of a rate that was too high.
    pub(super) fresh: BTreeMap<SeatId, u32>,
}

impl Watch {
    /// Takes what a client says; one that cannot have so many is believed as far as it can be.
    pub(super) fn hear(&mut self, seat: SeatId, report: &Report) {
        let (seen, received) = self.last.get(&seat).copied().unwrap_or_default();
        if !before(seen, report.seen) {
            return;
        }
        self.last.insert(seat, (report.seen, report.received));
        if self
            .fresh
            .get(&seat)
            .is_some_and(|&first| before(seen, first))
        {
            return;
        }
        let told = self.told.entry(seat).or_default();
        let new = report.seen.wrapping_sub(seen);
        told.seen += u64::from(new);
        told.received += u64::from(report.received.saturating_sub(received).min(new));
    }

    /// Judges by all clients together, or in a group by one that a quarter of them is worse than:
    /// the few that are far behind the others are repaired after them and do not slow them down.
    pub(super) fn judge(&mut self, group: bool, now: Moment) -> bool {
        let enough = |told: &&Told| told.seen >= TOLD_MIN;
        let told = match group {
            false => self.told.values().fold(Told::default(), |sum, told| Told {
                seen: sum.seen + told.seen,
                received: sum.received + told.received,
            }),
            true => {
                let mut all: Vec<Told> = self.told.values().filter(enough).copied().collect();
                // By the share that arrived, without a division.
                all.sort_by(|a, b| (a.received * b.seen).cmp(&(b.received * a.seen)));
                all.get(all.len() / 4).copied().unwrap_or_default()
            }
        };
        let judged = self.probe.handle(told, now);
        if judged {
            self.told.clear();
        }
        judged
    }
}
