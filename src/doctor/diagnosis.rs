//! What the facts mean: for each, what it breaks or slows, and the one sentence that mends it.

use std::{io, net::IpAddr};

use crate::{
    client::{
        self,
        echo::{EchoAnswer, EchoReport},
    },
    doctor::facts::{Facts, FolderFact, GroupFact, PortFact},
    error::Error,
    session::Via,
    text::{ShownPath, escape, wrapped},
    transport::udp::socket::RECEIVE_BUFFER,
    units::{Bytes, Rate},
};

/// What a machine may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Files by one of the ways; `raw` needs what `udp` needs.
    Files(Via),
    /// A live stream.
    Relay,
    /// An emulated star.
    Star,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its word.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// What mends it, a command or a sentence.
    pub mend: Option<String>,
    /// What does not work for it.
    pub breaks: Vec<Purpose>,
    /// What works worse for it.
    pub slows: Vec<Purpose>,
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// In the order in which they are shown.
    pub checks: Vec<Check>,
    /// What this machine may be used for, as far as it was looked at.
    pub purposes: Vec<Purpose>,
}

/// The ways of sending files.
const FILES: [Purpose; 6] =
    [Purpose::Files(Via::Tcp), UDP, MULTICAST, SWARM, CHAIN, Purpose::Files(Via::Http)];

const UDP: Purpose = Purpose::Files(Via::Udp);
const MULTICAST: Purpose = Purpose::Files(Via::Multicast);
const SWARM: Purpose = Purpose::Files(Via::Swarm);
const CHAIN: Purpose = Purpose::Files(Via::Chain);

/// A folder that takes less than a network of 100 Mbit/s brings is slow, bytes a second.
const SLOW_FOLDER: f64 = 12.5e6;

/// Clocks that are further apart make the times in two logs hard to compare, microseconds.
const CLOCKS_APART_US: u64 = 1_000_000;

/// What a machine is to a purpose, best first.
pub const OUTLOOKS: [&str; 3] = ["works", "works worse", "fails"];

/// The columns that a line may take.
const WIDTH: usize = 80;

/// Where the text of a check begins.
const INDENT: usize = 18;

/// Lets something in, as `nft` says it.
const LET_IN: &str = "nft insert rule inet filter input";

impl Purpose {
    /// What `--via` names.
    pub fn of(via: Via) -> Self {
        Self::Files(if via == Via::Raw { Via::Udp } else { via })
    }

    /// The word of it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Files(via) => via.word(),
            Self::Relay => "relay",
            Self::Star => "star",
        }
    }
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, found: found.into(), mend: None, breaks: Vec::new(), slows: Vec::new() }
    }

    fn mended(self, how: impl Into<String>) -> Self {
        Self { mend: Some(how.into()), ..self }
    }

    fn breaking(self, what: impl Into<Vec<Purpose>>) -> Self {
        Self { breaks: what.into(), ..self }
    }

    fn slowing(self, what: impl Into<Vec<Purpose>>) -> Self {
        Self { slows: what.into(), ..self }
    }

    /// How bad it is for `asked`, in a word.
    pub fn state(&self, asked: Purpose) -> &'static str {
        match self {
            Self { breaks, .. } if breaks.contains(&asked) => "FAULT",
            Self { breaks, slows, .. } if !breaks.is_empty() || !slows.is_empty() => "warn",
            Self { mend: Some(_), .. } => "note",
            _ => "ok",
        }
    }
}

impl Diagnosis {
    /// Judges what was found.
    pub fn of(facts: &Facts) -> Self {
        let mut checks = Vec::new();
        let mut purposes = FILES.to_vec();
        match &facts.host {
            Some((name, answer)) => of_host(name, answer, &mut checks),
            None => purposes.extend([Purpose::Relay, Purpose::Star]),
        }
        checks.extend(["serve", "relay"].iter().filter_map(|user| of_ports(user, &facts.ports)));
        checks.extend(facts.group.as_ref().map(of_group));
        checks.push(of_buffer(facts.buffer));
        checks.push(of_descriptors(facts.clients, facts.descriptors));
        checks.push(of_folder(&facts.folder));
        checks.push(of_clock(facts.clock));
        checks.push(of_sha(facts.sha, facts.sha_used));
        checks.extend(facts.star.as_ref().map(of_star));
        Self { checks, purposes }
    }

    /// What breaks `purpose`.
    pub fn faults(&self, purpose: Purpose) -> Vec<&'static str> {
        let breaking = self.checks.iter().filter(|check| check.breaks.contains(&purpose));
        breaking.map(|check| check.name).collect()
    }

    /// Whether it would work: one of [`OUTLOOKS`].
    pub fn outlook(&self, purpose: Purpose) -> &'static str {
        let is_slow = self.checks.iter().any(|check| check.slows.contains(&purpose));
        match (self.faults(purpose).is_empty(), is_slow) {
            (true, false) => "works",
            (true, true) => "works worse",
            (false, _) => "fails",
        }
    }

    /// One screen: the checks, what works, and the verdict on `asked`.
    pub fn to_screen(&self, asked: Purpose) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let head = format!("{:<12}{:<6}", check.name, check.state(asked));
            text += &lines(&head, &escape(&check.found));
            if let Some(mend) = &check.mend {
                text += &lines("", &format!("-> {}", escape(mend)));
            }
        }
        text.push('\n');
        for outlook in OUTLOOKS {
            let those = self.purposes.iter().filter(|purpose| self.outlook(**purpose) == outlook);
            let those: Vec<_> = those.map(|purpose| purpose.word()).collect();
            if !those.is_empty() {
                text += &lines(outlook, &those.join(", "));
            }
        }
        let (way, faults) = (asked.word(), self.faults(asked).join(", "));
        text + &match &faults[..] {
            "" => format!("{way} would work (exit 0)\n"),
            _ => format!("FAILED: {way} would not work: {faults} (exit 1)\n"),
        }
    }
}

/// `words` after `head`, in lines of [`WIDTH`] columns.
fn lines(head: &str, words: &str) -> String {
    wrapped(&format!("{head:<INDENT$}{words}"), WIDTH, &" ".repeat(INDENT))
}

/// The checks of a server that was asked.
fn of_host(name: &str, answer: &EchoAnswer, checks: &mut Vec<Check>) {
    match answer {
        EchoAnswer::Unreachable(error) => checks.push(of_unreachable(name, error)),
        EchoAnswer::Refused(error) => {
            let mut check = Check::ok("host", format!("{name} does not serve us: {error}"));
            if !matches!(error, Error::Refused { .. }) {
                let how = "see that `gatecast serve` listens at that port, or name its own";
                check = check.mended(how);
            }
            checks.push(check.breaking(FILES));
        }
        EchoAnswer::Older => checks.push(
            Check::ok("host", format!("{name} answers, and is too old to send an echo"))
                .mended("install this version of gatecast there")
                .breaking([UDP, MULTICAST])
                .slowing([SWARM, CHAIN]),
        ),
        EchoAnswer::Echo(report) => of_echo(report, checks),
    }
}

fn of_unreachable(name: &str, error: &Error) -> Check {
    let port = name.rsplit_once(':').map_or(name, |(_, port)| port);
    let (is_io, is_timeout) = match error {
        Error::Io { source, .. } => (Some(source.kind()), Error::is_timeout(source)),
        other => (None, matches!(other, Error::TimedOut { .. })),
    };
    let (found, mend) = if is_timeout {
        (
            format!("{name} does not answer: a firewall drops TCP {port}, or the machine is off"),
            format!("on that machine: {LET_IN} tcp dport {port} accept"),
        )
    } else if is_io == Some(io::ErrorKind::ConnectionRefused) {
        (
            format!("{name} refuses: nothing listens there, or a firewall rejects TCP {port}"),
            format!("start `gatecast serve` there; then {LET_IN} tcp dport {port} accept"),
        )
    } else {
        let mend = "see whether `ping` reaches that machine, and try HOST:PORT";
        (error.to_string(), mend.to_owned())
    };
    Check::ok("host", found).mended(mend).breaking(FILES)
}

fn of_echo(report: &EchoReport, checks: &mut Vec<Check>) {
    let name = report.server;
    let (server, family) = match report.server.ip() {
        IpAddr::V4(ip) => (ip.to_string(), "ip"),
        IpAddr::V6(ip) => (ip.to_string(), "ip6"),
    };
    checks.push(match report.via {
        None => Check::ok("host", format!("{name} answers, and leaves the way to the clients")),
        Some(via) => {
            let ours = Purpose::of(via);
            let is_other =
                |purpose: &Purpose| *purpose != ours && *purpose != Purpose::Files(Via::Http);
            let others = FILES.into_iter().filter(is_other).collect::<Vec<_>>();
            Check::ok("host", format!("{name} answers, and sends via {via} only"))
                .mended(format!("for another way start it there with another --via than {via}"))
                .breaking(others)
        }
    });
    let there = if report.udp_out {
        "ours arrive there"
    } else {
        "ours do not (only --lab-udp needs them)"
    };
    checks.push(if report.udp_in {
        Check::ok("udp", format!("its datagrams arrive here; {there}"))
    } else {
        Check::ok("udp", format!("its datagrams do not arrive here; {there}"))
            .mended(format!("{LET_IN} {family} saddr {server} udp dport 1024-65535 accept"))
            .breaking([UDP])
    });
    checks.push(if report.tcp_in {
        Check::ok("peers", "its connections arrive here, so other clients' can")
    } else {
        Check::ok("peers", "its connections do not arrive here, nor will other clients'")
            .mended(format!("{LET_IN} tcp dport 1024-65535 accept"))
            .slowing([SWARM, CHAIN])
    });
    let is_sent = report.via.is_none_or(|via| via == Via::Multicast);
    checks.extend(match report.group {
        Some((group, true)) => Some(Check::ok("multicast", format!("its datagrams to {group} arrive here"))),
        Some((group, false)) => Some(
            Check::ok("multicast", format!("its datagrams to {group} do not arrive here: a firewall drops them, or a switch or router keeps them"))
                .mended(format!("{LET_IN} ip daddr 224.0.0.0/4 accept; in the switch an IGMP querier, or no IGMP snooping"))
                .breaking([MULTICAST]),
        ),
        None if is_sent => Some(
            Check::ok("multicast", "that server can send to no group by this address")
                .mended("start it there with --multicast-interface ADDR")
                .breaking([MULTICAST]),
        ),
        None => None,
    });
    if report.clock_off_us > CLOCKS_APART_US {
        let seconds = report.clock_off_us / 1_000_000;
        let found =
            format!("{seconds} s apart: the times in the two machines' logs do not compare");
        checks.push(Check::ok("clocks", found).mended("timedatectl set-ntp true, on both"));
    }
}

fn of_ports(user: &str, ports: &[PortFact]) -> Option<Check> {
    let ports: Vec<_> = ports.iter().filter(|port| port.user == user).collect();
    let (name, breaks) = match user {
        "serve" => ("port", FILES.to_vec()),
        _ => ("relay ports", vec![Purpose::Relay]),
    };
    if let Some(obstacle) = ports.iter().find_map(|port| port.obstacle.as_deref()) {
        let (found, mend) = obstacle.split_once("; ").unwrap_or((obstacle, "choose another"));
        return Some(Check::ok(name, found).mended(mend).breaking(breaks));
    }
    let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    (!names.is_empty()).then(|| Check::ok(name, format!("{} {verb} free", names.join(" and "))))
}

fn of_group(fact: &GroupFact) -> Check {
    let another = "name another interface: --multicast-interface ADDR";
    let check = |found: String| Check::ok("multicast", found);
    match (fact.interface, &fact.heard) {
        (None, _) => check("no interface has an IPv4 address".to_owned()).mended(another),
        (Some(ip), Ok(true)) => {
            return check(format!("a group's member at {ip} hears this machine"));
        }
        (Some(ip), Ok(false)) => {
            check(format!("a group's member at {ip} does not hear this machine"))
                .mended(format!("{LET_IN} ip daddr 224.0.0.0/4 accept"))
        }
        (Some(ip), Err(error)) => {
            check(format!("nothing can be sent to a group from {ip}: {error}"))
                .mended(format!("{another}, and see `nft list ruleset`"))
        }
    }
    .breaking([MULTICAST])
}

fn of_buffer(got: u64) -> Check {
    let wanted = RECEIVE_BUFFER as u64;
    let found = format!("a UDP socket gets {} to receive", Bytes(got));
    if got >= wanted {
        return Check::ok("buffers", found);
    }
    Check::ok("buffers", format!("{found} of {}: bursts are lost", Bytes(wanted)))
        .mended(format!("sysctl -w net.core.rmem_max={wanted}"))
        .slowing([UDP, MULTICAST, Purpose::Relay])
}

fn of_descriptors(clients: u16, limit: Option<u64>) -> Check {
    let wanted = client::descriptors(clients);
    let needs = format!("{clients} clients need {wanted} open files");
    let check = |found: String| Check::ok("open files", format!("{needs}{found}"));
    match limit {
        None => check("; this system does not tell its limit".to_owned()),
        Some(limit) if limit >= wanted => check(", and may have them".to_owned()),
        Some(limit) => check(format!(" and the limit is {limit}"))
            .mended(format!("ulimit -n {wanted}"))
            .breaking(FILES),
    }
}

fn of_folder(fact: &FolderFact) -> Check {
    let path = ShownPath(&fact.path);
    let poor =
        |found: String| Check::ok("folder", found).mended("choose another folder: --out DIR");
    let rate = match (fact.free, &fact.rate) {
        (_, Err(error)) => return poor(format!("cannot write to {path}: {error}")).breaking(FILES),
        (Some(0), Ok(_)) => return poor(format!("{path} has no free space")).breaking(FILES),
        (_, Ok(rate)) => *rate,
    };
    let free = fact.free.map(|free| format!(" has {} free and", Bytes(free))).unwrap_or_default();
    let found = format!("{path}{free} takes {}/s, synced", Bytes(rate as u64));
    if rate >= SLOW_FOLDER {
        return Check::ok("folder", found);
    }
    poor(format!("{found}: less than {}", Rate((SLOW_FOLDER * 8.0) as u64))).slowing(FILES)
}

fn of_clock(synchronised: Option<bool>) -> Check {
    // Nothing is started by the time of day, so that no clock spoils a session.
    let why = "only the times in logs depend on it";
    match synchronised {
        Some(true) => Check::ok("clock", "synchronised"),
        Some(false) => Check::ok("clock", format!("not synchronised; {why}"))
            .mended("timedatectl set-ntp true"),
        None => Check::ok("clock", format!("nobody says whether it is synchronised; {why}")),
    }
}

fn of_sha(has: bool, used: bool) -> Check {
    let found = match (has, used) {
        (true, true) => "the processor's SHA instructions are used",
        (true, false) => "the processor has SHA instructions, which are not used",
        (false, _) => "the processor has no SHA instructions: verifying takes longer",
    };
    let mend = "a build with feature fast-sha1, and no GATECAST_SHA1 in the environment";
    Check { mend: (has && !used).then(|| mend.to_owned()), ..Check::ok("sha1", found) }
}

fn of_star(star: &Result<(), String>) -> Check {
    match star {
        Ok(()) => Check::ok("star", "a star can be built here"),
        Err(why) => {
            let (found, mend) = why.split_once("; ").unwrap_or((why, "run it as root"));
            Check::ok("star", found).mended(mend).breaking([Purpose::Star])
        }
    }
}

#[cfg(test)]
mod tests;
