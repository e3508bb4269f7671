//! The control connection: the native conversation of `proto/README.md`, at both ends.
//!
//! It serves every way of sending, proves the client's address and carries the receipt.

pub mod client;
pub mod intake;
pub mod part;
mod patience;
pub(crate) mod receipt;
pub mod server;
