//! The file over UDP: measured raw, reliable to each client, reliable to all by multicast.
//!
//! - [`way`]: the three ways as the server has them
//! - [`pump`]: the thread that sends a session's datagrams, `load` what goes into each; `attend`:
//!   what a seat's thread does meanwhile; [`tally`]: what is counted for a seat
//! - [`take`]: the three ways as a client has them; `reception`: datagrams in; `writer`: blocks to
//!   the file
//! - [`hub`]: one socket for all clients of a process in a group
//! - [`lab`] and [`menu`]: server and client of the lab's own UDP protocol
//! - [`socket`]: sockets that count what this host refuses or drops
//!
//! Formats and machines stand in [`proto::udp`](crate::proto::udp).

use crate::server::builder::ServerCoreBuilder;
use crate::session::Via;
use crate::transport::udp::config::UdpConfig;

mod attend;
pub mod config;
pub mod hub;
pub mod lab;
mod load;
pub mod menu;
pub mod pump;
mod reception;
pub mod socket;
pub mod take;
pub mod tally;
pub mod way;
mod writer;

/// Adds the three ways to a server.
pub fn serve(host: ServerCoreBuilder, config: UdpConfig) -> ServerCoreBuilder {
    [Via::Udp, Via::Raw, Via::Multicast]
        .into_iter()
        .fold(host, |host, via| {
            host.transport(Box::new(way::Datagrams::new(via, config)))
        })
}
