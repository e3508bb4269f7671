//! HTTP on the server's port: files for curl, a page for people, events and metrics for machines.
//!
//! Imports go down this list only:
//!
//! - [`serve`]: registers HTTP with a server
//! - `router`: the fixed table of routes; nothing outside it can be reached
//! - `files`, `gate`: a file at once; a file when the gate opens, in a seat like any other
//! - `sessions`, `metrics`, `subscribe`: results, figures for Prometheus, the stream of events
//! - `state`: what all connections share, and what a handler knows of its request
//! - `receipts`: scripts attest the digests of their copies
//! - `replies`: what costs is made once for many readers
//! - [`feed`], [`event`]: the one snapshot that every subscriber gets, and how it is written
//! - [`config`]: how all this behaves
//!
//! Beside them stands [`client`], a client of this server and of any other HTTP server. Sessions
//! via HTTP are sent by TCP's transport: only the head before the payload differs.
//!
//! This is no web framework. It shows only what the logger has written and what the lobby's views
//! say. Paths outside the table go to [`HttpConfig::extra`]: the swarm's tracker has `/announce`,
//! `/swarm` and `/NAME.torrent` on the same port. Each connection has a thread, so that a slow
//! reader delays nobody else.

use std::sync::Arc;

use crate::{
    error::Result, http::state::HttpServer, proto::greeting::Greeting,
    server::builder::ServerCoreBuilder, session::Via, transport::tcp::send::TcpTransport,
};

pub mod client;
pub mod config;
pub mod event;
pub mod feed;
mod files;
mod gate;
mod metrics;
mod receipts;
mod replies;
mod router;
mod sessions;
mod state;
mod subscribe;

pub use config::{Documents, HttpConfig};
pub use metrics::METRICS;

/// Adds HTTP to a server: its routes, and the transport that `--via http` names.
///
/// # Errors
/// The settings ask for a copy method that this system does not have.
pub fn serve(host: ServerCoreBuilder, config: HttpConfig) -> Result<ServerCoreBuilder> {
    let server = Arc::new(HttpServer::new(&host.settings, Arc::clone(&host.downloads), config)?);
    let transport = TcpTransport::new(Via::Http, &host.settings)?;
    Ok(host.transport(Box::new(transport)).handler(
        Greeting::Http,
        Arc::new(move |connection, lobby| router::serve(&server, connection, lobby)),
    ))
}
