//! The sessions: results as documents, receipts, the release by hand.

use crate::{
    http::{
        event,
        feed::POLL_INTERVAL,
        state::{HttpServer, RequestContext},
    },
    net::shared_reply::stamp_of_now,
    proto::http::{response::HttpResponse, text},
    server::lobby::Lobby,
    session::SessionId,
    transfer::Record,
};

const JSON: &str = "application/json";

const CSV: &str = "text/csv; charset=utf-8";

/// `/sessions`, `/sessions/...`, `/sessions.csv` and `/plot.svg`; `None` for any other path.
pub(super) fn get(server: &HttpServer, path: &str, lobby: &Lobby) -> Option<HttpResponse> {
    let (replies, history) = (&server.replies, lobby.history());
    let stamp = history.totals().sessions;
    Some(match path {
        "/sessions" => replies.get(path, JSON, stamp, || Ok(event::ended(&history.ended()))),
        "/sessions/current" => {
            let state = || Ok(event::state(0, &lobby.views(), &history.ended(), lobby));
            replies.get(path, JSON, stamp_of_now(POLL_INTERVAL), state)
        }
        "/sessions.csv" => {
            let write = server.documents.csv?;
            attached(replies.get(path, CSV, stamp, || Ok(write(&all(lobby)))), "sessions.csv")
        }
        "/plot.svg" => {
            let write = server.documents.svg?;
            let plot = replies.get(path, "image/svg+xml", stamp, || Ok(write(&all(lobby))));
            // Inside a page an image runs no script; the policy says the same for one opened by
            // itself.
            plot.field("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        }
        _ => document(server, path, path.strip_prefix("/sessions/")?, lobby),
    })
}

/// One session, as JSON or CSV.
fn document(server: &HttpServer, path: &str, name: &str, lobby: &Lobby) -> HttpResponse {
    let (id, is_csv) = name.strip_suffix(".csv").map_or((name, false), |id| (id, true));
    let not_kept = || HttpResponse::text(404, format!("no session '{name}' is kept here"));
    let history = lobby.history();
    let known = id.parse::<SessionId>().ok().and_then(|id| Some((id, history.version(id)?)));
    let Some((id, version)) = known else {
        return not_kept();
    };
    let record = || history.session(id).ok_or_else(not_kept);
    let documents = server.documents;
    match (documents.csv, documents.json) {
        (Some(write), _) if is_csv => {
            let csv = || record().map(|record| write(&[record]));
            attached(server.replies.get(path, CSV, version, csv), &format!("{name}.csv"))
        }
        (_, Some(write)) if !is_csv => {
            let json = || record().map(|record| write(&record));
            server.replies.get(path, JSON, version, json)
        }
        _ => HttpResponse::text(404, "this build writes no such documents"),
    }
}

/// A download, which a browser keeps as `name`.
fn attached(response: HttpResponse, name: &str) -> HttpResponse {
    if response.status != 200 {
        return response;
    }
    response.field("Content-Disposition", text::disposition(name))
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
    if *action == "receipt" {
        cx.server.receipts.post(session, &query, cx.body)
    } else if let Some(refusal) = cx.server.guard.refuse_change(cx.connection.peer, cx.request) {
        refusal
    } else if cx.lobby.release(session) {
        HttpResponse::text(200, "the gate opens for the clients that are ready")
    } else {
        HttpResponse::text(404, format!("session {session} is not here any more"))
    }
}
