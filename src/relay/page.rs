//! The page of a relay: who sees what. `/` for people, `/events`, `/viewers` and `/metrics` for
//! machines. From this machine, or with the token, `POST /viewers/N/pause`, `/resume` and `/leave`
//! act on viewer N, or on `all` that are here.
//!
//! No thread stands behind it: whoever asks first after [`EVERY`] makes the figures for all.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    net::{
        http::{
            events, guard::AccessGuard, page, server, server::HttpConnection,
            subscribers::Subscribers,
        },
        shared_reply::{SharedReply, stamp_of_now},
    },
    proto::{
        http::{
            request::{HttpMethod, HttpRequest},
            response::HttpResponse,
            text,
        },
        prometheus,
        relay::{ViewerState, events::relay_event, log::ViewerEnd, metrics},
    },
    relay::{hub::Hub, viewer::Viewer},
};

/// What the page's connections share.
#[derive(Debug)]
pub(super) struct RelayHttp {
    guard: AccessGuard,
    subscribers: Subscribers,
    event: SharedReply,
    viewers: SharedReply,
    metrics: SharedReply,
}

/// What the page holds, and its script.
const PAGE: (&str, &str) = (include_str!("page/body.html"), include_str!("page/page.js"));

/// How often subscribers are told.
const EVERY: Duration = Duration::from_secs(1);

impl RelayHttp {
    pub(super) fn new(guard: AccessGuard) -> Self {
        Self {
            guard,
            subscribers: Subscribers::default(),
            event: SharedReply::new(),
            viewers: SharedReply::new(),
            metrics: SharedReply::new(),
        }
    }

    /// The answer to a request that is not for the stream; `None` where it has been sent.
    pub(super) fn answer(
        &self,
        hub: &Hub,
        http: &HttpConnection,
        request: &HttpRequest,
    ) -> io::Result<Option<HttpResponse>> {
        if let Some(refusal) = self.guard.refuse_host(request) {
            return Ok(Some(refusal));
        }
        let stamp = stamp_of_now(events::POLL_INTERVAL);
        Ok(Some(match (&request.method, &*request.path) {
            (HttpMethod::Post, path) if path.starts_with("/viewers/") => {
                self.change(hub, http.peer, request)
            }
            (HttpMethod::Get, "/events") => return self.stream_events(hub, http),
            (HttpMethod::Get | HttpMethod::Head, path) => match path {
                "/" => page::document(PAGE, self.guard.token_for(http.peer)),
                "/viewers" => shared(&self.viewers, "application/json", stamp, || {
                    relay_event(&hub.snapshot())
                }),
                "/metrics" => shared(&self.metrics, prometheus::CONTENT_TYPE, stamp, || {
                    metrics::metrics(&hub.snapshot(), self.subscribers.count())
                }),
                _ => {
                    let why = "the page is /, the stream is /live.ts, a list with it /live.m3u";
                    HttpResponse::text(404, why)
                }
            },
            _ => HttpResponse::text(405, "only GET and HEAD here").field("Allow", "GET, HEAD"),
        }))
    }

    fn stream_events(&self, hub: &Hub, http: &HttpConnection) -> io::Result<Option<HttpResponse>> {
        let mut told = None;
        events::stream(
            http,
            &self.subscribers,
            || server::head(200, true),
            || {
                let stamp = stamp_of_now(EVERY);
                if told.replace(stamp) == Some(stamp) {
                    return Vec::new();
                }
                let event = || text::event("state", stamp, relay_event(&hub.snapshot()).trim_end());
                vec![made(&self.event, stamp, event)]
            },
        )
    }

    /// Pauses viewers, resumes them or lets them go.
    fn change(&self, hub: &Hub, peer: SocketAddr, request: &HttpRequest) -> HttpResponse {
        if let Some(refusal) = self.guard.refuse_change(peer, request) {
            return refusal;
        }
        let parts: Vec<&str> = request.path.split('/').collect();
        let ["", "viewers", who, action] = parts[..] else {
            return HttpResponse::text(404, "nothing can be posted here");
        };
        let is_meant = |number: u64| who == "all" || who == number.to_string();
        // What the group gets comes to all of its viewers.
        let is_grouped = |viewer: &Viewer| viewer.state() == ViewerState::Grouped;
        let set = |state| {
            hub.set_states(|viewer| is_meant(viewer.number) && !is_grouped(viewer), state).0
        };
        let (count, done) = match action {
            "pause" => (set(ViewerState::Paused), "paused"),
            "resume" => (set(ViewerState::Running), "running"),
            "leave" => {
                let viewers = hub.viewers();
                let meant = viewers.iter().filter(|viewer| is_meant(viewer.number));
                let reason = || "let go on the relay's page".to_owned();
                (meant.map(|v| hub.expel(v, ViewerEnd::Stopped, reason())).count(), "let go")
            }
            _ => return HttpResponse::text(404, "there are pause, resume and leave"),
        };
        let is_kept = |viewer: &Arc<Viewer>| is_meant(viewer.number) && is_grouped(viewer);
        match count {
            0 if hub.viewers().iter().any(is_kept) => HttpResponse::text(
                409,
                "who watches by the group is neither paused nor resumed here",
            ),
            0 => HttpResponse::text(404, format!("viewer '{who}' is not here")),
            1 => HttpResponse::text(200, format!("1 viewer is {done}")),
            _ => HttpResponse::text(200, format!("{count} viewers are {done}")),
        }
    }
}

/// The reply of `stamp`, made once for all who ask for it.
fn made(reply: &SharedReply, stamp: u64, make: impl FnOnce() -> String) -> Arc<[u8]> {
    let Ok(bytes) = reply.get(stamp, || Ok::<_, Infallible>(make().into_bytes()));
    bytes
}

fn shared(
    reply: &SharedReply,
    content_type: &'static str,
    stamp: u64,
    make: impl FnOnce() -> String,
) -> HttpResponse {
    HttpResponse::shared(200, content_type, made(reply, stamp, make))
}
