//! A seat at the gate for an HTTP client: the same barrier, the same copy loop, the same row.
//!
//! The head is sent after the release, so that a client's first byte is the session's. What HTTP
//! cannot attest stays unknown: its client counts no bytes, measures no time and proves no digest,
//! unless it promised a receipt and posts one.

use std::{
    io,
    net::Shutdown,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use crate::{
    error::Error,
    http::{
        files,
        receipts::{PostedReceipt, ReceiptSlot},
        state::RequestContext,
    },
    net::{clock, copy, lower_priority, raise_priority, socket},
    proto::http::{
        range::RequestedRange,
        request::HttpRequest,
        response::HttpResponse,
        text::{QueryPairs, digits},
    },
    server::{
        gate::{ClientKind, MusterEnd, PendingClient, Seat},
        lobby,
        transport::{SendJob, TransferFailure, cut},
    },
    session::{FileInfo, MAX_SEATS, Via},
    text::{CLIENT_NAME_MAX, FileName},
    transfer::{Outcome, Transfer},
    units::Moment,
};

/// What a client asks of the gate.
pub(super) struct GateQuery {
    group: Option<u16>,
    name: Option<String>,
    /// Http if the client asks for a session of that transport; else any.
    via: Option<Via>,
    receipt: bool,
}

/// How often a client that has not closed its connection is looked at.
const CLOSE_CHECK: Duration = Duration::from_millis(200);

/// How often it is looked at from its close until its system has acknowledged the last byte.
const LAST_CHECK: Duration = Duration::from_millis(2);

/// How long a promised receipt is waited for, beyond what hashing takes at [`SLOWEST_HASH`].
const RECEIPT_LIMIT: Duration = Duration::from_secs(30);

/// The digest speed of a script on an old machine that runs many of them, bytes per second.
const SLOWEST_HASH: u64 = 5_000_000;

impl GateQuery {
    /// The `gate` of a query and what belongs to it; `None` where the query has no `gate`.
    ///
    /// # Errors
    /// The size of the group is invalid.
    pub(super) fn parse(query: &QueryPairs) -> Result<Option<Self>, HttpResponse> {
        let group = match query.get("gate") {
            None => return Ok(None),
            Some(size) if size.is_empty() => None,
            Some(size) => {
                let number = digits(&size).and_then(|n| u16::try_from(n).ok());
                let valid = number.filter(|n| (1..=MAX_SEATS).contains(n));
                let why = || format!("invalid gate '{size}': expected 1 to {MAX_SEATS} clients");
                Some(valid.ok_or_else(|| HttpResponse::text(400, why()))?)
            }
        };
        let is_http = query.get("via").as_deref() == Some(Via::Http.word());
        Ok(Some(Self {
            group,
            name: query.get("name").map(Into::into),
            via: is_http.then_some(Via::Http),
            receipt: query.get("receipt").is_some(),
        }))
    }
}

/// Gives the client a seat and sends it `file` after the release.
pub(super) fn serve_at_gate(
    cx: &mut RequestContext<'_>,
    file: FileName,
    query: &GateQuery,
) -> Option<HttpResponse> {
    cx.connection.closes = true;
    let client = PendingClient {
        name: client_name(query, cx.request),
        kind: ClientKind::Http,
        stream: Arc::clone(&cx.connection.stream),
        peer: cx.connection.peer,
        ways: Vec::new(),
    };
    let (group, via) = (query.group, query.via);
    let wanted =
        lobby::SeatRequest { file: Some(file), group, via, takes_trees: false, auto: false };
    let mut seat = match cx.lobby.seat(&wanted, client) {
        Ok(seat) => seat,
        Err(Error::Refused { reason, .. }) => return Some(HttpResponse::text(409, reason)),
        Err(error) => {
            log::warn!("{}: not seated: {error}", cx.connection.peer);
            return Some(HttpResponse::text(500, "the session cannot begin"));
        }
    };
    let file = seat.session.source.info.clone();
    let (status, start) = match files::range_of(cx.request, &file) {
        RequestedRange::Unsatisfiable => {
            seat.lose(Outcome::Refused, "asked for a range that the file does not have");
            return Some(files::unsatisfiable(&file));
        }
        RequestedRange::Part(range) if range.end == file.bytes => (206, range.start),
        // A row is of a whole copy, so a part that ends before the file does is not sent.
        RequestedRange::Part(_) | RequestedRange::Whole => (200, 0),
    };
    seat.resume(start);
    let receipts = &cx.server.receipts;
    let slot = (query.receipt).then(|| receipts.expect(seat.session.id, seat.id));
    match seat.wait() {
        Ok(woke) => {
            let mut transfer = seat.transfer();
            transfer.woke = Some(woke);
            transfer.bytes_resumed = start;
            send_released(cx, &seat, slot, (status, start..file.bytes), &mut transfer);
            seat.finish(transfer);
            None
        }
        Err(ending) => {
            drop(seat);
            no_release(&ending)
        }
    }
}

/// Sends a released seat its range, with `status`, and waits for its receipt; the result is in
/// `transfer`.
fn send_released(
    cx: &RequestContext<'_>,
    seat: &Seat,
    slot: Option<ReceiptSlot<'_>>,
    (status, range): (u16, Range<u64>),
    transfer: &mut Transfer,
) {
    let session = &seat.session;
    let file = &session.source.info;
    let bytes = range.end - range.start;
    let preface = files::file_head(cx, status, file, &range)
        .field("Gatecast-Session", session.id)
        .field("Gatecast-Seat", seat.id)
        .field("Gatecast-Clients", session.clients)
        .maybe("Gatecast-Receipt", slot.as_ref().map(ReceiptSlot::path))
        .encode();
    let cargo = SendJob { preface, range, answer: &mut |_| {} };
    let carried = seat.send_session().send(seat, cargo);
    transfer.first_server = carried.first;
    transfer.bytes_server = Some(seat.moved.load(Ordering::Relaxed));
    let released = seat.release().released();
    let closed = carried.end.and_then(|()| wait_for_close(seat, bytes, slot.as_ref()));
    lower_priority();
    let unchanged = || session.source.unchanged().map_err(|changed| cut(changed.to_string()));
    let closed = closed.and_then(|closed| unchanged().map(|()| closed));
    let closed = match closed {
        Ok(closed) => closed,
        Err(failure) => return transfer.fail(failure.outcome, failure.reason),
    };
    let hashing = file.bytes.saturating_mul(session.clients.into()) / SLOWEST_HASH;
    let deadline = clock::now().after(RECEIPT_LIMIT + Duration::from_secs(hashing));
    let receipt = slot.and_then(|slot| slot.wait(deadline, || seat.is_stopping()));
    let last = closed.or_else(|| receipt.map(|receipt| receipt.at));
    transfer.seconds_server = last.map(|last| last.since(released));
    if let Some(receipt) = receipt {
        check_receipt(&receipt, bytes, released, file, transfer);
    } else if closed.is_none() {
        let limit = session.stall.as_secs_f64();
        let open = format!("did not close its connection for {limit} s");
        transfer.fail(Outcome::Cut, format!("{open}, so it may not have read all"));
    }
}

/// The response to a client whose gate will not open; `None` for one that has left.
fn no_release(ending: &MusterEnd) -> Option<HttpResponse> {
    Some(match ending {
        MusterEnd::NotEnough(reason) => HttpResponse::text(503, reason).field("Retry-After", "1"),
        MusterEnd::Stopped => HttpResponse::text(503, ending.to_string()),
        MusterEnd::Spoke => HttpResponse::text(400, "a request before the gate opened"),
        MusterEnd::Left => return None,
    })
}

/// Compares a receipt with what was sent.
fn check_receipt(
    receipt: &PostedReceipt,
    sent: u64,
    released: Moment,
    file: &FileInfo,
    transfer: &mut Transfer,
) {
    let sha1 = receipt.sha1;
    transfer.seconds_verified = Some(receipt.at.since(released));
    transfer.bytes_client = receipt.bytes;
    transfer.seconds_client = receipt.seconds;
    transfer.verified = Some(sha1 == file.sha1);
    if sha1 != file.sha1 {
        transfer.fail(Outcome::Corrupt, format!("the copy's SHA-1 is {sha1}, not {}", file.sha1));
    } else if let Some(bytes) = receipt.bytes.filter(|&bytes| bytes != sent) {
        let reason = format!("the receipt claims {bytes} bytes of the {sent} sent");
        transfer.fail(Outcome::Cut, reason);
    }
}

/// Closes our end and waits for the client to close its own, which it does when it has read the
/// last byte: that is written when our system has it, long before. Returns when the client closed;
/// `None` if it does not, or has posted its receipt before.
///
/// It has the stall limit for each progress of what our system still holds, as far as that is known.
fn wait_for_close(
    seat: &Seat,
    bytes: u64,
    slot: Option<&ReceiptSlot<'_>>,
) -> Result<Option<Moment>, TransferFailure> {
    let (stream, stall) = (&seat.stream, seat.session.stall);
    let failed = |error: io::Error| {
        cut(format!("the connection failed after the last byte was written: {error}"))
    };
    stream.shutdown(Shutdown::Write).map_err(failed)?;
    let last = copy::deadline(bytes, stall);
    let (mut patience, mut held) = (clock::now().after(stall).min(last), u64::MAX);
    let mut closed = None;
    // The end of a client's program, which closes it, would else be run first.
    raise_priority();
    while clock::left(patience).is_some() {
        let tick = clock::now().after(CLOSE_CHECK).min(patience);
        match socket::read_until(stream, &mut [0; 1024], tick) {
            // A server that ends closes the connections that are left.
            _ if seat.is_stopping() => return Err(cut("the server was stopped")),
            Ok(0) => {
                let at = *closed.get_or_insert_with(clock::now);
                if socket::is_over(stream).map_err(failed)? {
                    return Ok(Some(at));
                }
                thread::sleep(LAST_CHECK);
            }
            // What it says is of no use, and so is a thread before all others that reads it.
            Ok(_) => lower_priority(),
            Err(error) if Error::is_timeout(&error) => {
                if slot.is_some_and(ReceiptSlot::is_posted) {
                    return Ok(None);
                }
                let left = socket::unacknowledged(stream).unwrap_or(held);
                if left < held {
                    held = left;
                    patience = clock::now().after(stall).min(last);
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(None)
}

/// The client's name: `name` of the query, else its program's name and version.
fn client_name(query: &GateQuery, request: &HttpRequest) -> String {
    let mut name = query.name.as_deref().or_else(|| request.agent()).unwrap_or_default().to_owned();
    name.truncate(name.floor_char_boundary(CLIENT_NAME_MAX));
    if name.is_empty() {
        name.push_str("http");
    }
    name
}
