//! The chain: the server sends the file to the first client, and each client passes on what it has
//! written while it receives, over plain TCP.
//!
//! - [`feed`]: what one end gives to others, the server's as every client's
//! - [`members`]: the server's connections to the members, and what it tells them
//! - [`send`]: a session of the server
//! - [`upstream`]: from whom a client takes; [`receive`]: a session of a client
//!
//! Who takes from whom is decided by the server alone, in [`crate::proto::chain`].

use std::sync::Arc;

use crate::{
    proto::greeting::Greeting,
    server::builder::ServerCoreBuilder,
    transport::chain::{members::Chains, send::ChainTransport},
};

pub mod feed;
pub mod members;
pub mod receive;
pub mod send;
pub mod upstream;

/// Adds the chain to a server: the way, and the connections of its members.
pub fn serve(host: ServerCoreBuilder) -> ServerCoreBuilder {
    let chains = Arc::new(Chains::default());
    let has_key = host.settings.key.is_some();
    let serving = Arc::clone(&chains);
    host.transport(Box::new(ChainTransport { chains, has_key })).handler(
        Greeting::Chain,
        Arc::new(move |connection, lobby| serving.serve(&connection, lobby)),
    )
}
