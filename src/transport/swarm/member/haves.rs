//! The ticker: a thread that announces new pieces, a few at a time, and applies time limits.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::Duration,
};

use crate::{
    net::clock,
    proto::bt::wire::Message,
    transport::swarm::{
        member::{MemberState, SwarmMember},
        peer_connection::PeerConnection,
    },
};

/// Longest time for which an urgent `have` waits for others, so that one write carries several.
const BATCH_TIME: Duration = Duration::from_millis(4);

/// How often time limits are applied, and for how long a lazy `have` waits for something else to
/// be written to its peer before it is written alone.
const TICK: Duration = Duration::from_millis(50);

impl SwarmMember {
    /// The ticker's thread.
    pub(super) fn run_ticker(self: &Arc<Self>) {
        let mut state = self.lock();
        let mut next_tick = clock::now().after(TICK);
        while !state.closed {
            if state.urgent_haves.is_empty() {
                let left = clock::left(next_tick).unwrap_or_default();
                state =
                    self.tick.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if !state.urgent_haves.is_empty() {
                drop(state);
                thread::sleep(BATCH_TIME);
                state = self.lock();
                let pieces = std::mem::take(&mut state.urgent_haves);
                send_haves(&state, &pieces, PeerConnection::send);
            }
            if clock::left(next_tick).is_none() {
                next_tick = clock::now().after(TICK);
                self.on_tick(&mut state);
            }
        }
    }

    fn on_tick(self: &Arc<Self>, state: &mut MemberState) {
        // What the last tick queued, where nothing else was written meanwhile.
        let connections = state.connections.values();
        connections.for_each(|connection| connection.outbox.flush_all());
        let pieces = std::mem::take(&mut state.lazy_haves);
        if !pieces.is_empty() {
            send_haves(state, &pieces, PeerConnection::queue_lazy);
        }
        for silent in state.picker.snub_silent_peers(clock::now()) {
            if let Some(connection) = state.connections.get(&silent) {
                log::info!("{}: does not answer, others are asked", connection.addr);
            }
        }
        self.dial_due(state);
        self.request_from_all(state);
        self.reveal(state);
    }
}

/// Announces new pieces to the other members, but not to gatecast peers that have them already.
fn send_haves(state: &MemberState, pieces: &[u32], send: fn(&PeerConnection, &[Message<'_>])) {
    let complete = state.picker.is_complete();
    for connection in state.connections.values() {
        let is_gatecast = connection.handshake.is_gatecast();
        let mut messages: Vec<Message<'_>> = if complete && is_gatecast {
            vec![Message::HaveAll]
        } else {
            let known = state.picker.pieces_of(connection.key);
            let known = known.filter(|_| connection.is_gatecast_peer());
            let pieces = pieces.iter().copied();
            pieces
                .filter(|&piece| known.is_none_or(|known| !known.has(piece)))
                .map(Message::Have)
                .collect()
        };
        if complete && connection.interested.swap(false, Ordering::Relaxed) {
            messages.push(Message::NotInterested);
        }
        if !messages.is_empty() {
            send(connection, &messages);
        }
    }
}
