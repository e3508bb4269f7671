//! The HTTP face on the one port: files for curl, a page for whoever looks, events and metrics
//! for machines.
//!
//! - [`serve`]: registers the face with a server
//! - [`connection`]: requests off a connection, answers onto it
//! - [`routes`]: the fixed table of what there is; nothing outside it is reachable
//! - [`files`], [`gate`]: a file at once; a file when the gate opens, in a seat like any other
//! - [`receipt`]: a script attests the digest of its copy
//! - [`board`], [`event`]: the one snapshot that every face shows, and how it is written
//! - [`metrics`]: the same for Prometheus
//! - [`guard`]: who may look and who may change something
//! - [`way`]: HTTP as a way of sending, for `--via http`
//! - [`client`]: a client of this face, and of any other HTTP server
//!
//! It is no web framework: it answers what [`routes`] names, and hands what is not there to whoever
//! started it ([`Options::extra`]): so the swarm's tracker has `/announce`, `/swarm` and
//! `/NAME.torrent` on the same port. It shows only what the logger has
//! written and what the lobby's views say. A thread per connection; a slow reader costs its own.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::error::Result;
use crate::http::board::Board;
use crate::http::connection::Reply;
use crate::http::receipt::Receipts;
use crate::net::copy;
use crate::net::pacing::Pacer;
use crate::proto::greeting::Greeting;
use crate::proto::http::request::Request;
use crate::server::builder::ServerCoreBuilder;
use crate::server::lobby::Lobby;
use crate::transfer::Record;

pub mod board;
pub mod client;
pub mod connection;
pub mod event;
pub mod files;
pub mod gate;
pub mod guard;
pub mod metrics;
pub mod receipt;
pub mod routes;
pub mod way;

/// How the face behaves; [`Options::default`] looks and never changes anything from elsewhere.
#[derive(Clone, Default)]
pub struct Options {
    /// What must be shown to change something; a random one unless given. Loopback's page has it.
    pub token: Option<String>,
    /// From where changes are taken besides loopback, with the token.
    pub control_from: Vec<IpAddr>,
    /// Host names by which this server may be asked, besides its addresses and its own name.
    pub hosts: Vec<String>,
    /// How sessions are written for downloads.
    pub documents: Documents,
    /// Answers paths for another service, for instance a tracker's `/announce`.
    pub extra: Option<Extra>,
}

/// Answers a path for another service: gets the request, the client's address and the local one;
/// `None` where the path is none of its own.
pub type Extra =
    Arc<dyn Fn(&Request, SocketAddr, SocketAddr, &Lobby) -> Option<Reply> + Send + Sync>;

/// Writes sessions as documents. The face knows no formats; who starts it gives it these.
#[derive(Clone, Copy, Debug, Default)]
pub struct Documents {
    /// One session as `gatecast.session/1`, on one line.
    pub json: Option<fn(&Record) -> String>,
    /// Transfers as CSV.
    pub csv: Option<fn(&[Record]) -> String>,
    /// Rates against the number of clients as SVG.
    pub svg: Option<fn(&[Record]) -> String>,
}

/// The face of one server.
pub struct Face {
    options: Options,
    token: String,
    board: Board,
    receipts: Receipts,
    method: copy::Method,
    stall: Duration,
    /// Shared by all downloads outside of sessions, where the server has a rate.
    pacer: Option<Pacer>,
    counts: Counts,
}

/// What the face counts of itself.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    requests: [AtomicU64; 5],
    bytes_at_once: AtomicU64,
    subscribers: AtomicUsize,
}

/// Adds HTTP to a server: the face, and the way that `--via http` names.
///
/// # Errors
/// The settings ask for a copy that this system does not have.
pub fn serve(host: ServerCoreBuilder, options: Options) -> Result<ServerCoreBuilder> {
    let face = Arc::new(Face::new(&host, options)?);
    let way = way::Http::new(host.settings())?;
    Ok(host.transport(Box::new(way)).handler(
        Greeting::Http,
        Arc::new(move |connection, lobby| face.serve(connection, lobby)),
    ))
}

impl Face {
    fn new(host: &ServerCoreBuilder, options: Options) -> Result<Self> {
        let method = host
            .settings()
            .copy
            .resolved()
            .map_err(|why| crate::error::Error::refused("gatecast", why))?;
        Ok(Self {
            token: options.token.clone().unwrap_or_else(guard::random_token),
            board: Board::new(options.documents),
            receipts: Receipts::default(),
            method,
            stall: host.settings().stall,
            pacer: host.settings().rate.map(Pacer::new),
            counts: Counts::default(),
            options,
        })
    }
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").finish_non_exhaustive()
    }
}
