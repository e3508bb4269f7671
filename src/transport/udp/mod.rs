//! The file over UDP: reliable to each client (`udp`), reliable to all by multicast, and measured
//! without repair (`raw`).
//!
//! - [`transport`]: the three as the server has them; `seat_control`: what a seat's thread does
//!   meanwhile; [`seat_counters`]: what is counted for a seat
//! - [`send_loop`]: the thread that sends a session's datagrams; `packetize`: makes them;
//!   `block_cache`: reads the file
//! - [`receive`]: the three as a client has them; `reception`: datagrams in; `block_writer`: blocks
//!   to the file; [`group_receiver`]: one socket for all clients of a process in a group
//! - [`lab_server`] and [`lab_client`]: both ends of the lab's own UDP protocol
//! - [`socket`]: sockets that count what this host refuses or drops
//!
//! Formats and state machines stand in [`proto::udp`](crate::proto::udp).

use crate::{server::builder::ServerCoreBuilder, session::Via, transport::udp::config::UdpConfig};

mod block_cache;
mod block_writer;
pub mod config;
pub mod group_receiver;
pub mod lab_client;
pub mod lab_server;
mod packetize;
pub mod receive;
mod reception;
mod seat_control;
pub mod seat_counters;
pub mod send_loop;
pub mod socket;
pub mod transport;

/// Adds the three transports to a server.
pub fn serve(host: ServerCoreBuilder, config: UdpConfig) -> ServerCoreBuilder {
    [Via::Udp, Via::Raw, Via::Multicast]
        .into_iter()
        .fold(host, |host, via| host.transport(Box::new(transport::UdpTransport { via, config })))
}
