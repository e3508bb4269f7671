//! The server's swarms: for each offered file a torrent, a seeder and a tracker.
//!
//! A torrent is made when it is first needed: by a session, or by a GET of the `.torrent`; a server
//! that sends by the swarm only makes all when it starts. Whoever comes with the digest of a torrent
//! finds it or does not: no digest makes the server read a file.
//! Sessions of one file share its swarm.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::{clock, lock, shared_reply, shared_reply::SharedReply},
    proto::{bt::bitfield::Bitfield, json::Json},
    server::{
        catalog::{self, Catalog, Source},
        conversation::LIST_INTERVAL,
        downloads::Downloads,
        listener::Connection,
        lobby::Lobby,
    },
    session::SeatId,
    text::FileName,
    transport::swarm::{
        external_peers::ExternalPeers,
        handshake,
        limits::SEEDER_CONNECTIONS,
        member::SwarmMember,
        peer_id::{Role, random_id, seat_of},
        store::{self, Store},
        torrent::Torrent,
    },
    units::Moment,
};

/// What a server's swarms do beyond the usual.
#[derive(Clone, Debug, Default)]
pub struct SwarmServerConfig {
    /// Write who had which chunk first into this file: the lab's two columns, and what the server
    /// planned.
    pub tracker_file: Option<PathBuf>,
    /// Name the file's own address on this server in the torrent, for programs that fetch over
    /// HTTP too (BEP 19). Each then takes a copy from the server.
    pub web_seed: bool,
    /// Serve only the addresses from which clients have seats.
    pub seats_only: bool,
}

/// All swarms of one server.
#[derive(Debug)]
pub struct Torrents {
    /// What they do.
    pub config: SwarmServerConfig,
    downloads: Arc<Downloads>,
    /// Peers without a seat, of all torrents together.
    external: Arc<ExternalPeers>,
    /// The one that was used last is the last.
    all: Mutex<Vec<Arc<Torrent>>>,
    /// Held while a torrent is made: all clients of a session ask for it at the same time, and the
    /// file must be hashed once. Locked before `all`.
    creating: Mutex<()>,
    /// Held by one GET while its torrent is made: a session waits for one file besides its own at
    /// most. Locked before `creating`.
    asking: Mutex<()>,
    /// The files whose torrents GETs wait for.
    asked: Mutex<BTreeSet<FileName>>,
    /// The document as `/swarm` shows it.
    reply: SharedReply,
}

/// Torrents that a server keeps although nobody uses them. Each has a thread and two open files.
const KEPT_MAX: usize = 64;

/// Most torrents of a server at once.
const TORRENTS_MAX: usize = 1000;

/// Most files whose torrents GETs may wait for.
const ASKED_MAX: usize = 64;

/// Longest document of the swarms, bytes: one of the largest file there may be has room.
const DOCUMENT_MAX: usize = 32 << 20;

/// How often `/swarm` is made anew at most.
const REPLY_INTERVAL: Duration = Duration::from_millis(250);

impl Torrents {
    /// No torrents yet. What peers without a seat are sent is one of `downloads`.
    pub fn new(config: SwarmServerConfig, downloads: Arc<Downloads>) -> Arc<Self> {
        Arc::new(Self {
            config,
            external: ExternalPeers::new(SEEDER_CONNECTIONS, Arc::clone(&downloads)),
            downloads,
            all: Mutex::default(),
            creating: Mutex::default(),
            asking: Mutex::default(),
            asked: Mutex::default(),
            reply: SharedReply::new(),
        })
    }

    /// Makes the torrents of the files of `catalog`, as many as are kept. Then no session waits for
    /// them, and peers that have one from elsewhere are served at once.
    pub fn prepare(&self, catalog: &Catalog) {
        for name in catalog.names().take(KEPT_MAX) {
            let source = catalog.open(name, &catalog::silent);
            if let Err(error) = source.and_then(|source| self.get_or_create(&Arc::new(source))) {
                log::info!("{error}");
            }
        }
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
        if info.bytes == 0 {
            return Err(refuse("what has no bytes has no torrent".to_owned()));
        }
        if !self.make_room() {
            return Err(refuse(format!("sessions use {TORRENTS_MAX} torrents already")));
        }
        let metainfo = store::make_metainfo(&source.file, &info.name, info.bytes)?;
        source.unchanged()?;
        let file = source.file.clone();
        let layout = metainfo.layout();
        let member = SwarmMember::start(
            Arc::new(metainfo),
            Store::new(file, layout),
            Bitfield::full(layout.pieces()),
            random_id(Role::Seeder),
            Role::Seeder,
            Arc::clone(&self.external),
        )?;
        let pacer = self.downloads.pacer.clone();
        let torrent = Arc::new(Torrent::new(Arc::clone(source), member, pacer));
        lock(&self.all).push(Arc::clone(&torrent));
        Ok(torrent)
    }

    /// The torrent of an offered file, for a GET. One is made at a time; whoever asks for another
    /// waits.
    ///
    /// # Errors
    /// As [`Torrents::get_or_create`], no such file is offered, or too many are waited for.
    pub fn by_name(&self, lobby: &Lobby, name: &FileName) -> Result<Arc<Torrent>> {
        // To open a folder is to look at all its files, and anybody may ask over and over.
        let is_recent = |torrent: &Torrent| {
            let at = Moment(torrent.offered_at.load(Ordering::Relaxed));
            let is_it = torrent.source.info.name == *name && torrent.source.tree().is_some();
            is_it && clock::now().since(at) < LIST_INTERVAL
        };
        if let Some(known) = self.find(is_recent) {
            return Ok(known);
        }
        let source = Arc::new(lobby.catalog.open(name, &catalog::silent)?);
        if let Some(known) = self.find(|torrent| torrent.source.info == source.info) {
            known.offered_at.store(clock::now().0, Ordering::Relaxed);
            return Ok(known);
        }
        let mut asked = lock(&self.asked);
        if asked.len() >= ASKED_MAX && !asked.contains(name) {
            let why = "too many torrents are being made; ask again later";
            return Err(Error::refused("gatecast", why));
        }
        asked.insert(name.clone());
        drop(asked);
        let _asking = lock(&self.asking);
        let made = self.get_or_create(&source);
        lock(&self.asked).remove(name);
        made
    }

    /// The torrent of this info-hash, where it was made already, of what is still offered: wrong pieces
    /// are of no use to anybody.
    pub fn by_info_hash(&self, hash: Digest) -> Option<Arc<Torrent>> {
        let found = self.find(|torrent| torrent.member.info_hash == hash)?;
        let unchanged = found.source.unchanged();
        unchanged.inspect_err(|error| log::info!("{error}")).ok().map(|()| found)
    }

    fn find(&self, is_it: impl Fn(&Torrent) -> bool) -> Option<Arc<Torrent>> {
        let mut all = lock(&self.all);
        let at = all.iter().position(|torrent| is_it(torrent))?;
        let found = all.remove(at);
        all.push(Arc::clone(&found));
        Some(found)
    }

    /// Makes room for one more torrent: of those that nobody uses, the ones that were used longest
    /// ago go. Where there are too many, those go too that no session uses. False if there is none.
    fn make_room(&self) -> bool {
        let mut all = lock(&self.all);
        // Sessions, connections and requests hold theirs.
        let is_unused = |torrent: &Arc<Torrent>| {
            Arc::strong_count(torrent) == 1 && torrent.member.connections() == 0
        };
        while all.len() >= KEPT_MAX {
            let mut goes = all.iter().position(is_unused);
            if all.len() >= TORRENTS_MAX {
                goes = goes.or_else(|| all.iter().position(|torrent| !torrent.has_session()));
            }
            match goes {
                Some(at) => all.remove(at).member.close(),
                None => break,
            }
        }
        all.len() < TORRENTS_MAX
    }

    /// Serves a peer that connects to the server.
    pub fn serve(&self, connection: Connection) {
        let Connection { stream, peer, first, deadline } = connection;
        let is_of =
            |torrent: &Torrent| torrent.has_session() && torrent.member.has_seat_at(peer.ip());
        if self.config.seats_only && !self.snapshot().iter().any(|torrent| is_of(torrent)) {
            return log::info!("{peer}: no client of a session is at its address");
        }
        let mut found = None;
        let accepted = handshake::accept(&stream, peer, first, deadline, |hash| {
            found = self.by_info_hash(hash);
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

    /// Who is in which swarm and who has which chunk, as `gatecast.swarm/1`; the swarm that was used
    /// last is the first.
    pub fn document(&self) -> String {
        let all = self.snapshot();
        let entries = all.iter().rev();
        document_of(
            entries.map(|torrent| Json::object(|json| torrent.write_json(json))),
            DOCUMENT_MAX,
        )
    }

    /// The document, made once for all who ask for it at a time.
    pub fn reply(&self) -> Arc<[u8]> {
        let make = || Ok::<_, Infallible>(self.document().into_bytes());
        let Ok(reply) = self.reply.get(shared_reply::stamp_of_now(REPLY_INTERVAL), make);
        reply
    }

    /// The torrents of this moment.
    pub(super) fn snapshot(&self) -> Vec<Arc<Torrent>> {
        lock(&self.all).clone()
    }
}

/// The document with the entries for which there is room.
fn document_of(entries: impl Iterator<Item = String>, mut room: usize) -> String {
    let mut left_out = 0;
    Json::object(|json| {
        json.text("schema", "gatecast.swarm/1");
        json.list("swarms", |json| {
            for entry in entries {
                match room.checked_sub(entry.len()) {
                    Some(rest) => {
                        room = rest;
                        json.item_raw(&entry);
                    }
                    None => left_out += 1,
                }
            }
        });
        json.count("left_out", Some(left_out));
    })
}

impl Drop for Torrents {
    fn drop(&mut self) {
        lock(&self.all).iter().for_each(|torrent| torrent.member.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_leaves_out_what_has_no_room() {
        let entry = |name: &str| Json::object(|json| json.text("file", name));
        let entries = || ["a", "b", "c"].into_iter().map(entry);
        let all = document_of(entries(), 3 * entry("a").len());
        let listed = "[{\"file\":\"a\"},{\"file\":\"b\"},{\"file\":\"c\"}]";
        let expected = |listed: &str, left_out: u32| {
            format!(
                "{{\"schema\":\"gatecast.swarm/1\",\"swarms\":{listed},\"left_out\":{left_out}}}"
            )
        };
        assert_eq!(all, expected(listed, 0));
        let most = 3 * entry("a").len() - 1;
        assert_eq!(
            document_of(entries(), most),
            expected(&listed.replace(",{\"file\":\"c\"}", ""), 1)
        );
        assert_eq!(document_of(entries(), 0), expected("[]", 3));
    }
}
