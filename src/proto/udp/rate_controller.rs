//! What the clients of a session tell, for the machine that sets its rate.
//!
//! A report says how far its client has come, so two of them say how fast datagrams arrived
//! between them; that is measured by the moments of the reports themselves, which come in steps
//! that are not those of the judging. The share that arrived is another matter: of datagrams that
//! were sent at a rate that was given up since it tells nothing.

use std::collections::BTreeMap;

use crate::{
    proto::udp::{
        before,
        control::Report,
        probe::{Arrivals, Probe, REPORTED_MIN},
    },
    session::SeatId,
    units::{Moment, Rate},
};

/// Hears the clients of a session that has no rate of its own.
#[derive(Clone, Debug)]
pub struct RateController {
    probe: Probe,
    begun: Moment,
    clients: BTreeMap<SeatId, ClientProgress>,
}

/// What one client told.
#[derive(Clone, Debug)]
struct ClientProgress {
    /// The datagrams that it knew of last, and how many of them it had.
    last: (u32, u32),
    /// What it told in this interval of datagrams that count.
    told: Arrivals,
    /// Those before this number do not.
    fresh: u32,
    /// Those that arrived in this interval, from when to when.
    arrived: u64,
    from: Moment,
    until: Moment,
}

impl ClientProgress {
    fn new(fresh: u32, now: Moment) -> Self {
        Self { last: (0, 0), told: Arrivals::default(), fresh, arrived: 0, from: now, until: now }
    }

    fn told(&self) -> Arrivals {
        let span = self.until.since(self.from).as_secs_f64();
        let per_second = if span > 0.0 { (self.arrived as f64 / span) as u64 } else { 0 };
        Arrivals { per_second, ..self.told }
    }
}

impl RateController {
    /// Nothing was told yet of a session with datagrams of so many bytes.
    pub fn new(datagram: u64, now: Moment) -> Self {
        Self { probe: Probe::new(datagram, now), begun: now, clients: BTreeMap::new() }
    }

    /// The rate of datagrams' bytes; `None` holds nothing back.
    pub fn rate(&self) -> Option<Rate> {
        self.probe.rate()
    }

    /// So many bytes of datagrams were sent.
    pub fn sent(&mut self, bytes: u64) {
        self.probe.sent(bytes);
    }

    /// Takes what a client says; one that cannot have so many is believed as far as it can be.
    pub fn handle_report(&mut self, seat: SeatId, report: &Report, now: Moment) {
        let begun = self.begun;
        let heard = self.clients.entry(seat).or_insert_with(|| ClientProgress::new(0, begun));
        let (seen, received) = heard.last;
        if !before(seen, report.seen) {
            return;
        }
        heard.last = (report.seen, report.received);
        let new = report.seen.wrapping_sub(seen);
        let arrived = u64::from(report.received.saturating_sub(received).min(new));
        heard.arrived += arrived;
        heard.until = now;
        if before(seen, heard.fresh) {
            return;
        }
        heard.told.seen += u64::from(new);
        heard.told.received += arrived;
    }

    /// Judges by all clients together, or in a group by one that a quarter of them is worse than:
    /// the few that are far behind the others are repaired after them and do not slow them down.
    /// `numbered` says how many datagrams were numbered for a client so far. True when the rate
    /// may have changed.
    pub fn update(
        &mut self,
        group: bool,
        now: Moment,
        numbered: impl Fn(SeatId) -> Option<u32>,
    ) -> bool {
        if now < self.probe.poll_timeout() {
            return false;
        }
        let all = self.clients.values().map(ClientProgress::told);
        let told = if !group {
            all.fold(Arrivals::default(), |sum, told| Arrivals {
                seen: sum.seen + told.seen,
                received: sum.received + told.received,
                per_second: sum.per_second + told.per_second,
            })
        } else {
            let mut all: Vec<Arrivals> = all.filter(|told| told.seen >= REPORTED_MIN).collect();
            // By the share that arrived, without a division.
            all.sort_by(|a, b| (a.received * b.seen).cmp(&(b.received * a.seen)));
            all.get(all.len() / 4).copied().unwrap_or_default()
        };
        let before = self.rate();
        if !self.probe.handle(told, now) {
            return false;
        }
        let most = |rate: Option<Rate>| rate.map_or(u64::MAX, |rate| rate.0);
        let slower = most(self.rate()) < most(before);
        for (&seat, heard) in &mut self.clients {
            heard.told = Arrivals::default();
            (heard.arrived, heard.from) = (0, heard.until);
            if let (true, Some(numbered)) = (slower, numbered(seat)) {
                heard.fresh = numbered;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
