//! What other members say, and what is asked of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::net::clock;
use crate::proto::bt::bits::Bitfield;
use crate::proto::bt::wire::Block;
use crate::proto::bt::wire::ExtendedHandshake;
use crate::proto::bt::wire::Message;
use crate::proto::bt::wire::REQUEST_MAX;
use crate::proto::bt::wire::REQUESTS_MAX;
use crate::transport::swarm::link::PeerConnection;
use crate::transport::swarm::member::MemberState;
use crate::transport::swarm::member::SwarmMember;

/// How often a peer may choke or unchoke us, beside once a second.
const TURNS_MAX: u64 = 200;

/// How many requests may be for blocks that the torrent does not have, or that we never said we
/// have.
const BAD_MAX: u64 = 300;

impl SwarmMember {
    /// What another member says.
    pub(super) fn hear(
        &self,
        link: &Arc<PeerConnection>,
        message: Message<'_>,
    ) -> Result<(), String> {
        match message {
            Message::Piece(piece, begin, data) => return self.take(link, piece, begin, data),
            Message::Request(block) => return self.requested(link, block),
            Message::Cancel(block) => {
                if link.cancel(block) && link.limits.fast {
                    link.add(&[Message::Reject(block)]);
                }
                return Ok(());
            }
            Message::KeepAlive
            | Message::Interested
            | Message::NotInterested
            | Message::HaveNone
            | Message::Other(_) => return Ok(()),
            Message::Extended(0, body) => {
                let told = ExtendedHandshake::decode(body).map_err(|error| error.to_string())?;
                if let Some(port) = told.port {
                    link.listens.store(port, Ordering::Relaxed);
                }
                if let Some(requests) = told.requests {
                    let requests = (requests as usize).min(REQUESTS_MAX);
                    self.lock().table.set_request_limit(link.key, requests);
                }
                return Ok(());
            }
            Message::Extended(..) => return Ok(()),
            _ => {}
        }
        let mut state = self.lock();
        match message {
            Message::Choke | Message::Unchoke => {
                let serves = message == Message::Unchoke;
                if state.table.is_serving(link.key) == serves {
                    return Ok(());
                }
                let turns = link.turns.fetch_add(1, Ordering::Relaxed);
                if turns > TURNS_MAX + clock::now().since(link.since).as_secs() {
                    return Err("it chokes and unchokes without end".to_owned());
                }
                state.table.set_serving(link.key, serves);
            }
            Message::Reject(block) => state.table.request_rejected(link.key, block),
            Message::Have(piece) => {
                let new = state.table.add_piece(link.key, piece)?;
                if new {
                    self.has_now(&mut state, link, piece);
                }
            }
            Message::Bitfield(body) => {
                let bits = Bitfield::decode(self.layout.pieces(), body)
                    .ok_or("a bitfield with bits beyond the last piece")?;
                self.had_all(&mut state, link, &bits);
            }
            Message::HaveAll => {
                if state
                    .table
                    .pieces_of(link.key)
                    .is_some_and(Bitfield::is_full)
                {
                    return Ok(());
                }
                let bits = Bitfield::full(self.layout.pieces());
                self.had_all(&mut state, link, &bits);
            }
            _ => {}
        }
        self.want(&state, link);
        self.ask(&mut state, link);
        if state.injector.is_some() {
            self.show(&mut state);
        }
        Ok(())
    }

    fn had_all(&self, state: &mut MemberState, link: &Arc<PeerConnection>, bits: &Bitfield) {
        let known = state.table.pieces_of(link.key).cloned();
        state.table.add_pieces(link.key, bits);
        if state.injector.is_some() {
            let new = bits
                .iter()
                .filter(|&p| known.as_ref().is_none_or(|known| !known.has(p)));
            for piece in new.collect::<Vec<_>>() {
                self.has_now(state, link, piece);
            }
        }
    }

    /// Another member has a piece that it had not before.
    fn has_now(&self, state: &mut MemberState, link: &PeerConnection, piece: u32) {
        if let Some(injector) = &mut state.injector {
            injector.peer_has(link.key, piece);
        }
        if let Some(holder) = state.holders.get_mut(piece as usize) {
            holder.get_or_insert((link.peer.peer_id, link.addr));
        }
    }

    /// Says once that there is something to want.
    fn want(&self, state: &MemberState, link: &PeerConnection) {
        if !link.interested.load(Ordering::Relaxed) && state.table.is_interesting(link.key) {
            link.interested.store(true, Ordering::Relaxed);
            link.add(&[Message::Interested]);
        }
    }

    /// Fills a link's pipeline, once there is room worth a message; the caller flushes.
    pub(super) fn ask(&self, state: &mut MemberState, link: &PeerConnection) {
        if state.released.is_none() || state.closed || !state.table.needs_requests(link.key) {
            return;
        }
        let blocks = state.table.next_requests(link.key, clock::now());
        let asks: Vec<Message<'_>> = blocks.into_iter().map(Message::Request).collect();
        if !asks.is_empty() {
            link.add(&asks);
        }
    }

    pub(super) fn ask_all(&self, state: &mut MemberState) {
        let links: Vec<Arc<PeerConnection>> = state.links.values().map(Arc::clone).collect();
        for link in links {
            self.ask(state, &link);
            link.flush();
        }
    }

    /// A block is asked for.
    fn requested(&self, link: &PeerConnection, block: Block) -> Result<(), String> {
        if block.len > REQUEST_MAX {
            return Err(format!("a request for {} bytes", block.len));
        }
        let state = self.lock();
        let there = self.layout.allows(block) && state.table.have().has(block.piece);
        if !there && link.bad.fetch_add(1, Ordering::Relaxed) >= BAD_MAX {
            return Err("it asks for what is not there again and again".to_owned());
        }
        let may = there
            && state.released.is_some()
            && state
                .injector
                .as_ref()
                .is_none_or(|injector| injector.may_request(link.key, block.piece));
        drop(state);
        if !may || !link.serve(block) {
            refuse(link, vec![block]);
        }
        Ok(())
    }
}

/// Says that blocks will not come, where the other side understands it; the caller flushes.
pub(super) fn refuse(link: &PeerConnection, blocks: Vec<Block>) {
    if link.limits.fast {
        let words: Vec<Message<'_>> = blocks.into_iter().map(Message::Reject).collect();
        link.add(&words);
    }
}
