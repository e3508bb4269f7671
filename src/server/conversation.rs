//! The server's end of a control connection: from the opening line to the summary.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    error::{Error, Phase, Result},
    net::{
        clock, copy,
        line_stream::LineStream,
        primitives::{
            TcpStream,
            atomic::{AtomicU64, Ordering},
            thread,
        },
        shared_reply::{SharedReply, stamp_of_now},
        tcp_info,
    },
    proto::{
        key::{Challenge, Challenges, ConnectionEnd, Key, is_same},
        native::{
            ADDRESSES_MAX, ClientHello, ErrorCode, FromClient, FromServer, Join, ListEnd, Offer,
            Summary,
        },
    },
    server::{
        echo,
        echo::EchoLimits,
        gate::{ClientKind, MusterEnd, PendingClient, Seat, SeatCall},
        listener::{Connection, GREETING_LIMIT},
        lobby::{Lobby, SeatRequest},
        patience::Patience,
        receipt::{client_failure, hashing, read_receipt},
        transport::{EarlyReply, NativeJob, SendJob, SendResult},
    },
    transfer::{Evidence, Outcome, Transfer},
    units::Moment,
};

/// When a wrong key is answered, from its challenge on: always the same, so that the time tells
/// nothing of the key, and no connection tries a second one soon.
const WRONG_KEY_PAUSE: Duration = Duration::from_secs(1);

/// How often a client without the key is worth a line on the terminal.
const WARNING_PAUSE: Duration = Duration::from_secs(1);

/// The list of offered files is made at most once in this time, however many ask for it.
pub const LIST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take to accept the list, whose longest has three million bytes: the next
/// one cannot be made while slow readers hold several.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// Serves one native client; all who ask for the list share `offered`, and those who ask
/// for echoes share `echoes`.
pub fn serve(
    connection: Connection,
    lobby: &Arc<Lobby>,
    offered: &SharedReply,
    echoes: &EchoLimits,
) {
    let Connection { stream, peer, first, deadline } = connection;
    let mut lines = LineStream::new(&stream, peer, &first);
    let hello = read_hello(&mut lines, deadline, lobby.settings.key.as_ref());
    let hello = hello.and_then(|hello| match hello {
        ClientHello::Echo => echo::serve(&mut lines, lobby, echoes).map(|()| hello),
        _ => Ok(hello),
    });
    match hello {
        Ok(ClientHello::Echo) => {}
        Ok(ClientHello::List) => list(&lines, &stream, lobby, offered),
        Ok(ClientHello::Join(join)) => {
            let client = PendingClient {
                name: join.name.as_str().to_owned(),
                kind: ClientKind::Native,
                stream: Arc::clone(&stream),
                peer,
                ways: join.via.map_or(join.ways, |via| vec![via]),
            };
            let Join { file, group, via, takes_trees, auto, .. } = join;
            let wish = SeatRequest { file, group: Some(group), via, takes_trees, auto };
            match lobby.seat(&wish, client) {
                Ok(seat) => converse(seat, lobby.run, &mut lines),
                Err(error) => {
                    log::info!("{peer}: not seated: {error}");
                    refuse(&lines, ErrorCode::Refused, &reason_of(error));
                }
            }
        }
        Ok(ClientHello::Challenge(_)) => {
            refuse(&lines, ErrorCode::Protocol, "a second challenge");
        }
        Err(Error::Protocol { what, .. }) => {
            log::info!("{peer}: {what}");
            refuse(&lines, ErrorCode::Protocol, &what);
        }
        Err(Error::Refused { reason, .. }) => refuse(&lines, ErrorCode::Refused, &reason),
        Err(error) => log::debug!("{error}"),
    }
    lines.close();
}

/// The opening line; of a server with a key, the first one after both ends have proven it.
fn read_hello(
    lines: &mut LineStream<'_>,
    deadline: Moment,
    key: Option<&Key>,
) -> Result<ClientHello> {
    let hello = read_opening(lines, deadline)?;
    // What the client is told, and what our user reads of the client.
    let (told, shown) = match (hello, key) {
        (ClientHello::Challenge(theirs), Some(key)) if prove(lines, key, theirs)? => {
            return read_opening(lines, clock::now().after(GREETING_LIMIT));
        }
        (ClientHello::Challenge(_), Some(_)) => {
            ("this client's key is not the server's", "its key is not this server's")
        }
        (ClientHello::Challenge(_), None) => {
            ("it has no key, and this client asks for one", "it asks for a key, and there is none")
        }
        (_, Some(_)) => {
            ("it serves only clients that prove its key (--key FILE)", "it proved no key")
        }
        (hello, None) => return Ok(hello),
    };
    warn_of_stranger(lines.peer, shown);
    Err(Error::refused(lines.peer, told))
}

fn read_opening(lines: &mut LineStream<'_>, deadline: Moment) -> Result<ClientHello> {
    let line = lines.read_line(deadline, Phase::Greet)?;
    ClientHello::decode(&line).map_err(|error| Error::protocol(lines.peer, error.to_string()))
}

/// Whether the client has proven `key`, and was given our proof in return. The client is first:
/// whoever has no key gets nothing that was made with it.
fn prove(lines: &mut LineStream<'_>, key: &Key, client: Challenge) -> Result<bool> {
    let server = Challenge(u128::from(clock::random()) << 64 | u128::from(clock::random()));
    let challenges = Challenges { client, server };
    lines.write_line(&FromServer::Challenge(server).encode())?;
    let asked = clock::now();
    let line = lines.read_line(asked.after(GREETING_LIMIT), Phase::Greet)?;
    let Ok(FromClient::Proof(proof)) = FromClient::decode(&line) else {
        return Err(Error::protocol(lines.peer, "no proof of the key after its challenge"));
    };
    if !is_same(proof.as_bytes(), key.proof(ConnectionEnd::Client, challenges).as_bytes()) {
        thread::sleep(clock::left(asked.after(WRONG_KEY_PAUSE)).unwrap_or_default());
        return Ok(false);
    }
    let ours = key.proof(ConnectionEnd::Server, challenges);
    lines.write_line(&FromServer::Proof(ours).encode())?;
    lines.seal(key.seal(ConnectionEnd::Server, challenges));
    Ok(true)
}

/// Says on the terminal that somebody without our key was here; once a second, so that strangers
/// cannot fill it.
fn warn_of_stranger(peer: SocketAddr, why: &str) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = clock::now();
    let next = NEXT.load(Ordering::Relaxed);
    let level = if now.0 >= next { log::Level::Warn } else { log::Level::Debug };
    if level == log::Level::Warn {
        NEXT.store(now.after(WARNING_PAUSE).0, Ordering::Relaxed);
    }
    log::log!(level, "{peer} was refused: {why}");
}

fn list(lines: &LineStream<'_>, stream: &TcpStream, lobby: &Lobby, offered: &SharedReply) {
    let answer = offered.get(stamp_of_now(LIST_INTERVAL), || {
        let mut answer = Vec::new();
        for file in lobby.files()? {
            let is_tree = lobby.catalog.is_tree(&file.name);
            answer.extend(FromServer::File { file, is_tree }.encode());
        }
        let (run, file) = (Some(lobby.run), lobby.default_file().cloned());
        let end = ListEnd { run, clients: lobby.settings.clients, file };
        answer.extend(FromServer::End(end).encode());
        Ok::<_, Error>(answer)
    });
    match answer {
        Ok(answer) => {
            let deadline = clock::now().after(LIST_LIMIT);
            if let Err(stop) = copy::send_all(stream, &lines.sealed(&answer), deadline) {
                log::debug!("{}: the list was not read: {stop:?}", lines.peer);
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
fn converse(seat: Seat, run: u64, lines: &mut LineStream<'_>) {
    let Some((mut seat, mut offset)) = offer(seat, run, lines) else { return };
    // Now the system knows the round trip, also where the first segment was lost.
    tcp_info::shorten_rto(&seat.stream);
    // What can be made before the gate is: behind it, every call of one seat delays another's start.
    let mut transfer = seat.transfer();
    let woke = loop {
        let measured = match seat.wait_for_call() {
            Ok(SeatCall::Released(woke)) => break woke,
            Ok(SeatCall::Measure(measurement)) => {
                measurement.measure_seat(seat.id, &seat.stream, lines)
            }
            Ok(SeatCall::Offer) => {
                // The watcher has let go of the connection.
                let _ = seat.stream.set_nonblocking(false);
                seat.send_session().on_seated(&seat);
                match offer(seat, run, lines) {
                    Some(again) => (seat, offset) = again,
                    None => return,
                }
                Ok(())
            }
            Err(end) => return refuse(lines, code_of(&end), &end.to_string()),
        };
        if let Err(error) = measured {
            return lose_before(seat, lines, error);
        }
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

/// OFFER to READY; `None` if the client lost its seat.
fn offer(seat: Seat, run: u64, lines: &mut LineStream<'_>) -> Option<(Seat, u64)> {
    let session = &seat.session;
    let offer = Offer {
        session: session.id,
        seat: seat.id,
        clients: session.clients,
        run: Some(run),
        via: session.via(),
        file: session.source.info.clone(),
        tree: session.source.tree().map(|tree| tree.manifest.entries()),
    };
    let mut words = FromServer::Offer(offer).encode();
    words.extend(session.source.tree().map(|tree| &*tree.lines).unwrap_or_default());
    words.extend(seat.send_session().control().map(|c| c.terms(&seat)).unwrap_or_default());
    let ready = lines.write_line(&words).and_then(|()| ready(&seat, lines));
    let offset = match ready {
        Ok(offset) => offset,
        Err(error) => {
            lose_before(seat, lines, error);
            return None;
        }
    };
    if lines.has_buffered() && session.chosen.get().is_none() {
        // The watcher sees what is still in the socket; this came with READY.
        refuse(lines, code_of(&MusterEnd::Spoke), &MusterEnd::Spoke.to_string());
        seat.lose(Outcome::Refused, MusterEnd::Spoke.to_string());
        return None;
    }
    seat.resume(offset);
    Some((seat, offset))
}

/// The client lost its seat before the release.
fn lose_before(seat: Seat, lines: &LineStream<'_>, error: Error) {
    let end = seat.muster_end();
    match (&end, &error) {
        (Some(end), _) => refuse(lines, code_of(end), &end.to_string()),
        (None, Error::Protocol { what, .. }) => refuse(lines, ErrorCode::Protocol, what),
        (None, _) => {}
    }
    let (outcome, reason) = match (end, error) {
        (Some(end), _) => (end.outcome(), end.to_string()),
        (None, Error::TimedOut { .. }) => (Outcome::TimedOut, "not ready in time".to_owned()),
        (None, Error::Protocol { what, .. }) => (Outcome::Refused, what),
        (None, Error::Refused { reason, .. }) => (Outcome::Refused, reason),
        (None, _) => (Outcome::Refused, MusterEnd::Left.to_string()),
    };
    seat.lose(outcome, reason);
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
    let size = seat.session.source.info.bytes;
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
                let unknown = || Error::protocol(seat.id, error.to_string());
                let control = seat.send_session().control().ok_or_else(unknown)?;
                control.on_line(seat, &line)?;
                continue;
            }
            Err(error) => return Err(Error::protocol(lines.peer, error.to_string())),
        };
        match message {
            FromClient::Ready { offset } if offset <= size => return Ok(offset),
            FromClient::Ready { offset } => {
                let what = format!("READY at byte {offset} of a file of {size}");
                return Err(Error::protocol(lines.peer, what));
            }
            FromClient::Alive { bytes } => {
                if patience.renew(bytes, size, clock::now()) {
                    seat.note_progress();
                }
            }
            FromClient::Fail { reason, .. } => return Err(Error::refused(lines.peer, reason)),
            _ => {
                return Err(Error::protocol(
                    lines.peer,
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
    let info = &seat.session.source.info;
    let range = offset..info.bytes;
    let want = range.end - range.start;
    let send_session = seat.send_session();
    let mut preface = Vec::new();
    for addresses in send_session.only_peers().chunks(ADDRESSES_MAX) {
        preface.extend(FromServer::Peers(addresses.to_vec()).encode());
    }
    preface.extend(FromServer::Go { bytes: want }.encode());
    let preface = lines.sealed(&preface).into_owned();
    let mut first = EarlyReply::default();
    let job = NativeJob { preface, range, lines, reply: &mut first };
    let sent = match send_session.control() {
        Some(control) => control.send_native(seat, job),
        None => send_payload(seat, job),
    };
    transfer.first_server = sent.first;
    transfer.bytes_server = Some(seat.moved.load(Ordering::Relaxed));
    let whole = sent.end.is_ok();
    let failure = match sent.end {
        Ok(()) => read_receipt(seat, lines, first, want, transfer).err(),
        Err(failure) => Some(client_failure(lines, first.line, failure, transfer)),
    };
    transfer.counts = transfer.counts.of_client(seat.session.via());
    send_session.add_counts(seat.id, &mut transfer.counts);
    transfer.evidence = transfer.evidence.or(seat.evidence(send_session.fills_control()));
    let mut changed = false;
    if let Some(failure) = failure {
        changed = failure.source_changed;
        transfer.fail(failure.outcome, failure.reason);
        if !whole && !changed && send_session.fills_control() {
            // Whatever is said into an unfinished payload would be taken for a part of it.
            return None;
        }
    } else if let Some(change) = seat.session.source.change() {
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
            sender: send_session.sender(&seat.stream),
            counts: transfer.counts,
            evidence: if send_session.fills_control() {
                transfer.evidence
            } else {
                Evidence::default()
            },
        })
        .encode(),
    )
}

/// Moves the payload by a transport that leaves the control connection to us; the client answers
/// its first block there.
fn send_payload(seat: &Seat, job: NativeJob<'_, '_>) -> SendResult {
    let NativeJob { preface, range, lines, reply } = job;
    let mut answer = |until: Moment| {
        let line = lines.read_line(until, Phase::Transfer).ok();
        reply.line = line.filter(|line| FromClient::decode(line) != Ok(FromClient::Held));
        reply.heard_at = Some(lines.came_at);
        reply.sent = seat.moved.load(Ordering::Relaxed);
    };
    let job = SendJob { preface, range, answer: &mut answer };
    seat.send_session().send(seat, job)
}
