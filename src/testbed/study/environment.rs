//! Where a study was made: what another reader needs to judge its figures, or to repeat them.

use std::fs;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;

use crate::{
    net::{
        clock, machine,
        machine::{line, named},
    },
    testbed::star::{host::Host, tool, tool::Tool},
};

/// The stamp.
// Over 15 fields because it is one object of a documented schema, a key each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// When the study began, RFC 3339.
    pub began: Option<String>,
    /// The version of gatecast.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    /// The operating system and its release.
    pub kernel: Option<String>,
    /// The processor.
    pub processor: Option<String>,
    /// Processors that we may use.
    pub cores: Option<usize>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Load average over a minute as the study began: what else the machine was doing.
    pub load: Option<f64>,
    /// The hosts' default TCP congestion control.
    pub congestion: Option<String>,
    /// `off`, `on`, or `-` on a network that was given and in a room.
    pub offloads: String,
    /// What is in the middle: `switch`, `router`, `given` on a network that was given, or `room`.
    pub middle: String,
    /// The links' largest packet, bytes.
    pub mtu: Option<u64>,
    /// The hosts' TCP receive buffers: least, default and most, bytes.
    pub tcp_rmem: Option<String>,
    /// The hosts' TCP send buffers, likewise.
    pub tcp_wmem: Option<String>,
    /// Default receive buffer of other sockets, bytes.
    pub rmem_default: Option<u64>,
    /// Default send buffer of other sockets, bytes.
    pub wmem_default: Option<u64>,
    /// Queue of a link at each nominal rate, as `rate bit/s: bytes`.
    pub queues: Vec<String>,
    /// Where the copies are written: the kind of file system.
    pub copies: Option<String>,
    /// The seed of random numbers. Always `null`: the kernel's packet filter takes no seed.
    pub seed: Option<u64>,
}

impl Environment {
    /// The stamp of this machine, without what depends on the hosts.
    pub fn here(command: Vec<String>) -> Self {
        Self {
            began: clock::wall().format(&Rfc3339).ok(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command,
            kernel: machine::kernel(),
            processor: machine::processor(),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes: named("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map(|kib| kib * 1024),
            load: load(),
            ..Self::default()
        }
    }

    /// Adds what the hosts have.
    pub fn read_host(&mut self, host: &Host) {
        let net = |name: &str| line(&format!("/proc/sys/net/{name}"));
        let number = |name: &str| net(name)?.parse().ok();
        let known = host.enter(|| {
            self.congestion = net("ipv4/tcp_congestion_control");
            self.tcp_rmem = net("ipv4/tcp_rmem").map(|text| text.replace('\t', " "));
            self.tcp_wmem = net("ipv4/tcp_wmem").map(|text| text.replace('\t', " "));
            self.rmem_default = number("core/rmem_default");
            self.wmem_default = number("core/wmem_default");
            self.mtu = number(&format!("ipv4/conf/{}/mtu", host.device));
        });
        if known.is_err() {
            return; // Unknown stays unknown.
        }
        self.rmem_default = self.rmem_default.or_else(|| number("core/rmem_default"));
        self.wmem_default = self.wmem_default.or_else(|| number("core/wmem_default"));
        self.mtu = self.mtu.or_else(|| mtu(host));
    }
}

/// The device's MTU, as `ip` prints it.
fn mtu(host: &Host) -> Option<u64> {
    let words = ["-o", "link", "show", "dev", &host.device];
    let shown = host.enter(|| tool::run(Tool::Ip, &words, "")).ok()?.ok()?.ok()?;
    let (_, after) = shown.split_once(" mtu ")?;
    after.split(' ').next()?.parse().ok()
}

/// The load average of the last minute.
pub fn load() -> Option<f64> {
    line("/proc/loadavg")?.split(' ').next()?.parse().ok()
}

/// CPU seconds that all programs of this machine have used, without interrupts and idling.
pub fn busy_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let mut fields = stat.lines().next()?.split_ascii_whitespace().skip(1);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let (user, nice, system) = (ticks()?, ticks()?, ticks()?);
    // USER_HZ is 100 on every Linux that a user can meet.
    Some((f64::from(user) + f64::from(nice) + f64::from(system)) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_stamp() {
        let here = Environment::here(vec!["gatecast".to_owned()]);
        assert!(here.kernel.is_some_and(|kernel| kernel.starts_with("Linux ")));
        assert!(here.cores.is_some_and(|cores| cores > 0));
        assert!(here.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(busy_s().is_some_and(|seconds| seconds > 0.0));
    }
}
