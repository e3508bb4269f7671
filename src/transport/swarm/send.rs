//! The swarm as a server sends by it: the seeder at the gate.
//!
//! The release of the gate is the release of the swarm. Peers connect and announce their pieces
//! during the muster; the first seat that goes through the gate lets the seeder serve.

use std::{
    io,
    net::{IpAddr, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{clock, copy, lock, pacing::Pacer},
    proto::bt::wire::PeerId,
    server::{
        gate::SeatConnection,
        transport::{SendJob, SendPlan, SendResult, SendSession, TransferFailure, Transport},
    },
    session::Via,
    transfer::{Evidence, Outcome},
    transport::{
        ProgressWatch, congestion, cut,
        swarm::{peer_id::seated_id, torrent::Torrent, torrents::Torrents},
    },
};

/// Sends by the swarm.
#[derive(Debug)]
pub struct SwarmTransport {
    /// Whose files it sends.
    pub torrents: Arc<Torrents>,
}

/// The swarm of one session; an empty file needs no torrent.
#[derive(Debug)]
struct SwarmSendSession {
    torrent: Option<Arc<Torrent>>,
    torrents: Arc<Torrents>,
}

/// How often a seat's progress is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Transport for SwarmTransport {
    fn via(&self) -> Via {
        Via::Swarm
    }

    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>> {
        let SendPlan { source, clients, rate } = plan;
        let torrent = match source.info.bytes {
            0 => None,
            _ => Some(self.torrents.get_or_create(source)?),
        };
        if let Some(torrent) = &torrent {
            let most = torrent.member.connections_max;
            if usize::from(*clients) > most {
                log::warn!("{clients} clients: the seeder of a swarm serves {most} at a time");
            }
            torrent.begin_session();
            *lock(&torrent.member.pacer) = rate.map(|rate| Arc::new(Pacer::new(rate)));
            torrent.write_holders(self.torrents.config.tracker_file.as_deref());
        }
        Ok(Box::new(SwarmSendSession { torrent, torrents: Arc::clone(&self.torrents) }))
    }
}

impl SendSession for SwarmSendSession {
    fn on_seated(&self, seat: &SeatConnection) {
        if let Some(torrent) = &self.torrent {
            torrent.member.add_seat(id_of(seat), seat.peer.ip());
        }
    }

    fn fills_control(&self) -> bool {
        false
    }

    fn only_peers(&self) -> Vec<IpAddr> {
        let torrent = self.torrent.iter().filter(|_| self.torrents.config.seats_only);
        torrent.flat_map(|torrent| torrent.member.seat_addresses()).collect()
    }

    fn description(&self, stream: &TcpStream) -> String {
        format!("swarm, {}", congestion(stream))
    }

    fn send(&self, seat: &SeatConnection, job: SendJob<'_>) -> SendResult {
        let sent =
            copy::send_all(&seat.stream, &job.preface, clock::now().after(seat.session.stall));
        let end = sent.map_err(|stop| match stop {
            copy::Stop::Peer(error) => cut(format!("the connection failed: {error}")),
            _ => TransferFailure::new(Outcome::TimedOut, "does not take its GO"),
        });
        let torrent = match &self.torrent {
            Some(torrent) if end.is_ok() && !job.range.is_empty() => torrent,
            _ => return SendResult { first: None, end },
        };
        let id = id_of(seat);
        let traffic = || {
            let all = torrent.member.traffic();
            all.get(&id).copied().unwrap_or_default()
        };
        let before = traffic().sent;
        let full_before = torrent.member.update_link();
        torrent.member.admit(id);
        let end = wait_for_client(seat, torrent, id);
        let after = traffic();
        seat.moved.store(after.sent - before, Ordering::Relaxed);
        let full = torrent.member.update_link();
        seat.note(Evidence {
            server_link_us: full.map(|full| full.saturating_sub(full_before.unwrap_or(0))),
            ..torrent.member.evidence_of(id)
        });
        let released = seat.release().released();
        SendResult { first: after.first_sent.map(|first| first.since(released)), end }
    }
}

impl Drop for SwarmSendSession {
    fn drop(&mut self) {
        let Some(torrent) = &self.torrent else {
            return;
        };
        torrent.end_session();
        torrent.write_holders(self.torrents.config.tracker_file.as_deref());
    }
}

/// The id of the peer in `seat`.
fn id_of(seat: &SeatConnection) -> PeerId {
    seated_id(seat.session.id, seat.id)
}

/// Waits until the client sends its receipt: its last byte is in, or it has failed. Meanwhile it
/// must make progress, wherever its bytes come from.
fn wait_for_client(
    seat: &SeatConnection,
    torrent: &Torrent,
    id: PeerId,
) -> Result<(), TransferFailure> {
    let piece_bytes = u64::from(torrent.member.metainfo.piece_bytes);
    let mut watch = ProgressWatch::new(0);
    let failed = |error| cut(format!("the connection failed: {error}"));
    seat.stream.set_read_timeout(Some(CHECK_INTERVAL)).map_err(failed)?;
    loop {
        match seat.stream.peek(&mut [0]) {
            Ok(0) => return Err(cut("closed the connection before its last byte")),
            Ok(_) => return Ok(()),
            Err(error) if Error::is_timeout(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
        torrent.member.update_link();
        let member = &torrent.member;
        let pieces = member.pieces_of(id);
        let has = pieces.map_or(watch.has, u64::from);
        let is_more = watch.update(seat, has, "piece").map_err(|mut failure| {
            if failure.outcome == Outcome::TimedOut && pieces.is_none() {
                let (open, most) = (member.connections(), member.connections_max);
                failure.reason +=
                    &format!("; no connection to its peer, {open} of {most} connections are open");
            }
            failure
        })?;
        if is_more {
            let bytes = (has * piece_bytes).min(seat.session.source.info.bytes);
            seat.moved.store(bytes, Ordering::Relaxed);
        }
    }
}
