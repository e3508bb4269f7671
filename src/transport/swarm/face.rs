//! The swarm's HTTP routes (`/announce`, `/scrape`, `/swarm` and torrents), for a server that
//! answers no other HTTP. One request a connection.

use std::sync::Arc;

use crate::{
    net::http::{host, server::HttpConnection},
    proto::http::{
        head::HeadBuilder,
        request::{HttpMethod, HttpRequest},
        response::HttpResponse,
    },
    server::{listener::Connection, lobby::Lobby},
    transport::swarm::torrents::Torrents,
};

/// Answers one request.
pub fn serve(connection: &Connection, torrents: &Torrents, lobby: &Lobby) {
    let (stream, peer) = (Arc::clone(&connection.stream), connection.peer);
    let mut http = HttpConnection::new(stream, peer, &connection.first);
    let response = match http.read_request(connection.deadline) {
        Ok(Some((request, _))) => answer(&request, &http, torrents, lobby),
        Ok(None) => return,
        Err(error) => refuse(error.status),
    };
    let head = HeadBuilder::response(response.status).field("Connection", "close");
    if let Err(error) = http.respond(&response, head, false) {
        log::debug!("{peer}: {error}");
    }
    http.close();
}

fn answer(
    request: &HttpRequest,
    http: &HttpConnection,
    torrents: &Torrents,
    lobby: &Lobby,
) -> HttpResponse {
    if !host::is_ours(request, &[]) {
        return refuse(403);
    }
    if request.method != HttpMethod::Get {
        return refuse(405);
    }
    let local = http.stream.local_addr().unwrap_or(http.peer);
    torrents.answer(request, http.peer, local, lobby).unwrap_or_else(|| refuse(404))
}

fn refuse(status: u16) -> HttpResponse {
    HttpResponse::new(status, "text/plain", "")
}
