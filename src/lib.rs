//! gatecast sends one file, or one live stream, to many machines at the same instant, proves that
//! every copy is right, and shows exactly what each one got.
//!
//! A server offers files and holds a session's clients at a *gate* until all are ready. Then it
//! releases them together and sends them the file: over TCP, HTTP, UDP, multicast, or as a swarm in
//! which the clients pass the pieces on. Every client verifies the SHA-1 of its copy and says so in
//! a receipt. Everything is synchronous: `std::net`, a thread for each connection, no async runtime.
//!
//! # A server and its clients
//!
//! ```
//! use gatecast::{Fetch, Server};
//!
//! # let folder = std::env::temp_dir().join(format!("gatecast-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let (file, received) = (folder.join("notes.txt"), folder.join("received"));
//! # std::fs::write(&file, "one file for everybody\n")?;
//! // Offers one file, and waits for three clients at a free port.
//! let server = Server::builder().offer(&file).clients(3).bind("127.0.0.1:0")?;
//!
//! // Three clients of this process take seats, are released together, and verify their copies.
//! let report = Fetch::from(server.local_addr()).clients(3).out(&received).run()?;
//! for client in report.clients() {
//!     println!("client {}: {:?}", client.number(), client.result());
//! }
//!
//! // The server's view of the same session: the table that the program prints.
//! let session = server.sessions().next().expect("the session that has just ended");
//! println!("{session}");
//! assert_eq!(session.proven(), 3);
//! server.shutdown()?;
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is here
//!
//! - [`Server`] and [`ServerBuilder`]: files, sessions, one port for every kind of client
//! - [`Fetch`], [`FetchReport`] and [`ClientResult`]: clients, and how each ended
//! - [`SessionReport`] and [`SeatReport`]: a session's figures; `Display` is its table
//! - [`Relay`] and [`RelayBuilder`]: one live MPEG-TS stream to many viewers
//! - [`make_sample`]: a file to try it with
//! - [`Via`]: the ways the bytes can travel
//! - [`Error`]: the one error type; every session ends with results, and only what stops a whole
//!   server or fetch is an error
//!
//! The program `gatecast` stands on the same types. Its features: `cli` (the program), `sockopt`
//! (socket options and kernel calls that std lacks), `fast-sha1` (SHA-1 with the processor's own
//! instructions). The library works without any of them.

// Floor 0: the shared words.
mod digest;
mod error;
mod session;
mod text;
mod transfer;
mod units;

// Floor 1: bytes to messages and back.
mod proto;

// Floor 2: blocking plumbing.
mod net;

// Floor 3: the two ends of a session.
mod client;
mod server;

// Floor 4: how bytes travel.
mod transport;

// Floor 5: faces and experiments.
#[cfg(feature = "cli")]
mod doctor;
mod http;
mod relay;
mod report;
#[cfg(all(target_os = "linux", feature = "sockopt", feature = "cli"))]
mod testbed;

// Floor 6: the front door.
mod fetch;
mod serve;

// Floor 7: words on a command line.
#[cfg(feature = "cli")]
mod cli;

pub use error::{Error, Result};
pub use fetch::{ClientResult, Fetch, FetchReport};
pub use relay::{Relay, RelayBuilder};
pub use report::session::{SeatReport, SessionReport};
pub use serve::{OfferedFile, Server, ServerBuilder};
pub use server::sample::make as make_sample;
pub use session::Via;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::main;

/// Opens a room of the crate to `internals`, whole.
macro_rules! open {
    ($($room:ident)+) => { $(pub mod $room { pub use crate::$room::*; })+ };
}

/// The rooms behind the front door, for this package's own benches, integration tests and fuzz
/// targets. Nothing here is promised to stay.
#[doc(hidden)]
pub mod internals {
    open! {
        client digest error http net proto relay report server session text transfer transport units
    }

    #[cfg(feature = "cli")]
    open!(doctor);
    #[cfg(feature = "cli")]
    pub mod cli {
        pub use crate::cli::options::*;
    }
    #[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
    open!(testbed);
}
