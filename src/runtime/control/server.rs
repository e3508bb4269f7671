//! The server's end of a control connection: from the opening line to the summary.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::proto::native::ErrorCode;
use crate::proto::native::FromClient;
use crate::proto::native::FromServer;
use crate::proto::native::Join;
use crate::proto::native::Offer;
use crate::proto::native::Opening;
use crate::proto::native::Receipt;
use crate::proto::native::Summary;
use crate::proto::udp::pieces::MENDS_MAX;
use crate::runtime::clock;
use crate::runtime::dialogue::Dialogue;
use crate::runtime::gate::Ending;
use crate::runtime::gate::Guest;
use crate::runtime::gate::Kind;
use crate::runtime::gate::Seat;
use crate::runtime::listener::Connection;
use crate::runtime::lobby::Lobby;
use crate::runtime::lobby::Wish;
use crate::runtime::way::Answer;
use crate::runtime::way::Failure;
use crate::transfer::Outcome;
use crate::transfer::Transfer;
use crate::units::Moment;

/// How long a client may work in silence before READY and after its last byte.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// What a disk is trusted to sync at least, bytes per second.
const SLOWEST_DISK: u64 = 10_000_000;

/// What a host is trusted to read and hash at least, bytes per second, for all its clients
/// together. A client that says that it lives and hashes less has no time beyond that.
const SLOWEST_HASH: u64 = 1_000_000;

/// How long a client's last words are waited for after its connection failed.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Serves one native client.
pub fn serve(connection: Connection, lobby: &Arc<Lobby>) {
    let Connection {
        stream,
        peer,
        first,
        deadline,
    } = connection;
    let mut dialogue = Dialogue::new(&stream, peer, &first);
    let opening = dialogue.hear(deadline, Phase::Greet).and_then(|line| {
        Opening::decode(&line).map_err(|error| Error::protocol(peer, error.to_string()))
    });
    match opening {
        Ok(Opening::List) => list(&dialogue, lobby),
        Ok(Opening::Join(join)) => {
            let guest = Guest {
                name: join.name.as_str().to_owned(),
                kind: Kind::Native,
                stream: Arc::clone(&stream),
                peer,
            };
            let Join {
                file, group, via, ..
            } = join;
            match lobby.seat(
                &Wish {
                    file,
                    group: Some(group),
                    via,
                },
                guest,
            ) {
                Ok(seat) => converse(seat, &mut dialogue),
                Err(error) => {
                    log::info!("{peer}: not seated: {error}");
                    refuse(&dialogue, ErrorCode::Refused, &reason_of(error));
                }
            }
        }
        Err(Error::Protocol { what, .. }) => {
            log::info!("{peer}: {what}");
            refuse(&dialogue, ErrorCode::Protocol, &what);
        }
        Err(error) => log::debug!("{error}"),
    }
    dialogue.close();
}

fn list(dialogue: &Dialogue<'_>, lobby: &Lobby) {
    let mut answer = Vec::new();
    match lobby.files() {
        Ok(files) => {
            files
                .into_iter()
                .for_each(|file| answer.extend(FromServer::File(file).encode()));
            answer.extend(FromServer::End.encode());
        }
        Err(error) => {
            answer = FromServer::Error {
                code: ErrorCode::Changed,
                reason: error.to_string(),
            }
            .encode();
        }
    }
    if let Err(error) = dialogue.say(&answer) {
        log::debug!("{error}");
    }
}

fn refuse(dialogue: &Dialogue<'_>, code: ErrorCode, reason: &str) {
    let line = FromServer::Error {
        code,
        reason: reason.to_owned(),
    }
    .encode();
    if let Err(error) = dialogue.say(&line) {
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
fn converse(mut seat: Seat, dialogue: &mut Dialogue<'_>) {
    let plan = seat.plan();
    let offer = Offer {
        session: plan.session,
        seat: seat.id(),
        clients: plan.clients,
        via: plan.via,
        file: plan.source.info.clone(),
    };
    let mut words = FromServer::Offer(offer).encode();
    words.extend(plan.carrier.terms().into_iter().flatten());
    let ready = dialogue.say(&words).and_then(|()| ready(&seat, dialogue));
    let offset = match ready {
        Ok(offset) => offset,
        Err(error) => {
            let ending = seat.ending();
            match (&ending, &error) {
                (Some(ending), _) => refuse(dialogue, code_of(ending), &ending.to_string()),
                (None, Error::Protocol { what, .. }) => refuse(dialogue, ErrorCode::Protocol, what),
                (None, _) => {}
            }
            let (outcome, reason) = match (ending, error) {
                (Some(ending), _) => (ending.outcome(), ending.to_string()),
                (None, Error::TimedOut { .. }) => {
                    (Outcome::TimedOut, "not ready in time".to_owned())
                }
                (None, Error::Protocol { what, .. }) => (Outcome::Refused, what),
                (None, Error::Refused { reason, .. }) => (Outcome::Refused, reason),
                (None, _) => (Outcome::Refused, Ending::Left.to_string()),
            };
            return seat.lose(outcome, reason);
        }
    };
    if dialogue.has_more() {
        // The watcher sees what is still in the socket; this came with READY.
        refuse(
            dialogue,
            code_of(&Ending::Spoke),
            &Ending::Spoke.to_string(),
        );
        return seat.lose(Outcome::Refused, Ending::Spoke.to_string());
    }
    // What can be made before the gate is: behind it, every call of one seat delays another's start.
    let mut transfer = seat.transfer();
    let woke = match seat.wait() {
        Ok(woke) => woke,
        Err(ending) => return refuse(dialogue, code_of(&ending), &ending.to_string()),
    };
    transfer.woke = Some(woke);
    transfer.bytes_resumed = offset;
    let summary = transfer_to(&seat, dialogue, offset, &mut transfer);
    seat.finish(transfer);
    if let Some(line) = summary
        && let Err(error) = dialogue.say(&line)
    {
        log::debug!("{error}");
    }
}

fn code_of(ending: &Ending) -> ErrorCode {
    match ending {
        Ending::NotEnough(_) => ErrorCode::Muster,
        Ending::Stopped => ErrorCode::Stopped,
        Ending::Left | Ending::Spoke => ErrorCode::Protocol,
    }
}

/// Waits for READY; each ALIVE that has got further gives the client more time.
fn ready(seat: &Seat, dialogue: &mut Dialogue<'_>) -> Result<u64> {
    let size = seat.plan().source.info.bytes;
    let mut patience = Patience::new(clock::now(), hashing(seat));
    loop {
        // A client that talks on without end would never see that its connection was closed.
        if seat.ending().is_some() {
            return Err(Error::Interrupted);
        }
        let line = dialogue.hear(patience.deadline, Phase::Ready)?;
        let message = match FromClient::decode(&line) {
            Ok(message) => message,
            Err(_) if line.starts_with("LISTEN ") => {
                seat.plan().carrier.hear(seat, &line)?;
                continue;
            }
            Err(error) => return Err(Error::protocol(dialogue.peer(), error.to_string())),
        };
        match message {
            FromClient::Ready { offset } if offset <= size => return Ok(offset),
            FromClient::Ready { offset } => {
                let what = format!("READY at byte {offset} of a file of {size}");
                return Err(Error::protocol(dialogue.peer(), what));
            }
            FromClient::Alive { bytes } => patience.renew(bytes, size, clock::now()),
            FromClient::Fail { reason, .. } => return Err(Error::refused(dialogue.peer(), reason)),
            _ => {
                return Err(Error::protocol(
                    dialogue.peer(),
                    "a message before READY that comes after it",
                ));
            }
        }
    }
}

/// Moves the payload and hears the receipt; fills `transfer`, returns the last line to say.
fn transfer_to(
    seat: &Seat,
    dialogue: &mut Dialogue<'_>,
    offset: u64,
    transfer: &mut Transfer,
) -> Option<Vec<u8>> {
    let info = &seat.plan().source.info;
    let range = offset..info.bytes;
    let want = range.end - range.start;
    let preface = FromServer::Go { bytes: want }.encode();
    let carrier = &seat.plan().carrier;
    let mut first = Answer::default();
    let carried = carrier.converse(seat, preface, range, dialogue, &mut first);
    transfer.first_server = carried.first;
    transfer.bytes_server = Some(seat.moved().load(Ordering::Relaxed));
    let whole = carried.end.is_ok();
    let failure = match carried.end {
        Ok(()) => hear_receipt(seat, dialogue, first, want, transfer).err(),
        Err(failure) => Some(told_by_client(dialogue, first.line, failure, transfer)),
    };
    carrier.account(seat, &mut transfer.counts);
    let mut changed = false;
    if let Some(failure) = failure {
        changed = failure.source_changed;
        transfer.fail(failure.outcome, failure.reason);
        if !whole && !changed && carrier.fills_control() {
            // Whatever is said into an unfinished payload would be taken for a part of it.
            return None;
        }
    } else if let Some(change) = seat.plan().source.change() {
        // A copy of what was offered stays whole; its client is told all the same.
        changed = transfer.outcome == Outcome::Corrupt;
        transfer.reason = Some(change);
    }
    if changed {
        let reason = transfer.reason.clone().unwrap_or_default();
        return Some(
            FromServer::Error {
                code: ErrorCode::Changed,
                reason,
            }
            .encode(),
        );
    }
    Some(
        FromServer::Summary(Summary {
            outcome: transfer.outcome,
            reason: transfer.reason.clone(),
            bytes: transfer.bytes_server.unwrap_or(0),
            last: transfer.seconds_server,
            woke: transfer.woke.unwrap_or_default(),
            first: transfer.first_server,
            sender: carrier.sender(seat.stream()),
            counts: transfer.counts,
        })
        .encode(),
    )
}

/// Hears LAST, HASHED and RECEIPT, in this order and once each.
fn hear_receipt(
    seat: &Seat,
    dialogue: &mut Dialogue<'_>,
    mut first: Answer,
    want: u64,
    transfer: &mut Transfer,
) -> std::result::Result<(), Failure> {
    let info = &seat.plan().source.info;
    let released = seat
        .opening()
        .expect("this seat went through the gate")
        .released();
    let stall = seat.plan().stall;
    // What is in the client's buffers is still on its way: before LAST the stall limit holds.
    let last = crate::runtime::copy::deadline(want, stall);
    let mut patience = Patience {
        deadline: last.min(clock::now().after(stall.max(SIGN_OF_LIFE))),
        last,
        bytes: 0,
    };
    let mut hashed = None;
    let mut mends = 0;
    loop {
        let heard = match first.line.take() {
            Some(line) => Ok(line),
            None => dialogue.hear(patience.deadline, Phase::Receipt),
        };
        let early = first.sent < want && first.heard_at == Some(dialogue.heard_at());
        let at = dialogue.heard_at().since(released);
        let line = heard.map_err(|error| silent(&error, transfer))?;
        let complete = transfer.seconds_server.is_some() && hashed.is_none();
        let message = match FromClient::decode(&line) {
            Ok(message) => message,
            Err(_) if complete && mends < MENDS_MAX => {
                mends += 1;
                seat.plan().carrier.mend(seat, &line, mends, dialogue)?;
                patience = Patience::new(clock::now(), hashing(seat));
                continue;
            }
            Err(error) => return Err(Failure::new(Outcome::Cut, error.to_string())),
        };
        match message {
            // The answer came after the meeting was over.
            FromClient::Held if transfer.seconds_server.is_none() => {}
            FromClient::Alive { bytes } => patience.renew(bytes, info.bytes, clock::now()),
            FromClient::Last { .. } if early => {
                let reason = "said LAST before its last byte was sent";
                return Err(Failure::new(Outcome::Cut, reason));
            }
            FromClient::Last { bytes } if transfer.seconds_server.is_none() => {
                transfer.bytes_client = Some(bytes);
                if bytes != want {
                    let reason = format!("claims {bytes} bytes of the {want} sent");
                    return Err(Failure::new(Outcome::Cut, reason));
                }
                transfer.seconds_server = Some(at);
                patience = Patience::new(clock::now(), hashing(seat));
            }
            FromClient::Hashed { sha1 }
                if transfer.seconds_server.is_some() && hashed.is_none() =>
            {
                hashed = Some(sha1);
                transfer.seconds_verified = Some(at);
                // fsync gives no sign of life, and the clients of one host share its disk.
                let syncing = Duration::from_secs(shared_bytes(seat) / SLOWEST_DISK);
                patience = Patience::new(clock::now(), syncing);
                patience.deadline = patience.last;
            }
            FromClient::Receipt(receipt) if hashed == Some(receipt.sha1) => {
                return settle(&receipt, want, info.sha1, transfer);
            }
            FromClient::Receipt(receipt) if hashed.is_some() => {
                let reason = format!("its receipt has another SHA-1: {}", receipt.sha1);
                return Err(Failure::new(Outcome::Cut, reason));
            }
            FromClient::Fail {
                outcome,
                bytes,
                reason,
                last,
                counts,
            } => {
                transfer.bytes_client = Some(bytes);
                transfer.counts = counts;
                transfer.seconds_client = last;
                // The payload is over, only not whole: its time is as good as any.
                transfer.seconds_server = last.map(|_| at);
                // A client that says "complete" and FAIL in one breath has failed.
                let outcome = if outcome == Outcome::Complete {
                    Outcome::Cut
                } else {
                    outcome
                };
                return Err(Failure::new(outcome, reason));
            }
            _ => {
                return Err(Failure::new(
                    Outcome::Cut,
                    "messages out of order after the payload",
                ));
            }
        }
    }
}

/// Holds the receipt to what was sent.
///
/// # Errors
/// It claims something else.
pub(crate) fn settle(
    receipt: &Receipt,
    want: u64,
    sha1: crate::digest::Digest,
    transfer: &mut Transfer,
) -> std::result::Result<(), Failure> {
    if receipt.bytes != want {
        let reason = format!(
            "the receipt claims {} bytes of the {want} sent",
            receipt.bytes
        );
        return Err(Failure::new(Outcome::Cut, reason));
    }
    transfer.seconds_client = Some(receipt.last);
    transfer.seconds_durable = receipt.durable;
    transfer.counts = receipt.counts;
    transfer.first_client = receipt.first.filter(|_| want > 0);
    transfer.verified = Some(receipt.sha1 == sha1);
    if receipt.sha1 != sha1 {
        let reason = format!("the copy's SHA-1 is {}, not {sha1}", receipt.sha1);
        transfer.fail(Outcome::Corrupt, reason);
    }
    Ok(())
}

/// A connection that failed while bytes were sent may still hold the client's own reason.
fn told_by_client(
    dialogue: &mut Dialogue<'_>,
    early: Option<String>,
    failure: Failure,
    transfer: &mut Transfer,
) -> Failure {
    if failure.source_changed {
        return failure;
    }
    let deadline = clock::now().after(LAST_WORDS);
    let mut line = early;
    loop {
        let heard = line
            .take()
            .or_else(|| dialogue.hear(deadline, Phase::Receipt).ok());
        match heard.as_deref().map(FromClient::decode) {
            Some(Ok(FromClient::Fail {
                outcome,
                bytes,
                reason,
                counts,
                ..
            })) if outcome != Outcome::Complete => {
                transfer.bytes_client = Some(bytes);
                transfer.counts = counts;
                return Failure::new(outcome, reason);
            }
            Some(Ok(FromClient::Held | FromClient::Alive { .. })) => {}
            _ => return failure,
        }
    }
}

fn silent(error: &Error, transfer: &Transfer) -> Failure {
    let phase = match transfer.seconds_server {
        None => "before its last byte",
        Some(_) if transfer.seconds_verified.is_none() => "while it hashed",
        Some(_) => "before its receipt",
    };
    match error {
        Error::TimedOut { after, .. } => Failure::new(
            Outcome::TimedOut,
            format!("silent for {} s {phase}", after.as_secs()),
        ),
        Error::Protocol { what, .. } => Failure::new(Outcome::Cut, what.clone()),
        _ => Failure::new(Outcome::Cut, format!("closed the connection {phase}")),
    }
}

/// The bytes of all copies of the session, which may be on one host.
fn shared_bytes(seat: &Seat) -> u64 {
    let plan = seat.plan();
    plan.source
        .info
        .bytes
        .saturating_mul(u64::from(plan.clients))
}

/// How long all copies of the session may take to be hashed.
fn hashing(seat: &Seat) -> Duration {
    Duration::from_secs(shared_bytes(seat) / SLOWEST_HASH)
}

/// Waits by progress: a sign of life counts only when it has got further, and only until the
/// slowest honest client would be done.
struct Patience {
    deadline: Moment,
    /// No sign of life moves the deadline beyond.
    last: Moment,
    bytes: u64,
}

impl Patience {
    /// For work that takes at most `longest`.
    fn new(now: Moment, longest: Duration) -> Self {
        let deadline = now.after(SIGN_OF_LIFE);
        Self {
            deadline,
            last: deadline.after(longest),
            bytes: 0,
        }
    }

    /// The client says that it has come to `bytes` of `size`.
    fn renew(&mut self, bytes: u64, size: u64, now: Moment) {
        if bytes > self.bytes && bytes <= size {
            self.bytes = bytes;
            self.deadline = self.deadline.max(now.after(SIGN_OF_LIFE).min(self.last));
        }
    }
}

impl Failure {
    /// A transfer that ended early through no change of the source.
    pub fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self {
            outcome,
            reason: reason.into(),
            source_changed: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When a client that gets `step` bytes further every second of `size` is given up.
    fn given_up(size: u64, step: u64, longest: Duration) -> Duration {
        let begun = Moment(0);
        let mut patience = Patience::new(begun, longest);
        let (mut now, mut bytes) = (begun, 0_u64);
        while now < patience.deadline {
            now = now.after(SECOND);
            bytes = bytes.saturating_add(step);
            patience.renew(bytes, size, now);
        }
        patience.deadline.since(begun)
    }

    #[test]
    fn a_client_that_gets_further_has_time_and_one_that_only_says_so_has_not() {
        // The slowest honest client: as long as its work may take, and a sign of life beyond.
        let longest = SECOND * 1000;
        assert_eq!(given_up(1_000_000, 1_000, longest), longest + SIGN_OF_LIFE);
        assert_eq!(given_up(1_000_000, 0, longest), SIGN_OF_LIFE);
        assert_eq!(
            given_up(u64::MAX, 1, longest),
            longest + SIGN_OF_LIFE,
            "a byte a second is no way to stay for ever"
        );
        assert_eq!(
            given_up(10, 11, longest),
            SIGN_OF_LIFE,
            "beyond the file's end there is nothing to hash"
        );
    }

    #[test]
    fn a_sign_of_life_never_takes_time_away() {
        let mut patience = Patience::new(Moment(0), SECOND * 600);
        patience.deadline = patience.last;
        patience.renew(5, 10, Moment(1));
        assert_eq!(patience.deadline, Moment(0).after(SECOND * 630));
    }
}
