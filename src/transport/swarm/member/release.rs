//! The gate of a member, and what a seeder reveals to whom.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    net::clock,
    proto::bt::{
        bitfield::Bitfield,
        random::Random,
        super_seeder::SuperSeeder,
        wire::{Message, PeerId},
    },
    transport::swarm::{
        member::{MemberState, SwarmMember},
        peer_id::Role,
    },
};

impl SwarmMember {
    /// Begins to serve and to request, on all connections at once.
    pub fn release(&self) {
        let mut state = self.lock();
        if state.released.is_some() {
            return;
        }
        state.released = Some(clock::now());
        self.sent.store(0, Ordering::Relaxed);
        for connection in state.connections.values() {
            connection.send(&[Message::Unchoke]);
        }
        self.reveal(&mut state);
        self.request_from_all(&mut state);
    }

    /// Serves nobody until the next [`SwarmMember::release`], and reveals every piece anew: the
    /// seeder's part in a new session.
    pub fn hold(&self) {
        let mut state = self.lock();
        state.released = None;
        let (pieces, piece) = (self.layout.pieces(), self.layout.piece);
        let mut random = Random::new(clock::random());
        state.super_seeder = Some(SuperSeeder::new(pieces, piece, &mut random));
        self.told.store(false, Ordering::Relaxed);
        for connection in state.connections.values() {
            if !state.picker.pieces_of(connection.key).is_some_and(Bitfield::is_full) {
                self.warn_of_waiting(connection);
            }
            connection.queue(&[Message::Choke]);
            connection.reject(connection.outbox.cancel_all());
            connection.outbox.flush();
        }
        state.trusted.clear_seats();
        state.accounting.start_session();
    }

    /// The session of this seat is released: reveals pieces to its peer, and serves everybody.
    pub fn admit(&self, id: PeerId) {
        self.release();
        let mut state = self.lock();
        state.trusted.admitted.insert(id);
        let Some(connection) = state.connection_to(&id).map(Arc::clone) else {
            return;
        };
        if let Some(super_seeder) = &mut state.super_seeder {
            super_seeder.admit(connection.key);
            if super_seeder.reveals_all && connection.limits.fast {
                connection.send(&[Message::HaveAll]);
            }
        }
        self.reveal(&mut state);
    }

    /// True between [`SwarmMember::release`] and the next [`SwarmMember::hold`].
    pub fn is_released(&self) -> bool {
        self.lock().released.is_some()
    }

    /// Reveals to each peer the pieces that it is to fetch; once all are out, everything to all.
    pub(super) fn reveal(&self, state: &mut MemberState) {
        let (Some(released), Some(super_seeder)) = (state.released, &mut state.super_seeder) else {
            return;
        };
        let connections = &state.connections;
        let now = clock::now();
        let seconds = now.since(released).as_secs_f64().max(0.1);
        let piece = f64::from(self.layout.piece);
        let pieces = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed) as f64 / piece;
        let sent_to = |key: u32| {
            let connection = connections.get(&key);
            connection.map_or(0.0, |connection| pieces(&connection.traffic.sent))
        };
        let revealed = super_seeder.reveal(now, seconds, sent_to, pieces(&self.sent));
        for of_one in revealed.chunk_by(|one, two| one.0 == two.0) {
            let haves: Vec<_> = of_one.iter().map(|&(_, p)| Message::Have(p)).collect();
            if let Some(connection) = connections.get(&of_one[0].0) {
                connection.send(&haves);
            }
        }
        if super_seeder.try_reveal_all(now) {
            // Everybody else was told so in the beginning.
            let seated = connections.values().filter(|peer| peer.role() == Some(Role::Seated));
            seated.filter(|peer| peer.limits.fast).for_each(|peer| peer.send(&[Message::HaveAll]));
        }
    }
}
