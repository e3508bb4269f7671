//! The swarm as a way of sending: the seeder at the gate.
//!
//! The release of the gate is the release of the swarm. Peers connect and tell each other what
//! they have during the muster; the first seat that goes through the gate lets the seeder serve.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::net::copy;
use crate::net::pacing::Pacer;
use crate::net::socket;
use crate::server::catalog::Source;
use crate::server::gate::SeatConnection;
use crate::server::transport::SendJob;
use crate::server::transport::SendResult;
use crate::server::transport::SendSession;
use crate::server::transport::TransferFailure;
use crate::server::transport::Transport;
use crate::session::Via;
use crate::transfer::Outcome;
use crate::transport::swarm::member::view::Moved;
use crate::transport::swarm::torrents::Torrent;
use crate::transport::swarm::torrents::Torrents;
use crate::transport::swarm::torrents::seated_id;
use crate::units::Rate;

/// The way.
#[derive(Debug)]
pub struct Swarm {
    torrents: Arc<Torrents>,
}

/// The swarm for one session; `None` for an empty file, which needs none.
#[derive(Debug)]
struct Line {
    torrent: Option<Arc<Torrent>>,
    torrents: Arc<Torrents>,
}

/// How often a seat's progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

impl Swarm {
    /// The swarms in `torrents`.
    pub fn new(torrents: Arc<Torrents>) -> Self {
        Self { torrents }
    }
}

impl Transport for Swarm {
    fn via(&self) -> Via {
        Via::Swarm
    }

    fn prepare(
        &self,
        source: &Arc<Source>,
        _: u16,
        rate: Option<Rate>,
    ) -> Result<Box<dyn SendSession>> {
        let torrent = match source.info.bytes {
            0 => None,
            _ => Some(self.torrents.of(source)?),
        };
        if let Some(torrent) = &torrent {
            torrent.begin();
            torrent
                .member
                .pace(rate.map(|rate| Arc::new(Pacer::new(rate))));
        }
        Ok(Box::new(Line {
            torrent,
            torrents: Arc::clone(&self.torrents),
        }))
    }
}

impl SendSession for Line {
    fn prepare_connection(&self, _: &TcpStream) -> Result<()> {
        Ok(())
    }

    fn on_seated(&self, seat: &SeatConnection) {
        let Some(torrent) = &self.torrent else {
            return;
        };
        match seat.stream().peer_addr() {
            Ok(addr) => {
                let id = seated_id(seat.session().id, seat.id());
                torrent.member.expect(id, addr.ip());
            }
            // It is gone already.
            Err(error) => log::debug!("{}: {error}", seat.id()),
        }
    }

    fn description(&self, stream: &TcpStream) -> String {
        let congestion =
            socket::congestion(stream).unwrap_or_else(|| "unknown congestion control".to_owned());
        format!("swarm, {congestion}")
    }

    fn send(&self, seat: &SeatConnection, cargo: SendJob<'_>) -> SendResult {
        let left = cargo.range.end - cargo.range.start;
        let stall = seat.session().stall;
        let said = copy::send_all(seat.stream(), &cargo.preface, clock::now().after(stall));
        let mut end = said.map_err(|stop| match stop {
            copy::Stop::Peer(error) => {
                TransferFailure::new(Outcome::Cut, format!("the connection failed: {error}"))
            }
            _ => TransferFailure::new(Outcome::TimedOut, "does not take its GO".to_owned()),
        });
        let Some(torrent) = self.torrent.as_ref().filter(|_| left > 0 && end.is_ok()) else {
            return SendResult { first: None, end };
        };
        let id = seated_id(seat.session().id, seat.id());
        let before = torrent.member.moved().get(&id).copied().unwrap_or_default();
        torrent.member.admit(id);
        end = watch(seat, torrent, id);
        let moved: Moved = torrent.member.moved().get(&id).copied().unwrap_or_default();
        seat.moved()
            .store(moved.sent - before.sent, Ordering::Relaxed);
        let released = seat.release().released();
        SendResult {
            first: moved.first_sent.map(|first| first.since(released)),
            end,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(torrent) = &self.torrent else {
            return;
        };
        torrent.end();
        if let Some(path) = &self.torrents.options.tracker_file
            && let Err(error) = std::fs::write(path, torrent.table())
        {
            let at = crate::text::escape(&path.display().to_string());
            log::warn!("{}", Error::io("write who has which chunk", at)(error));
        }
    }
}

/// Waits until the client speaks: its last byte is in, or it has failed. Meanwhile it must make
/// progress, wherever its bytes come from.
fn watch(seat: &SeatConnection, torrent: &Torrent, id: [u8; 20]) -> Result<(), TransferFailure> {
    let piece = u64::from(torrent.member.metainfo.piece_bytes);
    let stall = seat.session().stall;
    let (mut pieces, mut since) = (0, clock::now());
    let mut checked = clock::now();
    loop {
        // A line is there when a look at the connection finds a byte.
        let seen = seat
            .stream()
            .set_read_timeout(Some(LOOK))
            .and_then(|()| seat.stream().peek(&mut [0]));
        match seen {
            Ok(0) => {
                let reason = "closed the connection before its last byte".to_owned();
                return Err(TransferFailure::new(Outcome::Cut, reason));
            }
            Ok(_) => return Ok(()),
            Err(error) if Error::is_timeout(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let reason = format!("the connection failed: {error}");
                return Err(TransferFailure::new(Outcome::Cut, reason));
            }
        }
        let now = clock::now();
        let has = torrent.member.pieces_of(id).unwrap_or(pieces);
        if has > pieces {
            (pieces, since) = (has, now);
            let bytes = (u64::from(has) * piece).min(seat.session().source.info.bytes);
            seat.moved().store(bytes, Ordering::Relaxed);
        } else if now.since(since) > stall {
            let reason = format!("no new piece for {} s, with {has}", stall.as_secs_f64());
            return Err(TransferFailure::new(Outcome::TimedOut, reason));
        }
        if now.since(checked) > Duration::from_secs(1) {
            checked = now;
            if let Some(reason) = seat.session().source.change() {
                return Err(TransferFailure {
                    outcome: Outcome::Cut,
                    reason,
                    source_changed: true,
                });
            }
        }
    }
}
