//! Peers without a seat, such as other people's programs: nobody counts them at a gate.
//!
//! All swarms of a server share one [`ExternalPeers`]: whoever asks for many of its torrents has no
//! more connections than who asks for one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
};

use crate::{
    net::lock,
    server::{downloads::Downloads, places::Origin},
    transport::swarm::limits::EXTERNAL_CONNECTIONS,
};

/// The connections of peers without a seat, and what they were sent.
#[derive(Debug)]
pub struct ExternalPeers {
    most: usize,
    downloads: Arc<Downloads>,
    open: Mutex<HashMap<Origin, usize>>,
}

/// The place of such a peer; dropping it gives it back.
#[derive(Debug)]
pub struct ExternalPlace {
    of: Arc<ExternalPeers>,
    origin: Origin,
}

impl ExternalPeers {
    /// At most so many at once, whose bytes are counted in `downloads`.
    pub fn new(most: usize, downloads: Arc<Downloads>) -> Arc<Self> {
        Arc::new(Self { most, downloads, open: Mutex::default() })
    }

    /// A place for the peer at `addr`.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(self: &Arc<Self>, addr: SocketAddr) -> Result<ExternalPlace, &'static str> {
        let origin = Origin::of(addr);
        let mut open = lock(&self.open);
        if open.values().sum::<usize>() >= self.most {
            return Err("too many connections");
        }
        let here = open.entry(origin).or_default();
        if *here >= EXTERNAL_CONNECTIONS {
            return Err("too many connections to its address");
        }
        *here += 1;
        drop(open);
        Ok(ExternalPlace { of: Arc::clone(self), origin })
    }
}

impl ExternalPlace {
    /// So many payload bytes are about to be sent to the peer.
    pub fn count(&self, bytes: u64) {
        self.of.downloads.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for ExternalPlace {
    fn drop(&mut self) {
        lock(&self.of.open).retain(|origin, here| {
            *here -= usize::from(*origin == self.origin);
            *here > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::swarm::limits::SEEDER_CONNECTIONS;

    fn addr(host: usize) -> SocketAddr {
        let [_, _, high, low] = u32::try_from(host).expect("few").to_be_bytes();
        ([10, 0, high, low], 6881).into()
    }

    #[test]
    fn external_peers_have_limit_at_each_address_and_in_all() {
        let external = ExternalPeers::new(SEEDER_CONNECTIONS, Arc::default());
        let admit = |host| external.admit(addr(host));
        let mut places: Vec<_> =
            (0..EXTERNAL_CONNECTIONS).map(|_| admit(1).expect("the most of one address")).collect();
        assert_eq!(admit(1).expect_err("one more"), "too many connections to its address");
        places
            .extend((places.len()..SEEDER_CONNECTIONS).map(|host| admit(2 + host).expect("room")));
        assert_eq!(admit(5000).expect_err("one more"), "too many connections");
        places.remove(0);
        drop(admit(1).expect("a place that was given back"));
        places.clear();
        assert!(lock(&external.open).is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn host_with_many_ipv6_addresses_is_one_peer() {
        let external = ExternalPeers::new(SEEDER_CONNECTIONS, Arc::default());
        let admit = |net: u16, host: usize| {
            let host = u16::try_from(host).expect("few");
            external.admit((([0x2001, 0xdb8, 0, net, 0, 0, 0, host]), 6881).into())
        };
        let places: Vec<_> =
            (0..EXTERNAL_CONNECTIONS).map(|host| admit(1, host).expect("room")).collect();
        assert_eq!(admit(1, 999).expect_err("one more"), "too many connections to its address");
        admit(2, 0).expect("another network");
        drop(places);
    }
}
