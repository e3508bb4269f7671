//! How a relay runs.

use std::{
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::http::guard::AccessGuard,
    relay::hub::Limits,
    server::transport::GroupRoute,
};

/// How a [`Relay`](crate::Relay) runs. Without any setting it receives at `127.0.0.1:65534`,
/// listens at `0.0.0.0:7000` and writes no log.
#[derive(Debug)]
#[must_use]
pub struct RelayBuilder {
    pub(super) input: Result<SocketAddr>,
    pub(super) lower: Vec<SocketAddr>,
    pub(super) listen: Result<SocketAddr>,
    pub(super) interface: Option<Ipv4Addr>,
    pub(super) group: Option<GroupRoute>,
    pub(super) gather: Duration,
    pub(super) limits: Limits,
    pub(super) log_dir: Option<PathBuf>,
    pub(super) access: AccessGuard,
    pub(super) record: Option<(PathBuf, Duration)>,
    pub(super) play: Option<(PathBuf, bool)>,
}

/// The default of `RelayBuilder::gather`: 99 of 100 datagrams are at their viewers within half a
/// millisecond where the processor is free. At 60 Mbit/s two or three come in it.
#[doc(hidden)]
pub const GATHER: Duration = Duration::from_micros(350);

/// The default of `RelayBuilder::max_silence`: no lesson is longer.
const MAX_SILENCE: Duration = Duration::from_secs(4 * 3600);

/// The default of [`RelayBuilder::max_viewers`]: ten classrooms.
pub(crate) const MAX_VIEWERS: usize = 256;

/// The default of `RelayBuilder::viewers_per_address`: two classrooms behind one address, and a
/// quarter of all places.
pub(crate) const VIEWERS_PER_ADDRESS: usize = 64;

impl RelayBuilder {
    pub(super) fn new() -> Self {
        Self {
            input: Ok((Ipv4Addr::LOCALHOST, 65_534).into()),
            lower: Vec::new(),
            listen: Ok((Ipv4Addr::UNSPECIFIED, 7000).into()),
            interface: None,
            group: None,
            gather: GATHER,
            limits: Limits {
                silence: MAX_SILENCE,
                viewers: MAX_VIEWERS,
                viewers_per_address: VIEWERS_PER_ADDRESS,
            },
            log_dir: None,
            access: AccessGuard::new(None, Vec::new(), Vec::new()),
            record: None,
            play: None,
        }
    }

    /// The UDP address at which the stream is received; a multicast group is joined.
    pub fn input(mut self, addr: impl ToSocketAddrs) -> Self {
        self.input = resolve(&addr, "resolve the address of the input");
        self
    }

    /// Where the same comes with lower rates, best first, for viewers that cannot keep up.
    #[doc(hidden)]
    pub fn lower_inputs(mut self, addrs: &[SocketAddr]) -> Self {
        self.lower = addrs.to_vec();
        self
    }

    /// The TCP address at which viewers are accepted.
    pub fn listen(mut self, addr: impl ToSocketAddrs) -> Self {
        self.listen = resolve(&addr, "resolve the address to listen at");
        self
    }

    /// The address of the interface on which a multicast group is joined; the system's choice
    /// unless given.
    #[doc(hidden)]
    pub fn interface(mut self, addr: impl Into<Option<Ipv4Addr>>) -> Self {
        self.interface = addr.into();
        self
    }

    /// Sends the stream to a group too, for as long as the relay runs: nobody tells who listens.
    #[doc(hidden)]
    pub fn group(mut self, route: impl Into<Option<GroupRoute>>) -> Self {
        self.group = route.into();
        self
    }

    /// How long a datagram may take to be with its viewers, because it waits for others to be sent
    /// together with them; 0.35 ms unless given. Nothing waits where datagrams are sent one by one,
    /// nor where too few others come meanwhile.
    #[doc(hidden)]
    pub fn gather(mut self, time: Duration) -> Self {
        self.gather = time;
        self
    }

    /// Lets a viewer go whose control connection is silent for so long; 4 hours unless given. This
    /// is for lab clients, which may watch a film without another command: `gatecast watch` reports
    /// every second and has 4 s. Before it has a viewer, a connection has a minute at most.
    #[doc(hidden)]
    pub fn max_silence(mut self, time: Duration) -> Self {
        self.limits.silence = time;
        self
    }

    /// Most viewers at once; 256 unless given.
    pub fn max_viewers(mut self, viewers: usize) -> Self {
        self.limits.viewers = viewers;
        self
    }

    /// Most viewers at one address other than this host's own, so that one machine cannot take all
    /// places; 64 unless given. A room behind one address translator is one address, and so is an
    /// IPv6 network of /64.
    #[doc(hidden)]
    pub fn viewers_per_address(mut self, viewers: usize) -> Self {
        self.limits.viewers_per_address = viewers;
        self
    }

    /// Who may read the page and change something on it; only this machine unless given.
    #[doc(hidden)]
    pub fn access(mut self, guard: AccessGuard) -> Self {
        self.access = guard;
        self
    }

    /// Writes the relay log into this folder, which is made when the first viewer has left.
    pub fn log_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.log_dir = Some(folder.into());
        self
    }

    /// Records the stream into this folder, if there is one, in segments of about this length.
    #[doc(hidden)]
    pub fn record(mut self, folder: impl Into<Option<PathBuf>>, segment: Duration) -> Self {
        self.record = folder.into().map(|folder| (folder, segment));
        self
    }

    /// Sends this file of MPEG-TS, if there is one, at its own clock in place of what comes to the
    /// input; again and again where `repeats`.
    #[doc(hidden)]
    pub fn play(mut self, file: impl Into<Option<PathBuf>>, repeats: bool) -> Self {
        self.play = file.into().map(|file| (file, repeats));
        self
    }
}

/// The first address of `addr`.
fn resolve(addr: &impl ToSocketAddrs, doing: &'static str) -> Result<SocketAddr> {
    let none = || std::io::Error::other("it has no address");
    let found = addr.to_socket_addrs().map(|mut addrs| addrs.next());
    found.and_then(|addr| addr.ok_or_else(none)).map_err(Error::io(doing, "this host"))
}
