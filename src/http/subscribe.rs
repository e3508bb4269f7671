//! `GET /events`: the stream of server-sent events.

use std::{io, sync::Arc, thread, time::Duration};

use crate::{
    http::{
        feed::{POLL_INTERVAL, ServerSnapshot},
        state::RequestContext,
    },
    net::{clock, socket},
    proto::http::response::HttpResponse,
    session::SessionId,
};

/// How many ended sessions a new subscriber is told in full.
const ENDED_AT_FIRST: usize = 1;

/// How long a subscriber may take to accept an event.
const EVENT_LIMIT: Duration = Duration::from_secs(10);

/// How long the stream is silent at most, so that proxies do not close it.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// What one subscriber has been sent.
struct SentEvents {
    state: u64,
    ended: Vec<SessionId>,
}

/// Streams events until the client leaves or the server ends.
pub(super) fn stream_events(cx: &RequestContext<'_>) -> io::Result<Option<HttpResponse>> {
    let Some(_place) = cx.server.subscribers.take(cx.connection.peer.ip()) else {
        let why = "too many subscribers are here already, or too many with your address";
        return Ok(Some(HttpResponse::text(503, why).field("Retry-After", "5")));
    };
    let mut head = cx
        .head(200)
        .field("Content-Type", "text/event-stream")
        .field("Cache-Control", "no-store")
        .field("X-Accel-Buffering", "no")
        .encode();
    head.extend_from_slice(b"retry: 2000\n\n");
    cx.connection.send(&head, EVENT_LIMIT)?;
    let snapshot = cx.server.feed.poll(cx.lobby);
    let old = snapshot.ended.len().saturating_sub(ENDED_AT_FIRST);
    let ended = snapshot.ended.iter().take(old).map(|(id, _)| *id).collect();
    drop(snapshot);
    let mut sent = SentEvents { state: 0, ended };
    let mut sent_at = clock::now();
    loop {
        let mut events = sent.take_new(&cx.server.feed.poll(cx.lobby));
        if events.is_empty() && clock::now().since(sent_at) >= PING_INTERVAL {
            events.push(":\n\n".into());
        }
        for event in events {
            cx.connection.send(event.as_bytes(), EVENT_LIMIT)?;
            sent_at = clock::now();
        }
        thread::sleep(POLL_INTERVAL);
        if socket::is_closed(cx.stream())? {
            return Ok(None);
        }
    }
}

impl SentEvents {
    /// The events in `snapshot` that are new; all subscribers share their text.
    fn take_new(&mut self, snapshot: &ServerSnapshot) -> Vec<Arc<str>> {
        let mut events = Vec::new();
        if snapshot.id != self.state {
            events.push(Arc::clone(&snapshot.state_event));
            self.state = snapshot.id;
        }
        let new = snapshot.ended.iter().filter(|(id, _)| !self.ended.contains(id));
        events.extend(new.filter_map(|(_, event)| event.clone()));
        self.ended = snapshot.ended.iter().map(|(id, _)| *id).collect();
        events
    }
}
