//! What other members send, and what is requested of them.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    error::Result,
    net::clock,
    proto::bt::{
        bitfield::Bitfield,
        wire::{Block, ExtendedHandshake, Message, REQUEST_MAX, REQUESTS_MAX},
    },
    transport::swarm::{
        member::{MemberState, SwarmMember},
        peer_connection::PeerConnection,
        peer_id::Role,
    },
};

impl SwarmMember {
    /// Handles one message of another member.
    pub(super) fn handle_message(
        &self,
        connection: &Arc<PeerConnection>,
        message: Message<'_>,
    ) -> Result<()> {
        match message {
            Message::Piece(piece, begin, data) => {
                self.receive_block(connection, piece, begin, data)
            }
            Message::Request(block) => self.handle_request(connection, block),
            Message::Cancel(block) => {
                if connection.outbox.cancel(block) {
                    connection.reject(vec![block]);
                }
                Ok(())
            }
            Message::Extended(0, body) => {
                let extended =
                    ExtendedHandshake::decode(body).map_err(|error| connection.violation(error))?;
                if let Some(port) = extended.port {
                    connection.set_listen_port(port);
                }
                if let Some(requests) = extended.requests {
                    let requests = (requests as usize).min(REQUESTS_MAX);
                    let mut state = self.lock();
                    state.picker.set_request_limit(connection.key, requests);
                }
                Ok(())
            }
            Message::KeepAlive
            | Message::Interested
            | Message::NotInterested
            | Message::HaveNone
            | Message::Extended(..)
            | Message::Other(_) => Ok(()),
            _ => self.update_peer(connection, message),
        }
    }

    /// Handles a message that changes what we can request of a peer.
    fn update_peer(&self, connection: &Arc<PeerConnection>, message: Message<'_>) -> Result<()> {
        let key = connection.key;
        let mut state = self.lock();
        match message {
            Message::Choke | Message::Unchoke => {
                let serves = message == Message::Unchoke;
                if state.picker.is_serving(key) == serves {
                    return Ok(());
                }
                connection.count_choke_change()?;
                state.picker.set_serving(key, serves);
            }
            Message::Reject(block) if !state.picker.request_rejected(key, block) => return Ok(()),
            Message::Have(piece) => {
                let is_new = state
                    .picker
                    .add_piece(key, piece)
                    .map_err(|error| connection.violation(error))?;
                if !is_new {
                    return Ok(());
                }
                note_pieces(&mut state, connection, &[piece]);
            }
            Message::Bitfield(body) => {
                let pieces = Bitfield::decode(self.layout.pieces(), body);
                let pieces = pieces.ok_or_else(|| {
                    connection.violation("a bitfield with bits beyond the last piece")
                })?;
                let new = state.picker.add_pieces(key, &pieces);
                note_pieces(&mut state, connection, &new);
            }
            Message::HaveAll => {
                if state.picker.pieces_of(key).is_some_and(Bitfield::is_full) {
                    return Ok(());
                }
                let new = state.picker.add_pieces(key, &Bitfield::full(self.layout.pieces()));
                note_pieces(&mut state, connection, &new);
            }
            _ => {}
        }
        send_interest(&state, connection);
        self.request_blocks(&mut state, connection);
        self.reveal(&mut state);
        Ok(())
    }

    /// Fills a connection's pipeline with requests, when enough are missing to be worth a message.
    /// The caller flushes.
    pub(super) fn request_blocks(&self, state: &mut MemberState, connection: &PeerConnection) {
        let key = connection.key;
        if state.released.is_none() || state.closed || !state.picker.needs_requests(key) {
            return;
        }
        let blocks = state.picker.next_requests(key, clock::now());
        self.ending.store(state.picker.is_ending(), Ordering::Relaxed);
        let requests: Vec<_> = blocks.into_iter().map(Message::Request).collect();
        if !requests.is_empty() {
            connection.queue(&requests);
        }
    }

    pub(super) fn request_from_all(&self, state: &mut MemberState) {
        let connections: Vec<_> = state.connections.values().map(Arc::clone).collect();
        for connection in connections {
            self.request_blocks(state, &connection);
            connection.outbox.flush();
        }
    }

    /// A peer requests a block.
    fn handle_request(&self, connection: &PeerConnection, block: Block) -> Result<()> {
        if block.len > REQUEST_MAX {
            return Err(connection.violation("it requests too long a block"));
        }
        let state = self.lock();
        let exists = self.layout.allows(block) && state.picker.have().has(block.piece);
        if !exists {
            connection.count_bad_request()?;
        }
        let revealed = || {
            let super_seeder = state.super_seeder.as_ref();
            super_seeder.is_none_or(|seeder| seeder.may_request(connection.key, block.piece))
        };
        let allowed = exists && state.released.is_some() && revealed();
        drop(state);
        if !allowed || !connection.outbox.push_block(block) {
            connection.reject(vec![block]);
        }
        Ok(())
    }
}

/// A peer says that it has pieces that it did not have before. A seeder believes its clients only:
/// the word of anybody else would hide pieces from them, and be shown as a fact.
fn note_pieces(state: &mut MemberState, connection: &PeerConnection, pieces: &[u32]) {
    let Some(super_seeder) = &mut state.super_seeder else {
        return;
    };
    if connection.role() == Some(Role::Seated) {
        for &piece in pieces {
            super_seeder.peer_has(connection.key, piece);
            state.accounting.note_holder(piece, connection);
        }
    }
}

/// Tells a peer once that it has something that we want.
fn send_interest(state: &MemberState, connection: &PeerConnection) {
    if !connection.interested.load(Ordering::Relaxed) && state.picker.is_interesting(connection.key)
    {
        connection.interested.store(true, Ordering::Relaxed);
        connection.queue(&[Message::Interested]);
    }
}
