//! The server's end of a control connection: from the opening line to the summary.

use std::{
    net::TcpStream,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::{
        clock, copy,
        line_stream::LineStream,
        shared_reply::{SharedReply, stamp_of_now},
    },
    proto::native::{ClientHello, ErrorCode, FromClient, FromServer, Join, Offer, Summary},
    server::{
        gate::{ClientKind, MusterEnd, PendingClient, Seat},
        listener::Connection,
        lobby::{Lobby, SeatRequest},
        patience::Patience,
        receipt::{client_failure, hashing, read_receipt},
        transport::{EarlyReply, SendJob, SendResult},
    },
    transfer::{Outcome, Transfer},
    units::Moment,
};

/// The list of offered files is made at most once in this time, however many ask for it.
pub const LIST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take to accept the list, whose longest has three million bytes: the next
/// one cannot be made while slow readers hold several.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// Serves one native client; all who ask for the list share `offered`.
pub fn serve(connection: Connection, lobby: &Arc<Lobby>, offered: &SharedReply) {
    let Connection { stream, peer, first, deadline } = connection;
    let mut lines = LineStream::new(&stream, peer, &first);
    let release = lines.read_line(deadline, Phase::Greet).and_then(|line| {
        ClientHello::decode(&line).map_err(|error| Error::protocol(peer, error.to_string()))
    });
    match release {
        Ok(ClientHello::List) => list(&lines, &stream, lobby, offered),
        Ok(ClientHello::Join(join)) => {
            let client = PendingClient {
                name: join.name.as_str().to_owned(),
                kind: ClientKind::Native,
                stream: Arc::clone(&stream),
                peer,
            };
            let Join { file, group, via, .. } = join;
            match lobby.seat(&SeatRequest { file, group: Some(group), via }, client) {
                Ok(seat) => converse(seat, &mut lines),
                Err(error) => {
                    log::info!("{peer}: not seated: {error}");
                    refuse(&lines, ErrorCode::Refused, &reason_of(error));
                }
            }
        }
        Err(Error::Protocol { what, .. }) => {
            log::info!("{peer}: {what}");
            refuse(&lines, ErrorCode::Protocol, &what);
        }
        Err(error) => log::debug!("{error}"),
    }
    lines.close();
}

fn list(lines: &LineStream<'_>, stream: &TcpStream, lobby: &Lobby, offered: &SharedReply) {
    let answer = offered.get(stamp_of_now(LIST_INTERVAL), || {
        let mut answer = Vec::new();
        for file in lobby.files()? {
            answer.extend(FromServer::File(file).encode());
        }
        answer.extend(FromServer::End.encode());
        Ok::<_, Error>(answer)
    });
    match answer {
        Ok(answer) => {
            let deadline = clock::now().after(LIST_LIMIT);
            if let Err(stop) = copy::send_all(stream, &answer, deadline) {
                log::debug!("{}: the list was not read: {stop:?}", lines.peer());
            }
        }
        Err(error) => refuse(lines, ErrorCode::Changed, &error.to_string()),
    }
}

fn refuse(lines: &LineStream<'_>, code: ErrorCode, reason: &str) {
    let line = FromServer::Error { code, reason: reason.to_owned() }.encode();
    if let Err(error) = lines.write_line(&line) {
        log::debug!("{error}");
    }
}

/// The reason alone: the client knows whom it asked.
fn reason_of(error: Error) -> String {
    match error {
        Error::Refused { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// Everything that happens in a seat.
fn converse(mut seat: Seat, lines: &mut LineStream<'_>) {
    let session = seat.session();
    let offer = Offer {
        session: session.id,
        seat: seat.id(),
        clients: session.clients,
        via: session.via,
        file: session.source.info.clone(),
    };
    let mut words = FromServer::Offer(offer).encode();
    words.extend(seat.send_session().control().map(|c| c.terms(&seat)).unwrap_or_default());
    let ready = lines.write_line(&words).and_then(|()| ready(&seat, lines));
    let offset = match ready {
        Ok(offset) => offset,
        Err(error) => {
            let end = seat.muster_end();
            match (&end, &error) {
                (Some(end), _) => refuse(lines, code_of(end), &end.to_string()),
                (None, Error::Protocol { what, .. }) => refuse(lines, ErrorCode::Protocol, what),
                (None, _) => {}
            }
            let (outcome, reason) = match (end, error) {
                (Some(end), _) => (end.outcome(), end.to_string()),
                (None, Error::TimedOut { .. }) => {
                    (Outcome::TimedOut, "not ready in time".to_owned())
                }
                (None, Error::Protocol { what, .. }) => (Outcome::Refused, what),
                (None, Error::Refused { reason, .. }) => (Outcome::Refused, reason),
                (None, _) => (Outcome::Refused, MusterEnd::Left.to_string()),
            };
            return seat.lose(outcome, reason);
        }
    };
    if lines.has_buffered() {
        // The watcher sees what is still in the socket; this came with READY.
        refuse(lines, code_of(&MusterEnd::Spoke), &MusterEnd::Spoke.to_string());
        return seat.lose(Outcome::Refused, MusterEnd::Spoke.to_string());
    }
    seat.resume(offset);
    // What can be made before the gate is: behind it, every call of one seat delays another's start.
    let mut transfer = seat.transfer();
    let woke = match seat.wait() {
        Ok(woke) => woke,
        Err(end) => return refuse(lines, code_of(&end), &end.to_string()),
    };
    transfer.woke = Some(woke);
    transfer.bytes_resumed = offset;
    let summary = transfer_to(&seat, lines, offset, &mut transfer);
    seat.finish(transfer);
    if let Some(line) = summary
        && let Err(error) = lines.write_line(&line)
    {
        log::debug!("{error}");
    }
}

fn code_of(end: &MusterEnd) -> ErrorCode {
    match end {
        MusterEnd::NotEnough(_) => ErrorCode::Muster,
        MusterEnd::Stopped => ErrorCode::Stopped,
        MusterEnd::Left | MusterEnd::Spoke => ErrorCode::Protocol,
    }
}

/// Waits for READY; each ALIVE that has got further gives the client more time.
fn ready(seat: &Seat, lines: &mut LineStream<'_>) -> Result<u64> {
    let size = seat.session().source.info.bytes;
    let mut patience = Patience::new(clock::now(), hashing(seat));
    loop {
        // A client that talks on without end would never see that its connection was closed.
        if seat.muster_end().is_some() {
            return Err(Error::Interrupted);
        }
        let line = lines.read_line(patience.deadline, Phase::Ready)?;
        let message = match FromClient::decode(&line) {
            Ok(message) => message,
            Err(error) if line.starts_with("LISTEN ") => {
                let unknown = || Error::protocol(seat.id(), error.to_string());
                let control = seat.send_session().control().ok_or_else(unknown)?;
                control.on_line(seat, &line)?;
                continue;
            }
            Err(error) => return Err(Error::protocol(lines.peer(), error.to_string())),
        };
        match message {
            FromClient::Ready { offset } if offset <= size => return Ok(offset),
            FromClient::Ready { offset } => {
                let what = format!("READY at byte {offset} of a file of {size}");
                return Err(Error::protocol(lines.peer(), what));
            }
            FromClient::Alive { bytes } => patience.renew(bytes, size, clock::now()),
            FromClient::Fail { reason, .. } => return Err(Error::refused(lines.peer(), reason)),
            _ => {
                return Err(Error::protocol(
                    lines.peer(),
                    "a message before READY that comes after it",
                ));
            }
        }
    }
}

/// Moves the payload and hears the receipt; fills `transfer`, returns the last line to say.
fn transfer_to(
    seat: &Seat,
    lines: &mut LineStream<'_>,
    offset: u64,
    transfer: &mut Transfer,
) -> Option<Vec<u8>> {
    let info = &seat.session().source.info;
    let range = offset..info.bytes;
    let want = range.end - range.start;
    let preface = FromServer::Go { bytes: want }.encode();
    let send_session = seat.send_session();
    let mut first = EarlyReply::default();
    let sent = match send_session.control() {
        Some(control) => control.send_native(seat, preface, range, lines, &mut first),
        None => send_payload(seat, preface, range, lines, &mut first),
    };
    transfer.first_server = sent.first;
    transfer.bytes_server = Some(seat.moved().load(Ordering::Relaxed));
    let whole = sent.end.is_ok();
    let failure = match sent.end {
        Ok(()) => read_receipt(seat, lines, first, want, transfer).err(),
        Err(failure) => Some(client_failure(lines, first.line, failure, transfer)),
    };
    transfer.counts = transfer.counts.of_client(seat.session().via);
    send_session.add_counts(seat.id(), &mut transfer.counts);
    let mut changed = false;
    if let Some(failure) = failure {
        changed = failure.source_changed;
        transfer.fail(failure.outcome, failure.reason);
        if !whole && !changed && send_session.fills_control() {
            // Whatever is said into an unfinished payload would be taken for a part of it.
            return None;
        }
    } else if let Some(change) = seat.session().source.change() {
        // A copy of what was offered stays whole; its client is told all the same.
        changed = transfer.outcome == Outcome::Corrupt;
        transfer.reason = Some(change);
    }
    if changed {
        let reason = transfer.reason.clone().unwrap_or_default();
        return Some(FromServer::Error { code: ErrorCode::Changed, reason }.encode());
    }
    Some(
        FromServer::Summary(Summary {
            outcome: transfer.outcome,
            reason: transfer.reason.clone(),
            bytes: transfer.bytes_server.unwrap_or(0),
            last: transfer.seconds_server,
            woke: transfer.woke.unwrap_or_default(),
            first: transfer.first_server,
            sender: send_session.description(seat.stream()),
            counts: transfer.counts,
        })
        .encode(),
    )
}

/// Moves the payload by a transport that leaves the control connection to us; the client answers
/// its first block there.
fn send_payload(
    seat: &Seat,
    preface: Vec<u8>,
    range: Range<u64>,
    lines: &mut LineStream<'_>,
    reply: &mut EarlyReply,
) -> SendResult {
    let mut answer = |until: Moment| {
        reply.line = read_held(lines, until);
        reply.heard_at = Some(lines.last_read_at());
        reply.sent = seat.moved().load(Ordering::Relaxed);
    };
    let job = SendJob { preface, range, answer: &mut answer };
    seat.send_session().send(seat, job)
}

/// Reads the answer to the first block; gives back a line that is something else.
fn read_held(lines: &mut LineStream<'_>, until: Moment) -> Option<String> {
    let line = lines.read_line(until, Phase::Transfer).ok()?;
    (FromClient::decode(&line) != Ok(FromClient::Held)).then_some(line)
}
