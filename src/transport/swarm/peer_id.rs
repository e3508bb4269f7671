//! Peer ids (BEP 20), the role that an id claims, and the name that people see.
//!
//! Ids of gatecast peers begin with [`PEER_ID_PREFIX`]; the ninth character is the role. The id of
//! a seated client holds its session and its seat, so that server and client can both compute it.

use std::net::SocketAddr;

use crate::{
    net::clock,
    proto::bt::wire::{Handshake, PEER_ID_PREFIX, PeerId},
    session::{SeatId, SessionId},
    text::escape,
};

/// What a gatecast peer is to its swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The server's seeder.
    Seeder = b'S',
    /// A client with a seat at the gate; the seeder reveals pieces to it.
    Seated = b'P',
    /// A peer without a gate, like those of other programs.
    External = b'L',
}

impl Role {
    /// The role that `id` claims; `None` for ids of other programs.
    pub fn of(id: &PeerId) -> Option<Self> {
        let letter = id.strip_prefix(PEER_ID_PREFIX)?[0];
        [Self::Seeder, Self::Seated, Self::External].into_iter().find(|role| *role as u8 == letter)
    }
}

/// What replaces our prefix in an id that is not trusted.
const UNTRUSTED: &[u8; 8] = b"-??0001-";

/// A new random id.
pub fn random_id(role: Role) -> PeerId {
    new_id(role, &format!("{:011x}", clock::random() >> 20))
}

/// The id of the client in `seat` of `session`.
pub fn seated_id(session: SessionId, seat: SeatId) -> PeerId {
    let session = session.0 >> (64 - 28);
    new_id(Role::Seated, &format!("{session:07x}{:04x}", seat.0))
}

fn new_id(role: Role, suffix: &str) -> PeerId {
    let mut id = [b'0'; 20];
    id[..8].copy_from_slice(PEER_ID_PREFIX);
    id[8] = role as u8;
    id[9..].copy_from_slice(suffix.as_bytes());
    id
}

/// The seat in the id of a seated client; `None` for every other id.
pub fn seat_of(id: &PeerId) -> Option<SeatId> {
    if Role::of(id) != Some(Role::Seated) {
        return None;
    }
    let digits = std::str::from_utf8(&id[16..]).ok()?;
    u16::from_str_radix(digits, 16).ok().map(SeatId)
}

/// What people see of a peer: `C` and the seat, or the program and the address.
pub fn name_of(id: &PeerId, addr: SocketAddr) -> String {
    if let Some(seat) = seat_of(id) {
        return format!("C{}", seat.0);
    }
    let text = String::from_utf8_lossy(id);
    let program = &text[..text.floor_char_boundary(8)];
    format!("{} {addr}", escape(program))
}

/// Marks a peer whose id is not trusted: it counts as a peer of another program.
pub(super) fn distrust(theirs: &mut Handshake) {
    theirs.peer_id[..UNTRUSTED.len()].copy_from_slice(UNTRUSTED);
}
