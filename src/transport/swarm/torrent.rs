//! One file's swarm on a server: its seeder, and the peers that its tracker knows.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use crate::{
    error::Error,
    net::{clock, lock, pacing::Pacer},
    proto::{
        bt::{tracker::announce::Share, wire::PeerId},
        json::Json,
    },
    server::catalog::Source,
    text::{escape, escape_path},
    transport::swarm::{
        member::SwarmMember,
        peer_id::{name_of, seat_of},
        peer_registry::PeerRegistry,
    },
};

/// One file's swarm.
#[derive(Debug)]
pub struct Torrent {
    /// The file.
    pub source: Arc<Source>,
    /// Our seeder.
    pub member: Arc<SwarmMember>,
    /// The peers that the tracker knows.
    pub(super) registry: Mutex<PeerRegistry>,
    /// When its source was last found to be what is offered, as a [`Moment`](crate::units::Moment).
    pub(super) offered_at: AtomicU64,
    /// The `.torrent` as it was last asked for, and at which of our addresses.
    pub(super) file: Mutex<Option<(SocketAddr, Arc<[u8]>)>>,
    /// Holds the rate of what is sent outside of sessions.
    pacer: Option<Arc<Pacer>>,
    /// Sessions that have begun and not ended.
    sessions: Mutex<usize>,
}

/// What one seated client got from whom, as it told the tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTransfers {
    /// Its id.
    pub id: PeerId,
    /// Its name.
    pub peer: String,
    /// It has the whole file.
    pub complete: bool,
    /// Payload bytes that came from the server.
    pub from_server: u64,
    /// Payload bytes that came from other peers.
    pub from_peers: Vec<(String, u64)>,
    /// Payload bytes that others had from it, as these tell.
    pub sent: u64,
}

impl Torrent {
    /// The swarm of `source`, with our seeder in it. Until a session begins, everybody who has the
    /// torrent is served at once, at the rate of `pacer`.
    pub fn new(source: Arc<Source>, member: Arc<SwarmMember>, pacer: Option<Arc<Pacer>>) -> Self {
        let torrent = Self {
            source,
            member,
            registry: Mutex::new(PeerRegistry::new(clock::random())),
            offered_at: AtomicU64::new(clock::now().0),
            file: Mutex::default(),
            pacer,
            sessions: Mutex::default(),
        };
        torrent.serve_everybody();
        torrent
    }

    fn serve_everybody(&self) {
        *lock(&self.member.pacer) = self.pacer.clone();
        self.member.release();
    }

    /// A session of this file begins: nobody is served until it is released, unless another
    /// session of it is running.
    pub fn begin_session(&self) {
        let mut sessions = lock(&self.sessions);
        *sessions += 1;
        if *sessions == 1 {
            self.member.hold();
            lock(&self.registry).reports.clear();
        }
    }

    /// True while a session of this file has begun and not ended.
    pub fn has_session(&self) -> bool {
        *lock(&self.sessions) > 0
    }

    /// A session of this file has ended, released or not.
    pub fn end_session(&self) {
        let mut sessions = lock(&self.sessions);
        *sessions -= 1;
        if *sessions == 0 {
            self.serve_everybody();
        }
    }

    /// What each seated client got from whom, as they told the tracker.
    pub fn transfers(&self) -> Vec<PeerTransfers> {
        let reports = lock(&self.registry).reports.clone();
        let name = |id: &PeerId| match (reports.get(id), seat_of(id)) {
            (Some(report), _) => name_of(id, report.addr),
            (None, Some(seat)) => format!("C{}", seat.0),
            (None, None) => escape(&String::from_utf8_lossy(id)),
        };
        let mut sent: BTreeMap<PeerId, u64> = BTreeMap::new();
        for (id, bytes) in reports.values().flat_map(|report| &report.shares) {
            let sum = sent.entry(*id).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        let server = self.member.id;
        let transfers = reports.iter().map(|(id, report)| {
            let (own, others): (Vec<&Share>, Vec<&Share>) =
                report.shares.iter().partition(|share| share.0 == server);
            PeerTransfers {
                id: *id,
                peer: name(id),
                complete: report.complete,
                from_server: own.first().map_or(0, |share| share.1),
                from_peers: others.iter().map(|share| (name(&share.0), share.1)).collect(),
                sent: sent.get(id).copied().unwrap_or(0),
            }
        });
        transfers.collect()
    }

    /// Writes the entry of this swarm in `gatecast.swarm/1`.
    pub fn write_json(&self, json: &mut Json) {
        json.text("file", self.source.info.name.as_str());
        json.text("info_hash", self.member.info_hash.to_string());
        json.truth("released", self.member.is_released());
        json.count("protocol_bytes", Some(self.member.progress().protocol));
        json.list("peers", |json| {
            for peer in self.member.connected_peers() {
                json.item(|json| {
                    json.text("peer", name_of(&peer.id, peer.addr));
                    json.text("address", peer.addr.to_string());
                    json.truth("gatecast", peer.is_gatecast);
                    json.count("pieces", Some(u64::from(peer.pieces)));
                    json.count("bytes_from_server", Some(peer.traffic.sent));
                });
            }
        });
        json.list("moved", |json| {
            for transfers in self.transfers() {
                json.item(|json| {
                    json.text("peer", &transfers.peer);
                    json.truth("whole", transfers.complete);
                    json.count("bytes_from_server", Some(transfers.from_server));
                    json.list("bytes_from", |json| {
                        for (peer, bytes) in &transfers.from_peers {
                            json.item(|json| {
                                json.text("peer", peer);
                                json.count("bytes", Some(*bytes));
                            });
                        }
                    });
                    json.count("bytes_sent", Some(transfers.sent));
                });
            }
        });
        json.list("chunks", |json| {
            for (chunk, (first, copies)) in (0..).zip(self.member.piece_holders()) {
                json.item(|json| {
                    json.count("chunk", Some(chunk));
                    json.maybe_text("first", first.map(|(id, addr)| name_of(&id, addr)));
                    json.count("copies", Some(u64::from(copies)));
                });
            }
        });
    }

    /// A line for each chunk: its number, which client was the first to tell that it has it, and in
    /// which turn the server means to offer it. Before the release only the turns are known.
    pub fn holder_table(&self) -> String {
        let chunks = (0..).zip(self.member.piece_holders());
        chunks.fold(String::new(), |text, (chunk, (first, _))| {
            let peer = first.map_or_else(|| "-".to_owned(), |(id, addr)| name_of(&id, addr));
            let turn = self
                .member
                .piece_turn(chunk)
                .map_or_else(|| "-".to_owned(), |turn| turn.to_string());
            format!("{text}{chunk}\t{peer}\t{turn}\n")
        })
    }

    /// Writes that table into `path`, if there is one; what fails is told and costs only the table.
    pub fn write_holders(&self, path: Option<&Path>) {
        if let Some(path) = path
            && let Err(error) = fs::write(path, self.holder_table())
        {
            let at = escape_path(path);
            log::warn!("{}", Error::io("write who has which chunk", at)(error));
        }
    }
}
