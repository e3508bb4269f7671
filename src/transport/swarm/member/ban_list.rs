//! Who sent wrong pieces and is not let in again.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use crate::proto::bt::wire::PeerId;

/// Banned peers, and peers that are gone and may have to be banned.
#[derive(Debug, Default)]
pub(super) struct BanList {
    /// The last to be banned first.
    banned: VecDeque<(IpAddr, PeerId)>,
    /// Peers that left and may have sent wrong blocks, by the key of their connection.
    pub(super) suspects: BTreeMap<u32, (IpAddr, PeerId)>,
}

/// From so many banned ids at one address on, nobody at that address is let in.
const BANNED_IDS: usize = 3;

/// Most bans that are remembered.
const BANNED_MAX: usize = 1000;

/// Most suspects that are remembered.
const SUSPECTS_MAX: usize = 1000;

impl BanList {
    /// True when a peer must not be let in.
    pub(super) fn is_banned(&self, ip: IpAddr, id: &PeerId) -> bool {
        let here = || self.banned.iter().filter(|(banned, _)| *banned == ip);
        // Others at the address of one bad peer may be honest; at that of several, hardly.
        (here().count() >= BANNED_IDS && !ip.is_loopback()) || here().any(|(_, other)| other == id)
    }

    /// Remembers a suspect that left; others that are not suspects any more are forgotten.
    pub(super) fn add_suspect(
        &mut self,
        key: u32,
        (ip, id): (IpAddr, PeerId),
        is_suspect: impl Fn(u32) -> bool,
    ) {
        self.suspects.retain(|&key, _| is_suspect(key));
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.insert(key, (ip, id));
        }
    }

    /// Bans a peer.
    pub(super) fn ban(&mut self, ip: IpAddr, id: PeerId) {
        self.banned.truncate(BANNED_MAX - 1);
        self.banned.push_front((ip, id));
    }
}
