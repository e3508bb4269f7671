//! Bytes to messages and back, and state machines fed with the time: no sockets, no files, no
//! threads, no clocks. `clippy.toml` names what is denied here, and the compiler holds us to it.
//!
//! Codecs have `encode` and `decode`; whatever a decoder gets wrong is an `Err` that says what.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod bt;
pub mod chain;
pub mod greeting;
pub mod histogram;
pub mod hosts;
pub mod http;
pub mod jitter;
pub mod json;
pub mod key;
pub mod lab;
pub mod line;
pub mod log_cell;
pub mod manifest;
pub mod mpegts;
pub mod native;
pub mod percent;
pub mod prometheus;
pub mod relay;
pub mod rtp;
pub mod sap;
pub mod session_log;
pub mod stream;
pub mod udp;
