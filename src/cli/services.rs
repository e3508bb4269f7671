//! Which services this program has: each is registered here and nowhere else.

use crate::error::Result;
use crate::runtime::control::intake::Intake;
use crate::runtime::host::Host;
use crate::swarm;
use crate::swarm::torrents::Options;
use crate::tcp;

/// Gives a server every way of sending and every kind of client.
///
/// # Errors
/// The settings ask for what this system does not have.
pub fn serve(host: Host, swarms: Options) -> Result<Host> {
    let (host, torrents) = swarm::serve(tcp::serve(host)?, swarms);
    Ok(swarm::serve_http(host, torrents))
}

/// Every way of receiving.
pub fn intakes() -> Vec<&'static dyn Intake> {
    vec![&tcp::take::Tcp, &swarm::peer::Swarm]
}
