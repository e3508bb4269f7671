//! The swarm as a client receives from it: a peer that is ready before the gate and goes on until
//! nobody needs it any more.
//!
//! Before READY it gets the torrent from the server, verifies what an earlier session left,
//! listens, announces itself and dials the others. So at GO every connection is open, and every
//! peer knows what every other has. From GO on the server is one member among others: when it
//! dies, the peers finish with what they have, and each can tell what is missing.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    client::{
        part::ByteOrder,
        receive::{
            PrepareContext, ReceiveContext, ReceiveError, ReceiveSession, ReceiveTransport,
            Received,
        },
    },
    error::{Error, Result},
    net::{clock, http::client, line_stream::LineStream, socket},
    proto::{
        bt::metainfo::{METAINFO_MAX, Metainfo, tree_torrent_max},
        http::{text::percent_encode, url::Url},
        native::FromClient,
    },
    session::Via,
    text::escape_path,
    transfer::{Counts, Evidence},
    transport::swarm::{
        announcer::Tracker,
        peer::Peer,
        peer_id::{Role, seated_id},
        store::HeldCopy,
    },
};

/// Receives over the swarm.
#[derive(Clone, Debug, Default)]
pub struct SwarmReceiveTransport {
    /// For how long a complete client serves the others; `None`: until they are complete.
    pub seed_time: Option<Duration>,
    /// Where it is written when each piece came, and from whom.
    pub blocks: Option<Arc<File>>,
}

/// A peer with a seat.
#[derive(Debug)]
struct SwarmReceiveSession {
    peer: Peer,
    seed_time: Option<Duration>,
    blocks: Option<Arc<File>>,
}

/// How often a client that verifies pieces before READY gives a sign of life.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// An empty file has no torrent and needs no peer.
#[derive(Debug)]
struct EmptyReceiveSession;

/// Makes the file for [`SwarmReceiveTransport::blocks`], with the names of its columns.
///
/// # Errors
/// The system's.
pub fn blocks_file(path: &Path) -> Result<Arc<File>> {
    let made = fs::write(path, "seat,seconds,piece,from\n")
        .and_then(|()| File::options().append(true).open(path));
    made.map(Arc::new).map_err(Error::io("write when pieces come", escape_path(path)))
}

impl ReceiveTransport for SwarmReceiveTransport {
    fn via(&self) -> Via {
        Via::Swarm
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Any
    }

    fn prepare(&self, context: PrepareContext<'_, '_>) -> Result<Box<dyn ReceiveSession>> {
        let PrepareContext { lines, offer, file } = context;
        if offer.file.bytes == 0 {
            return Ok(Box::new(EmptyReceiveSession));
        }
        let (server, local) = (lines.peer, lines.local()?);
        let host = server.to_string();
        let target = format!("/{}.torrent", percent_encode(offer.file.name.as_str()));
        let manifest = file.manifest();
        let most = manifest.map_or(METAINFO_MAX, |manifest| tree_torrent_max(manifest));
        let torrent = client::get(&[server], &host, &target, most)?;
        let metainfo = match manifest {
            Some(manifest) => Metainfo::decode_tree(&torrent, &offer.file.name, manifest),
            None => Metainfo::decode(&torrent),
        };
        let metainfo = metainfo.map_err(|error| Error::protocol(server, error.to_string()))?;
        if metainfo.bytes != offer.file.bytes {
            let what =
                format!("a torrent of {} bytes for a file of {}", metainfo.bytes, offer.file.bytes);
            return Err(Error::protocol(server, what));
        }
        let tracker =
            Tracker { url: Url { host, target: "/announce".to_owned() }, addrs: vec![server] };
        let id = seated_id(offer.session, offer.seat);
        let at = SocketAddr::new(local.ip(), 0);
        let mut due = clock::now();
        let held = HeldCopy::read(metainfo, file, |bytes| {
            if clock::left(due).is_some() {
                return Ok(());
            }
            due = clock::now().after(ALIVE_INTERVAL);
            lines.write_line(&FromClient::Alive { bytes }.encode())
        })?;
        let peer = Peer::start(held, id, Role::Seated, at, tracker)?;
        peer.member.set_server(server.ip());
        if let Err(error) = peer.announcer.start(true) {
            // The server's seeder still knows us, and learns of the others' pieces from them.
            log::warn!("{error}; the server's seeder is dialed without its tracker");
            peer.announcer.dial(vec![server], true);
        }
        if self.blocks.is_some() {
            peer.member.note_arrivals();
        }
        let (seed_time, blocks) = (self.seed_time, self.blocks.clone());
        Ok(Box::new(SwarmReceiveSession { peer, seed_time, blocks }))
    }
}

impl ReceiveSession for EmptyReceiveSession {
    fn receive(
        &mut self,
        _: &ReceiveContext<'_>,
        _: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        Ok(Received::nothing(clock::now()))
    }
}

impl ReceiveSession for SwarmReceiveSession {
    fn limit_peers(&self, addresses: BTreeSet<IpAddr>) {
        self.peer.member.limit_to(addresses);
    }

    fn bytes_held(&self) -> Option<u64> {
        Some(self.peer.resumed)
    }

    fn receive(
        &mut self,
        context: &ReceiveContext<'_>,
        _: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        let member = &self.peer.member;
        member.release();
        let moved = |bytes: u64| {
            let new = bytes - self.peer.resumed;
            context.moved.store(new, Ordering::Relaxed);
        };
        let last = self.peer.wait_until_complete(
            context.config.stall,
            context.stopped,
            &|| server_is_gone(context),
            &moved,
        )?;
        self.peer.announcer.announce_completed();
        let progress = member.progress();
        moved(progress.bytes);
        let received = member.received();
        log::info!(
            "seat {}: {} bytes from the server, {} from peers, {} wasted, {} of protocol, {} end-game",
            context.offer.seat,
            received.from_server,
            received.from_peers,
            received.wasted,
            progress.protocol,
            progress.counts.endgame
        );
        Ok(Received {
            first: member.first_received(),
            last,
            counts: Counts {
                retransmitted: Some(received.wasted),
                bytes_from_server: Some(received.from_server),
                bytes_from_peers: Some(received.from_peers),
                ..Counts::default()
            },
            evidence: Evidence { client_link_us: member.update_link(), ..Evidence::default() },
        })
    }

    fn serve_others(mut self: Box<Self>, stopped: &AtomicBool) {
        self.write_arrivals();
        self.peer.seed(self.seed_time, stopped);
    }
}

impl SwarmReceiveSession {
    /// Writes when the pieces came, with one call.
    fn write_arrivals(&self) {
        if let Some(mut file) = self.blocks.as_deref()
            && let Err(error) = file.write_all(self.peer.member.note_arrivals().as_bytes())
        {
            log::warn!("cannot write when the pieces came: {error}");
        }
    }
}

impl Drop for SwarmReceiveSession {
    fn drop(&mut self) {
        self.write_arrivals();
    }
}

/// True when the server has closed the control connection, on which it sends nothing meanwhile.
fn server_is_gone(context: &ReceiveContext<'_>) -> bool {
    let closed = socket::is_closed(context.stream);
    closed.unwrap_or_else(|error| error.kind() != std::io::ErrorKind::Interrupted)
}
