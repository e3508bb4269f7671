//! One HTTP request or response, read and written over a blocking connection. No routes.
//!
//! - [`client`]: sends a request and reads the response
//! - [`server`]: reads requests and sends responses
//! - [`page`]: a page for people, in one document; [`events`]: the stream of events to one of its
//!   readers; [`subscribers`]: places for them, by address
//! - [`guard`]: who may read and who may change something; [`host`]: which hosts a request may ask for

pub mod client;
pub mod events;
pub mod guard;
pub mod host;
pub mod page;
pub mod server;
pub mod subscribers;
