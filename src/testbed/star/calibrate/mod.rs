//! What the links of a star really carry, measured just before they are used.
//!
//! A result that is compared with a bound is worth what the bound's rates are worth, so these are
//! measured, and a link that does not deliver what was asked for ends the study with a sentence.

pub mod flow;

use std::{fmt, sync::atomic::AtomicBool, thread, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    report::{median_range::MedianRange, table::or_dash},
    testbed::star::{
        build::Star,
        calibrate::flow::Window,
        host::Host,
        layout::{Loss, Traffic},
    },
};

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// From the server to the first client and nothing else on the star, Mbit/s of payload.
    pub tcp_alone_mbit: f64,
    /// What the nominal rate of that path leaves to TCP, Mbit/s.
    pub tcp_expected_mbit: f64,
    /// The same with full datagrams of UDP, Mbit/s of payload.
    pub udp_alone_mbit: f64,
    /// What the nominal rate of that path leaves to UDP, Mbit/s.
    pub udp_expected_mbit: f64,
    /// Round trip over the idle path, microseconds: the middle one of all that were tried.
    pub round_trip_us: u64,
    /// All links at once, both ways, each host sending to the next one: the flow from each host,
    /// Mbit/s of UDP payload. (With TCP, a host's acknowledgements would take a share of its own
    /// flow's link.)
    pub together_mbit: Vec<f64>,
    /// What nominal rates leave to each of those flows, Mbit/s.
    pub together_expected_mbit: Vec<f64>,
    /// Loss, where loss was asked for.
    pub loss_check: Option<LossCheck>,
}

/// Loss that was asked for, counted at both ends, and by the packet filter that makes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossCheck {
    /// The fraction asked for.
    pub asked: f64,
    /// UdpFlow sent to the first client.
    pub sent: u64,
    /// Different ones that it received.
    pub received: u64,
    /// UdpFlow that the packet filter dropped on their way, by its own counter.
    pub filter_dropped: u64,
    /// UdpFlow that the packet filter saw.
    pub filter_seen: u64,
    /// UdpFlow that the receiver's full buffer dropped.
    pub receiver_dropped: u64,
}

/// Share of a link's nominal rate that is TCP payload: 1448 bytes of each frame of 1514 (MTU
/// 1500, IPv4, TCP with timestamps, Ethernet header).
pub const TCP_SHARE: f64 = 1448.0 / 1514.0;

/// Share that is UDP payload in full datagrams.
pub const UDP_SHARE: f64 = 1472.0 / 1514.0;

/// How far a link alone may be from its nominal rate, for a star of our own.
pub const TOLERANCE: f64 = 0.01;

/// The same for a network that was given, with shapers of another kind.
pub const TOLERANCE_FOREIGN: f64 = 0.03;

/// How far a flow may be behind when all links are out at once; beyond, the machine is measured
/// and not the links.
pub const TOLERANCE_TOGETHER: f64 = 0.05;

const ALONE: Window =
    Window { lead: Duration::from_millis(400), span: Duration::from_millis(1500) };
const TOGETHER: Window =
    Window { lead: Duration::from_millis(500), span: Duration::from_millis(1500) };
const ROUND_TRIPS: usize = 41;

/// UdpFlow of which losses are counted: at 1 % a count of 300, give or take 17.
const LOSS_DATAGRAMS: u64 = 30_000;
/// At slow links fewer of them, for this long.
const LOSS_WINDOW: Window = Window { lead: Duration::ZERO, span: Duration::from_secs(6) };

/// Standard deviations by which a count of random losses may be off: one star in 16,000.
const LOSS_SIGMAS: f64 = 4.0;

/// Measures the links of `hosts`, the server first, while nothing is lost.
///
/// # Errors
/// A flow that could not be measured, or `stop` was set.
pub fn links(hosts: &[Host], stop: &AtomicBool) -> Result<Calibration> {
    let [server, client, ..] = hosts else {
        return Err(Error::refused("the calibration", "fewer than two hosts"));
    };
    // Of the least rate on the way.
    let expected =
        |from: &Host, to: &Host, share: f64| from.link.up.min(to.link.down).mbit() * share;
    let trips = flow::round_trips(server, client, ROUND_TRIPS)?;
    let tcp_expected_mbit = expected(server, client, TCP_SHARE);
    let tcp_alone_mbit = settled(tcp_expected_mbit, || flow::tcp(server, client, ALONE, stop))?;
    let udp_expected_mbit = expected(server, client, UDP_SHARE);
    let udp = |from, to, window| Ok(flow::udp(from, to, window, u64::MAX, stop)?.mbit);
    let udp_alone_mbit = settled(udp_expected_mbit, || udp(server, client, ALONE))?;
    let next = |host: usize| &hosts[(host + 1) % hosts.len()];
    let together_mbit = thread::scope(|scope| {
        let flow = |host: usize| scope.spawn(move || udp(&hosts[host], next(host), TOGETHER));
        let flows: Vec<_> = (0..hosts.len()).map(flow).collect();
        let joined = flows.into_iter().map(|flow| flow.join().expect("a flow does not panic"));
        joined.collect::<Result<Vec<f64>>>()
    })?;
    Ok(Calibration {
        tcp_alone_mbit,
        tcp_expected_mbit,
        udp_alone_mbit,
        udp_expected_mbit,
        round_trip_us: trips[trips.len() / 2],
        together_mbit,
        together_expected_mbit: (0..hosts.len())
            .map(|host| expected(&hosts[host], next(host), UDP_SHARE))
            .collect(),
        loss_check: None,
    })
}

/// Measures until a flow is where it was asked to be, five times at most; the best of them. What
/// else this machine does at the same time only ever takes from a flow.
fn settled(expected: f64, mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut best: f64 = 0.0;
    for _ in 0..5 {
        best = best.max(measure()?);
        if best >= expected * (1.0 - TOLERANCE / 2.0) {
            break;
        }
    }
    Ok(best)
}

/// Begins the star's loss and counts it at both ends of the first client's link. Loss of TCP only
/// is counted by the filter alone.
///
/// # Errors
/// The packet filter refuses, nothing can be sent, or `stop` was set.
pub fn loss(star: &Star, stop: &AtomicBool) -> Result<Option<LossCheck>> {
    let Some(loss) = star.layout.loss else {
        return Ok(None);
    };
    // Its counters begin at zero, and count nothing but what follows.
    star.start_loss_of(Loss { of: Traffic::Udp, ..loss })?;
    let hosts = &star.hosts;
    let counted = flow::udp(&hosts[0], &hosts[1], LOSS_WINDOW, LOSS_DATAGRAMS, stop)
        .and_then(|flow| Ok((flow, star.filtered(1)?)));
    star.end_loss()?;
    let (flow, (filter_seen, filter_dropped)) = counted?;
    star.start_loss()?;
    Ok(Some(LossCheck {
        asked: loss.fraction(),
        sent: flow.sent,
        received: flow.received,
        filter_dropped,
        filter_seen,
        receiver_dropped: flow.receiver_dropped,
    }))
}

impl Calibration {
    /// The flows on the link that was measured alone: name, measured and expected, Mbit/s.
    fn alone(&self) -> [(&'static str, f64, f64); 2] {
        [
            ("TCP", self.tcp_alone_mbit, self.tcp_expected_mbit),
            ("UDP", self.udp_alone_mbit, self.udp_expected_mbit),
        ]
    }

    /// Checks that the links deliver what was asked for, alone and, where `together` is needed,
    /// all at once.
    ///
    /// # Errors
    /// The first that does not, with both figures.
    pub fn check(&self, tolerance: f64, together: bool) -> Result<()> {
        let refuse = |why: String| Err(Error::refused("the calibration", why));
        for (name, got, expected) in self.alone() {
            // A figure that is not a number is near nothing.
            let is_near = (got / expected - 1.0).abs() <= tolerance;
            if !is_near {
                return refuse(format!(
                    "the link between server and first client alone, with {name}, carries \
                     {got:.2} Mbit/s of payload where {expected:.2} were asked for, which is more \
                     than {} % off",
                    tolerance * 100.0
                ));
            }
        }
        if together && let Some(why) = self.short_together() {
            return refuse(why);
        }
        self.loss_check.as_ref().map_or(Ok(()), LossCheck::check)
    }

    /// Why all links at once do not carry what each should; `None` when they do.
    pub fn short_together(&self) -> Option<String> {
        let flows = self.together_mbit.iter().zip(&self.together_expected_mbit);
        let (host, (got, asked)) =
            flows.enumerate().min_by(|(_, (a, b)), (_, (c, d))| (*a / *b).total_cmp(&(*c / *d)))?;
        (got / asked < 1.0 - TOLERANCE_TOGETHER).then(|| {
            format!(
                "with all links out at once, host {host} sends {got:.1} Mbit/s where {asked:.1} \
                 were asked for: this machine ends before its links do"
            )
        })
    }
}

impl LossCheck {
    /// The fraction that was lost, by what was sent and received.
    pub fn counted(&self) -> Option<f64> {
        (self.sent > 0).then(|| self.lost() as f64 / self.sent as f64)
    }

    fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Checks that each datagram is accounted for, and that about as many were lost as asked.
    ///
    /// # Errors
    /// The figures that do not fit.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::refused("the calibration", reason));
        let lost = self.lost();
        if lost != self.filter_dropped + self.receiver_dropped {
            return refuse(format!(
                "{lost} of {} datagrams were lost, and the packet filter dropped {} and the \
                 receiver {}: something else loses packets",
                self.sent, self.filter_dropped, self.receiver_dropped
            ));
        }
        let seen = self.filter_seen as f64;
        let asked = seen * self.asked;
        let sigma = (asked * (1.0 - self.asked)).sqrt();
        if (self.filter_dropped as f64 - asked).abs() > LOSS_SIGMAS * sigma + 1.0 {
            return refuse(format!(
                "{} of {} datagrams were dropped where {asked:.0} (give or take {sigma:.0}) were \
                 asked for",
                self.filter_dropped, self.filter_seen
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Calibration {
    /// Some lines for a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off = |got: f64, asked: f64| (got / asked - 1.0) * 100.0;
        for (name, got, asked) in self.alone() {
            let by = off(got, asked);
            writeln!(
                f,
                "one link alone, {name}: {got:.2} Mbit/s of {asked:.2} asked ({by:+.2} %)"
            )?;
        }
        writeln!(f, "round trip, idle: {} us", self.round_trip_us)?;
        let flows = self.together_mbit.iter().zip(&self.together_expected_mbit);
        let off = MedianRange::of(flows.map(|(got, asked)| off(*got, *asked)));
        let (least, most) = off.map_or((f64::NAN, f64::NAN), |off| (off.low, off.high));
        let sum: f64 = self.together_mbit.iter().sum();
        write!(
            f,
            "all {} links out at once, both ways, UDP: {sum:.1} Mbit/s in all, each {least:+.2} to {most:+.2} % \
             of what was asked",
            self.together_mbit.len()
        )?;
        self.loss_check.iter().try_for_each(|loss| write!(f, "\n{loss}"))
    }
}

impl fmt::Display for LossCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |fraction: f64| format!("{:.4} %", fraction * 100.0);
        let (asked, counted) = (percent(self.asked), or_dash(self.counted().map(percent)));
        write!(
            f,
            "loss: {asked} asked, {counted} counted ({} sent, {} received, {} dropped by the receiver); the packet filter's own counter: \
             {} of {} dropped",
            self.sent, self.received, self.receiver_dropped, self.filter_dropped, self.filter_seen
        )
    }
}

#[cfg(test)]
mod tests;
