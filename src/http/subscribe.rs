//! `GET /events`: the stream of server-sent events.

use std::{io, sync::Arc};

use crate::{
    http::{feed::ServerSnapshot, state::RequestContext},
    net::http::events,
    proto::http::response::HttpResponse,
    session::SessionId,
};

/// How many ended sessions a new subscriber is told in full.
const ENDED_AT_FIRST: usize = 1;

/// What one subscriber has been sent.
struct SentEvents {
    state: u64,
    ended: Vec<SessionId>,
}

/// Streams events until the client leaves or the server ends.
pub(super) fn stream_events(cx: &RequestContext<'_>) -> io::Result<Option<HttpResponse>> {
    let mut sent = None;
    events::stream(
        cx.connection,
        &cx.server.subscribers,
        || cx.head(200),
        || {
            let snapshot = cx.server.feed.poll(cx.lobby);
            sent.get_or_insert_with(|| SentEvents::before(&snapshot)).take_new(&snapshot)
        },
    )
}

impl SentEvents {
    /// Of a new subscriber, to whom all but the last of the sessions in `snapshot` are old.
    fn before(snapshot: &ServerSnapshot) -> Self {
        let old = snapshot.ended.len().saturating_sub(ENDED_AT_FIRST);
        Self { state: 0, ended: snapshot.ended.iter().take(old).map(|(id, _)| *id).collect() }
    }

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
