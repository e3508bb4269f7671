//! A server and some clients that get their file from each other, in one process.
//!
//! ```text
//! cargo run --release --example swarm -- [CLIENTS] [FILE]
//! ```

use std::error::Error;
use std::path::PathBuf;

use gatecast::internals::client::FetchConfig;
use gatecast::internals::report::sheet;
use gatecast::internals::server::builder::ServerCoreBuilder;
use gatecast::internals::server::catalog::Catalog;
use gatecast::internals::server::config::ServerConfig;
use gatecast::internals::session::Via;
use gatecast::internals::transport::swarm;
use gatecast::internals::transport::swarm::torrents::Options;
use gatecast::internals::units::Rate;

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let clients = arguments.next().map_or(Ok(5), |number| number.parse())?;
    let file = arguments
        .next()
        .map_or_else(|| PathBuf::from("testdata/odd-10007.bin"), PathBuf::from);

    // The server's uplink is slow here, so that it pays to ask the others.
    let settings = ServerConfig {
        clients: Some(clients),
        via: Some(Via::Swarm),
        rate: Some(Rate(100_000_000)),
        ..ServerConfig::default()
    };
    let (host, torrents) = swarm::serve(
        ServerCoreBuilder::new(Catalog::offer([file])?, settings),
        Options::default(),
    );
    let server = swarm::serve_http(host, torrents).start(([127, 0, 0, 1], 0).into())?;
    eprintln!("who has what: http://{}/swarm", server.addr());

    let mut order = FetchConfig::new(vec![server.addr()]);
    order.clients = clients;
    swarm::fetch(&order)?;
    let record = server.records().recv()?;
    println!("{}", sheet::session(&record, sheet::Rows::Failures));
    for transfer in &record.transfers {
        let counts = transfer.counts;
        println!(
            "seat {}: {} bytes from the server, {} from the others",
            transfer.seat,
            counts.bytes_from_server.unwrap_or(0),
            counts.bytes_from_peers.unwrap_or(0)
        );
    }
    server.stop()?;
    Ok(())
}
