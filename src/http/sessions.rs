//! The sessions: results as documents, receipts, the release by hand.

use crate::{
    http::{
        event,
        state::{HttpServer, RequestContext},
    },
    net::clock,
    proto::http::{response::HttpResponse, text},
    server::lobby::Lobby,
    session::SessionId,
    text::FileName,
    transfer::Record,
};

/// `/sessions`, `/sessions/...`, `/sessions.csv` and `/plot.svg`; `None` for any other path.
pub(super) fn get(server: &HttpServer, path: &str, lobby: &Lobby) -> Option<HttpResponse> {
    match path {
        "/sessions" => Some(HttpResponse::json(event::ended(&lobby.history().ended()))),
        "/sessions/current" => {
            let state = event::state(0, clock::wall(), lobby);
            Some(HttpResponse::json(state))
        }
        "/sessions.csv" => csv(server, &all(lobby), "sessions.csv"),
        "/plot.svg" => plot(server, lobby),
        _ => path.strip_prefix("/sessions/").map(|name| document(server, name, lobby)),
    }
}

/// One session, as JSON or CSV.
fn document(server: &HttpServer, name: &str, lobby: &Lobby) -> HttpResponse {
    let (id, is_csv) = match name.strip_suffix(".csv") {
        Some(id) => (id, true),
        None => (name, false),
    };
    let id = id.parse::<SessionId>().ok();
    let Some(record) = id.and_then(|id| lobby.history().session(id)) else {
        return HttpResponse::text(404, format!("no session '{name}' is kept here"));
    };
    let written = if is_csv {
        csv(server, &[record], &format!("{name}.csv"))
    } else {
        let write = server.documents.json;
        write.map(|write| HttpResponse::json(write(&record)))
    };
    written.unwrap_or_else(|| HttpResponse::text(404, "this build writes no such documents"))
}

fn csv(server: &HttpServer, records: &[Record], name: &str) -> Option<HttpResponse> {
    let text = (server.documents.csv?)(records);
    let name = FileName::new(name).ok()?;
    Some(
        HttpResponse::new(200, "text/csv; charset=utf-8", text)
            .field("Content-Disposition", text::disposition(name.as_str())),
    )
}

fn plot(server: &HttpServer, lobby: &Lobby) -> Option<HttpResponse> {
    let text = (server.documents.svg?)(&all(lobby));
    // Inside a page an image runs no script; the policy says the same for one opened by itself.
    Some(
        HttpResponse::new(200, "image/svg+xml", text)
            .field("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
    )
}

fn all(lobby: &Lobby) -> Vec<Record> {
    let ended = lobby.history().ended();
    ended.iter().map(|record| (**record).clone()).collect()
}

/// True for a path of [`post`].
pub(super) fn is_post(path: &str) -> bool {
    path.starts_with("/sessions/") && (path.ends_with("/receipt") || path.ends_with("/release"))
}

/// `/sessions/ID/receipt` and `/sessions/ID/release`.
pub(super) fn post(cx: &RequestContext<'_>) -> HttpResponse {
    let parts: Vec<&str> = cx.request.path.split('/').collect();
    let (["", "sessions", id, action], Ok(query)) = (&parts[..], cx.request.query_pairs()) else {
        return HttpResponse::text(404, "nothing can be posted here");
    };
    let Ok(session) = id.parse::<SessionId>() else {
        return HttpResponse::text(404, format!("invalid session '{id}'"));
    };
    let guard = &cx.server.guard;
    if *action == "receipt" {
        cx.server.receipts.post(session, &query, cx.body)
    } else if !guard.may_change(cx.connection.peer) {
        let why = "changes are accepted from this machine only; --dashboard allows others";
        HttpResponse::text(403, why)
    } else if !guard.has_token(cx.request) {
        HttpResponse::text(403, "the token is missing or wrong")
    } else if cx.lobby.release(session) {
        HttpResponse::text(200, "the gate opens for the clients that are ready")
    } else {
        HttpResponse::text(404, format!("session {session} is not here any more"))
    }
}
