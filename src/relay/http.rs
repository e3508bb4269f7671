//! A viewer over HTTP: the stream as the body of one response, which any player opens by its URL.
//!
//! The thread of the connection sends what the source thread left in its queue. A viewer that is
//! too slow loses whole batches, counted as dropped; one that reads nothing is let go. Neither is
//! waited for by anybody else.

use std::{convert::Infallible, io, sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::{
    error::Error,
    net::{
        address, clock, copy,
        http::{
            host, server,
            server::{HttpConnection, REQUEST_LIMIT},
        },
        socket,
    },
    proto::{
        http::{
            head::HeadBuilder,
            request::{HttpMethod, HttpRequest},
            response::HttpResponse,
        },
        relay::log::ViewerEnd,
    },
    relay::{
        atomic_histogram::bump,
        chunk::{ChunkQueue, KEY_FRAME_LIMIT, QueuedChunk, WAITING_MAX},
        hub::Hub,
        page::RelayHttp,
        viewer::{SessionOver, Viewer},
    },
    server::listener::{Connection, ConnectionSlot},
    text::CLIENT_NAME_MAX,
};

/// The stream.
const STREAM: &str = "/live.ts";

/// A list with the stream in it, which a desktop opens with its player.
const PLAYLIST: &str = "/live.m3u";

/// How long a viewer may take none of what is sent to it.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// A viewer's thread sleeps between two sends, with `n` viewers over HTTP `n * n` times so long: the
/// more there are, the more is sent to each with one call. 25 sleep for 3 ms.
const PAUSE: Duration = Duration::from_micros(5);

/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What is sent with one call, less one batch; who has as much waiting is sent to without a pause.
const SEND_MAX: usize = 128 << 10;

/// How often a viewer to whom nothing is sent is looked after.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Serves one request, which may be for the stream.
pub(super) fn serve(hub: &Hub, page: &RelayHttp, connection: &Connection, slot: &ConnectionSlot) {
    let mut http = HttpConnection::new(Arc::clone(&connection.stream), connection.peer, b"");
    let sent = match http.read_request(clock::now().after(REQUEST_LIMIT)) {
        Ok(Some((request, _))) if !matches!(&*request.path, STREAM | PLAYLIST) => {
            let without_body = request.method == HttpMethod::Head;
            let answer = page.answer(hub, &http, &request);
            answer.and_then(|response| {
                response.map_or(Ok(()), |response| respond(&http, &response, without_body))
            })
        }
        Ok(Some((request, _))) => answer(hub, &http, &request, slot),
        Ok(None) => Ok(()),
        Err(error) => respond(&http, &HttpResponse::text(error.status, error.to_string()), false),
    };
    if let Err(error) = sent {
        log::debug!("{}: {error}", connection.peer);
    }
    http.close();
}

fn respond(http: &HttpConnection, response: &HttpResponse, without_body: bool) -> io::Result<()> {
    let head = server::head(response.status, true).field("Cache-Control", "no-store");
    http.respond(response, head, without_body)
}

fn answer(
    hub: &Hub,
    http: &HttpConnection,
    request: &HttpRequest,
    slot: &ConnectionSlot,
) -> io::Result<()> {
    let without_body = request.method == HttpMethod::Head;
    let refusal = refusal(request);
    let response = match (refusal, request.path.as_str()) {
        (Some(refusal), _) => refusal,
        (None, STREAM) if !without_body => match add_viewer(hub, http) {
            Ok((viewer, chunks)) => {
                slot.settle(true);
                let name = request.agent().unwrap_or_default();
                let name = &name[..name.floor_char_boundary(CLIENT_NAME_MAX)];
                // It is set once, here.
                let _ = viewer.name.set(name.to_owned());
                log::info!("viewer {}: connected over HTTP at {}", viewer.number, viewer.to);
                let Err(over) = watch(&viewer, http, &chunks);
                // A relay that stops closes the connection too.
                let stopped = hub.is_stopping().then_some((ViewerEnd::Stopped, None));
                let (end, reason) = stopped.unwrap_or(over);
                hub.remove_viewer(&viewer, end, reason);
                return Ok(());
            }
            Err(error) => HttpResponse::text(503, error.to_string()).field("Retry-After", "10"),
        },
        (None, STREAM) => return http.send(&stream_head(), STALL_LIMIT),
        (None, _) => {
            let at = address::canonical(http.stream.local_addr()?);
            let list = format!("#EXTM3U\n#EXTINF:-1,gatecast relay\nhttp://{at}{STREAM}\n");
            HttpResponse::new(200, "audio/x-mpegurl", list)
        }
    };
    respond(http, &response, without_body)
}

/// Why `request` is not answered, whatever it is for.
fn refusal(request: &HttpRequest) -> Option<HttpResponse> {
    if !matches!(request.method, HttpMethod::Get | HttpMethod::Head) {
        let refusal = HttpResponse::text(405, "the stream is only read: GET or HEAD");
        return Some(refusal.field("Allow", "GET, HEAD"));
    }
    // No player says this, and every browser does: a page elsewhere may have pointed its own name
    // at this address, to read what only this network should see.
    if request.headers.get("sec-fetch-site").is_some() && !host::is_ours(request, &[]) {
        return Some(HttpResponse::text(403, "ask for this relay by its address"));
    }
    // Players ask for all of it so, in case it were a file.
    let range = request.headers.get("range").filter(|range| *range != "bytes=0-");
    range.map(|_| HttpResponse::text(416, "a live stream has no ranges"))
}

fn stream_head() -> Vec<u8> {
    let head = HeadBuilder::response(200).field("Connection", "close");
    let head = head.field("Content-Type", "video/mp2t").field("Accept-Ranges", "none");
    head.field("Cache-Control", "no-store").encode()
}

type Chunks = Receiver<QueuedChunk>;

fn add_viewer(hub: &Hub, http: &HttpConnection) -> Result<(Arc<Viewer>, Chunks), Error> {
    let (queue, chunks) = ChunkQueue::new(WAITING_MAX);
    let viewer = hub.add_viewer(address::canonical(http.peer), &http.stream, Some(queue))?;
    Ok((viewer, chunks))
}

/// Sends the stream until the viewer ends, or the relay ends it.
fn watch(
    viewer: &Viewer,
    http: &HttpConnection,
    chunks: &Chunks,
) -> Result<Infallible, SessionOver> {
    let queue = viewer.queue.as_ref().expect("a viewer over HTTP has one");
    let send = |bytes: &[u8]| {
        let sent = copy::send_all(&http.stream, bytes, clock::now().after(STALL_LIMIT));
        sent.map_err(|stop| lost(&stop.into()))
    };
    send(&stream_head())?;
    let (mut has_begun, mut bytes, mut came) = (false, Vec::new(), Vec::new());
    loop {
        let mut next = match chunks.recv_timeout(POLL_INTERVAL) {
            Ok(chunk) => Some(chunk),
            // The relay wakes it so too.
            Err(RecvTimeoutError::Timeout) => match socket::is_closed(&http.stream) {
                Ok(false) => continue,
                Ok(true) => return Err((ViewerEnd::Closed, None)),
                Err(error) => return Err(lost(&error)),
            },
            Err(RecvTimeoutError::Disconnected) => unreachable!("the viewer holds the other end"),
        };
        let mut pause = Duration::ZERO;
        while let Some((chunk, comes)) = next {
            queue.release(&chunk);
            let (first, opening) = match chunk.entry.as_ref().filter(|_| comes) {
                Some(entry) => (Some(entry.start), &entry.opening[..]),
                None if has_begun => (Some(0), &[][..]),
                None => {
                    let is_late = clock::now().since(viewer.joined) >= KEY_FRAME_LIMIT;
                    (chunk.key_frame.or_else(|| is_late.then_some(0)), &chunk.tables[..])
                }
            };
            if let Some(first) = first {
                has_begun = true;
                bytes.extend(opening);
                bytes.extend(&chunk.packets[first..]);
                came.extend(&chunk.came);
            }
            pause = (PAUSE * chunk.queues.saturating_pow(2)).min(PAUSE_MAX);
            next = if bytes.len() < SEND_MAX { chunks.try_recv().ok() } else { None };
        }
        send(&bytes)?;
        let (now, hot) = (clock::now(), &viewer.hot);
        came.iter().for_each(|at| hot.delay.add(now.since(*at)));
        bump(&hot.sent, came.len() as u64);
        bump(&hot.bytes, bytes.len() as u64);
        if bytes.len() < SEND_MAX {
            thread::sleep(pause);
        }
        bytes.clear();
        came.clear();
    }
}

/// How a viewer ended whose connection failed. It is too late too where the system waited in vain
/// for it to take what it has been sent.
fn lost(error: &io::Error) -> SessionOver {
    if Error::is_timeout(error) {
        return (ViewerEnd::Silent, Some("it does not read the stream".to_owned()));
    }
    (ViewerEnd::Closed, Some(error.to_string()))
}
