//! What the server's swarms answer over HTTP: the tracker (`/announce`, `/scrape`), the state of
//! the swarms (`/swarm`) and `.torrent` files.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    net::{clock, lock},
    proto::{
        bt::tracker::{
            announce::{Announce, AnnounceEvent},
            response, scrape,
        },
        http::{request::HttpRequest, response::HttpResponse, text::percent_encode},
        line::DecodeError,
    },
    server::lobby::Lobby,
    text::FileName,
    transport::swarm::{address::unmapped, torrent::Torrent, torrents::Torrents},
};

/// How long a peer that announced itself gets to dial our seeder before the seeder dials it.
/// Transmission dials nobody on loopback, and libtorrent asks for peers only every five minutes.
const DIAL_AFTER: Duration = Duration::from_millis(300);

impl Torrents {
    /// Answers a GET, which came from `peer` to our address `local`; `None` if its path belongs to
    /// no swarm.
    pub fn answer(
        &self,
        request: &HttpRequest,
        peer: SocketAddr,
        local: SocketAddr,
        lobby: &Lobby,
    ) -> Option<HttpResponse> {
        // Its clients announce themselves once more when their session has ended.
        let has_seat = |torrent: &Arc<Torrent>| torrent.member.has_seat_at(peer.ip());
        let is_ours = matches!(&*request.path, "/announce" | "/scrape" | "/swarm")
            || request.path.ends_with(".torrent");
        let is_here = request.path == "/swarm" && peer.ip().to_canonical().is_loopback();
        if is_ours && self.config.seats_only && !is_here && !self.snapshot().iter().any(has_seat) {
            let why = "with a key the swarm is for the clients of its sessions; serve --open swarm \
                       lets others in";
            return Some(HttpResponse::text(403, why));
        }
        let query = request.query.as_deref().unwrap_or_default();
        if request.path == "/announce" && is_of_browser(request) {
            let body = response::encode_failure("a browser cannot be a peer");
            return Some(HttpResponse::new(200, "text/plain", body));
        }
        // A failure is a response like any other (BEP 3).
        let tracker = |result: Result<Vec<u8>, DecodeError>| {
            let body = result.unwrap_or_else(|error| response::encode_failure(&error.to_string()));
            HttpResponse::new(200, "text/plain", body)
        };
        Some(match &*request.path {
            "/announce" => tracker(self.announce(query, peer, local)),
            "/scrape" => tracker(self.scrape(query)),
            "/swarm" => HttpResponse::shared(200, "application/json", self.reply()),
            path => {
                let name = path.strip_prefix('/')?.strip_suffix(".torrent")?;
                let name = FileName::new(name).ok()?;
                // An offered file may itself have a name that ends in `.torrent`.
                if !lobby.catalog.names().any(|offered| *offered == name) {
                    return None;
                }
                match self.by_name(lobby, &name) {
                    Ok(torrent) => {
                        let body = self.torrent_file(&torrent, local);
                        HttpResponse::shared(200, "application/x-bittorrent", body)
                    }
                    Err(error) => HttpResponse::new(404, "text/plain", format!("{error}\n")),
                }
            }
        })
    }

    /// The `.torrent` for who came to our address `local`; made once for all who do, as that of a
    /// folder may be long.
    fn torrent_file(&self, torrent: &Torrent, local: SocketAddr) -> Arc<[u8]> {
        let local = unmapped(local);
        let mut made = lock(&torrent.file);
        if let Some((_, file)) = made.as_ref().filter(|(at, _)| *at == local) {
            return Arc::clone(file);
        }
        let announce = format!("http://{local}/announce");
        let name = percent_encode(torrent.source.info.name.as_str());
        // There is no address for the files of a folder.
        let has_seed = self.config.web_seed && torrent.source.tree().is_none();
        let web_seed = has_seed.then(|| format!("http://{local}/{name}"));
        let metainfo = &torrent.member.metainfo;
        let file = metainfo.encode(Some(&announce), web_seed.as_deref()).into();
        Arc::clone(&made.insert((local, file)).1)
    }

    fn announce(
        &self,
        query: &str,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Vec<u8>, DecodeError> {
        let announce = Announce::decode(query)?;
        let torrent = self.by_info_hash(announce.info_hash).ok_or_else(|| {
            DecodeError("no such torrent is known here; GET its /NAME.torrent first".to_owned())
        })?;
        let ip = peer.ip().to_canonical();
        let has_seat = torrent.member.has_seat(announce.peer_id, ip);
        let response = lock(&torrent.registry).announce(
            &announce,
            ip,
            has_seat,
            unmapped(local),
            clock::now(),
        )?;
        if announce.event != AnnounceEvent::Stopped && announce.left != Some(0) {
            let addr = SocketAddr::new(ip, announce.port);
            let due = clock::now().after(DIAL_AFTER);
            torrent.member.schedule_dial(due, addr, announce.peer_id);
        }
        if has_seat || torrent.member.is_released() {
            return Ok(response.encode());
        }
        let name = &torrent.source.info.name;
        Ok(response.encode_with(&format!("'{name}' waits for the clients of a session")))
    }

    fn scrape(&self, query: &str) -> Result<Vec<u8>, DecodeError> {
        let hashes = scrape::decode_query(query)?;
        let torrents = self.snapshot();
        let torrents = torrents
            .iter()
            .map(|torrent| (torrent.member.info_hash, lock(&torrent.registry).counts()))
            .filter(|(hash, _)| hashes.is_empty() || hashes.contains(hash));
        Ok(scrape::encode(torrents))
    }
}

/// True for what a browser sends: a page of another site can make it GET `/announce`, and the
/// seeder would dial its host. No program that is a peer calls itself so or says whose page asks.
fn is_of_browser(request: &HttpRequest) -> bool {
    let field = |name: &str| request.headers.get(name);
    field("user-agent").is_some_and(|agent| agent.starts_with("Mozilla/"))
        || ["origin", "referer", "sec-fetch-site"].into_iter().any(|name| field(name).is_some())
}
