//! Why each seat of a session took its time, from what both ends observed, and what would make the
//! session faster.
//!
//! A sentence is said only where the evidence is clear; everything else is `None`, shown as nothing.
//! Figures that contradict each other, or that claim more than there was, are no evidence.

use std::{fmt::Write, time::Duration};

use crate::{
    net::link_queue::QUEUED_MIN,
    session::{SeatId, Via},
    transfer::{Counts, Evidence, Outcome, Record, Transfer},
    units::{micros, total_saturating},
};

/// Why the seats of a session took their time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// One for each transfer, in the record's order.
    pub seats: Vec<Option<Cause>>,
    /// What would make the session faster.
    pub advice: Option<String>,
}

/// Why a seat was slow.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// The kind.
    pub kind: CauseKind,
    /// The part of its time, or of what was sent to it, that this took: 0 to 1.
    pub share: f64,
    /// The same as a clause with its number.
    pub sentence: String,
}

/// What can limit a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseKind {
    /// The session's own rate.
    Rate,
    /// The client's CPU.
    Cpu,
    /// The client's disk.
    Disk,
    /// The client's receive window, or its buffer for datagrams.
    Window,
    /// The server's send buffer.
    SendBuffer,
    /// Loss on the way.
    Loss,
    /// The link to the client.
    Link,
    /// The server's own link.
    Uplink,
    /// The clients' own links, by which they send to each other.
    PeerUplinks,
}

/// A transfer shorter than this is not slow: its figures are those of its start.
const SLOW_MIN: Duration = Duration::from_secs(1);

/// A seat that takes so many times as long as the fastest stands out. Flows that share a link differ
/// by up to a third (measured on stars of equal links).
const STANDS_OUT: f64 = 1.5;

/// What took at least so much of a seat's time is its reason: nothing else can have taken more.
const CLEAR: f64 = 0.5;

/// So much of its time a thread must wait for a CPU, and be slower than another, before that is its
/// reason: one that mostly waits for data loses little by it (on a busy machine it waits up to 0.9).
const CPU_WAIT_CLEAR: f64 = 0.8;

/// Less loss than this slows no seat down: congestion control causes as much on links without a fault.
const LOSS_MIN: f64 = 0.01;

/// More loss than this is not congestion control's: a swarm's flows lose 0.15 in a narrow link's queue.
const LOSS_SURE: f64 = 0.2;

/// A round trip that is longer than the least one by this has waited in a queue: the link was full.
const QUEUE_DELAY_US: u64 = 2_000;

/// A swarm's server that sent so many copies had little to send again: the peers did the rest.
const COPIES_FEW: f64 = 1.5;

/// One that sent so many did what the peers could not.
const COPIES_MANY: f64 = 2.0;

/// A queue on the way to one client of a group stands out from the others' by so many times, and
/// this.
const QUEUE_STANDS_OUT: (u64, u64) = (2, 5_000);

/// Of a client's buffer, which its system counts twice as full as it is, a queue on the way takes most
/// if it holds one part in so many.
const QUEUE_PART: u64 = 3;

/// What a client's repair took longer than the others' is worth naming from this on.
const REPAIR_MIN_US: u64 = 100_000;

/// What is the same for every seat.
const SHARED: [CauseKind; 3] = [CauseKind::Rate, CauseKind::Uplink, CauseKind::PeerUplinks];

impl CauseKind {
    /// The word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Window => "window",
            Self::SendBuffer => "send_buffer",
            Self::Loss => "loss",
            Self::Link => "link",
            Self::Uplink => "uplink",
            Self::PeerUplinks => "peer_uplinks",
        }
    }

    /// What makes a session faster that ends with a seat of this kind.
    fn advice(self, seat: &Transfer, via: Via) -> String {
        let seat = seat.seat;
        match self {
            Self::Rate => "raise --rate, or leave it out".to_owned(),
            Self::Cpu => format!("give the machine of seat {seat} more CPU, or less other work"),
            Self::Disk => format!("give seat {seat} a folder on a faster disk (--out)"),
            Self::Window => {
                let datagrams = matches!(via, Via::Udp | Via::Multicast);
                let name = if datagrams { "net.core.rmem_max" } else { "net.ipv4.tcp_rmem" };
                format!("raise the receive buffer of seat {seat} ({name})")
            }
            Self::SendBuffer => "raise the server's send buffer (net.ipv4.tcp_wmem)".to_owned(),
            Self::Loss => format!("find what loses packets on the way to seat {seat}"),
            Self::Link => format!("find what makes the link to seat {seat} slow"),
            Self::PeerUplinks => "send without the clients' uplinks: --via multicast".to_owned(),
            Self::Uplink if matches!(via, Via::Multicast | Via::Swarm) => {
                "give the server a faster link".to_owned()
            }
            Self::Uplink => {
                "send each byte over the server's link once: --via multicast or --via swarm"
                    .to_owned()
            }
        }
    }
}

/// One seat that has the whole file.
struct SeatTime<'a> {
    transfer: &'a Transfer,
    took: Duration,
    evidence: Evidence,
}

/// What a seat is compared with.
struct ComparedSession<'a> {
    record: &'a Record,
    fastest: &'a SeatTime<'a>,
    /// No seat stands out.
    alike: bool,
}

/// Why the seats of `record` took their time.
pub fn explain(record: &Record) -> Explanation {
    let seats: Vec<Option<SeatTime<'_>>> = record.transfers.iter().map(SeatTime::of).collect();
    let whole = || seats.iter().flatten();
    let ends = whole().min_by_key(|seat| seat.took).zip(whole().max_by_key(|seat| seat.took));
    let Some((fastest, slowest)) = ends else {
        return Explanation { seats: vec![None; seats.len()], advice: None };
    };
    let session = ComparedSession { record, fastest, alike: !slowest.stands_out(fastest) };
    let causes = seats.iter().map(|seat| seat.as_ref()?.cause(&session)).collect::<Vec<_>>();
    // The session ends with its slowest seat.
    let known =
        seats.iter().zip(&causes).filter_map(|(seat, cause)| seat.as_ref().zip(cause.as_ref()));
    let last = known.max_by_key(|(seat, _)| seat.took);
    let advice = last.map(|(seat, cause)| cause.kind.advice(seat.transfer, record.via));
    Explanation { seats: causes, advice }
}

/// The same as lines below a table: one for each slow seat, `most` at most, and the advice.
pub fn lines(record: &Record, most: usize) -> String {
    let explanation = explain(record);
    let mut lines: Vec<(SeatId, String, &Cause)> = Vec::new();
    for (transfer, cause) in record.transfers.iter().zip(&explanation.seats) {
        let Some(cause) = cause else { continue };
        match lines.last_mut() {
            Some((_, to, last)) if last.kind == cause.kind && SHARED.contains(&cause.kind) => {
                *to = format!("-{}", transfer.seat);
            }
            _ => lines.push((transfer.seat, String::new(), cause)),
        }
    }
    let mut text = String::new();
    for (from, to, cause) in lines.iter().take(most) {
        let head = format!("why slow, seat {from}{to}");
        let _ = writeln!(text, "{head:<19} {}", cause.sentence);
    }
    if lines.len() > most {
        let _ = writeln!(text, "{:<19} {} more seats have a reason", "", lines.len() - most);
    }
    if let Some(advice) = explanation.advice {
        let _ = writeln!(text, "{:<19} {advice}", "to be faster");
    }
    text
}

impl<'a> SeatTime<'a> {
    fn of(transfer: &'a Transfer) -> Option<Self> {
        let times = [transfer.seconds_durable, transfer.seconds_verified];
        let known = times.into_iter().flatten().max();
        let took = known.or(transfer.seconds_server).or(transfer.seconds_client)?;
        let evidence = transfer.evidence.held_to(took);
        (transfer.outcome == Outcome::Complete).then_some(Self { transfer, took, evidence })
    }

    fn stands_out(&self, fastest: &Self) -> bool {
        self.took.as_secs_f64() >= fastest.took.as_secs_f64() * STANDS_OUT
    }

    fn cause(&self, session: &ComparedSession<'_>) -> Option<Cause> {
        let is_slow = session.alike || self.stands_out(session.fastest);
        if self.took < SLOW_MIN || !is_slow {
            return None;
        }
        let via = session.record.via;
        let way = || match via {
            Via::Tcp | Via::Http => self.connection(session),
            Via::Udp | Via::Multicast => {
                self.uplink(session).or_else(|| self.datagrams(&self.others(session)))
            }
            Via::Swarm => self.swarm(session).or_else(|| self.connection(session)),
            Via::Chain | Via::Raw => None,
        };
        let mut cause = self.local(session).or_else(way)?;
        if via == Via::Multicast && !SHARED.contains(&cause.kind) {
            cause.sentence += &self.held_up(&self.others(session));
        }
        Some(cause)
    }

    /// The other seats that have the whole file.
    fn others(&self, session: &ComparedSession<'a>) -> Vec<&'a Transfer> {
        let all = session.record.transfers.iter();
        all.filter(|t| t.seat != self.transfer.seat && t.outcome == Outcome::Complete).collect()
    }

    /// The part of its time.
    fn share(&self, part: Option<u64>) -> f64 {
        let share = part.unwrap_or(0) as f64 / micros(self.took).max(1) as f64;
        share.min(1.0)
    }

    /// The first of these parts of its time that is clear.
    fn clear(&self, parts: &[(CauseKind, Option<u64>, &str, &str)]) -> Option<Cause> {
        let part = parts.iter().find(|(_, part, ..)| self.share(*part) >= CLEAR)?;
        let (kind, part, what, of) = *part;
        Some(Cause::new(kind, self.share(part), what, &format!("of the time{of}")))
    }

    /// What the ends of its connection did themselves.
    fn local(&self, session: &ComparedSession<'_>) -> Option<Cause> {
        use CauseKind::{Cpu, Disk, Rate};
        let e = &self.evidence;
        let starves = !session.alike && self.share(e.cpu_wait_us) >= CPU_WAIT_CLEAR;
        let starved = e.cpu_wait_us.filter(|_| starves);
        // What of the hashing was neither the CPU's work nor its absence was waiting for the disk.
        let cpu = e.cpu_us.map(|busy| busy.saturating_add(e.cpu_wait_us.unwrap_or(0)));
        let back = e.hash_us.zip(cpu).map(|(hash, cpu)| hash.saturating_sub(cpu));
        self.clear(&[
            (Rate, e.paced_us, "held to --rate: the server waited", ""),
            (Cpu, starved, "limited by its own CPU: it waited for it", ""),
            (Cpu, e.cpu_us, "limited by its own CPU: it was busy", ""),
            (Disk, e.write_us, "limited by its disk:", " in write"),
            (Disk, e.sync_us, "limited by its disk:", " in sync"),
            (Disk, back, "limited by its disk:", " reading its copy back"),
        ])
    }

    /// What the system saw of its connection.
    fn connection(&self, session: &ComparedSession<'_>) -> Option<Cause> {
        let Evidence { read_us, busy_us, rwnd_limited_us, sndbuf_limited_us, .. } = self.evidence;
        let limited = rwnd_limited_us.unwrap_or(0).saturating_add(sndbuf_limited_us.unwrap_or(0));
        // A client that did something else kept the connection waiting; one that says nothing is
        // taken for one that waited.
        let waited = read_us.is_none() || self.share(read_us) >= CLEAR;
        // A full link of either end keeps it waiting too.
        let links = [self.evidence.server_link_us, self.evidence.client_link_us];
        let free = links.iter().all(|full| self.share(*full) < CLEAR / 2.0);
        let open = busy_us.filter(|_| waited && free)?.checked_sub(limited)?;
        let window = "limited by its receive window: it was full";
        let buffer = "limited by the server's send buffer: it was full";
        let ends = self.clear(&[
            (CauseKind::Window, rwnd_limited_us, window, ""),
            (CauseKind::SendBuffer, sndbuf_limited_us, buffer, ""),
        ]);
        ends.or_else(|| self.way(self.share(Some(open)), session))
    }

    /// What is on the way, of a connection that always had data on it for `share` of the time.
    fn way(&self, share: f64, session: &ComparedSession<'_>) -> Option<Cause> {
        let ComparedSession { record, fastest, alike } = session;
        if share < CLEAR {
            return None;
        }
        if record.clients > 1 && self.evidence.queued_bytes >= Some(QUEUED_MIN) {
            let (rate, all) = (record.global().rate_mbit?, record.transfers.len());
            let what = "waits for the server's uplink like everybody";
            let sentence = format!("{what}: {rate:.1} Mbit/s for {all} clients");
            return Some(Cause { kind: CauseKind::Uplink, share, sentence });
        }
        if let Some(lost) = self.loss(session) {
            return Some(Cause::new(CauseKind::Loss, lost, "", "of segments retransmitted"));
        }
        let rate = |seat: &SeatTime<'_>| {
            seat.transfer.rate_client_mbit().or_else(|| seat.transfer.rate_server_mbit())
        };
        let (own, best) = rate(self).zip(rate(fastest)).filter(|_| !alike)?;
        let what = "limited by the link to it";
        let sentence = format!("{what}: {own:.1} Mbit/s, and the fastest client had {best:.1}");
        Some(Cause { kind: CauseKind::Link, share, sentence })
    }

    /// The part of its segments that was sent again, where that made it slow.
    fn loss(&self, session: &ComparedSession<'_>) -> Option<f64> {
        let again =
            |seat: &SeatTime<'_>| part(seat.evidence.segments_again, seat.evidence.segments);
        let lost = again(self)?;
        // What the fastest seat bears as well makes nobody slower than it.
        let others = again(session.fastest).filter(|_| !session.alike).unwrap_or(0.0);
        let Evidence { rtt_us, min_rtt_us, .. } = self.evidence;
        let waited = rtt_us.zip(min_rtt_us).map(|(last, least)| last.saturating_sub(least));
        let is_queue = waited.is_none_or(|waited| waited >= QUEUE_DELAY_US);
        let is_clear = lost >= LOSS_SURE || lost >= LOSS_MIN && !is_queue;
        (is_clear && lost >= 2.0 * others).then_some(lost)
    }

    /// The queue of the server's own link was full, as the server saw when it looked.
    fn uplink(&self, session: &ComparedSession<'_>) -> Option<Cause> {
        let full = self.share(self.evidence.server_link_us);
        let what = "waits for the server's uplink like everybody: it was full";
        let cause = || Cause::new(CauseKind::Uplink, full, what, "of the time");
        (session.record.clients > 1 && full >= CLEAR).then(cause)
    }

    /// Whose links a swarm waited for, by how often the server sent the file and whose were full.
    fn swarm(&self, session: &ComparedSession<'_>) -> Option<Cause> {
        let Record { transfers, file, .. } = session.record;
        let sent = total_saturating(transfers.iter().filter_map(|t| t.bytes_server));
        let copies = sent as f64 / file.bytes.max(1) as f64;
        let link = |s: SeatTime<'_>| Some(s.share(Some(s.evidence.client_link_us?)) >= CLEAR);
        // Who was done first waited for nobody.
        let first = session.fastest.transfer.seat;
        let others = transfers.iter().filter(|t| t.seat != first).filter_map(SeatTime::of);
        let links: Option<Vec<bool>> = others.map(link).collect();
        match links.as_deref() {
            Some(full @ [_, ..]) if copies >= COPIES_MANY && full.iter().all(|full| *full) => {
                let share = self.share(self.evidence.client_link_us);
                let what = "waits for the clients' uplinks: they were full, and the server sent";
                let sentence = format!("{what} {copies:.1} copies");
                Some(Cause { kind: CauseKind::PeerUplinks, share, sentence })
            }
            Some(full) if copies >= COPIES_MANY && !full.contains(&true) => self.uplink(session),
            _ if copies <= COPIES_FEW => self.uplink(session),
            _ => None,
        }
    }

    /// What was counted of its datagrams, beyond what half the others bear: a session that looks for
    /// its rate loses some of everybody's. One client alone can lie, and changes nothing.
    fn datagrams(&self, others: &[&Transfer]) -> Option<Cause> {
        let middle = |figure: fn(&Counts) -> Option<u64>| {
            let mut all: Vec<u64> = others.iter().filter_map(|t| figure(&t.counts)).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied()
        };
        let counts = self.transfer.counts;
        let excess = |figure: fn(&Counts) -> Option<u64>| {
            let more = figure(&counts)?.saturating_sub(middle(figure).unwrap_or(0));
            part(Some(more), counts.offered).filter(|lost| *lost >= LOSS_MIN)
        };
        let own = counts.delay_us.unwrap_or(0);
        let others_queue = middle(|counts| counts.delay_us);
        let (times, more) = QUEUE_STANDS_OUT;
        let in_queue =
            others_queue.filter(|middle| own >= middle.saturating_mul(times).saturating_add(more));
        let lost = excess(|counts| counts.network_lost);
        if let Some((middle, share)) = in_queue.zip(lost) {
            let (own, middle) = (own / 1000, middle / 1000);
            let what = "limited by the link to it: a queue of";
            let sentence = format!("{what} {own} ms, and of {middle} ms to others");
            return Some(Cause { kind: CauseKind::Link, share, sentence });
        }
        let full = self.share(self.evidence.buffer_full_us);
        // A buffer that a queue on the way mostly fills is no limit: the link is.
        let queue = others_queue.map_or(own, |others| others.min(own));
        let moved = self.transfer.bytes_client.unwrap_or(0).saturating_mul(queue);
        let in_queue = (moved / micros(self.took).max(1)).saturating_mul(QUEUE_PART);
        let buffer = self.evidence.buffer_bytes.filter(|buffer| in_queue < *buffer);
        let window = buffer.filter(|_| full >= CLEAR).map(|buffer| {
            let what = format!("limited by its buffer of {buffer} bytes: it was full");
            Cause::new(CauseKind::Window, full, &what, "of the time")
        });
        // Who is alone has nobody to compare with: what a full queue loses is no fault of the way.
        let is_queue = others.is_empty() && own >= QUEUE_DELAY_US;
        let counted = [
            (CauseKind::Window, excess(|c| c.host_rx_drop), "dropped by its full buffer"),
            (CauseKind::Loss, lost.filter(|_| !is_queue), "lost on the way to it alone"),
        ];
        let counted = || {
            let (kind, share, how) = counted.into_iter().find(|(_, share, _)| share.is_some())?;
            Some(Cause::new(kind, share?, "", &format!("of datagrams {how}")))
        };
        window.or_else(counted)
    }

    /// How it held its group up, as the server saw: nothing where it did not.
    fn held_up(&self, others: &[&Transfer]) -> String {
        let repair = |evidence: &Evidence| evidence.repair_us.unwrap_or(0);
        let next = others.iter().map(|other| repair(&other.evidence)).max();
        let longer = repair(&self.evidence).saturating_sub(next.unwrap_or(u64::MAX));
        let cuts = self.evidence.rate_cuts.filter(|cuts| *cuts > 0);
        let say = |cuts| format!("; cuts of the rate for it: {cuts}");
        let mut held = cuts.map_or_else(String::new, say);
        if longer >= REPAIR_MIN_US {
            let seconds = Duration::from_micros(longer).as_secs_f64();
            let _ = write!(held, "; repaired {seconds:.1} s longer than the others");
        }
        held
    }
}

/// `some` of `all`, 0 to 1; nothing where that cannot be.
fn part(some: Option<u64>, all: Option<u64>) -> Option<f64> {
    let (some, all) = some.zip(all).filter(|(some, all)| some <= all && *all > 0)?;
    Some(some as f64 / all as f64)
}

impl Cause {
    fn new(kind: CauseKind, share: f64, what: &str, of: &str) -> Self {
        let percent = 100.0 * share;
        // Whole numbers for times, a decimal for what is mostly small.
        let decimals = usize::from(percent < 10.0);
        let sentence = format!("{what} {percent:.decimals$} % {of}");
        Self { kind, share, sentence: sentence.trim_start().to_owned() }
    }
}

#[cfg(test)]
mod tests;
