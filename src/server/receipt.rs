//! What a client says once the payload is sent: its last byte, its digest and its receipt, each
//! held to what was sent.

use std::time::Duration;

use crate::{
    digest::Digest,
    error::{Error, Phase},
    net::{clock, line_stream::LineStream},
    proto::native::{FromClient, Receipt},
    server::{
        gate::Seat,
        patience::{Patience, SIGN_OF_LIFE},
        transport::{EarlyReply, TransferFailure},
    },
    transfer::{Outcome, Transfer},
    units::Moment,
};

/// What a disk is trusted to sync at least, bytes per second.
const SLOWEST_DISK: u64 = 10_000_000;

/// What a host is trusted to read and hash at least, bytes per second, for all its clients
/// together. A client that says that it lives and hashes less has no time beyond that.
const SLOWEST_HASH: u64 = 1_000_000;

/// How long a client's last words are waited for after its connection failed.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Reads LAST, HASHED and RECEIPT, in this order and once each, and fills `transfer` with them.
pub(super) fn read_receipt(
    seat: &Seat,
    lines: &mut LineStream<'_>,
    mut first: EarlyReply,
    want: u64,
    transfer: &mut Transfer,
) -> Result<(), TransferFailure> {
    let stall = seat.session.stall;
    // What is in the client's buffers is still on its way: before LAST the stall limit holds.
    let last = crate::net::copy::deadline(want, stall);
    let mut reading = ReceiptReading {
        seat,
        want,
        transfer,
        hashed: None,
        patience: Patience::until(last, stall.max(SIGN_OF_LIFE), clock::now()),
    };
    loop {
        let line = match first.line.take() {
            Some(line) => Ok(line),
            None => lines.read_line(reading.patience.deadline, Phase::Receipt),
        };
        let is_early = first.sent < want && first.heard_at == Some(lines.came_at);
        let line = line.map_err(|error| silent(&error, reading.transfer))?;
        let message = FromClient::decode(&line)
            .map_err(|error| TransferFailure::new(Outcome::Cut, error.to_string()))?;
        if reading.on_message(message, lines.came_at, is_early)? {
            return Ok(());
        }
    }
}

/// How far a client is with its receipt.
struct ReceiptReading<'a> {
    seat: &'a Seat,
    want: u64,
    transfer: &'a mut Transfer,
    /// The digest that it has sent, which the receipt must repeat.
    hashed: Option<Digest>,
    patience: Patience,
}

impl ReceiptReading<'_> {
    /// Takes one message that was read at `now`; true when it was the receipt. `is_early` says that
    /// it came before the payload's last byte was sent.
    fn on_message(
        &mut self,
        message: FromClient,
        now: Moment,
        is_early: bool,
    ) -> Result<bool, TransferFailure> {
        let cut = |reason: String| Err(TransferFailure::new(Outcome::Cut, reason));
        let info = &self.seat.session.source.info;
        let at = now.since(self.seat.release().released());
        let is_last_in = self.transfer.seconds_server.is_some();
        match message {
            // The answer came after the fair start was over.
            FromClient::Held if !is_last_in => {}
            FromClient::Alive { bytes } => {
                self.patience.renew(bytes, info.bytes, clock::now());
            }
            FromClient::Last { .. } if is_early => {
                return cut("said LAST before its last byte was sent".to_owned());
            }
            FromClient::Last { bytes } if !is_last_in => {
                self.transfer.bytes_client = Some(bytes);
                if bytes != self.want {
                    return cut(format!("claims {bytes} bytes of the {} sent", self.want));
                }
                self.transfer.seconds_server = Some(at);
                self.patience = Patience::new(clock::now(), hashing(self.seat));
            }
            FromClient::Hashed { sha1 } if is_last_in && self.hashed.is_none() => {
                self.hashed = Some(sha1);
                self.transfer.seconds_verified = Some(at);
                // fsync gives no sign of life, and the clients of one host share its disk.
                let syncing = Duration::from_secs(shared_bytes(self.seat) / SLOWEST_DISK);
                self.patience = Patience::new(clock::now(), syncing);
                self.patience.deadline = self.patience.last;
            }
            FromClient::Receipt(receipt) if self.hashed == Some(receipt.sha1) => {
                self.transfer.evidence = receipt.evidence.of_client(at);
                return settle(&receipt, self.want, info.sha1, self.transfer).map(|()| true);
            }
            FromClient::Receipt(receipt) if self.hashed.is_some() => {
                return cut(format!("its receipt has another SHA-1: {}", receipt.sha1));
            }
            FromClient::Fail { outcome, bytes, reason, last, counts } => {
                self.transfer.bytes_client = Some(bytes);
                self.transfer.counts = counts;
                self.transfer.seconds_client = last;
                // The payload is over, only not whole: its time is as good as any.
                self.transfer.seconds_server = last.map(|_| at);
                // A client that sends "complete" and FAIL in one message has failed.
                let outcome = if outcome == Outcome::Complete { Outcome::Cut } else { outcome };
                return Err(TransferFailure::new(outcome, reason));
            }
            _ => return cut("messages out of order after the payload".to_owned()),
        }
        Ok(false)
    }
}

/// Holds the receipt to what was sent.
///
/// # Errors
/// It claims something else.
fn settle(
    receipt: &Receipt,
    want: u64,
    sha1: Digest,
    transfer: &mut Transfer,
) -> Result<(), TransferFailure> {
    if receipt.bytes != want {
        let reason = format!("the receipt claims {} bytes of the {want} sent", receipt.bytes);
        return Err(TransferFailure::new(Outcome::Cut, reason));
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
pub(super) fn client_failure(
    lines: &mut LineStream<'_>,
    early: Option<String>,
    failure: TransferFailure,
    transfer: &mut Transfer,
) -> TransferFailure {
    if failure.source_changed {
        return failure;
    }
    let deadline = clock::now().after(LAST_WORDS);
    let mut line = early;
    loop {
        let heard = line.take().or_else(|| lines.read_line(deadline, Phase::Receipt).ok());
        match heard.as_deref().map(FromClient::decode) {
            Some(Ok(FromClient::Fail { outcome, bytes, reason, counts, .. }))
                if outcome != Outcome::Complete =>
            {
                transfer.bytes_client = Some(bytes);
                transfer.counts = counts;
                return TransferFailure::new(outcome, reason);
            }
            Some(Ok(FromClient::Held | FromClient::Alive { .. })) => {}
            _ => return failure,
        }
    }
}

fn silent(error: &Error, transfer: &Transfer) -> TransferFailure {
    let phase = match transfer.seconds_server {
        None => "before its last byte",
        Some(_) if transfer.seconds_verified.is_none() => "while it hashed",
        Some(_) => "before its receipt",
    };
    match error {
        Error::TimedOut { after, .. } => TransferFailure::new(
            Outcome::TimedOut,
            format!("silent for {} s {phase}", after.as_secs()),
        ),
        Error::Protocol { what, .. } => TransferFailure::new(Outcome::Cut, what.clone()),
        _ => TransferFailure::new(Outcome::Cut, format!("closed the connection {phase}")),
    }
}

/// What making a file takes, in bytes that would be hashed meanwhile: a hundred a second.
const FILE_WORK: u64 = SLOWEST_HASH / 100;

/// The bytes of all copies of the session, which may be on one host.
fn shared_bytes(seat: &Seat) -> u64 {
    let session = &seat.session;
    let files = session.source.tree().map_or(0, |tree| tree.manifest.entries() as u64);
    let bytes = session.source.info.bytes.saturating_add(files * FILE_WORK);
    bytes.saturating_mul(u64::from(session.clients))
}

/// How long all copies of the session may take to be hashed.
pub(super) fn hashing(seat: &Seat) -> Duration {
    Duration::from_secs(shared_bytes(seat) / SLOWEST_HASH)
}
