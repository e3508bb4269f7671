//! The options that describe the links of a star, for `star` and for `study`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    testbed::star::{
        layout,
        layout::{LinkRates, Loss, StarLayout, StarTopology, Traffic},
        tool,
    },
    units::{self, InvalidValue, Rate},
};

/// A star on a command line.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Links")]
pub(crate) struct StarLayoutArgs {
    /// How many hosts, the server among them
    #[arg(long, default_value = "14", value_name = "N", help_heading = "Star")]
    pub(crate) hosts: usize,
    /// Rate of each link, each way
    #[arg(long, default_value = "100mbit")]
    pub(crate) rate: Rate,
    /// Lose this share of packets, such as 1%
    ///
    /// The switch drops them at random.
    #[arg(long, default_value = "0", value_parser = layout::parse_loss, value_name = "SHARE")]
    pub(crate) loss: u32,
    /// What every link has beside rate and loss.
    #[command(flatten)]
    pub(crate) links: LinkArgs,
}

/// What all links share beside rate and loss, for `star` and `study`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Links")]
pub(crate) struct LinkArgs {
    /// Rate from the hosts, where it is another than --rate
    #[arg(long, value_name = "RATE")]
    pub(crate) up: Option<Rate>,
    /// Rate to the hosts, where it is another than --rate
    #[arg(long, value_name = "RATE")]
    pub(crate) down: Option<Rate>,
    /// One host's own rates, up and down, such as 3=10mbit/50mbit; may be repeated
    #[arg(long = "host", value_parser = host_link, value_name = "HOST=UP/DOWN")]
    #[arg(hide_short_help = true)]
    pub(crate) host_links: Vec<(usize, LinkRates)>,
    /// Which packets are lost: all, tcp or udp
    #[arg(long, value_enum, hide_possible_values = true, default_value_t = Traffic::All, value_name = "WHICH")]
    #[arg(hide_short_help = true)]
    pub(crate) loss_of: Traffic,
    /// Delay on the way out of each host
    ///
    /// Such as 5ms; needs the kernel's netem.
    #[arg(long, default_value = "0s", value_parser = units::parse_duration, value_name = "TIME")]
    pub(crate) delay: Duration,
    /// A router in the middle, each host in a subnet of its own
    #[arg(long)]
    pub(crate) router: bool,
    /// Leave segmentation and receive offloads on
    #[arg(long, hide_short_help = true)]
    pub(crate) offloads: bool,
}

/// What is captured, for `star run` and `study`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct CaptureArgs {
    /// Write what passes each host to DIR, a pcapng file each
    ///
    /// h0-server.pcapng, h1.pcapng and so on, by dumpcap (Debian package wireshark-common); a study
    /// makes a folder for each run. With --loss, lost.csv has what the switch dropped.
    #[arg(long, value_name = "DIR")]
    pub(crate) capture: Option<PathBuf>,
    /// How much of each packet is written
    #[arg(long, default_value = "256", value_name = "BYTES", requires = "capture")]
    #[arg(value_parser = clap::value_parser!(u32).range(64..=262_144), hide_short_help = true)]
    pub(crate) snap_length: u32,
}

/// Reads one host's own link, `3=10mbit/50mbit`.
///
/// # Errors
/// Anything else, with the value.
pub(crate) fn host_link(text: &str) -> Result<(usize, LinkRates), InvalidValue> {
    let expected = "HOST=RATE or HOST=UP/DOWN, such as 3=10mbit/50mbit";
    let invalid = || InvalidValue::new("host link", text, expected);
    let (host, link) = text.split_once('=').ok_or_else(invalid)?;
    let host = host.parse().map_err(|_| invalid())?;
    Ok((host, link.parse().map_err(|_| invalid())?))
}

impl LinkArgs {
    /// A link of nominal `rate`, where --up and --down do not say another.
    pub(crate) fn link(&self, rate: Rate) -> LinkRates {
        LinkRates { up: self.up.unwrap_or(rate), down: self.down.unwrap_or(rate) }
    }

    /// The layout of `hosts` hosts at `rate`, with `loss` parts of a million, that these options
    /// ask for.
    ///
    /// # Errors
    /// A host that is not there, and what [`StarLayout::check`] refuses.
    pub(crate) fn layout(&self, hosts: usize, rate: Rate, loss: u32) -> Result<StarLayout> {
        let usage = |error: Error| match error {
            Error::Refused { reason, .. } => Error::usage(reason),
            other => other,
        };
        let mut layout = StarLayout::new(hosts, rate);
        layout.links.fill(self.link(rate));
        for (host, link) in &self.host_links {
            let there = layout.links.len();
            let Some(own) = layout.links.get_mut(*host) else {
                let last = there.saturating_sub(1);
                return Err(Error::usage(format!("--host {host}: the hosts are 0 to {last}")));
            };
            *own = *link;
        }
        layout.topology = if self.router { StarTopology::Router } else { StarTopology::Switch };
        layout.loss = (loss > 0).then_some(Loss { millionths: loss, of: self.loss_of });
        layout.delay = self.delay;
        layout.offloads = self.offloads;
        layout.check().map_err(usage)?;
        Ok(layout)
    }
}

impl CaptureArgs {
    /// The folder, and how much of each packet; `None` where nothing is captured.
    ///
    /// # Errors
    /// There is no capture program.
    pub(crate) fn wanted(&self) -> Result<Option<(&Path, u32)>> {
        let wanted = self.capture.as_deref().map(|folder| (folder, self.snap_length));
        let there = |_| tool::require("the capture", "dumpcap", "wireshark-common");
        wanted.map(there).transpose().map(|_| wanted)
    }
}

impl StarLayoutArgs {
    /// The layout that these options ask for.
    ///
    /// # Errors
    /// As [`LinkArgs::layout`].
    pub(crate) fn layout(&self) -> Result<StarLayout> {
        self.links.layout(self.hosts, self.rate, self.loss)
    }
}
