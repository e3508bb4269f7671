//! Clients that pass the pieces on: `cargo run --release --example swarm -- [CLIENTS] [FILE]`

use gatecast::{Fetch, Server, Via};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let clients = arguments.next().map_or(Ok(5), |number| number.parse())?;
    let file = arguments.next();
    // The server's uplink is slow here, so that it pays to ask the other clients.
    let server = Server::builder()
        .offer(file.unwrap_or_else(|| "testdata/odd-10007.bin".to_owned()))
        .clients(clients)
        .via(Via::Swarm)
        .rate(100_000_000)
        .bind("127.0.0.1:0")?;
    eprintln!("who has what: http://{}/swarm", server.local_addr());
    Fetch::from(server.local_addr()).clients(clients).run()?;
    let session = server.sessions().next().ok_or("no session")?;
    println!("{session}");
    for seat in session.seats() {
        let (server, peers) = (seat.bytes_from_server(), seat.bytes_from_peers());
        let (server, peers) = (server.unwrap_or(0), peers.unwrap_or(0));
        let seat = seat.seat();
        println!("seat {seat}: {server} bytes from the server, {peers} from the others");
    }
    server.shutdown()?;
    Ok(())
}
