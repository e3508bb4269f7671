//! The fixed table of what there is. A path is decoded once and matched whole: no path is ever
//! joined to a folder, so there is nothing to traverse.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | `/` | the page |
//! | GET | `/files` | what is offered: JSON, or HTML for a browser |
//! | GET | `/files/NAME` | the file at once |
//! | GET | `/files/NAME?gate`, `?gate=N` | the file when the gate opens; `&receipt` promises a receipt, `&name=TEXT` names the client, `&via=http` wants a session of that way |
//! | GET | `/files/NAME.sha1` | its digest as `sha1sum -c` reads it |
//! | GET | `/events` | server-sent events, a snapshot first |
//! | GET | `/sessions`, `/sessions/current` | ended sessions; the present state |
//! | GET | `/sessions/ID`, `/sessions/ID.csv` | one session as a document, as CSV |
//! | GET | `/sessions.csv`, `/plot.svg` | all kept sessions |
//! | GET | `/metrics` | Prometheus text |
//! | POST | `/sessions/ID/receipt` | a script attests its copy's digest |
//! | POST | `/sessions/ID/release` | opens the gate for those that are ready; needs the token |
//!
//! What is not here is asked of [`Options::extra`](crate::http::Options::extra), which also takes a
//! whole path and joins it to nothing; with the swarm, `GET /announce`, `/swarm`, `/NAME.torrent`.

use std::sync::Arc;

use crate::http::Face;
use crate::http::connection::Line;
use crate::http::connection::Reply;
use crate::http::event;
use crate::http::files;
use crate::http::files::Download;
use crate::http::gate::Wish;
use crate::net::clock;
use crate::proto::http::request::Method;
use crate::proto::http::request::Request;
use crate::proto::http::text;
use crate::server::lobby::Lobby;
use crate::session::MAX_SEATS;
use crate::session::SessionId;
use crate::session::Via;
use crate::text::FileName;
use crate::transfer::Record;

/// What a request leads to.
pub(super) enum Answer {
    /// Something held in memory.
    Reply(Reply),
    /// A file at once.
    File(Box<Download>),
    /// A seat at a gate.
    Seat(Box<Wish>),
    /// The stream of events.
    Events,
}

/// The page: one document without any outside resource. Its style and script carry a number that
/// is new each time, and the policy allows nothing else.
const PAGE: [&str; 5] = [
    include_str!("page/head.html"),
    include_str!("page/page.css"),
    include_str!("page/body.html"),
    include_str!("page/page.js"),
    "</script></body></html>\n",
];

impl Face {
    pub(super) fn route(
        &self,
        request: &Request,
        body: &[u8],
        line: &Line<'_>,
        lobby: &Arc<Lobby>,
    ) -> Answer {
        if !self.knows_host(request) {
            let host = request.host.as_deref().unwrap_or_default();
            return say(
                403,
                format!("'{host}' is no name of this server; --host allows it"),
            );
        }
        let path = &*request.path;
        let posts = path.starts_with("/sessions/")
            && (path.ends_with("/receipt") || path.ends_with("/release"));
        let allowed = if posts {
            "POST, OPTIONS"
        } else {
            "GET, HEAD, OPTIONS"
        };
        match &request.method {
            Method::Options => {
                return Answer::Reply(
                    Reply::new(204, "text/plain", String::new()).field("Allow", allowed),
                );
            }
            Method::Post if posts => return self.post(request, body, line, lobby),
            Method::Get | Method::Head if !posts => {}
            _ => {
                let reply = Reply::say(405, format!("only {allowed} here"));
                return Answer::Reply(reply.field("Allow", allowed));
            }
        }
        let found = match path {
            "/" => Some(self.page(line)),
            "/files" | "/files/" => Some(files::list(request, lobby)),
            "/events" if request.method == Method::Get => return Answer::Events,
            "/metrics" => Some(self.metrics(lobby)),
            "/sessions" => Some(Reply::json(event::ended(&lobby.history().ended()))),
            "/sessions/current" => Some(Reply::json(event::state(0, clock::wall(), lobby))),
            "/sessions.csv" => self.csv(&all(lobby), "sessions.csv"),
            "/plot.svg" => self.plot(lobby),
            _ => None,
        };
        if let Some(reply) = found {
            return Answer::Reply(reply);
        }
        if let Some(name) = path.strip_prefix("/files/") {
            return self.file(name, request, lobby);
        }
        if let Some(name) = path.strip_prefix("/sessions/") {
            return Answer::Reply(self.session(name, lobby));
        }
        let extra = self.options.extra.as_ref().and_then(|extra| {
            let local = line.stream.local_addr().unwrap_or(line.peer);
            extra(request, line.peer, local, lobby)
        });
        match extra {
            Some(reply) => Answer::Reply(reply),
            None => say(404, format!("there is nothing at '{path}'")),
        }
    }

    fn page(&self, line: &Line<'_>) -> Reply {
        let nonce = format!("{:016x}{:016x}", clock::random(), clock::random());
        let token = self.token_for(line.peer).unwrap_or_default();
        let html = PAGE
            .concat()
            .replace("{{nonce}}", &nonce)
            .replace("{{token}}", &text::html(token));
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        );
        Reply::new(200, "text/html; charset=utf-8", html)
            .field("Content-Security-Policy", policy)
            .field("X-Frame-Options", "DENY")
    }

    fn file(&self, name: &str, request: &Request, lobby: &Arc<Lobby>) -> Answer {
        let Some((name, digest_only)) = files::offered(name, lobby) else {
            return say(404, format!("the file '{name}' is not offered here"));
        };
        let pairs = match request.pairs() {
            Ok(pairs) => pairs,
            Err(error) => return say(error.status, error.why),
        };
        let gate = pairs
            .iter()
            .find(|(key, _)| key == "gate")
            .map(|(_, value)| value);
        let asks = request.method == Method::Get && !digest_only;
        if let Some(number) = gate.filter(|_| asks) {
            let group = match std::str::from_utf8(number).ok() {
                Some("") => None,
                Some(text) => {
                    match text::digits(text).filter(|n| (1..=MAX_SEATS.into()).contains(n)) {
                        Some(number) => u16::try_from(number).ok(),
                        None => {
                            return say(
                                400,
                                format!("gate={text}: 1 to {MAX_SEATS} clients are possible"),
                            );
                        }
                    }
                }
                None => return say(400, "gate= with no number"),
            };
            let text_of = |wanted: &str| {
                let value = &pairs.iter().find(|(key, _)| key == wanted)?.1;
                Some(String::from_utf8_lossy(value).into_owned())
            };
            return Answer::Seat(Box::new(Wish {
                file: name,
                group,
                name: text_of("name"),
                via: (text_of("via").as_deref() == Some(Via::Http.word())).then_some(Via::Http),
                receipt: text_of("receipt").is_some(),
            }));
        }
        let source = match lobby.catalog.open(&name, &crate::server::catalog::silent) {
            Ok(source) => source,
            Err(error) => {
                log::warn!("{error}");
                return say(500, format!("the file '{name}' cannot be read"));
            }
        };
        if digest_only {
            return Answer::Reply(files::digest(&source.info));
        }
        Answer::File(Box::new(Download::new(source, request)))
    }

    fn session(&self, name: &str, lobby: &Lobby) -> Reply {
        let (id, csv) = match name.strip_suffix(".csv") {
            Some(id) => (id, true),
            None => (name, false),
        };
        let record = id
            .parse::<SessionId>()
            .ok()
            .and_then(|id| lobby.history().session(id));
        let Some(record) = record else {
            return Reply::say(404, format!("no session '{name}' is kept here"));
        };
        let written = match csv {
            true => self.csv(&[record], &format!("{name}.csv")),
            false => self
                .options
                .documents
                .json
                .map(|write| Reply::json(write(&record))),
        };
        written.unwrap_or_else(|| Reply::say(404, "this build writes no such documents"))
    }

    fn csv(&self, records: &[Record], name: &str) -> Option<Reply> {
        let text = (self.options.documents.csv?)(records);
        let name = FileName::new(name).ok()?;
        Some(
            Reply::new(200, "text/csv; charset=utf-8", text)
                .field("Content-Disposition", text::disposition(name.as_str())),
        )
    }

    fn plot(&self, lobby: &Lobby) -> Option<Reply> {
        let text = (self.options.documents.svg?)(&all(lobby));
        // Shown as an image it runs nothing; opened by itself it is to do nothing either.
        Some(Reply::new(200, "image/svg+xml", text).field(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'",
        ))
    }

    fn post(&self, request: &Request, body: &[u8], line: &Line<'_>, lobby: &Arc<Lobby>) -> Answer {
        let parts: Vec<&str> = request.path.split('/').collect();
        let (["", "sessions", id, what], Ok(pairs)) = (&parts[..], request.pairs()) else {
            return say(404, "there is nothing to post to here");
        };
        let session = id.parse::<SessionId>();
        let (Ok(session), &what) = (session, what) else {
            return say(404, format!("'{id}' is no session"));
        };
        Answer::Reply(match what {
            "receipt" => self.receipts.take(session, &pairs, body),
            _ if !self.may_change(line.peer) => Reply::say(
                403,
                "changes are taken from this machine only; --dashboard allows others",
            ),
            _ if !self.has_token(request) => Reply::say(403, "the token is missing or another one"),
            _ => match lobby.release(session) {
                true => Reply::say(200, "the gate opens for those that are ready"),
                false => Reply::say(404, format!("session {session} is not here any more")),
            },
        })
    }
}

fn all(lobby: &Lobby) -> Vec<Record> {
    lobby
        .history()
        .ended()
        .iter()
        .map(|record| (**record).clone())
        .collect()
}

fn say(status: u16, sentence: impl AsRef<str>) -> Answer {
    Answer::Reply(Reply::say(status, sentence))
}
