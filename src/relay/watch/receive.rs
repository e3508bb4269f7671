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
    proto::stream::StreamMonitor,
    relay::{
        atomic_histogram::bump,
        watch::{
            control::{QUIET, WatchState},
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

impl StreamReceiver {
    pub(super) fn run(self) {
        let state = &self.state;
        let (mut monitor, mut batch) = (StreamMonitor::default(), DatagramBatch::new(BATCH));
        let relay = state.relay.ip();
        while !state.stopping.load(Ordering::SeqCst) {
            batch.clear();
            match state.inbox.receive(&mut batch, QUIET) {
                Ok(0) => {
                    state.quiet.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    log::warn!("cannot receive: {error}");
                    thread::sleep(QUIET);
                    continue;
                }
            }
            let all = batch.len();
            batch.retain(|from, _| from.ip() == relay);
            bump(&state.foreign, (all - batch.len()) as u64);
            self.count_and_record(&mut monitor, &batch);
            if let Some(player) = &self.player {
                self.play(player, &batch);
            }
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
