//! gatecast sends one file, or one live stream, to many machines at the same instant, proves that
//! every copy is right, and shows exactly what each one got.
//!
//! Modules stand in floors; imports go down only.

// Floor 0: the shared words.
mod units;

mod digest;

mod text;

mod session;

mod transfer;

mod error;

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
mod http;
mod relay;
mod report;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod testbed;

// Floor 7: words on a command line.
#[cfg(feature = "cli")]
mod cli;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::main;

/// The rooms behind the front door, for this package's own benches, integration tests and fuzz
/// targets. Nothing here is promised to stay.
#[doc(hidden)]
pub mod internals {
    pub mod units {
        pub use crate::units::*;
    }
    pub mod digest {
        pub use crate::digest::*;
    }
    pub mod text {
        pub use crate::text::*;
    }
    pub mod session {
        pub use crate::session::*;
    }
    pub mod transfer {
        pub use crate::transfer::*;
    }
    pub mod error {
        pub use crate::error::*;
    }
    pub mod proto {
        pub use crate::proto::*;
    }
    pub mod net {
        pub use crate::net::*;
    }
    pub mod client {
        pub use crate::client::*;
    }
    pub mod server {
        pub use crate::server::*;
    }
    pub mod transport {
        pub use crate::transport::*;
    }
    pub mod http {
        pub use crate::http::*;
    }
    pub mod relay {
        pub use crate::relay::*;
    }
    pub mod report {
        pub use crate::report::*;
    }
    #[cfg(feature = "cli")]
    pub mod cli {
        pub use crate::cli::services;
    }
    #[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
    pub mod testbed {
        pub use crate::testbed::*;
    }
}
