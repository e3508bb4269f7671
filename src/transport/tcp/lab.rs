//! The lab's TCP client at our gate (`Preparado`; `proto/lab.rs` has the wire format).
//!
//! It can say little: that it is ready, that its digest matched, how long it took. What it cannot
//! attest (its bytes, its first byte) stays unknown in the log.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    error::{Error, Phase},
    net::{clock, line_stream::LineStream, socket},
    proto::lab,
    server::{
        gate::{ClientKind, PendingClient, Seat},
        listener::Connection,
        lobby::{Lobby, SeatRequest},
        transport::{SendJob, TransferFailure},
    },
    session::Via,
    transfer::{Outcome, Transfer},
    transport::cut,
    units::Moment,
};

/// How long a lab client may take to hash, beyond what it takes at [`SLOWEST_HASH`].
const RECEIVED_LIMIT: Duration = Duration::from_secs(30);

/// A digest in steps of 1 KiB in Python, on an old machine, many at once; bytes per second.
const SLOWEST_HASH: u64 = 5_000_000;

/// How long its elapsed time is waited for; without it the copy is no less proven.
const ELAPSED_LIMIT: Duration = Duration::from_secs(5);

/// Serves one lab client.
pub fn serve(connection: Connection, lobby: &Arc<Lobby>) {
    let Connection { stream, peer, first, .. } = connection;
    if first != lab::tcp::READY {
        log::info!("{peer}: spoke before the release");
        return;
    }
    let client = PendingClient {
        name: "lab".to_owned(),
        kind: ClientKind::Lab,
        stream: Arc::clone(&stream),
        peer,
        ways: Vec::new(),
    };
    let wish = SeatRequest { via: Some(Via::Tcp), ..SeatRequest::default() };
    let mut seat = match lobby.seat(&wish, client) {
        Ok(seat) => seat,
        // The protocol has no word for it: the client sees its connection closed.
        Err(error) => return log::warn!("{peer}: a lab client is not seated: {error}"),
    };
    let woke = match seat.wait() {
        Ok(woke) => woke,
        Err(ending) => return log::info!("{peer}: {ending}"),
    };
    let mut transfer = seat.transfer();
    transfer.woke = Some(woke);
    let info = &seat.session.source.info;
    let cargo = SendJob {
        preface: lab::tcp::encode_offer(seat.id, info),
        range: 0..info.bytes,
        answer: &mut |_| {},
    };
    let carried = seat.send_session().send(&seat, cargo);
    transfer.first_server = carried.first;
    transfer.bytes_server = Some(seat.moved.load(Ordering::Relaxed));
    let mut lines = LineStream::new(&stream, peer, b"");
    let ended = carried.end.and_then(|()| wait_received(&seat, &mut transfer));
    match ended {
        Ok(()) => read_elapsed(&seat, &mut lines, &mut transfer),
        Err(failure) => {
            let changed = seat.session.source.change();
            transfer.fail(failure.outcome, changed.unwrap_or(failure.reason));
        }
    }
    seat.finish(transfer);
    lines.close();
}

/// Waits for `Recibido`, which the client sends only if its digest matched.
fn wait_received(seat: &Seat, transfer: &mut Transfer) -> Result<(), TransferFailure> {
    let plan = &seat.session;
    let hashing = Duration::from_secs(
        plan.source.info.bytes.saturating_mul(u64::from(plan.clients)) / SLOWEST_HASH,
    );
    let deadline = clock::now().after(RECEIVED_LIMIT + plan.stall).after(hashing);
    let mut word = [0; lab::tcp::RECEIVED.len()];
    let heard = read_word(seat, &mut word, deadline);
    let at = clock::now();
    match heard {
        Ok(()) if word == lab::tcp::RECEIVED => {
            let opening = seat.release();
            transfer.seconds_server = Some(at.since(opening.released()));
            transfer.seconds_verified = transfer.seconds_server;
            transfer.verified = Some(true);
            Ok(())
        }
        Ok(()) => {
            let said = crate::text::escape(&String::from_utf8_lossy(&word));
            Err(cut(format!("said '{said}' and not Recibido")))
        }
        Err(Error::TimedOut { after, .. }) => Err(TransferFailure::new(
            Outcome::TimedOut,
            format!("no Recibido within {} s", after.as_secs()),
        )),
        Err(_) => Err(cut("closed the connection without Recibido")),
    }
}

/// Tells it when the server began, and hears how long it took by its own clock.
fn read_elapsed(seat: &Seat, lines: &mut LineStream<'_>, transfer: &mut Transfer) {
    let opening = seat.release();
    let released = opening.released_at().unwrap_or_else(clock::wall);
    let since_epoch =
        Duration::try_from(released - time::OffsetDateTime::UNIX_EPOCH).unwrap_or_default();
    let elapsed = lines.write_line(&lab::tcp::encode_start(since_epoch)).and_then(|()| {
        let line = lines.read_line(clock::now().after(ELAPSED_LIMIT), Phase::Receipt)?;
        lab::tcp::decode_elapsed(&line)
            .map_err(|error| Error::protocol(lines.peer, error.to_string()))
    });
    match elapsed {
        Ok(elapsed) => transfer.seconds_client = Some(elapsed),
        Err(error) => log::info!("seat {}: its elapsed time is unknown: {error}", seat.id),
    }
}

/// Reads a word of its length, after the stray bytes before it.
fn read_word(seat: &Seat, word: &mut [u8], deadline: Moment) -> Result<(), Error> {
    let (first, rest) = word.split_at_mut(1);
    for _ in 0..=lab::tcp::STRAY_MAX {
        read_exact(seat, first, deadline)?;
        if !lab::tcp::is_stray(first[0]) {
            break;
        }
    }
    read_exact(seat, rest, deadline)
}

/// Reads exactly `bytes`, by `deadline`: words without an end are told apart by their length.
fn read_exact(seat: &Seat, bytes: &mut [u8], deadline: Moment) -> Result<(), Error> {
    let begun = clock::now();
    socket::read_exact(&seat.stream, bytes, deadline).map_err(|error| {
        if Error::is_timeout(&error) {
            return Error::timed_out(Phase::Receipt, "", deadline.since(begun));
        }
        Error::io("hear from the client", "a lab client")(error)
    })
}
