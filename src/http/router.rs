//! The fixed table of routes. A path is decoded once and compared whole: no path is ever joined to
//! a folder, so no path can leave one.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | `/` | the page |
//! | GET | `/files` | what is offered: JSON, or HTML for a browser |
//! | GET | `/files/NAME` | the file at once |
//! | GET | `/files/NAME?gate`, `?gate=N` | the file when the gate opens; `&receipt` promises a receipt, `&name=TEXT` names the client, `&via=http` wants a session of that transport |
//! | GET | `/files/NAME.sha1` | its digest as `sha1sum -c` reads it |
//! | GET | `/events` | server-sent events, a snapshot first |
//! | GET | `/sessions`, `/sessions/current` | ended sessions; the present state |
//! | GET | `/sessions/ID`, `/sessions/ID.csv` | one session as a document, as CSV |
//! | GET | `/sessions.csv`, `/plot.svg` | all kept sessions |
//! | GET | `/metrics` | Prometheus text |
//! | POST | `/sessions/ID/receipt` | a script attests its copy's digest |
//! | POST | `/sessions/ID/release` | opens the gate for the clients that are ready; needs the token |
//!
//! Other paths go to [`HttpConfig::extra`](crate::http::HttpConfig::extra), which joins no path to
//! a folder either; with the swarm they are `GET /announce`, `/swarm`, `/NAME.torrent`.

use std::{io, sync::Arc, time::Duration};

use crate::{
    http::{
        files, gate,
        gate::GateQuery,
        metrics, sessions,
        state::{HttpServer, RequestContext},
        subscribe,
    },
    net::{
        clock,
        http::{page, server::HttpConnection},
    },
    proto::http::{request::HttpMethod, response::HttpResponse},
    server::{listener::Connection, lobby::Lobby},
};

/// Most requests on one connection.
const REQUESTS_MAX: u32 = 100;

/// How long a connection may be idle between requests.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Above this number of connections, each is closed after its response.
const KEEP_ALIVE_MAX: usize = 1000;

/// The page: what it holds, and its script.
const PAGE: (&str, &str) = (include_str!("page/body.html"), include_str!("page/page.js"));

/// Serves one connection until it ends.
pub(super) fn serve(server: &HttpServer, connection: Connection, lobby: &Arc<Lobby>) {
    let connections = Arc::clone(&server.counters.connections);
    let (peer, mut deadline) = (connection.peer, connection.deadline);
    let mut connection = HttpConnection::new(connection.stream, peer, &connection.first);
    for served in 1..=REQUESTS_MAX {
        let (request, body) = match connection.read_request(deadline) {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) => {
                log::debug!("{peer}: {error}");
                connection.closes = true;
                let response = HttpResponse::text(error.status, &error.why);
                server.respond(&connection, &response, false);
                break;
            }
        };
        connection.closes = !request.keeps_alive()
            || served == REQUESTS_MAX
            || Arc::strong_count(&connections) > KEEP_ALIVE_MAX + 1;
        let mut cx = RequestContext {
            server,
            lobby,
            connection: &mut connection,
            request: &request,
            body: &body,
        };
        match route(&mut cx) {
            Ok(response) => response.iter().for_each(|response| cx.respond(response)),
            Err(error) => return log::debug!("{peer}: {error}"),
        }
        if connection.closes {
            break;
        }
        deadline = clock::now().after(IDLE_LIMIT);
    }
    connection.close();
}

/// Finds the handler of a request and runs it; returns the response, unless it is sent already.
fn route(cx: &mut RequestContext<'_>) -> io::Result<Option<HttpResponse>> {
    let path = &*cx.request.path;
    if let Some(response) = refuse(cx).or_else(|| close(cx)) {
        return Ok(Some(response));
    }
    if path == "/events" && cx.request.method == HttpMethod::Get {
        cx.connection.closes = true;
        return subscribe::stream_events(cx);
    }
    if let Some(name) = path.strip_prefix("/files/").filter(|name| !name.is_empty()) {
        return serve_file(cx, name);
    }
    let response = match path {
        _ if sessions::is_post(path) => Some(sessions::post(cx)),
        "/" => Some(page::document(PAGE, cx.server.guard.token_for(cx.connection.peer))),
        "/files" | "/files/" => Some(files::list(cx)),
        "/metrics" => Some(metrics::get(cx.server, cx.lobby)),
        _ => sessions::get(cx.server, path, cx.lobby).or_else(|| extra(cx)),
    };
    let not_found = || HttpResponse::text(404, format!("there is nothing at '{path}'"));
    Ok(Some(response.unwrap_or_else(not_found)))
}

/// The response to a request that no handler may see: a foreign host, or another method than the
/// path has.
fn refuse(cx: &RequestContext<'_>) -> Option<HttpResponse> {
    if let Some(refusal) = cx.server.guard.refuse_host(cx.request) {
        return Some(refusal);
    }
    let posts = sessions::is_post(&cx.request.path);
    let allowed = if posts { "POST, OPTIONS" } else { "GET, HEAD, OPTIONS" };
    let response = match &cx.request.method {
        HttpMethod::Post if posts => return None,
        HttpMethod::Get | HttpMethod::Head if !posts => return None,
        HttpMethod::Options => HttpResponse::new(204, "text/plain", ""),
        _ => HttpResponse::text(405, format!("only {allowed} here")),
    };
    Some(response.field("Allow", allowed))
}

/// The response to a request that a server with a key does not serve, as HTTP cannot prove one: a
/// file to nobody, and what is for the user only to the user. Other services' paths are their own
/// affair.
fn close(cx: &RequestContext<'_>) -> Option<HttpResponse> {
    let path = &*cx.request.path;
    let is_file = path == "/files" || path.starts_with("/files/");
    let is_users =
        matches!(path, "/" | "/events" | "/metrics" | "/plot.svg") || path.starts_with("/sessions");
    let why = if is_file {
        "this server gives files only to clients that prove its key (gatecast fetch --key FILE); \
         serve --open http lets others in"
    } else if is_users && !cx.server.guard.may_read(cx.connection.peer, cx.request) {
        "this server has a key: its page and figures are for its own machine, or with ?token= and \
         the token that it printed"
    } else {
        return None;
    };
    cx.server.closed.then(|| HttpResponse::text(403, why))
}

/// Serves an offered file: its digest, the file at a gate, or the file at once.
fn serve_file(cx: &mut RequestContext<'_>, name: &str) -> io::Result<Option<HttpResponse>> {
    let Some((file, digest_only)) = files::find(name, cx.lobby) else {
        let why = format!("the file '{name}' is not offered here");
        return Ok(Some(HttpResponse::text(404, why)));
    };
    let may_wait = cx.request.method == HttpMethod::Get && !digest_only;
    let gate = match cx.request.query_pairs() {
        Err(error) => Err(HttpResponse::text(error.status, error.why)),
        Ok(query) if may_wait => GateQuery::parse(&query),
        Ok(_) => Ok(None),
    };
    match gate {
        Ok(Some(_)) if cx.request.is_cross_site() => {
            // A seat may begin a session, and a page can make a browser GET any address.
            let why = "a page of another site asks for a seat; open this address by itself";
            Ok(Some(HttpResponse::text(403, why)))
        }
        Ok(Some(query)) => Ok(gate::serve_at_gate(cx, file, &query)),
        Ok(None) => files::send(cx, &file, digest_only),
        Err(response) => Ok(Some(response)),
    }
}

fn extra(cx: &RequestContext<'_>) -> Option<HttpResponse> {
    let extra = cx.server.extra.as_ref()?;
    let peer = cx.connection.peer;
    let local = cx.stream().local_addr().unwrap_or(peer);
    extra(cx.request, peer, local, cx.lobby)
}
