//! What a member is to its swarm, told by its id.

use crate::proto::bt::wire::Handshake;
use crate::proto::bt::wire::PEER_ID_PREFIX;

/// A member's role, told by the ninth character of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server's seeder.
    Seeder,
    /// A client with a seat at the gate: the seeder feeds it.
    Seated,
    /// A peer without a gate, like those of other programs.
    External,
}

impl Role {
    pub(super) fn letter(self) -> u8 {
        match self {
            Self::Seeder => b'S',
            Self::Seated => b'P',
            Self::External => b'L',
        }
    }
}

/// A new id: of the seeder, or of a peer known by a text of its own.
pub fn peer_id(role: Role, own: &str) -> [u8; 20] {
    let mut id = [b'0'; 20];
    id[..8].copy_from_slice(PEER_ID_PREFIX);
    id[8] = role.letter();
    let own = own.as_bytes();
    let len = own.len().min(11);
    id[9..9 + len].copy_from_slice(&own[..len]);
    id
}

/// A greeting whose id is not believed: it stays one of its own, and is none of ours.
pub(super) fn untrusted(mut peer: Handshake) -> Handshake {
    peer.peer_id[..DOUBTED.len()].copy_from_slice(DOUBTED);
    peer
}

/// What takes the place of our prefix in an id that is not believed.
const DOUBTED: &[u8; 8] = b"-??0001-";

pub(super) fn has_role(role: Role, peer: &Handshake) -> bool {
    peer.native() && peer.peer_id[8] == role.letter()
}
