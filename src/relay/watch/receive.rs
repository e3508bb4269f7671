//! The stream on its way through a viewer: received, followed, handed to the player and the disk.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::error::Result;
use crate::net::datagrams::DatagramBatch;
use crate::net::datagrams::send_batch;
use crate::net::datagrams::send_batch::SendBatch;
use crate::proto::stream::StreamMonitor;
use crate::relay::atomic_histogram::bump;
use crate::relay::watch::control::WatchState;
use crate::relay::watch::recorder::Recorder;
use crate::units::Moment;

/// The data thread's own.
pub(super) struct StreamReceiver {
    pub(super) shared: Arc<WatchState>,
    pub(super) player: Option<UdpSocket>,
    pub(super) recorder: Option<Recorder>,
}

impl StreamReceiver {
    pub(super) fn run(self) {
        let shared = &self.shared;
        let (mut feed, mut batch) = (StreamMonitor::default(), DatagramBatch::new(BATCH));
        let relay = shared.relay.ip();
        while !shared.stopping.load(Ordering::SeqCst) {
            batch.clear();
            match shared.inbox.receive(&mut batch, QUIET) {
                Ok(0) => {
                    shared.quiet.fetch_add(1, Ordering::SeqCst);
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
            bump(&shared.foreign, (all - batch.len()) as u64);
            self.count_and_record(&mut feed, &batch);
            if let Some(player) = &self.player {
                self.play(player, &batch);
            }
        }
    }

    fn count_and_record(&self, feed: &mut StreamMonitor, batch: &DatagramBatch) {
        let shared = &self.shared;
        let bytes = batch.iter().map(|datagram| datagram.bytes.len()).sum();
        let mut piece = match self.recorder {
            Some(_) => Vec::with_capacity(bytes),
            None => Vec::new(),
        };
        let mut in_piece = 0;
        for datagram in batch.iter() {
            let rejoin = shared.rejoin.load(Ordering::SeqCst);
            if rejoin != 0 && datagram.at >= Moment(rejoin) {
                // Another resumption may have come since; it stays.
                let _ =
                    shared
                        .rejoin
                        .compare_exchange(rejoin, 0, Ordering::SeqCst, Ordering::SeqCst);
                feed.rejoin();
            }
            feed.handle_packets(datagram.at, datagram.bytes, |packet| {
                if self.recorder.is_some() {
                    piece.extend_from_slice(packet);
                }
            });
            in_piece += 1;
        }
        *shared.counts.lock().unwrap_or_else(PoisonError::into_inner) = feed.counts();
        let Some(tape) = &self.recorder else { return };
        let bytes = piece.len() as u64;
        match tape.push(piece) {
            true => bump(&shared.recorded, bytes),
            false => bump(&shared.unrecorded, in_piece),
        }
    }

    fn play(&self, player: &UdpSocket, batch: &DatagramBatch) {
        let parcel = SendBatch::of(batch);
        let mut unplayed = 0;
        for run in parcel.runs() {
            if run.datagrams.len() > 1 && parcel.send(player, run).is_ok() {
                continue;
            }
            for single in parcel.singles(run) {
                // The first error is of an earlier datagram.
                let sent = parcel
                    .send(player, &single)
                    .or_else(|_| parcel.send(player, &single));
                unplayed += u64::from(sent.is_err());
            }
        }
        bump(&self.shared.unplayed, unplayed);
    }
}

/// With no datagram for so long after a pause, none is on its way.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// Datagrams taken together.
const BATCH: usize = 64;

/// A socket to the player.
///
/// # Errors
/// The system's.
pub(super) fn player_socket(player: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = match player {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    parcel::connected_socket(any, player)
}
