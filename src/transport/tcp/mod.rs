//! The file over each client's own TCP connection, to native clients and the lab's.
//!
//! - [`send`]: the way as the server has it, with its fair start
//! - [`lab`]: the lab's TCP client, served at the same gate
//! - [`lab_client`]: our client at the lab's TCP server
//! - [`receive`]: the way as a client has it

use std::sync::Arc;

use crate::{
    error::Result, proto::greeting::Greeting, server::builder::ServerCoreBuilder, session::Via,
};

pub mod lab;
pub mod lab_client;
pub mod receive;
pub mod send;

/// Adds TCP to a server: the way, and the lab's clients.
///
/// # Errors
/// The settings ask for a copy or a congestion control that this system does not have.
pub fn serve(host: ServerCoreBuilder) -> Result<ServerCoreBuilder> {
    let way = send::TcpTransport::new(Via::Tcp, &host.settings)?;
    let closed = host.settings.closes(Greeting::Lab);
    let host = host.transport(Box::new(way));
    Ok(if closed { host } else { host.handler(Greeting::Lab, Arc::new(lab::serve)) })
}
