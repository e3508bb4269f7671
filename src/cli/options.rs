//! Options that several subcommands share, and how their values are read.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use crate::{
    error::Result,
    fetch::PORT,
    net::{address, copy},
    proto::{
        greeting::Greeting,
        line,
        udp::packet::{DATAGRAM, DATAGRAM_MAX, DATAGRAM_MIN},
    },
    server::config::ServerConfig,
    session::{MAX_SEATS, Via},
    transport::{swarm::torrents, udp::config::UdpConfig},
    units::{self, InvalidValue, Rate},
};

/// How a server sends; for `serve` and `run`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct SendArgs {
    /// Rate of all seats together
    ///
    /// Of payload, such as 100mbit; auto is as fast as the clients take it.
    #[arg(long, value_name = "RATE", default_value = "auto")]
    pub(crate) rate: RateLimit,
    /// How bytes are copied: auto, buffered or sendfile
    #[arg(long, default_value = "auto", value_name = "HOW", hide_short_help = true)]
    pub(crate) copy: copy::Method,
    /// TCP congestion control, such as reno; the system's own unless given
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) congestion: Option<String>,
    /// Give a client up that makes no progress for so long
    #[arg(long, default_value = "30s", value_parser = positive_duration, value_name = "TIME")]
    #[arg(hide_short_help = true)]
    pub(crate) stall_limit: Duration,
    /// Most bytes of a datagram, for udp, raw and multicast; above 1472 it travels in pieces
    #[arg(long, default_value_t = DATAGRAM, value_parser = datagram, value_name = "BYTES")]
    #[arg(help_heading = "UDP", hide_short_help = true)]
    pub(crate) datagram: u16,
    /// The group for multicast, such as 239.255.1.2:5000; one of its own for each session
    /// unless given
    #[arg(long, value_parser = group, value_name = "ADDR:PORT")]
    #[arg(help_heading = "UDP", hide_short_help = true)]
    pub(crate) multicast_group: Option<SocketAddr>,
    /// The address of this host by whose interface multicast leaves; those by which the clients
    /// came unless given
    #[arg(long, value_name = "ADDR", help_heading = "UDP", hide_short_help = true)]
    pub(crate) multicast_interface: Option<Ipv4Addr>,
    /// How many routers multicast may pass, and one more
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..), value_name = "N")]
    #[arg(help_heading = "UDP", hide_short_help = true)]
    pub(crate) ttl: u8,
}

/// A rate, or as fast as the clients take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit(Option<Rate>);

/// A way, or the fastest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViaChoice {
    /// This one.
    Via(Via),
    /// That which is measured to be the fastest.
    Auto,
}

impl ViaChoice {
    /// The way, where one was named.
    pub(crate) fn way(self) -> Option<Via> {
        match self {
            Self::Via(via) => Some(via),
            Self::Auto => None,
        }
    }
}

impl FromStr for ViaChoice {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let expected = "auto, tcp, udp, raw, multicast, swarm, chain or http";
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Via).map_err(|_| InvalidValue::new("way", text, expected)),
        }
    }
}

/// The key, and who needs none; for `serve`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct KeyArgs {
    /// Serve only clients that prove the key in this file
    ///
    /// A key is 16 bytes or more that only its owner may read. It does not encrypt.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// With a key, serve these all the same, though they cannot prove it: http, lab, swarm
    #[arg(long, value_name = "WHO", value_delimiter = ',', value_parser = open, requires = "key")]
    #[arg(hide_short_help = true)]
    pub(crate) open: Vec<Greeting>,
}

/// What swarms may do; for `serve` and `run`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Swarm")]
pub(crate) struct SwarmArgs {
    /// Write who had which chunk of a swarm first into this file: chunk, peer, turn
    ///
    /// The turns, in which the server means to offer the chunks, before the release; all at the end.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) tracker_file: Option<PathBuf>,
    /// Name this server's HTTP address in torrents, for programs that fetch from there too
    #[arg(long, hide_short_help = true)]
    pub(crate) web_seed: bool,
}

impl SwarmArgs {
    /// These options as the swarms' settings.
    pub(crate) fn config(&self) -> torrents::SwarmServerConfig {
        torrents::SwarmServerConfig {
            tracker_file: self.tracker_file.clone(),
            web_seed: self.web_seed,
            ..torrents::SwarmServerConfig::default()
        }
    }
}

impl SendArgs {
    /// The options for datagrams as UDP's settings.
    pub(crate) fn udp_config(&self) -> UdpConfig {
        UdpConfig {
            size: self.datagram,
            group: self.multicast_group,
            interface: self.multicast_interface,
            ttl: u32::from(self.ttl),
        }
    }

    /// `config` with the options for every way.
    pub(crate) fn server_config(&self, config: ServerConfig) -> ServerConfig {
        ServerConfig {
            rate: self.rate.0,
            copy: self.copy,
            congestion: self.congestion.clone(),
            stall: self.stall_limit,
            ..config
        }
    }
}

impl FromStr for RateLimit {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "auto" => Ok(Self(None)),
            _ => text.parse().map(|rate| Self(Some(rate))),
        }
    }
}

fn number(what: &'static str, text: &str, range: RangeInclusive<u16>) -> Result<u16, InvalidValue> {
    let number = line::decimal(text).and_then(|number| u16::try_from(number).ok());
    let expected = || format!("a number from {} to {}", range.start(), range.end());
    let number = number.filter(|number| range.contains(number));
    number.ok_or_else(|| InvalidValue::new(what, text, expected()))
}

/// Reads the size of a datagram in bytes.
///
/// # Errors
/// UDP cannot carry it, or it is too small to be worth sending.
pub fn datagram(text: &str) -> Result<u16, InvalidValue> {
    number("datagram size", text, DATAGRAM_MIN..=DATAGRAM_MAX)
}

/// Reads a kind of client that cannot prove a key.
///
/// # Errors
/// It is none.
pub(crate) fn open(text: &str) -> Result<Greeting, InvalidValue> {
    match text {
        "http" => Ok(Greeting::Http),
        "lab" => Ok(Greeting::Lab),
        "swarm" => Ok(Greeting::Swarm),
        _ => Err(InvalidValue::new("kind of client", text, "http, lab or swarm")),
    }
}

/// Reads a number of clients.
///
/// # Errors
/// It is 0, or more than a session can have.
pub fn clients(text: &str) -> Result<u16, InvalidValue> {
    number("number of clients", text, 1..=MAX_SEATS)
}

/// Reads where to listen: a port, at every address of this machine, or an address with its port.
///
/// # Errors
/// It is neither.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, InvalidValue> {
    let port = line::decimal(text).and_then(|port| u16::try_from(port).ok());
    let any = port.map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    any.or_else(|| text.parse().ok()).ok_or_else(|| {
        let expected = "a port up to 65535, or an address and a port such as 127.0.0.1:9000";
        InvalidValue::new("address", text, expected)
    })
}

/// Reads a multicast group.
///
/// # Errors
/// It is no IPv4 multicast address with a port from 1024 on.
pub fn group(text: &str) -> Result<SocketAddr, InvalidValue> {
    let is_group = |at: &SocketAddr| at.is_ipv4() && at.ip().is_multicast() && at.port() >= 1024;
    let expected = "a multicast address and a port from 1024 on, such as 239.255.1.2:5000";
    let group = text.parse().ok().filter(is_group);
    group.ok_or_else(|| InvalidValue::new("group", text, expected))
}

/// Reads a duration above zero.
///
/// # Errors
/// It is no duration, or zero.
pub fn positive_duration(text: &str) -> Result<Duration, InvalidValue> {
    let duration = units::parse_duration(text)?;
    if duration.is_zero() {
        return Err(InvalidValue::new("duration", text, "more than 0"));
    }
    Ok(duration)
}

/// Reads a share of at least 0, `5%` or `0.05`.
///
/// # Errors
/// It is no such number.
pub fn share(text: &str) -> Result<f64, InvalidValue> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let is_plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let share = number.parse::<f64>().ok().filter(|share| is_plain && share.is_finite());
    let wrong = || InvalidValue::new("share", text, "a number such as 5% or 0.05");
    share.map(|share| share / scale).ok_or_else(wrong)
}

/// Reads a token: text that a header field can carry and that is too long to guess.
///
/// # Errors
/// It has fewer than eight characters, or others than letters, digits, `-` and `_`.
pub fn token(text: &str) -> Result<String, InvalidValue> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if text.len() < 8 || !text.bytes().all(is_plain) {
        let expected = "at least eight letters, digits, - and _";
        return Err(InvalidValue::new("token", text, expected));
    }
    Ok(text.to_owned())
}

/// The addresses of `HOST[:PORT]`.
///
/// # Errors
/// The name is unknown.
pub(crate) fn server(host: &str) -> Result<Vec<SocketAddr>> {
    address::resolve(host, PORT)
}
