//! The stream on its way through a viewer: received, counted, handed to the player and the disk.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering},
    thread,
};

use crate::{
    error::Result,
    net::{
        datagrams::{
            DatagramBatch,
            send_batch::{self, SendBatch},
            unspecified,
        },
        lock,
    },
    proto::{relay::hearing::GroupHearing, stream::StreamMonitor},
    relay::{
        atomic_histogram::bump,
        watch::{
            control::{QUIET, WatchState},
            group::GroupListener,
            recorder::Recorder,
        },
    },
    units::Moment,
};

/// What the data thread owns.
pub(super) struct StreamReceiver {
    pub(super) state: Arc<WatchState>,
    pub(super) player: Option<UdpSocket>,
    pub(super) recorder: Option<Recorder>,
}

/// Datagrams received together.
const BATCH: usize = 64;

/// Batches that are taken together of what is not waited for.
const LEFTOVERS_MAX: usize = 64;

impl StreamReceiver {
    pub(super) fn run(self) {
        let state = &self.state;
        let (mut monitor, mut batch) = (StreamMonitor::default(), DatagramBatch::new(BATCH));
        let mut rest = DatagramBatch::new(BATCH);
        while !state.stopping.load(Ordering::SeqCst) {
            batch.clear();
            let group = state.group.get();
            let by_group = group.filter(|group| lock(&group.hearing).is_taken());
            let inbox = by_group.map_or(&state.inbox, |group| &group.inbox);
            match inbox.receive(&mut batch, QUIET) {
                Ok(0) => drop(state.quiet.fetch_add(1, Ordering::SeqCst)),
                Ok(_) => {}
                Err(error) => {
                    log::warn!("cannot receive: {error}");
                    thread::sleep(QUIET);
                    continue;
                }
            }
            let mut hearing = group.map(|group| lock(&group.hearing));
            let is_taken = hearing.as_ref().is_some_and(|hearing| hearing.is_taken());
            // What came the other way is older than what comes by the present one.
            let is_younger = by_group.is_some() == is_taken;
            if !is_younger {
                let heard = by_group.zip(hearing.as_deref_mut());
                self.handle(&mut monitor, &mut batch, heard);
            }
            let other = group.filter(|_| !is_taken);
            for _ in 0..LEFTOVERS_MAX {
                rest.clear();
                let inbox = other.map_or(&state.inbox, |group| &group.inbox);
                if group.is_none() || !matches!(inbox.collect(&mut rest), Ok(1..)) {
                    break;
                }
                self.handle(&mut monitor, &mut rest, other.zip(hearing.as_deref_mut()));
            }
            if is_younger {
                let heard = by_group.zip(hearing.as_deref_mut());
                self.handle(&mut monitor, &mut batch, heard);
            }
        }
    }

    /// Handles what came to the viewer's own port, or was heard in the group.
    fn handle(
        &self,
        monitor: &mut StreamMonitor,
        batch: &mut DatagramBatch,
        heard: Option<(&GroupListener, &mut GroupHearing)>,
    ) {
        let (state, all) = (&self.state, batch.len());
        let relay = state.relay.ip();
        let foreign = match heard {
            Some((group, hearing)) => group.take(hearing, batch),
            None => {
                batch.retain(|from, _| from.ip() == relay);
                (all - batch.len()) as u64
            }
        };
        bump(&state.foreign, foreign);
        if batch.is_empty() {
            return;
        }
        self.count_and_record(monitor, batch);
        if let Some(player) = &self.player {
            self.play(player, batch);
        }
    }

    fn count_and_record(&self, monitor: &mut StreamMonitor, batch: &DatagramBatch) {
        let state = &self.state;
        let mut packets = Vec::new();
        if self.recorder.is_some() {
            packets.reserve(batch.iter().map(|datagram| datagram.bytes.len()).sum());
        }
        for datagram in batch.iter() {
            let rejoin = state.rejoin.load(Ordering::SeqCst);
            if rejoin != 0 && datagram.at >= Moment(rejoin) {
                state.clear_rejoin(rejoin);
                monitor.rejoin();
            }
            monitor.handle_packets(datagram.at, datagram.bytes, |packet| {
                if self.recorder.is_some() {
                    packets.extend_from_slice(packet);
                }
            });
        }
        *lock(&state.counts) = monitor.counts();
        let Some(recorder) = &self.recorder else {
            return;
        };
        let bytes = packets.len() as u64;
        if recorder.push(packets) {
            bump(&state.recorded, bytes);
        } else {
            bump(&state.unrecorded, batch.len() as u64);
        }
    }

    fn play(&self, player: &UdpSocket, batch: &DatagramBatch) {
        let batch = SendBatch::of(batch);
        let mut unplayed = 0;
        for run in batch.runs() {
            if run.datagrams.len() > 1 && batch.send(player, run).is_ok() {
                continue;
            }
            for single in batch.singles(run) {
                // The first error is of an earlier datagram.
                let sent = batch.send(player, &single).or_else(|_| batch.send(player, &single));
                unplayed += u64::from(sent.is_err());
            }
        }
        bump(&self.state.unplayed, unplayed);
    }
}

/// A socket to the player.
///
/// # Errors
/// The system's.
pub(super) fn player_socket(player: SocketAddr) -> Result<UdpSocket> {
    send_batch::connected_socket((unspecified(player.ip()), 0).into(), player)
}
