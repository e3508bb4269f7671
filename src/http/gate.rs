//! A seat at the gate for an HTTP client: the same barrier, the same copy loop, the same row.
//!
//! No header goes out before the release, so that a client's first byte is the session's. What
//! HTTP cannot attest stays unknown: its client counts no bytes, keeps no time and proves no
//! digest, unless it promised a receipt and gives one.

use std::io;
use std::io::Read;
use std::net::Shutdown;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::http::Face;
use crate::http::connection::Line;
use crate::http::connection::Reply;
use crate::http::files;
use crate::http::receipt::Said;
use crate::http::receipt::Slot;
use crate::net::clock;
use crate::net::socket;
use crate::proto::http::range::Ranged;
use crate::proto::http::request::Request;
use crate::server::gate::ClientKind;
use crate::server::gate::MusterEnd;
use crate::server::gate::PendingClient;
use crate::server::gate::Seat;
use crate::server::lobby;
use crate::server::lobby::Lobby;
use crate::server::transport::SendJob;
use crate::session::Via;
use crate::text::CLIENT_NAME_MAX;
use crate::text::FileName;
use crate::transfer::Outcome;
use crate::transfer::Transfer;

/// What a client asks of the gate.
pub(super) struct Wish {
    pub(super) file: FileName,
    pub(super) group: Option<u16>,
    pub(super) name: Option<String>,
    /// Http where the client asks for a session of that way; else it goes with the others.
    pub(super) via: Option<Via>,
    pub(super) receipt: bool,
}

/// How long a client may take to close after the last byte was written. What it has not read by
/// then is in the kernel's hands; an earlier close of a whole copy is not told from a later one.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How long a promised receipt is waited for, beyond what hashing takes at [`SLOWEST_HASH`].
const RECEIPT_LIMIT: Duration = Duration::from_secs(30);

/// A digest by a script on an old machine, many at once; bytes per second.
const SLOWEST_HASH: u64 = 5_000_000;

impl Face {
    pub(super) fn send_at_gate(
        &self,
        wish: &Wish,
        request: &Request,
        line: &Line<'_>,
        lobby: &Arc<Lobby>,
    ) -> io::Result<()> {
        let guest = PendingClient {
            name: name(wish, request),
            kind: ClientKind::Http,
            stream: Arc::clone(line.stream),
            peer: line.peer,
        };
        let wanted = lobby::SeatRequest {
            file: Some(wish.file.clone()),
            group: wish.group,
            via: wish.via,
        };
        let seat = match lobby.seat(&wanted, guest) {
            Ok(seat) => seat,
            Err(Error::Refused { reason, .. }) => {
                self.reply(line, Reply::say(409, reason), false);
                return Ok(());
            }
            Err(error) => {
                log::warn!("{}: not seated: {error}", line.peer);
                self.reply(line, Reply::say(500, "the session cannot be begun"), false);
                return Ok(());
            }
        };
        self.sit(seat, wish, request, line)
    }

    fn sit(
        &self,
        mut seat: Seat,
        wish: &Wish,
        request: &Request,
        line: &Line<'_>,
    ) -> io::Result<()> {
        let info = seat.session().source.info.clone();
        let (status, start) = match files::part(request, &info) {
            Ranged::Unsatisfiable => {
                let reply = Reply::say(416, format!("the file has {} bytes", info.bytes))
                    .field("Content-Range", format!("bytes */{}", info.bytes));
                seat.lose(
                    Outcome::Refused,
                    "asked for a range that the file does not have",
                );
                self.reply(line, reply, false);
                return Ok(());
            }
            Ranged::Part(range) if range.end == info.bytes => (206, range.start),
            // A session's rows are of copies that end whole; a part from the middle is none.
            Ranged::Part(_) | Ranged::Whole => (200, 0),
        };
        let slot = wish
            .receipt
            .then(|| self.receipts.promise(seat.session().id, seat.id()));
        let woke = match seat.wait() {
            Ok(woke) => woke,
            Err(ending) => {
                drop(seat);
                self.send_away(&ending, line);
                return Ok(());
            }
        };
        let mut transfer = seat.transfer();
        transfer.woke = Some(woke);
        transfer.bytes_resumed = start;
        let range = start..info.bytes;
        let plan = seat.session();
        let preface = files::describe(self.head(status, true), &info, &range)
            .field("Gatecast-Session", plan.id)
            .field("Gatecast-Seat", seat.id())
            .field("Gatecast-Clients", plan.clients)
            .maybe("Gatecast-Receipt", slot.as_ref().map(Slot::path))
            .encode();
        let want = range.end - range.start;
        let cargo = SendJob {
            preface,
            range,
            answer: &mut |_| {},
        };
        let carried = seat.send_session().send(&seat, cargo);
        transfer.first_server = carried.first;
        transfer.bytes_server = Some(seat.moved().load(Ordering::Relaxed));
        let opening = seat.release();
        let released = opening.released();
        let last = clock::now().since(released);
        let ended = carried
            .end
            .map_err(|failure| (failure.outcome, failure.reason))
            .and_then(|()| see_it_close(line.stream))
            .and_then(|()| match plan.source.unchanged() {
                Ok(()) => Ok(()),
                Err(changed) => Err((Outcome::Cut, changed.to_string())),
            });
        match ended {
            Ok(()) => {
                transfer.seconds_server = Some(last);
                if let Some(slot) = slot {
                    let hashing = info.bytes.saturating_mul(plan.clients.into()) / SLOWEST_HASH;
                    let patience = RECEIPT_LIMIT + Duration::from_secs(hashing);
                    if let Some(said) =
                        slot.wait(clock::now().after(patience), || seat.is_stopping())
                    {
                        settle(&said, want, released, &info, &mut transfer);
                    }
                }
            }
            Err((outcome, reason)) => transfer.fail(outcome, reason),
        }
        seat.finish(transfer);
        Ok(())
    }

    fn send_away(&self, ending: &MusterEnd, line: &Line<'_>) {
        match ending {
            MusterEnd::NotEnough(reason) => {
                self.reply(
                    line,
                    Reply::say(503, reason).field("Retry-After", "1"),
                    false,
                );
            }
            MusterEnd::Stopped => self.reply(line, Reply::say(503, ending.to_string()), false),
            MusterEnd::Spoke => self.reply(
                line,
                Reply::say(400, "a request before the gate opened"),
                false,
            ),
            MusterEnd::Left => {}
        }
    }
}

/// Holds a receipt to what was sent.
fn settle(
    said: &Said,
    want: u64,
    released: crate::units::Moment,
    info: &crate::session::FileInfo,
    transfer: &mut Transfer,
) {
    transfer.seconds_verified = Some(said.at.since(released));
    transfer.bytes_client = said.bytes;
    transfer.seconds_client = said.seconds;
    transfer.verified = Some(said.sha1 == info.sha1);
    if said.sha1 != info.sha1 {
        let reason = format!("the copy's SHA-1 is {}, not {}", said.sha1, info.sha1);
        transfer.fail(Outcome::Corrupt, reason);
    } else if let Some(bytes) = said.bytes.filter(|&bytes| bytes != want) {
        let reason = format!("the receipt claims {bytes} bytes of the {want} sent");
        transfer.fail(Outcome::Cut, reason);
    }
}

/// Says that nothing more comes, and waits for the client to close: one that dies with unread
/// bytes resets the connection.
fn see_it_close(mut stream: &TcpStream) -> Result<(), (Outcome, String)> {
    let cut = |error: io::Error| {
        let reason = format!("the connection failed after the last byte was written: {error}");
        (Outcome::Cut, reason)
    };
    let deadline = clock::now().after(CLOSE_LIMIT);
    stream.shutdown(Shutdown::Write).map_err(cut)?;
    let mut bytes = [0; 1024];
    // A client that goes on talking instead is not listened to for ever.
    for _ in 0..1024 {
        if !socket::bound_read(stream, deadline).map_err(cut)? {
            return Ok(());
        }
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if Error::is_timeout(&error) => return Ok(()),
            Err(error) => return Err(cut(error)),
        }
    }
    Ok(())
}

/// What the client calls itself: what it says in the query, else its program's name and version.
fn name(wish: &Wish, request: &Request) -> String {
    let agent = || {
        let agent = request.fields.get("user-agent")?;
        agent.split(' ').next().map(str::to_owned)
    };
    let mut name = wish.name.clone().or_else(agent).unwrap_or_default();
    let mut end = name.len().min(CLIENT_NAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    if name.is_empty() {
        name.push_str("http");
    }
    name
}
