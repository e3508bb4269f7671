//! How bytes travel, and what all ways say and do alike. None of these imports another.

use std::{net::TcpStream, time::Duration};

use crate::{
    net::{clock, copy, copy::Stop, socket, storage::FileStorage},
    server::{
        gate::SeatConnection,
        transport::{TransferFailure, cut},
    },
    transfer::Outcome,
    units::Moment,
};

pub mod chain;
pub mod swarm;
pub mod tcp;
pub mod udp;

/// Watches how far a client comes that takes its bytes from anywhere.
struct ProgressWatch {
    has: u64,
    since: Moment,
    source_checked: Moment,
}

/// How often the source file is checked for changes.
const SOURCE_EVERY: Duration = Duration::from_secs(1);

impl ProgressWatch {
    /// The client begins with `has`.
    fn new(has: u64) -> Self {
        let now = clock::now();
        Self { has, since: now, source_checked: now }
    }

    /// The client of `seat` has `has` of `what`; returns whether that is more than before.
    ///
    /// # Errors
    /// It has got no further for too long, or the source has changed.
    fn update(
        &mut self,
        seat: &SeatConnection,
        has: u64,
        what: &str,
    ) -> Result<bool, TransferFailure> {
        let (now, session) = (clock::now(), &seat.session);
        let is_more = has > self.has;
        if is_more {
            (self.has, self.since) = (has, now);
        } else if now.since(self.since) > session.stall {
            let (limit, has) = (session.stall.as_secs_f64(), self.has);
            let reason = format!("no new {what} for {limit} s, with {has}");
            return Err(TransferFailure::new(Outcome::TimedOut, reason));
        }
        if now.since(self.source_checked) > SOURCE_EVERY {
            self.source_checked = now;
            session.source.change().map_or(Ok(()), |reason| Err(source_changed(reason)))?;
        }
        Ok(is_more)
    }
}

/// The failure of every client of a source that is not the offered file any more.
fn source_changed(reason: String) -> TransferFailure {
    TransferFailure { outcome: Outcome::Cut, reason, source_changed: true }
}

/// The congestion control of `stream`, for the log.
fn congestion(stream: &TcpStream) -> String {
    socket::congestion(stream).unwrap_or_else(|| "unknown congestion control".to_owned())
}

/// Fills `bytes` with those of `file` at `at`.
fn read_all(file: &FileStorage, bytes: &mut [u8], at: u64) -> Result<(), Stop> {
    let mut done = 0;
    while done < bytes.len() {
        done += copy::read_at(file, &mut bytes[done..], at + done as u64)?;
    }
    Ok(())
}
