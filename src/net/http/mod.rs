//! One HTTP request or response, read and written over a blocking connection. No routes.
//!
//! - [`client`]: sends a request and reads the response
//! - [`server`]: reads requests and sends responses

pub mod client;
pub mod server;
