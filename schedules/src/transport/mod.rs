//! The room `transport`: TCP's sending with its fair start, as it is.

#[path = "../../../src/transport/tcp/send.rs"]
pub mod tcp;

use gatecast::internals::transfer::Outcome;

use crate::{
    net::{primitives::TcpStream, socket},
    server::transport::TransferFailure,
};

/// As in `src/transport/mod.rs`, which names the other ways too.
fn cut(reason: impl Into<String>) -> TransferFailure {
    TransferFailure::new(Outcome::Cut, reason)
}

/// The same.
fn source_changed(reason: String) -> TransferFailure {
    TransferFailure { outcome: Outcome::Cut, reason, source_changed: true }
}

/// The same.
fn congestion(stream: &TcpStream) -> String {
    socket::congestion(stream).unwrap_or_else(|| "unknown congestion control".to_owned())
}
