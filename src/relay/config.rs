//! How a relay runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a relay runs.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Where the stream is received; a multicast address is joined.
    pub input: SocketAddr,
    /// The address of the interface on which a group is joined; `None` leaves it to the system.
    pub interface: Option<Ipv4Addr>,
    /// How long a datagram may wait for others, to be sent together with them; nothing waits where
    /// datagrams are sent one by one.
    pub gather: Duration,
    /// A viewer whose control connection is silent for so long is let go. `gatecast watch` reports
    /// every second and has 4 s; this is for a lab client, which may watch a film without another
    /// command. Before it has a viewer, a connection has a minute at most.
    pub max_silence: Duration,
    /// Most viewers at once.
    pub max_viewers: usize,
    /// Most viewers at one address other than this host's own, so that one machine cannot take all
    /// places. A room behind one address translator is one address.
    pub viewers_per_address: usize,
    /// The folder of the relay log; `None` writes none.
    pub log_dir: Option<PathBuf>,
}

/// The default of [`RelayConfig::gather`]: the delay stays well below 5 ms. At 60 Mbit/s 17
/// datagrams come in it; a faster stream has enough of them sooner and waits less.
pub const GATHER: Duration = Duration::from_millis(3);

/// The default of [`RelayConfig::max_silence`]: no lesson is longer.
pub const MAX_SILENCE: Duration = Duration::from_secs(4 * 3600);

/// The default of [`RelayConfig::max_viewers`]: ten classrooms.
pub const MAX_VIEWERS: usize = 256;

/// The default of [`RelayConfig::viewers_per_address`]: two classrooms behind one address, and a
/// quarter of all places.
pub const VIEWERS_PER_ADDRESS: usize = 64;

impl RelayConfig {
    /// A relay of what comes to `input`, without a log.
    pub fn new(input: SocketAddr) -> Self {
        Self {
            input,
            interface: None,
            gather: GATHER,
            max_silence: MAX_SILENCE,
            max_viewers: MAX_VIEWERS,
            viewers_per_address: VIEWERS_PER_ADDRESS,
            log_dir: None,
        }
    }
}
