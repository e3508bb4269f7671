//! The swarm: each client takes a part of the file from the server and gives it to the others.
//! Peers speak BitTorrent v1, so that other programs can take part too.
//!
//! - [`member`]: one copy and its connections, the same for the server's seeder and every client;
//!   [`store`]: its bytes on disk; [`limits`]: how many connections it has
//! - [`peer_connection`], [`outbox`]: one connection; [`handshake`]: how it begins
//! - [`peer_id`], [`address`]: ids, roles and addresses of peers; [`external_peers`]: those without a seat
//! - [`torrents`], [`torrent`]: the server's swarms; [`send`]: a session of one
//! - [`endpoints`], [`peer_registry`]: what the server answers over HTTP, and its tracker
//! - [`peer`], [`announcer`]: a client's peer and its tracker; [`receive`]: a session of it
//! - [`leech`]: the download of any `.torrent`, without a gate
//! - [`simulate`]: a whole swarm in virtual time
//!
//! There is no DHT, no peer exchange, no encryption and no choking by merit: everybody in a session
//! wants the same file at the same time, and nobody gains by giving less.

use std::sync::Arc;

use crate::{
    proto::greeting::Greeting,
    server::{builder::ServerCoreBuilder, config::AutoMode},
    session::Via,
    transport::swarm::{
        send::SwarmTransport,
        torrents::{SwarmServerConfig, Torrents},
    },
};

pub mod address;
pub mod announcer;
pub mod endpoints;
pub mod external_peers;
pub mod handshake;
pub mod leech;
pub mod limits;
pub mod member;
pub mod outbox;
pub mod peer;
pub mod peer_connection;
pub mod peer_id;
pub mod peer_registry;
pub mod receive;
pub mod send;
pub mod simulate;
pub mod store;
pub mod torrent;
pub mod torrents;

/// Adds the swarm to a server: its transport, and the peers that connect. The returned
/// [`Torrents`] answer HTTP, for a server that has HTTP on its port.
pub fn serve(
    host: ServerCoreBuilder,
    mut config: SwarmServerConfig,
) -> (ServerCoreBuilder, Arc<Torrents>) {
    config.seats_only |= host.settings.closes(Greeting::Swarm);
    let torrents = Torrents::new(config, Arc::clone(&host.downloads));
    if host.settings.via == Some(Via::Swarm) || host.settings.auto == AutoMode::Always {
        torrents.prepare(&host.catalog);
    }
    let serving = Arc::clone(&torrents);
    let host = host
        .transport(Box::new(SwarmTransport { torrents: Arc::clone(&torrents) }))
        .handler(Greeting::Swarm, Arc::new(move |connection, _| serving.serve(connection)));
    (host, torrents)
}
