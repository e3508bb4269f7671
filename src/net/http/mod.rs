//! One HTTP request or response, read and written over a blocking connection. No routes.
//!
//! - [`client`]: sends a request and reads the response
//! - [`server`]: reads requests and sends responses
//! - [`host`]: which hosts a request may ask for

pub mod client;
pub mod host;
pub mod server;
