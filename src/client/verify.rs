//! What a client makes of the bytes it has: their digest, read back from the disk.

use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::client::SUMMARY_LIMIT;
use crate::client::conversation::log_error;
use crate::client::part::Part;
use crate::client::read_message;
use crate::client::receive::Received;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::copy;
use crate::net::line_stream::LineStream;
use crate::proto::native::ErrorCode;
use crate::proto::native::FromClient;
use crate::proto::native::FromServer;
use crate::proto::native::Offer;
use crate::proto::native::Receipt;
use crate::transfer::Transfer;
use crate::units::Moment;

/// A digest as far as it is known.
#[derive(Default)]
pub(super) struct Prefix {
    hasher: crate::digest::Hasher,
    bytes: u64,
}

/// How often a client that hashes says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

impl Client {
    /// Hashes what is on disk; a copy with another digest is removed.
    #[allow(clippy::too_many_arguments, reason = "one step of one conversation")]
    pub(super) fn verify(
        &self,
        offer: &Offer,
        part: Part,
        mut prefix: Prefix,
        lines: &mut LineStream<'_>,
        released: Moment,
        taken: &Received,
        want: u64,
        transfer: &mut Transfer,
    ) -> Result<Part> {
        let info = &offer.file;
        prefix.extend(&part, info.bytes, |alive| {
            log_error(lines.write_line(alive));
            Ok(())
        })?;
        let sha1 = prefix.hasher.finish();
        let hashed = clock::now().since(released);
        transfer.seconds_verified = Some(hashed);
        transfer.first_client = taken.first.map(|first| (clock::id(), first));
        log_error(lines.write_line(&FromClient::Hashed { sha1 }.encode()));
        if sha1 == info.sha1 {
            return Ok(part);
        }
        part.discard();
        transfer.verified = Some(false);
        let last = taken.last.since(released);
        let receipt = Receipt {
            bytes: want,
            sha1,
            last,
            hashed,
            durable: None,
            first: transfer.first_client,
            counts: taken.counts,
        };
        log_error(lines.write_line(&FromClient::Receipt(receipt).encode()));
        let why = match read_message(lines, clock::now().after(SUMMARY_LIMIT), Phase::Receipt) {
            Ok(FromServer::Error {
                code: ErrorCode::Changed,
                reason,
            }) => crate::text::escape(&reason),
            _ => format!("its SHA-1 is {sha1}, not {}", info.sha1),
        };
        Err(Error::Corrupt {
            what: format!("'{}': {why}", info.name),
        })
    }
}

impl Prefix {
    /// Hashes the part up to `end`, reading it back from disk, and has the server told each second
    /// that this client lives.
    pub(super) fn extend(
        &mut self,
        part: &Part,
        end: u64,
        mut tell: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; crate::digest::HASH_BUF];
        let mut alive = clock::now().after(ALIVE_EVERY);
        while self.bytes < end {
            let want = usize::try_from(end - self.bytes)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read =
                copy::read_at(part.file(), &mut buffer[..want], self.bytes).map_err(|stop| {
                    match stop {
                        copy::Stop::Disk(error) => {
                            Error::io("read the copy back", part.shown())(error)
                        }
                        _ => Error::Corrupt {
                            what: format!("{} was truncated by another program", part.shown()),
                        },
                    }
                })?;
            self.hasher.update(&buffer[..read]);
            self.bytes += read as u64;
            // Other clients of this machine may still receive; those go first.
            thread::yield_now();
            if clock::now() >= alive {
                alive = clock::now().after(ALIVE_EVERY);
                tell(&FromClient::Alive { bytes: self.bytes }.encode())?;
            }
        }
        Ok(())
    }
}
