//! The builder of a relay.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::relay::config::RelayConfig;

/// How a [`Relay`](crate::Relay) will run. Without any setting it receives at `127.0.0.1:65534`, listens at
/// `0.0.0.0:7000` and writes no log.
#[derive(Debug)]
pub struct RelayBuilder {
    config: RelayConfig,
    listen: SocketAddr,
    /// The first address that could not be resolved.
    failed: Option<Error>,
}

impl RelayBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: RelayConfig::new((Ipv4Addr::LOCALHOST, 65_534).into()),
            listen: (Ipv4Addr::UNSPECIFIED, 7000).into(),
            failed: None,
        }
    }

    /// The UDP address at which the stream is received; a multicast group is joined.
    pub fn input(mut self, addr: impl ToSocketAddrs) -> Self {
        match resolve(&addr) {
            Ok(addr) => self.config.input = addr,
            Err(error) => self.fail("resolve the address of the input", error),
        }
        self
    }

    /// The TCP address at which viewers are accepted.
    pub fn listen(mut self, addr: impl ToSocketAddrs) -> Self {
        match resolve(&addr) {
            Ok(addr) => self.listen = addr,
            Err(error) => self.fail("resolve the address to listen at", error),
        }
        self
    }

    /// Most viewers at once; 256 unless given.
    pub fn max_viewers(mut self, viewers: usize) -> Self {
        self.config.max_viewers = viewers;
        self
    }

    /// Writes the relay log into this folder, which is made when the first viewer has left.
    pub fn log_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config.log_dir = Some(folder.into());
        self
    }

    /// The settings, and the address to listen at.
    ///
    /// # Errors
    /// An address that could not be resolved.
    pub(super) fn finish(self) -> Result<(RelayConfig, SocketAddr)> {
        self.failed.map_or(Ok((self.config, self.listen)), Err)
    }

    fn fail(&mut self, doing: &'static str, error: std::io::Error) {
        let failure = Error::io(doing, "this host")(error);
        self.failed.get_or_insert(failure);
    }
}

/// The first address of `addr`.
fn resolve(addr: &impl ToSocketAddrs) -> std::io::Result<SocketAddr> {
    let none = || std::io::Error::other("it has no address");
    addr.to_socket_addrs()?.next().ok_or_else(none)
}
