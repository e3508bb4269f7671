//! Which way is fastest here (`--via auto`): what was measured before a release, and from that a
//! makespan for each way. Arithmetic alone; whoever measures stands elsewhere.

use crate::{
    session::{SeatId, Via},
    text::escape,
    units::Rate,
};

counts! {
    /// What was measured before a release, and what each way would take by it.
    AutoFigures:
    /// What the server sent to all seats together over their connections, bit/s.
    server_up: "auto_server_up_bit_s",
    /// The least downlink of a seat, bit/s.
    least_down: "auto_least_down_bit_s",
    /// The rate to the group that every seat followed, bit/s.
    group_rate: "auto_group_bit_s",
    /// Of a thousand datagrams at rates that a seat followed, how many it did not hear: the worst seat.
    group_lost: "auto_group_lost_permille",
    /// How long the measurement took, microseconds.
    measured_us: "auto_measured_us",
    /// The makespan that was expected of TCP, microseconds.
    tcp_us: "auto_tcp_us",
    /// The same of the swarm.
    swarm_us: "auto_swarm_us",
    /// The same of multicast.
    multicast_us: "auto_multicast_us",
}

/// Why a session went the way it did. The way itself is the session's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoChoice {
    /// What was measured and expected.
    pub figures: AutoFigures,
    /// Why a way is out, or nothing was measured; empty where nothing is to be said. Not escaped.
    pub why: String,
}

/// What one seat heard of one step of the train to the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeardStep {
    /// The step, from 0.
    pub step: u16,
    /// Its datagrams that came.
    pub datagrams: u32,
    /// From the first to the last of them, microseconds.
    pub span_us: u64,
    /// Those after the first half of the step: what a queue lets through at once is no rate.
    pub tail: u32,
    /// From the first to the last of these, microseconds.
    pub tail_us: u64,
}

/// One step of the train as it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentStep {
    /// The rate that was meant, bit/s; steps of the same rate are tries.
    pub rate: u64,
    /// Its datagrams.
    pub datagrams: u32,
    /// How long their sending took, microseconds.
    pub span_us: u64,
}

/// What a seat's system acknowledged of the burst over its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// How much.
    pub bytes: u64,
    /// From then, microseconds after the measurement began.
    pub from_us: u64,
    /// To then, later.
    pub to_us: u64,
}

/// One seat as it was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeasuredSeat {
    /// What its client calls itself; not escaped.
    pub name: String,
    /// The ways that it can use; one that says nothing can use TCP.
    pub ways: Vec<Via>,
    /// It is on the server's own machine.
    pub is_local: bool,
    /// What came of the burst.
    pub burst: Option<Burst>,
    /// What it heard of the train.
    pub heard: Vec<HeardStep>,
    /// All datagrams that it heard; `None` of one that did not say it in time.
    pub total: Option<u32>,
}

/// The ways of which one is chosen, in the order in which equals are.
pub const AUTO_WAYS: [Via; 3] = [Via::Tcp, Via::Multicast, Via::Swarm];

/// Whether the server may choose it, or it goes over the same connection as one of these.
pub fn is_of_auto(via: Via) -> bool {
    AUTO_WAYS.contains(&via) || via == Via::Http
}

/// The payload of a datagram of the train.
pub const TRAIN_DATAGRAM: usize = 1472;

/// What TCP sends in less is not worth a measurement, bytes.
const SMALL: u64 = 2_000_000;

/// What a whole transfer by TCP may take and no other way is looked at, seconds.
const SHORT_S: f64 = 0.5;

/// A seat whose share is less than this of the median one has a slow link of its own.
const OWN_LIMIT: f64 = 0.35;

/// What the ways reach of their bound, and what they need to begin, seconds: from sessions on stars.
const TCP: (f64, f64) = (0.98, 0.02);
const MULTICAST: (f64, f64) = (0.97, 0.01);
const SWARM: (f64, f64) = (0.92, 0.0);

/// What each client adds to a swarm's beginning, seconds: its first pieces come by way of others.
const SWARM_SEAT_S: f64 = 0.02;

/// A burst falls short of what a link takes by so much at most, without loss.
const SHORTFALL: f64 = 1.15;

/// What repairs add to a multicast that loses, seconds, beside the bytes that go once more: the rate
/// that is heard is without them.
const REPAIR_S: f64 = 0.02;

/// By how much a swarm is longer whose connections lose three and more of a hundred packets.
const SWARM_LOSS: f64 = 0.2;

/// By how much the copies of the others delay the one over a narrow link of its own, of what the
/// shorter of the two bounds is: all begin together, and its connection gives way.
const NARROW_DELAY: f64 = 0.25;

impl HeardStep {
    /// Whether it can be true of what was sent; anything else is a lie or a mistake.
    pub fn is_possible(&self, sent: &[SentStep]) -> bool {
        let step = sent.get(usize::from(self.step));
        step.is_some_and(|sent| self.datagrams <= sent.datagrams)
            && self.tail <= self.datagrams
            && self.tail_us <= self.span_us
    }

    /// Whether the seat kept up with this step.
    pub fn follows(&self, sent: &SentStep) -> bool {
        !self.is_thin(sent) && !self.is_slow(sent)
    }

    fn is_thin(&self, sent: &SentStep) -> bool {
        u64::from(self.datagrams) * 10 + 20 < u64::from(sent.datagrams) * 8
    }

    fn is_slow(&self, sent: &SentStep) -> bool {
        self.span_us > sent.span_us + sent.span_us / 4 + 3000
    }
}

fn bit_s(datagrams: u32, span_us: u64) -> Option<u64> {
    let bits = u64::from(datagrams.checked_sub(1)?) * TRAIN_DATAGRAM as u64 * 8;
    (span_us > 0).then(|| bits.saturating_mul(1_000_000) / span_us)
}

impl MeasuredSeat {
    fn can(&self, via: Via) -> bool {
        self.ways.contains(&via) || self.ways.is_empty() && via == Via::Tcp
    }

    /// What it heard of the tries at `rate`, with what was sent.
    fn tries<'a>(
        &'a self,
        sent: &'a [SentStep],
        rate: u64,
    ) -> impl Iterator<Item = (&'a HeardStep, &'a SentStep)> {
        let of = |heard: &'a HeardStep| Some((heard, sent.get(usize::from(heard.step))?));
        self.heard.iter().filter_map(of).filter(move |(_, sent)| sent.rate == rate)
    }

    /// Whether it kept up with one of the tries at `rate`, as far as it has said.
    pub fn may_follow(&self, sent: &[SentStep], rate: u64) -> bool {
        let mut tries = self.tries(sent, rate).peekable();
        tries.peek().is_none() || tries.any(|(heard, sent)| heard.follows(sent))
    }

    fn follows_any(&self, sent: &[SentStep]) -> bool {
        let of = |heard: &HeardStep| sent.get(usize::from(heard.step)).copied();
        self.heard.iter().any(|heard| of(heard).is_some_and(|sent| heard.follows(&sent)))
    }

    /// What came to it of the burst, bit/s.
    fn down(&self) -> Option<u64> {
        let burst = self.burst?;
        burst.bytes.saturating_mul(8_000_000).checked_div(burst.to_us.checked_sub(burst.from_us)?)
    }

    /// The rate to the group that it followed, bit/s, the thousandths that it lost of that, and whether
    /// more waited in a queue: then that is its link's rate. Nothing of a seat that said what cannot be.
    fn followed(&self, sent: &[SentStep]) -> Option<(u64, u64, bool)> {
        if self.misses(sent).is_some() {
            return None;
        }
        let (mut rate, mut came, mut due, mut is_limit) = (None, 0, 0, false);
        for step in sent.chunk_by(|one, next| one.rate == next.rate).map(|tries| tries[0]) {
            let tries = || self.tries(sent, step.rate);
            let followed = tries().filter(|(heard, sent)| heard.follows(sent));
            if let Some((heard, sent)) = followed.max_by_key(|(heard, _)| heard.datagrams) {
                let all = bit_s(heard.datagrams, heard.span_us);
                rate = bit_s(sent.datagrams, sent.span_us).min(all).or(rate);
                (came, due) = (came + heard.datagrams, due + sent.datagrams);
            } else if let Some((last, sent)) = tries().last() {
                // Behind a full queue the tail comes at the link's own rate.
                let tails = tries().filter(|(heard, _)| heard.tail >= 8);
                let tail = tails.filter_map(|(heard, _)| bit_s(heard.tail, heard.tail_us)).max();
                // What takes a share of the datagrams lets some more through after a pause.
                let thin = bit_s(last.datagrams + 1, sent.span_us.max(last.span_us));
                let thin = thin.filter(|_| last.is_thin(sent)).min(rate.or(thin));
                rate = tail.map(|tail| tail.min(step.rate)).or(thin).or(rate);
                is_limit = tries().any(|(heard, sent)| heard.is_slow(sent));
            }
        }
        let lost = u64::from(due - came) * 1000 / u64::from(due.max(1));
        rate.map(|rate| (rate, lost, is_limit))
    }

    /// Why it cannot have multicast.
    fn misses(&self, sent: &[SentStep]) -> Option<&'static str> {
        let all: u32 = sent.iter().map(|step| step.datagrams).sum();
        match self.total {
            _ if self.heard.iter().any(|heard| !heard.is_possible(sent)) => {
                Some("says that it heard what was not sent")
            }
            Some(total) if total > all => Some("says that it heard what was not sent"),
            Some(0) => Some("heard nothing of the group"),
            Some(total) if u64::from(total) * 4 < u64::from(all) * 3 && !self.follows_any(sent) => {
                Some("heard less than three quarters of what went to the group")
            }
            None if self.heard.is_empty() => Some("did not say in time what it heard"),
            _ => None,
        }
    }
}

/// The ways that every seat can use, and why others are out.
fn usable<'a>(
    seats: impl Iterator<Item = (SeatId, &'a MeasuredSeat)> + Clone,
) -> (Vec<Via>, String) {
    let mut why = String::new();
    let mut ways = AUTO_WAYS.to_vec();
    ways.retain(|&via| {
        let out = seats.clone().find(|(_, seat)| !seat.can(via));
        if let Some((id, seat)) = out {
            why += &format!("no {via}: seat {id} ({}) cannot use it; ", escape(&seat.name));
        }
        out.is_none()
    });
    (ways, why)
}

/// Whether the answer is clear without a measurement: the way, and why.
pub fn without_measuring<'a>(
    bytes: u64,
    seats: impl Iterator<Item = (SeatId, &'a MeasuredSeat)> + Clone,
) -> Option<(Via, AutoChoice)> {
    let (ways, why) = usable(seats.clone());
    let clients = seats.count() as u64;
    let why = match ways[..] {
        [] => format!("{why}the seats have no way in common"),
        [via] => {
            let why = why.trim_end_matches("; ").to_owned();
            return Some((via, AutoChoice { why, ..AutoChoice::default() }));
        }
        _ if clients < 2 => "one client: no way is faster".to_owned(),
        _ if bytes.saturating_mul(clients) <= SMALL => "too small to measure for".to_owned(),
        _ => return None,
    };
    Some((ways.first().copied().unwrap_or(Via::Tcp), AutoChoice { why, ..AutoChoice::default() }))
}

/// What came to all seats together, bit/s, until the burst of half of them was over: those that end
/// early would each seem to have had a share of their own.
fn uplink<'a>(seats: impl Iterator<Item = &'a MeasuredSeat>) -> Option<f64> {
    let bursts: Vec<_> = seats.filter_map(|seat| seat.burst).collect();
    let mut ends: Vec<_> = bursts.iter().map(|burst| burst.to_us).collect();
    ends.sort_unstable();
    let (from, to) = (bursts.iter().map(|burst| burst.from_us).min()?, *ends.get(ends.len() / 2)?);
    let in_time = |burst: &Burst| {
        let (all, part) =
            (burst.to_us.checked_sub(burst.from_us)?, to.saturating_sub(burst.from_us));
        Some(burst.bytes as f64 * (part as f64 / all.max(1) as f64).min(1.0))
    };
    let bytes: f64 = bursts.iter().filter_map(in_time).sum();
    (to > from).then(|| bytes * 8e6 / (to - from) as f64)
}

/// What the burst and the train say, bit/s: the server's uplink, the least downlink, and all uplinks of
/// the clients together, each taken to be as wide as its downlink.
fn links<'a>(
    seats: impl Iterator<Item = &'a MeasuredSeat> + Clone,
    sent: &[SentStep],
) -> Option<(f64, f64, f64)> {
    let mut shares: Vec<f64> = seats.clone().filter_map(|seat| Some(seat.down()? as f64)).collect();
    shares.sort_by(f64::total_cmp);
    let (median, up) = (*shares.get(shares.len() / 2)?, uplink(seats.clone())?);
    let downs = seats.map(|seat| {
        let share = seat.down().map_or(up, |down| down as f64);
        match seat.followed(sent) {
            // Its link was too slow for the train, or it was not; a group that is slower than its share
            // of the burst says nothing of its link.
            Some((rate, _, true)) if rate as f64 >= share => (rate as f64).min(up),
            Some((_, _, false)) => up,
            _ if share < median * OWN_LIMIT => share,
            // Where all have about the same they share the server's link, and their own is no narrower.
            _ => up,
        }
    });
    let downs: Vec<f64> = downs.collect();
    let least = downs.iter().copied().min_by(f64::total_cmp)?;
    Some((up, least, downs.iter().sum()))
}

/// Whether a burst has shown that nothing is to gain by another way.
pub fn is_short<'a>(bytes: u64, seats: impl Iterator<Item = &'a MeasuredSeat> + Clone) -> bool {
    let clients = seats.clone().count() as f64;
    let tcp = |(up, _, _): (f64, f64, f64)| bytes as f64 * 8.0 * clients / up;
    links(seats, &[]).map(tcp).is_some_and(|seconds| seconds < SHORT_S)
}

/// The way that is expected to be the fastest.
///
/// `sent` is the train to the group, `rate` what the user allows the session in all.
pub fn choose<'a>(
    bytes: u64,
    rate: Option<Rate>,
    sent: &[SentStep],
    seats: impl Iterator<Item = (SeatId, &'a MeasuredSeat)> + Clone,
) -> (Via, AutoChoice) {
    let (mut ways, mut why) = usable(seats.clone());
    let each = || seats.clone().map(|(_, seat)| seat);
    let Some((up, down, peers_up)) = links(each(), sent) else {
        let why = why + "this system does not tell what the connections delivered";
        return (Via::Tcp, AutoChoice { why, ..AutoChoice::default() });
    };
    let mut figures = AutoFigures {
        server_up: Some(up as u64),
        least_down: Some(down as u64),
        ..AutoFigures::default()
    };
    let (bits, clients) = (bytes as f64 * 8.0, each().count() as f64);
    let limit = rate.map_or(f64::INFINITY, |rate| rate.0 as f64);
    let up = up.min(limit);
    let seconds = |(share, begin): (f64, f64), bound: f64| bound / share + begin;
    let us = |seconds: f64| Some((seconds * 1e6) as u64);
    let lost = each().filter_map(|seat| Some(seat.followed(sent)?.1)).max();
    let loss = lost.unwrap_or(0).min(500) as f64 / 1000.0;
    let (all, narrow) = (clients * bits / up, bits / down);
    let delay = if down < up / 2.0 { NARROW_DELAY * all.min(narrow) } else { 0.0 };
    figures.tcp_us = us(seconds(TCP, all.max(narrow) + delay));
    let bound = (bits / up).max(narrow).max(clients * bits / (up + peers_up));
    let longer = 1.0 + SWARM_LOSS * (loss / 0.03).min(1.0);
    let swarm = seconds(SWARM, bound * longer) + SWARM_SEAT_S * clients;
    figures.swarm_us = us(swarm).filter(|_| ways.contains(&Via::Swarm));
    if each().all(|seat| seat.is_local) {
        why += "no multicast, no swarm: all clients are on this machine; ";
        (ways, figures.swarm_us) = (vec![Via::Tcp], None);
    } else if is_short(bytes, each()) && sent.is_empty() {
        why += "tcp takes too short a time to measure more; ";
        (ways, figures.swarm_us) = (vec![Via::Tcp], None);
    }
    if ways.contains(&Via::Multicast) {
        let out = seats.clone().find_map(|(id, seat)| Some((id, seat, seat.misses(sent)?)));
        let followed = || each().map(|seat| seat.followed(sent)).collect::<Option<Vec<_>>>();
        if let Some((id, seat, fault)) = out {
            why += &format!("no multicast: seat {id} ({}) {fault}; ", escape(&seat.name));
        } else if let Some(followed) = followed() {
            figures.group_rate = followed.iter().map(|(rate, ..)| *rate).min();
            figures.group_lost = lost;
            // What is sent once goes over the server's link too, which the connections have filled.
            let most = (up * SHORTFALL).min(limit);
            let group = figures.group_rate.map_or(most, |rate| (rate as f64).min(most));
            let repair = if loss > 0.002 { REPAIR_S } else { 0.0 };
            figures.multicast_us = us(seconds(MULTICAST, bits / group) + repair);
        } else {
            why += "no multicast: its rate could not be measured; ";
        }
    }
    let expected = AUTO_WAYS.into_iter().filter(|via| ways.contains(via));
    let expected = expected.filter_map(|via| Some((figures.expected_us(via)?, via)));
    let via = expected.min_by_key(|&(us, _)| us).map_or(Via::Tcp, |(_, via)| via);
    why.truncate(why.trim_end_matches("; ").len());
    (via, AutoChoice { figures, why })
}

impl AutoFigures {
    /// The makespan that was expected of `via`, microseconds.
    pub fn expected_us(&self, via: Via) -> Option<u64> {
        match via {
            Via::Tcp => self.tcp_us,
            Via::Swarm => self.swarm_us,
            Via::Multicast => self.multicast_us,
            Via::Chain | Via::Udp | Via::Raw | Via::Http => None,
        }
    }
}

#[cfg(test)]
mod tests;
