//! Options that several subcommands share, and how their values are read.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::fetch::PORT;
use crate::net::copy;
use crate::net::socket;
use crate::proto::udp::packet::DATAGRAM;
use crate::proto::udp::packet::DATAGRAM_MAX;
use crate::proto::udp::packet::DATAGRAM_MIN;
use crate::server::config::ServerConfig;
use crate::session::MAX_SEATS;
use crate::session::Via;
use crate::text::FileName;
use crate::transport::swarm::torrents;
use crate::transport::udp::config::UdpConfig;
use crate::units::Rate;
use crate::units::UnitError;
use crate::units::parse_duration;

/// How a server sends; for `serve` and `run`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sending {
    /// Payload rate of the whole session, shared by its seats, such as 100mbit; or auto
    #[arg(long, value_name = "RATE", default_value = "auto", value_parser = limit)]
    pub(crate) rate: Limit,
    /// How bytes are copied: auto, buffered or sendfile
    #[arg(long, default_value = "auto", value_name = "HOW")]
    pub(crate) copy: copy::Method,
    /// TCP congestion control, such as reno; the system's own unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Give a client up that makes no progress for so long
    #[arg(long, default_value = "30s", value_parser = wait, value_name = "TIME")]
    pub(crate) stall_limit: Duration,
    /// Most bytes of a datagram, for udp, raw and multicast; above 1472 it travels in pieces
    #[arg(long, default_value_t = DATAGRAM, value_parser = datagram, value_name = "BYTES")]
    pub(crate) datagram: u16,
    /// The group for multicast, such as 239.255.1.2:5000; one of its own for each session
    /// unless given
    #[arg(long, value_parser = group, value_name = "ADDR:PORT")]
    pub(crate) multicast_group: Option<SocketAddr>,
    /// The address of this host by whose interface multicast leaves; the one by which the clients
    /// came unless given
    #[arg(long, value_name = "ADDR")]
    pub(crate) multicast_interface: Option<Ipv4Addr>,
    /// How many routers multicast may pass, and one more
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..), value_name = "N")]
    pub(crate) ttl: u8,
}

/// A rate, or as fast as the clients take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub Option<Rate>);
/// What swarms may do; for `serve` and `run`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Swarming {
    /// Write who had which chunk of a swarm first into this file: chunk, peer
    #[arg(long, value_name = "FILE")]
    pub(crate) tracker_file: Option<PathBuf>,
    /// Name this server's HTTP address in torrents, for programs that fetch from there too
    #[arg(long)]
    pub(crate) web_seed: bool,
}

impl Swarming {
    /// The same for the swarms.
    pub(crate) fn options(&self) -> torrents::SwarmServerConfig {
        torrents::SwarmServerConfig {
            tracker_file: self.tracker_file.clone(),
            web_seed: self.web_seed,
            gated: false,
        }
    }
}

impl Sending {
    /// How datagrams are made and where they go.
    pub(crate) fn udp(&self) -> UdpConfig {
        UdpConfig {
            size: self.datagram,
            group: self.multicast_group,
            interface: self.multicast_interface,
            ttl: u32::from(self.ttl),
        }
    }

    /// These options in the server's settings.
    pub(crate) fn apply(&self, settings: ServerConfig) -> ServerConfig {
        ServerConfig {
            rate: self.rate.0,
            copy: self.copy,
            congestion: self.congestion.clone(),
            stall: self.stall_limit,
            ..settings
        }
    }
}

/// Reads a rate, or `auto`.
///
/// # Errors
/// Anything else, with the value.
pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "auto" => Ok(Limit(None)),
        _ => text
            .parse()
            .map(|rate| Limit(Some(rate)))
            .map_err(|error: UnitError| error.to_string()),
    }
}

/// Reads the size of a datagram.
///
/// # Errors
/// Anything that UDP cannot carry or that is not worth sending, with the value.
pub(crate) fn datagram(text: &str) -> Result<u16, String> {
    crate::proto::line::decimal(text)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| (DATAGRAM_MIN..=DATAGRAM_MAX).contains(number))
        .ok_or_else(|| format!("'{text}' is not a number from {DATAGRAM_MIN} to {DATAGRAM_MAX}"))
}

/// Reads a multicast group.
///
/// # Errors
/// Anything else, with the value.
pub(crate) fn group(text: &str) -> Result<SocketAddr, String> {
    let group: Option<SocketAddr> = text.parse().ok();
    group
        .filter(|group| group.is_ipv4() && group.ip().is_multicast() && group.port() >= 1024)
        .ok_or_else(|| format!("'{text}' is no group such as 239.255.1.2:5000"))
}

/// Reads a number of clients, 1 to 10,000.
///
/// # Errors
/// Anything else, with the value.
pub(crate) fn clients(text: &str) -> Result<u16, String> {
    crate::proto::line::decimal(text)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| (1..=MAX_SEATS).contains(number))
        .ok_or_else(|| format!("'{text}' is not a number from 1 to {MAX_SEATS}"))
}

/// Reads a duration that is longer than nothing.
///
/// # Errors
/// Anything else, with the value.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err(format!("'{text}' is no time at all")),
        other => other.map_err(|error| error.to_string()),
    }
}

/// Reads a duration, which may be nothing.
///
/// # Errors
/// Anything else, with the value.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// Reads the name of an offered file.
///
/// # Errors
/// A name that is no single harmless path component.
pub(crate) fn file_name(text: &str) -> Result<FileName, String> {
    FileName::new(text).map_err(|error| error.to_string())
}

/// Reads a share: `5%` or `0.05`, not below nothing.
///
/// # Errors
/// Anything else, with the value.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let share = number
        .parse::<f64>()
        .ok()
        .filter(|share| plain && share.is_finite());
    share
        .map(|share| share / scale)
        .ok_or_else(|| format!("'{text}' is not a share such as 5% or 0.05"))
}

/// Reads a token: what a header field can carry and nobody guesses.
///
/// # Errors
/// Fewer than eight characters, or others than letters, digits, `-` and `_`.
pub(crate) fn token(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match text.len() >= 8 && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("a token is eight letters, digits, - and _, or more".to_owned()),
    }
}

/// Reads a way of sending.
///
/// # Errors
/// A word that is none.
pub(crate) fn via(text: &str) -> Result<Via, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// The addresses of `HOST[:PORT]`.
///
/// # Errors
/// The name is unknown.
pub(crate) fn server(host: &str) -> Result<Vec<SocketAddr>> {
    socket::resolve(host, PORT)
}
