//! The server's swarms: for each offered file a torrent, a seeder and a tracker.
//!
//! A torrent is made when it is first needed: by a session, by a GET of the `.torrent`, or by a
//! peer that has one already. Sessions of one file share its swarm.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::lock,
    proto::{bt::bitfield::Bitfield, json::Json},
    server::{
        catalog::{self, Source},
        listener::Connection,
        lobby::Lobby,
    },
    session::SeatId,
    text::FileName,
    transport::swarm::{
        handshake,
        member::SwarmMember,
        peer_id::{Role, random_id, seat_of},
        store::{self, Store},
        torrent::Torrent,
    },
};

/// What a server's swarms do beyond the usual.
#[derive(Clone, Debug, Default)]
pub struct SwarmServerConfig {
    /// Write who had which chunk first into this file, in the lab's two columns.
    pub tracker_file: Option<PathBuf>,
    /// Name the file's own address on this server in the torrent, for programs that fetch over
    /// HTTP too (BEP 19). Each then takes a copy from the server.
    pub web_seed: bool,
    /// Serve nobody before the first session of a file is released.
    pub gated: bool,
    /// Serve only the addresses from which clients have seats.
    pub seats_only: bool,
}

/// All swarms of one server.
#[derive(Debug)]
pub struct Torrents {
    /// What they do.
    pub config: SwarmServerConfig,
    all: Mutex<Vec<Arc<Torrent>>>,
    /// Held while a torrent is made: all clients of a session ask for it at the same time, and the
    /// file must be hashed once. Locked before `all`.
    creating: Mutex<()>,
    /// The files whose torrents were made, or could not be made, for an unknown info-hash. Locked
    /// before `creating`.
    tried: Mutex<BTreeSet<FileName>>,
}

/// Most files of which a server has torrents at once.
const TORRENTS_MAX: usize = 1000;

impl Torrents {
    /// No torrents yet.
    pub fn new(config: SwarmServerConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            all: Mutex::default(),
            creating: Mutex::default(),
            tried: Mutex::default(),
        })
    }

    /// The torrent of `source`, made if there is none.
    ///
    /// # Errors
    /// The file is empty, changed while it was read, or cannot be read.
    pub fn get_or_create(&self, source: &Arc<Source>) -> Result<Arc<Torrent>> {
        let info = &source.info;
        let known = || self.find(|torrent| torrent.source.info == *info);
        if let Some(torrent) = known() {
            return Ok(torrent);
        }
        let _creating = lock(&self.creating);
        if let Some(torrent) = known() {
            return Ok(torrent);
        }
        let refuse = |why: String| Error::refused("gatecast", format!("'{}': {why}", info.name));
        if self.is_full() {
            return Err(refuse(format!("there are {TORRENTS_MAX} torrents already")));
        }
        if info.bytes == 0 {
            return Err(refuse("an empty file has no torrent".to_owned()));
        }
        let metainfo = store::make_metainfo(&source.file, &info.name, info.bytes)?;
        source.unchanged()?;
        let file = source.file.try_clone().map_err(Error::io("open the file again", &info.name))?;
        let layout = metainfo.layout();
        let member = SwarmMember::start(
            Arc::new(metainfo),
            Store::new(file, layout),
            Bitfield::full(layout.pieces()),
            random_id(Role::Seeder),
            Role::Seeder,
        )?;
        if !self.config.gated {
            // Until a session holds it, everybody who has the torrent is served.
            member.release();
        }
        let torrent = Arc::new(Torrent::new(Arc::clone(source), member));
        self.lock().push(Arc::clone(&torrent));
        Ok(torrent)
    }

    /// The torrent of an offered file.
    ///
    /// # Errors
    /// As [`Torrents::get_or_create`], or no such file is offered.
    pub fn by_name(&self, lobby: &Lobby, name: &FileName) -> Result<Arc<Torrent>> {
        self.get_or_create(&Arc::new(lobby.catalog.open(name, &catalog::silent)?))
    }

    /// The torrent of this info-hash. A peer may have a `.torrent` of a file whose own was never
    /// asked for here, so the first unknown hash makes the torrents of all files.
    pub fn by_info_hash(&self, lobby: &Lobby, hash: Digest) -> Option<Arc<Torrent>> {
        let known = || self.find(|torrent| torrent.member.info_hash == hash);
        if let Some(found) = known() {
            return Some(found);
        }
        // Each file once: an unknown hash must not have the whole catalog read every time.
        let mut tried = lock(&self.tried);
        for name in lobby.catalog.names() {
            if self.is_full() {
                break;
            }
            let made = self.find(|torrent| torrent.source.info.name == *name);
            if made.is_none()
                && tried.insert(name.clone())
                && let Err(error) = self.by_name(lobby, name)
            {
                log::debug!("{error}");
            }
        }
        known()
    }

    fn find(&self, is_it: impl Fn(&Torrent) -> bool) -> Option<Arc<Torrent>> {
        let all = self.lock();
        all.iter().find(|torrent| is_it(torrent)).map(Arc::clone)
    }

    fn is_full(&self) -> bool {
        self.lock().len() >= TORRENTS_MAX
    }

    /// Serves a peer that connects to the server.
    pub fn serve(&self, connection: Connection, lobby: &Lobby) {
        let Connection { stream, peer, first, deadline } = connection;
        let mut all = self.snapshot().into_iter();
        if self.config.seats_only && !all.any(|torrent| torrent.has_client_at(peer.ip())) {
            return log::info!("{peer}: no client of a session is at its address");
        }
        let mut found = None;
        let accepted = handshake::accept(&stream, peer, first, deadline, |hash| {
            found = self.by_info_hash(lobby, hash);
            found.as_ref().map(|torrent| torrent.member.handshake())
        });
        match (accepted, found) {
            (Ok(theirs), Some(torrent)) => torrent.member.serve(stream, peer, theirs),
            (Ok(_), None) => {}
            (Err(error), _) => log::debug!("{error}"),
        }
    }

    /// Payload bytes that each seated client sent to others, as these tell.
    pub fn sent_by_seat(&self) -> Vec<(SeatId, u64)> {
        let all = self.snapshot();
        let transfers = all.iter().flat_map(|torrent| torrent.transfers());
        transfers.filter_map(|transfers| Some((seat_of(&transfers.id)?, transfers.sent))).collect()
    }

    /// Who is in which swarm and who has which chunk, as `gatecast.swarm/1`.
    pub fn document(&self) -> String {
        let all = self.snapshot();
        Json::object(|json| {
            json.text("schema", "gatecast.swarm/1");
            json.list("swarms", |json| {
                for torrent in &all {
                    json.item(|json| torrent.write_json(json));
                }
            });
        })
    }

    /// The torrents of this moment.
    pub(super) fn snapshot(&self) -> Vec<Arc<Torrent>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Torrent>>> {
        lock(&self.all)
    }
}

impl Drop for Torrents {
    fn drop(&mut self) {
        self.lock().iter().for_each(|torrent| torrent.member.close());
    }
}
