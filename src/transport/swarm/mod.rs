//! The swarm: each peer takes a part from the server and gives it to the others, speaking
//! BitTorrent v1, so that the world's clients can sit in the same session.
//!
//! - [`member`], [`link`], [`store`]: one copy, its connections, its bytes; the same for the
//!   server's seeder and for every peer
//! - [`connect`]: how two peers greet
//! - [`torrents`], [`tracker`]: the server's swarms and who is in them
//! - [`way`]: the swarm at the gate, as the server has it
//! - [`peer`]: the same as a client has it
//! - [`announce`]: a peer and its tracker
//! - [`leech`]: a `.torrent` of anybody's, without a gate
//! - [`face`]: the routes of a tracker, for a server without other HTTP
//! - [`simulate`]: a whole swarm in virtual time
//!
//! No DHT, no peer exchange, no encryption, no choking by merit: everybody in a session wants the
//! same file at the same time, and nobody is better off for being mean.

use std::sync::Arc;

use crate::error::Result;
use crate::proto::greeting::Greeting;
use crate::server::builder::ServerCoreBuilder;
use crate::session::Via;
use crate::transport::swarm::torrents::Options;
use crate::transport::swarm::torrents::Torrents;

pub mod announce;
pub mod connect;
pub mod face;
pub mod leech;
pub mod link;
pub mod member;
pub mod peer;
pub mod simulate;
pub mod store;
pub mod torrents;
pub mod tracker;
pub mod way;

/// Adds the swarm to a server: the way, and the peers that greet it. Its HTTP is in the returned
/// [`Torrents`], for whoever answers HTTP on the port; [`serve_http`] does where nobody else does.
pub fn serve(host: ServerCoreBuilder, mut options: Options) -> (ServerCoreBuilder, Arc<Torrents>) {
    // A server that sends by nothing else keeps everybody for the gate.
    options.gated |= host.settings().via == Some(Via::Swarm);
    let torrents = Torrents::new(options);
    let greeting = Arc::clone(&torrents);
    let host = host
        .transport(Box::new(way::Swarm::new(Arc::clone(&torrents))))
        .handler(
            Greeting::Swarm,
            Arc::new(move |connection, lobby| greeting.greet(connection, lobby)),
        );
    (host, torrents)
}

/// Lets the swarms answer HTTP themselves.
pub fn serve_http(host: ServerCoreBuilder, torrents: Arc<Torrents>) -> ServerCoreBuilder {
    host.handler(
        Greeting::Http,
        Arc::new(move |connection, lobby| face::serve(&connection, &torrents, lobby)),
    )
}

/// Fetches over the swarm; the clients run until each has come to its end.
///
/// # Errors
/// The order cannot be begun; what happens to a client later is in its
/// [`End`](crate::client::End).
pub fn fetch(order: &crate::client::FetchConfig) -> Result<Vec<crate::client::ClientReport>> {
    crate::client::FetchRun::new(order).run(order, &[&peer::Swarm])
}
