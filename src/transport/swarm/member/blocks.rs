//! A block that came, up to the piece that is verified and written.

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::clock,
    proto::bt::{
        piece_picker::arrive::Arrival,
        wire::{Block, Message},
    },
    transport::swarm::{
        member::SwarmMember,
        peer_connection::PeerConnection,
        peer_id::{Role, name_of, seat_of},
    },
    units::{Moment, decimal_seconds},
};

/// Most blocks of one connection that were never requested.
const UNREQUESTED_MAX: usize = 16;

impl SwarmMember {
    /// A block has come.
    pub(super) fn receive_block(
        &self,
        connection: &Arc<PeerConnection>,
        piece: u32,
        begin: u32,
        data: &[u8],
    ) -> Result<()> {
        let now = clock::now();
        let mut guard = self.lock();
        let state = &mut *guard;
        let len = u32::try_from(data.len()).expect("bounded by the message");
        let traffic = &connection.traffic;
        traffic.received.fetch_add(u64::from(len), Ordering::Relaxed);
        let came = Moment(traffic.came_at.load(Ordering::Relaxed));
        let block = Block { piece, begin, len };
        let (others, complete) = match state.picker.receive_block(connection.key, block, now) {
            Arrival::Unwanted => {
                state.accounting.wasted += u64::from(len);
                if state.picker.unrequested_blocks(connection.key) > UNREQUESTED_MAX {
                    return Err(connection.violation("it sends too much that was not requested"));
                }
                self.request_blocks(state, connection);
                return Ok(());
            }
            Arrival::Kept(others) => (others, false),
            Arrival::PieceComplete(others) => (others, true),
        };
        state.accounting.first_received.get_or_insert(came);
        state.accounting.kept += u64::from(len);
        state.buffers.drop_stale(&state.picker);
        let size = self.layout.len(piece) as usize;
        state.buffers.write(piece, size, begin as usize, data);
        for other in others.iter().filter_map(|key| state.connections.get(key)) {
            other.send(&[Message::Cancel(block)]);
        }
        let bytes = complete.then(|| state.buffers.partial.remove(&piece)).flatten();
        self.request_blocks(state, connection);
        drop(guard);
        let Some(bytes) = bytes else {
            return Ok(());
        };
        // Verifying takes longer than the next requests should wait.
        connection.outbox.flush();
        self.finish_piece(connection, piece, bytes, came)
    }

    /// Verifies a complete piece, writes it and announces it. Hashing and writing happen without
    /// the lock.
    fn finish_piece(
        &self,
        connection: &PeerConnection,
        piece: u32,
        bytes: Vec<u8>,
        came: Moment,
    ) -> Result<()> {
        if Digest::of(&bytes) != self.metainfo.pieces[piece as usize] {
            let mut state = self.lock();
            state.accounting.wasted += bytes.len() as u64;
            log::warn!("piece {piece} is wrong and is fetched again");
            if let Some(liar) = state.picker.piece_corrupt(piece, &bytes) {
                self.ban(&mut state, liar);
            }
            self.request_from_all(&mut state);
            return Ok(());
        }
        let written = self.store.write_piece(piece, &bytes);
        let mut state = self.lock();
        if let Err(error) = written {
            let fault = format!("the copy cannot be written: {error}");
            state.fault = Some(fault.clone());
            drop(state);
            self.changed.notify_all();
            return Err(Error::refused("this machine", fault));
        }
        for liar in state.picker.piece_verified(piece, &bytes) {
            self.ban(&mut state, liar);
        }
        state.buffers.spare.push(bytes);
        state.accounting.last_received = state.accounting.last_received.max(Some(came));
        let from_seeder = connection.role() == Some(Role::Seeder);
        if let (Some(released), Some(rows)) = (state.released, &mut state.accounting.arrivals) {
            let seconds = decimal_seconds(came.since(released));
            let from = name_of(&connection.id(), connection.addr).replace(',', "_");
            let from = if from_seeder { "server" } else { &*from };
            let seat = seat_of(&self.id).unwrap_or_default();
            let _ = writeln!(rows, "{seat},{seconds},{piece},{from}");
        }
        let complete = state.picker.is_complete();
        if from_seeder || complete {
            state.urgent_haves.push(piece);
            if state.urgent_haves.len() == 1 {
                self.tick.notify_one();
            }
        } else {
            state.lazy_haves.push(piece);
        }
        if complete {
            state.buffers.spare = Vec::new();
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }
}
