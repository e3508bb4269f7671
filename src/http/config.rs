//! How the HTTP server behaves.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    proto::http::{request::HttpRequest, response::HttpResponse},
    server::lobby::Lobby,
    text::debug_fields,
    transfer::Record,
};

/// How the HTTP server behaves. By [`HttpConfig::default`] only this machine may change anything.
#[derive(Clone, Default)]
pub struct HttpConfig {
    /// The token that a change must carry; random if `None`. The page on this machine has it.
    pub token: Option<String>,
    /// Addresses besides loopback from which changes are accepted, with the token.
    pub control_from: Vec<IpAddr>,
    /// Host names by which this server may be asked, besides its addresses and its own name.
    pub hosts: Vec<String>,
    /// How sessions are written for downloads.
    pub documents: Documents,
    /// Answers paths of another service, for instance a tracker's `/announce`.
    pub extra: Option<ExtraRoutes>,
}

/// Answers a request for another service. It gets the client's address, then the local one, and
/// returns `None` if the path is not its own.
pub type ExtraRoutes =
    Arc<dyn Fn(&HttpRequest, SocketAddr, SocketAddr, &Lobby) -> Option<HttpResponse> + Send + Sync>;

/// Writes sessions as documents. HTTP knows no formats itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Documents {
    /// One session as `gatecast.session/1`, on one line.
    pub json: Option<fn(&Record) -> String>,
    /// Transfers as CSV.
    pub csv: Option<fn(&[Record]) -> String>,
    /// Rates against the number of clients as SVG.
    pub svg: Option<fn(&[Record]) -> String>,
}

debug_fields!(HttpConfig);
