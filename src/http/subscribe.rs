//! `GET /events`: the stream of server-sent events.

use std::{io, net::TcpStream, thread, time::Duration};

use crate::{
    http::{
        feed::{POLL_INTERVAL, ServerSnapshot},
        state::{CountGuard, RequestContext},
    },
    net::clock,
    proto::http::{response::HttpResponse, text},
    session::SessionId,
};

/// Most subscribers at once.
pub const SUBSCRIBERS_MAX: usize = 64;

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
pub(super) fn stream_events(cx: &RequestContext<'_>) -> io::Result<()> {
    let subscribers = &cx.server.counters.subscribers;
    let Some(_counted) = CountGuard::new(subscribers, SUBSCRIBERS_MAX) else {
        let why = format!("{SUBSCRIBERS_MAX} subscribers are here already");
        cx.respond(&HttpResponse::text(503, why).field("Retry-After", "5"));
        return Ok(());
    };
    let head = cx
        .head(200)
        .field("Content-Type", "text/event-stream")
        .field("Cache-Control", "no-store")
        .field("X-Accel-Buffering", "no")
        .encode();
    let mut text = String::from_utf8(head).expect("a head is text");
    text.push_str("retry: 2000\n\n");
    let snapshot = cx.server.feed.poll(cx.lobby);
    let old = snapshot.ended.len().saturating_sub(ENDED_AT_FIRST);
    let mut sent = SentEvents {
        state: 0,
        ended: snapshot.ended.iter().take(old).map(|(id, _)| *id).collect(),
    };
    let mut sent_at = clock::now();
    loop {
        sent.append_new(&cx.server.feed.poll(cx.lobby), &mut text);
        if text.is_empty() && clock::now().since(sent_at) >= PING_INTERVAL {
            text.push_str(":\n\n");
        }
        if !text.is_empty() {
            cx.connection.send(text.as_bytes(), EVENT_LIMIT)?;
            text.clear();
            sent_at = clock::now();
        }
        thread::sleep(POLL_INTERVAL);
        if is_gone(cx.stream())? {
            return Ok(());
        }
    }
}

impl SentEvents {
    /// Appends to `text` what is new in `snapshot`.
    fn append_new(&mut self, snapshot: &ServerSnapshot, text: &mut String) {
        if snapshot.id != self.state {
            *text += &text::event("state", snapshot.id, &snapshot.state);
            self.state = snapshot.id;
        }
        for (id, event) in &snapshot.ended {
            if let Some(event) = event.as_ref().filter(|_| !self.ended.contains(id)) {
                *text += &text::event("session", snapshot.id, event);
            }
        }
        self.ended = snapshot.ended.iter().map(|(id, _)| *id).collect();
    }
}

/// True when the client has closed the connection. What it sends is ignored.
fn is_gone(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    match peeked {
        Ok(len) => Ok(len == 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
