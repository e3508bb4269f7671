//! A block that came, up to the piece that is verified and written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::digest::Digest;
use crate::error::Result;
use crate::net::clock;
use crate::proto::bt::table::arrive::Arrival;
use crate::proto::bt::wire::Block;
use crate::proto::bt::wire::Message;
use crate::transport::swarm::link::PeerConnection;
use crate::transport::swarm::member::MemberState;
use crate::transport::swarm::member::SwarmMember;
use crate::transport::swarm::member::role::Role;
use crate::transport::swarm::member::role::has_role;

/// Most blocks of one link that were never asked for.
const STRAYS_MAX: usize = 16;

impl SwarmMember {
    /// A block has come.
    pub(super) fn take(
        &self,
        link: &Arc<PeerConnection>,
        piece: u32,
        begin: u32,
        data: &[u8],
    ) -> Result<(), String> {
        let now = clock::now();
        let mut state = self.lock();
        let len = u32::try_from(data.len()).expect("bounded by the message");
        link.received
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        let arrival = state.table.receive_block(link.key, piece, begin, len, now);
        let (others, whole) = match arrival {
            Arrival::Unwanted => {
                state.wasted += data.len() as u64;
                if state.table.unrequested_blocks(link.key) > STRAYS_MAX {
                    return Err("it sends what was not asked for".to_owned());
                }
                self.ask(&mut state, link);
                return Ok(());
            }
            Arrival::Kept(others) => (others, false),
            Arrival::PieceComplete(others) => (others, true),
        };
        state.first.get_or_insert(now);
        state.kept += u64::from(len);
        let size = self.layout.len(piece) as usize;
        let MemberState {
            open, spare, table, ..
        } = &mut *state;
        if open.len() > table.partial_count() {
            // What the table has dropped is not worth its room.
            open.retain(|&piece, _| table.is_partial(piece));
        }
        let bytes = open
            .entry(piece)
            .or_insert_with(|| spare.pop().unwrap_or_default());
        bytes.resize(size, 0);
        bytes[begin as usize..begin as usize + data.len()].copy_from_slice(data);
        for other in others {
            if let Some(other) = state.links.get(&other) {
                other.say(&[Message::Cancel(Block { piece, begin, len })]);
            }
        }
        let bytes = whole.then(|| state.open.remove(&piece)).flatten();
        self.ask(&mut state, link);
        drop(state);
        match bytes {
            Some(bytes) => {
                // Verifying takes longer than the next blocks should wait to be asked for.
                link.flush();
                self.settle(piece, bytes, has_role(Role::Seeder, &link.peer))
            }
            None => Ok(()),
        }
    }

    /// All of a piece is here: verifies it, writes it, tells of it. No lock while it works.
    fn settle(&self, piece: u32, bytes: Vec<u8>, ours_alone: bool) -> Result<(), String> {
        if Digest::of(&bytes) != self.metainfo.pieces[piece as usize] {
            let mut state = self.lock();
            state.wasted += bytes.len() as u64;
            log::warn!("piece {piece} is wrong and is fetched again");
            if let Some(liar) = state.table.piece_corrupt(piece, &bytes) {
                self.ban(&mut state, liar);
            }
            self.ask_all(&mut state);
            return Ok(());
        }
        let written = self.store.write(piece, &bytes);
        let mut state = self.lock();
        if let Err(error) = written {
            state.fault = Some(format!("the copy cannot be written: {error}"));
            drop(state);
            self.changed.notify_all();
            return Err("our own disk failed".to_owned());
        }
        for liar in state.table.piece_verified(piece, &bytes) {
            self.ban(&mut state, liar);
        }
        state.spare.push(bytes);
        let whole = state.table.is_complete();
        if ours_alone || whole {
            state.news.push(piece);
            if state.news.len() == 1 {
                self.tick.notify_one();
            }
        } else {
            state.rumours.push(piece);
        }
        if whole {
            state.spare = Vec::new();
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }
}
