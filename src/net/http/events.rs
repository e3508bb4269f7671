//! The stream of server-sent events to one subscriber.

use std::{io, sync::Arc, thread, time::Duration};

use crate::{
    net::{
        clock,
        http::{server::HttpConnection, subscribers::Subscribers},
        socket,
    },
    proto::http::{head::HeadBuilder, response::HttpResponse},
};

/// How often a subscriber is looked after.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a subscriber may take to accept an event.
const EVENT_LIMIT: Duration = Duration::from_secs(10);

/// How long the stream is silent at most, so that proxies do not close it.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Streams what `take_new` gives until the client leaves or the server ends, in an answer that
/// begins with `head`; where there is no place for a subscriber, returns the refusal.
///
/// # Errors
/// The client is gone or does not read.
pub fn stream<T: AsRef<[u8]> + ?Sized>(
    connection: &HttpConnection,
    subscribers: &Subscribers,
    head: impl FnOnce() -> HeadBuilder,
    mut take_new: impl FnMut() -> Vec<Arc<T>>,
) -> io::Result<Option<HttpResponse>> {
    let Some(_place) = subscribers.take(connection.peer.ip()) else {
        let why = "too many subscribers are here already, or too many with your address";
        return Ok(Some(HttpResponse::text(503, why).field("Retry-After", "5")));
    };
    let head = head()
        .field("Content-Type", "text/event-stream")
        .field("Cache-Control", "no-store")
        .field("X-Accel-Buffering", "no");
    connection.send(&[&head.encode()[..], b"retry: 2000\n\n"].concat(), EVENT_LIMIT)?;
    let mut sent_at = clock::now();
    loop {
        let events = take_new();
        if events.is_empty() && clock::now().since(sent_at) >= PING_INTERVAL {
            connection.send(b":\n\n", EVENT_LIMIT)?;
            sent_at = clock::now();
        }
        for event in events {
            connection.send((*event).as_ref(), EVENT_LIMIT)?;
            sent_at = clock::now();
        }
        thread::sleep(POLL_INTERVAL);
        if socket::is_closed(&connection.stream)? {
            return Ok(None);
        }
    }
}
