//! The server: its files, the port, the sessions and their gates, the log. It knows no transport
//! and no face by name; they are registered with it.

pub mod admission;
mod budget;
pub mod builder;
pub mod catalog;
pub mod config;
pub mod conversation;
pub mod downloads;
mod echo;
mod first_bytes;
pub mod gate;
pub mod history;
pub mod listener;
pub mod lobby;
mod patience;
pub(crate) mod places;
pub(crate) mod receipt;
pub mod sample;
pub mod session_log;
pub mod source;
pub mod transport;
mod tree;
