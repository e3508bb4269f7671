//! What the clients of a session tell, for the machine that sets its rate.
//!
//! A report says how far its client has come, so two of them say how fast datagrams arrived
//! between them; that is measured by the moments of the reports themselves, which come in steps
//! that are not those of the judging. The share that arrived is another matter: of datagrams that
//! were sent at a rate that was given up since it tells nothing.

use std::{cmp::Ordering, collections::BTreeMap};

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
#[derive(Clone, Debug, Default)]
struct ClientProgress {
    /// The datagrams that it knew of last, and how many of them it had.
    last: (u32, u32),
    /// What it told in this interval of datagrams that count.
    told: Arrivals,
    /// Those before this number do not.
    fresh: u32,
    /// What had been numbered for it when this interval began.
    numbered: u32,
    /// Those that arrived in this interval, from when to when.
    arrived: u64,
    from: Moment,
    until: Moment,
    /// The rate was cut so often while it lost clearly more than most.
    cuts: u64,
}

impl ClientProgress {
    fn new(fresh: u32, now: Moment) -> Self {
        Self { fresh, from: now, until: now, ..Self::default() }
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

    /// The rate was cut so often while this client lost clearly more than most.
    pub fn cuts(&self, seat: SeatId) -> Option<u64> {
        self.clients.get(&seat).map(|heard| heard.cuts)
    }

    /// The rate of datagrams' bytes; `None` holds nothing back.
    pub fn rate(&self) -> Option<Rate> {
        self.probe.rate
    }

    /// So many bytes of datagrams were sent.
    pub fn sent(&mut self, bytes: u64) {
        self.probe.sent(bytes);
    }

    /// Takes what a client says, to which `numbered` datagrams were numbered so far. It is not
    /// believed if it knows of more, and at most as far as it can have got them.
    pub fn handle_report(&mut self, seat: SeatId, report: &Report, numbered: u32, now: Moment) {
        if before(numbered, report.seen) {
            return;
        }
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
        let least = if group { REPORTED_MIN } else { 1 };
        let all = self.clients.values().map(ClientProgress::told);
        let mut all: Vec<Arrivals> = all.filter(|told| told.seen >= least).collect();
        let told = if group {
            worse_than_most(&mut all)
        } else {
            let goes_on = |seat, before| numbered(seat).is_some_and(|numbered| numbered != before);
            let clients = self.clients.iter();
            let clients = clients.filter(|(seat, heard)| goes_on(**seat, heard.numbered)).count();
            together(&all, clients.max(all.len()))
        };
        let before = self.rate();
        if !self.probe.handle(told, now) {
            return false;
        }
        let most = |rate: Option<Rate>| rate.map_or(u64::MAX, |rate| rate.0);
        let slower = most(self.rate()) < most(before);
        let middle = group.then(|| all.get(all.len() / 2).map(Arrivals::share)).flatten();
        for (&seat, heard) in &mut self.clients {
            let behind = heard.told.seen >= least
                && middle.is_some_and(|middle| heard.told.share() + BEHIND <= middle);
            heard.cuts += u64::from(slower && behind);
            heard.told = Arrivals::default();
            (heard.arrived, heard.from) = (0, heard.until);
            if let Some(numbered) = numbered(seat) {
                heard.numbered = numbered;
                heard.fresh = if slower { numbered } else { heard.fresh };
            }
        }
        true
    }
}

/// A share that arrived is clearly lower than most when it is lower by this.
const BEHIND: f64 = 0.08;

/// By the share that arrived, without a division.
fn by_share(a: &Arrivals, b: &Arrivals) -> Ordering {
    let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
    product(a.received, b.seen).cmp(&product(b.received, a.seen))
}

/// What a quarter of a group's clients is worse than. Its share and its speed may be two clients',
/// so that no single one says both.
fn worse_than_most(all: &mut [Arrivals]) -> Arrivals {
    let quarter = all.len() / 4;
    all.sort_by_key(|told| told.per_second);
    let per_second = all.get(quarter).map_or(0, |told| told.per_second);
    all.sort_by(by_share);
    let told = all.get(quarter).copied().unwrap_or_default();
    Arrivals { per_second, ..told }
}

/// What `clients` with streams of their own say together, of whom some may have said nothing. They
/// and the best and the worst quarter count as the middle does, so that no client sets the rate of
/// the others by what it says.
fn together(all: &[Arrivals], clients: usize) -> Arrivals {
    let sum = |part: &[Arrivals]| {
        part.iter().fold(Arrivals::default(), |sum, told| Arrivals {
            seen: sum.seen + told.seen,
            received: sum.received + told.received,
            per_second: sum.per_second.saturating_add(told.per_second),
        })
    };
    if all.is_empty() {
        return Arrivals::default();
    }
    // Compared in parts so large that what chance takes from one is not an exception.
    let parts = usize::try_from(sum(all).seen / REPORTED_MIN).unwrap_or(usize::MAX);
    let size = all.len().div_ceil(parts.clamp(1, all.len()));
    let each = |part: &[Arrivals]| {
        let told = sum(part);
        Arrivals { per_second: told.per_second / part.len() as u64, ..told }
    };
    let mut parts: Vec<Arrivals> = all.chunks(size).map(each).collect();
    let trim = parts.len() / 4;
    let middle = trim..parts.len() - trim;
    parts.sort_by_key(|part| part.per_second);
    let speed = sum(&parts[middle.clone()]).per_second / middle.len() as u64;
    parts.sort_by(by_share);
    Arrivals { per_second: speed.saturating_mul(clients as u64), ..sum(&parts[middle]) }
}

#[cfg(test)]
mod tests;
