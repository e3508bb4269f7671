//! What star is wanted: its hosts, their links, what is in the middle, and what goes wrong on it.
//!
//! Plain data, checked before anything is built. Host 0 is the server.

use std::{net::Ipv4Addr, str::FromStr, time::Duration};

use crate::{
    error::Result,
    testbed::star::refused,
    units::{InvalidValue, Rate},
};

/// A star to build.
#[derive(Clone, Debug, PartialEq)]
pub struct StarLayout {
    /// One link for each host, the server's first.
    pub links: Vec<LinkRates>,
    /// What joins the links.
    pub topology: StarTopology,
    /// Random loss in the middle.
    pub loss: Option<Loss>,
    /// Delay that each packet has on its way out of a host; needs `netem`.
    pub delay: Duration,
    /// Segmentation and receive offloads stay on, as a real card has them. Loss, which is counted
    /// in packets, refuses them.
    pub offloads: bool,
}

/// The link between one host and the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRates {
    /// From the host, bits per second of Ethernet frames without their checksum.
    pub up: Rate,
    /// To the host, likewise.
    pub down: Rate,
}

/// What joins the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StarTopology {
    /// One Ethernet switch: all hosts in one subnet.
    Switch,
    /// One router: each host in a subnet of its own. Multicast does not cross it.
    Router,
}

/// Random loss: each IPv4 packet that leaves the middle is dropped with the same chance. Address
/// resolution is spared, because one lost question of it stalls a host for a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The chance, in parts of a million.
    pub millionths: u32,
    /// Which packets.
    pub of: Traffic,
}

/// A kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Traffic {
    /// Every IPv4 packet.
    All,
    /// TCP segments.
    Tcp,
    /// UDP datagrams, and each fragment of them.
    Udp,
}

/// Most hosts of a star with a switch: a Linux bridge has 1023 ports.
pub const HOSTS_MAX: usize = 1000;

/// Most hosts of a star with a router: each has its own /24 in 10.77.0.0/16.
pub const ROUTED_MAX: usize = 250;

/// Slowest link. Below, one frame of 1514 bytes takes longer than the queue is meant to hold.
pub const RATE_MIN: Rate = Rate(256_000);

/// Fastest link: what a shaper in software can be asked for at all.
pub const RATE_MAX: Rate = Rate(100_000_000_000);

/// Longest delay.
pub const DELAY_MAX: Duration = Duration::from_secs(5);

impl StarLayout {
    /// `hosts` hosts on one switch, with the same rate each way.
    pub fn new(hosts: usize, rate: Rate) -> Self {
        let link = LinkRates { up: rate, down: rate };
        Self {
            links: vec![link; hosts.min(HOSTS_MAX + 1)],
            topology: StarTopology::Switch,
            loss: None,
            delay: Duration::ZERO,
            offloads: false,
        }
    }

    /// Checks that it can be built.
    ///
    /// # Errors
    /// The value that cannot be.
    pub fn check(&self) -> Result<()> {
        let hosts = self.links.len();
        let most = match self.topology {
            StarTopology::Switch => HOSTS_MAX,
            StarTopology::Router => ROUTED_MAX,
        };
        let refuse = |reason: String| Err(refused(reason));
        if hosts < 2 {
            return refuse(format!("{hosts} hosts; it takes a server and at least one client"));
        }
        if hosts > most {
            return refuse(format!("more than {most} hosts"));
        }
        for (host, link) in self.links.iter().enumerate() {
            for (rate, way) in [(link.up, "up"), (link.down, "down")] {
                if !(RATE_MIN..=RATE_MAX).contains(&rate) {
                    return refuse(format!(
                        "host {host}: {rate} {way}; a link has {RATE_MIN} to {RATE_MAX}"
                    ));
                }
            }
        }
        if self.delay > DELAY_MAX {
            return refuse(format!("a delay of more than {} s", DELAY_MAX.as_secs()));
        }
        if self.loss.is_some() && self.offloads {
            return refuse("loss is counted in packets, so offloads must be off".to_owned());
        }
        Ok(())
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        // `check` holds hosts below 1000, so neither part is cut.
        match self.topology {
            StarTopology::Switch => {
                Ipv4Addr::new(10, 77, (host / 250) as u8, (host % 250 + 1) as u8)
            }
            StarTopology::Router => Ipv4Addr::new(10, 77, host as u8, 2),
        }
    }

    /// The length of a host's subnet mask.
    pub fn prefix(&self) -> u8 {
        match self.topology {
            StarTopology::Switch => 16,
            StarTopology::Router => 24,
        }
    }
}

impl Loss {
    /// The chance of one packet, 0 to 1.
    pub fn fraction(&self) -> f64 {
        f64::from(self.millionths) / 1e6
    }
}

impl FromStr for LinkRates {
    type Err = InvalidValue;

    /// Reads `100mbit`, or `10mbit/50mbit` for up and down.
    fn from_str(text: &str) -> std::result::Result<Self, InvalidValue> {
        let (up, down) = text.split_once('/').unwrap_or((text, text));
        Ok(Self { up: up.parse()?, down: down.parse()? })
    }
}

/// Reads a loss, `1%`, `0.1%` or the fraction `0.01`, as parts of a million; below a whole.
///
/// # Errors
/// Anything else, and what is no whole number of millionths.
pub fn parse_loss(text: &str) -> std::result::Result<u32, InvalidValue> {
    let wrong = || InvalidValue::new("loss", text, "a loss such as 1%, 0.1% or 0.01");
    let (number, decimals_max) = text.strip_suffix('%').map_or((text, 6), |rest| (rest, 4));
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = !whole.is_empty() && !number.ends_with('.');
    let is_short = whole.len() <= 3 && decimals.len() <= decimals_max;
    if !is_number || !is_short || !is_digits(whole) || !is_digits(decimals) {
        return Err(wrong());
    }
    let millionths = format!("{whole}{decimals:0<decimals_max$}").parse().ok();
    millionths.filter(|&millionths| millionths < 1_000_000).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate(100_000_000);

    #[test]
    fn star_has_two_to_a_thousand_hosts() {
        for (hosts, fits) in [
            (0, false),
            (1, false),
            (2, true),
            (1000, true),
            (1001, false),
            (10_000, false),
            (usize::MAX, false),
        ] {
            assert_eq!(StarLayout::new(hosts, RATE).check().is_ok(), fits, "{hosts}");
        }
        let mut routed = StarLayout::new(250, RATE);
        routed.topology = StarTopology::Router;
        assert!(routed.check().is_ok());
        routed.links.push(routed.links[0]);
        assert!(routed.check().is_err());
    }

    #[test]
    fn hosts_have_different_addresses() {
        for middle in [StarTopology::Switch, StarTopology::Router] {
            let mut layout = StarLayout::new(ROUTED_MAX, RATE);
            layout.topology = middle;
            let all: std::collections::HashSet<_> =
                (0..ROUTED_MAX).map(|host| layout.address(host)).collect();
            assert_eq!(all.len(), ROUTED_MAX);
        }
        let layout = StarLayout::new(HOSTS_MAX, RATE);
        assert_eq!(layout.address(0).to_string(), "10.77.0.1");
        assert_eq!(layout.address(13).to_string(), "10.77.0.14");
        assert_eq!(layout.address(HOSTS_MAX - 1).to_string(), "10.77.3.250");
    }

    #[test]
    fn impossible_layout_is_refused_with_its_value() {
        let mut layout = StarLayout::new(3, RATE);
        layout.links[2].down = Rate(1000);
        let error = layout.check().expect_err("slow").to_string();
        assert!(error.contains("host 2: 1 kbit/s down"), "{error}");
        let mut layout = StarLayout::new(3, RATE);
        layout.loss = Some(Loss { millionths: 10_000, of: Traffic::All });
        assert!(layout.check().is_ok());
        layout.offloads = true;
        assert!(layout.check().is_err());
        let mut layout = StarLayout::new(3, RATE);
        layout.delay = DELAY_MAX;
        assert!(layout.check().is_ok());
        layout.delay += Duration::from_nanos(1);
        assert!(layout.check().is_err());
    }

    #[test]
    fn losses_are_read_exactly() {
        for (text, millionths) in [
            ("0", 0),
            ("0%", 0),
            ("1%", 10_000),
            ("0.1%", 1000),
            ("0.0001%", 1),
            ("5%", 50_000),
            ("0.01", 10_000),
            ("0.999999", 999_999),
            ("99.9999%", 999_999),
        ] {
            assert_eq!(parse_loss(text), Ok(millionths), "{text}");
        }
        for text in
            ["", "%", "1", "100%", "-1%", "1.%", ".5%", "0.00001%", "1e-3", "half", "NaN%", "1 %"]
        {
            let error = parse_loss(text).expect_err(text).to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }

    #[test]
    fn link_is_symmetric_when_one_rate_is_given() {
        let link = "100mbit".parse::<LinkRates>().expect("a rate");
        assert_eq!((link.up, link.down), (RATE, RATE));
        let link = "10mbit/50mbit".parse::<LinkRates>().expect("two rates");
        assert_eq!((link.up.0, link.down.0), (10_000_000, 50_000_000));
        for text in ["0", "fast", "0mbit", "10mbit/", "10mbit/fast", "1/2/3"] {
            assert!(text.parse::<LinkRates>().is_err(), "{text}");
        }
    }
}
