//! One client's reception of a payload: datagrams in, blocks to where they belong, reports out.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::FetchConfig;
use crate::client::receive::PartialReceive;
use crate::client::receive::ReceiveError;
use crate::client::receive::Received;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::copy;
use crate::net::line_stream::LineStream;
use crate::proto::native::ErrorCode;
use crate::proto::native::FromServer;
use crate::proto::udp::receiver::Account;
use crate::proto::udp::receiver::Heard;
use crate::proto::udp::receiver::How;
use crate::proto::udp::receiver::Receiver;
use crate::transfer::Counts;
use crate::transport::udp::hub::Batch;
use crate::transport::udp::hub::Tap;
use crate::transport::udp::socket::Inlet;
use crate::transport::udp::socket::NAP;
use crate::transport::udp::writer::Writer;
use crate::units::Moment;
use crate::units::micros;

/// Where datagrams come from.
#[derive(Debug)]
pub(super) enum Source {
    Own(Inlet),
    /// A group, and where what it leaves behind is repaired.
    Group(Tap, Inlet),
}

/// Where a payload goes.
pub(super) struct Target<'a> {
    pub(super) order: &'a FetchConfig,
    pub(super) file: &'a File,
    /// Counts the payload bytes as they move.
    pub(super) moved: &'a AtomicU64,
}

/// One client's reception.
pub(super) struct Reception<'a> {
    how: How,
    receiver: Receiver,
    writer: Writer<'a>,
    server: IpAddr,
    /// The port from which the stream comes: that of the first block.
    port: Option<u16>,
    range: Range<u64>,
    /// Datagrams from anybody.
    delivered: u64,
    first: Option<Moment>,
    last: Moment,
    /// When the sender said that it is done.
    told_at: Option<Moment>,
    /// The group is done, and what comes now is for this client.
    alone: bool,
}

/// How long raw waits for what was overtaken, after the sender has said that it is done.
const GRACE: Duration = Duration::from_millis(300);

/// After so long without a datagram the control connection is looked at.
const QUIET: Duration = Duration::from_millis(500);

/// So long after the group's last block a client looks for a stream of its own.
const LEFT: Duration = Duration::from_millis(30);

impl<'a> Reception<'a> {
    /// A reception of the bytes `range` from `server`.
    pub(super) fn new(
        how: How,
        receiver: Receiver,
        writer: Writer<'a>,
        server: IpAddr,
        range: Range<u64>,
        now: Moment,
    ) -> Self {
        Self {
            how,
            receiver,
            writer,
            server,
            port: None,
            range,
            delivered: 0,
            first: None,
            last: now,
            told_at: None,
            alone: false,
        }
    }

    /// Takes the payload in.
    ///
    /// # Errors
    /// Why it ended early.
    pub(super) fn run(
        mut self,
        target: &Target<'_>,
        source: &mut Source,
        lines: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        let begun = clock::now();
        let ended = self.listen(target, source, lines);
        let ended = ended.and_then(|()| self.writer.flush().map_err(|stop| disk(target, stop)));
        let drops = match &*source {
            Source::Own(inlet) => inlet.drops(),
            Source::Group(tap, inlet) => tap.drops().zip(inlet.drops()).map(|(a, b)| a + b),
        };
        let whole = self.receiver.is_whole();
        let prefix = u64::from(self.receiver.blocks().first_hole());
        let (_, block) = self.receiver.place(0);
        let counts = counts(self.receiver.account(), self.delivered, drops);
        let over = self.told_at.is_some() || whole;
        let error = match ended {
            Ok(()) if whole => {
                return Ok(Received {
                    first: self.first,
                    last: self.last,
                    counts,
                });
            }
            Ok(()) => holes(&counts, lines.peer()),
            Err(error) => error,
        };
        // Only what has no hole may be taken up by a later session; raw keeps what it has measured.
        let kept = (prefix * block as u64).max(self.range.start);
        let cut = self.how != How::Raw && {
            let cut = target.file.set_len(kept);
            cut.inspect_err(|error| log::warn!("cannot cut the part to what is whole: {error}"))
                .is_ok()
        };
        Err(ReceiveError {
            error,
            partial: Some(PartialReceive {
                last: over.then(|| self.last.max(begun)),
                cut,
                counts,
            }),
        })
    }

    /// Takes datagrams in until the file is whole or nothing more can come.
    fn listen(
        &mut self,
        target: &Target<'_>,
        source: &mut Source,
        lines: &mut LineStream<'_>,
    ) -> Result<()> {
        let mut quiet_since = clock::now();
        let mut looked_at = quiet_since;
        let deadline = copy::deadline(self.range.end - self.range.start, target.order.stall);
        loop {
            let came = match source {
                Source::Own(inlet) => match receive(inlet, self.how) {
                    Ok(Some((from, segment, bytes))) => {
                        Some(self.take(target, from, segment, bytes)?)
                    }
                    Ok(None) => None,
                    Err(error) => return Err(Error::io("receive datagrams", self.server)(error)),
                },
                Source::Group(tap, inlet) => self.take_group(target, tap, inlet)?,
            };
            let now = clock::now();
            for report in self.receiver.poll_reports(now) {
                lines.write_line(&report.encode().0)?;
            }
            if self.receiver.is_whole() {
                return Ok(());
            }
            if self.how == How::Raw && self.receiver.is_told() {
                let told = *self.told_at.get_or_insert(now);
                // Blocks that still come show that it was not the sender who said so.
                if now >= told.max(self.last).after(GRACE) {
                    return Ok(());
                }
            }
            match came {
                // Strangers' datagrams are no sign of life.
                Some(true) => quiet_since = now,
                Some(false) => {}
                None => self.writer.flush().map_err(|stop| disk(target, stop))?,
            }
            if now.since(quiet_since) > target.order.stall || now >= deadline {
                return Err(Error::TimedOut {
                    phase: Phase::Transfer.name(),
                    at: lines.peer().to_string(),
                    after: target.order.stall,
                });
            }
            if now.since(quiet_since) > QUIET && now.since(looked_at) > QUIET {
                looked_at = now;
                look(lines)?;
            }
        }
    }

    /// What came from the group or, once that is silent, to this client alone: as
    /// [`Reception::take`], and `None` where nothing came.
    fn take_group(
        &mut self,
        target: &Target<'_>,
        tap: &Tap,
        inlet: &mut Inlet,
    ) -> Result<Option<bool>> {
        let wait = match self.alone {
            true => Duration::ZERO,
            false => clock::left(self.receiver.poll_timeout())
                .unwrap_or(Duration::from_micros(50))
                .min(NAP),
        };
        let server = self.server;
        let failed = |error| Error::io("receive datagrams", server)(error);
        let batch: Option<Arc<Batch>> = tap.receive(wait).map_err(failed)?;
        let mut came = None;
        if let Some(batch) = &batch {
            came = Some(self.take(target, batch.from, batch.segment, &batch.bytes)?);
        }
        // The group is silent: it may have left us to a stream of our own.
        if came == Some(true) || !self.alone && clock::now().since(self.last) < LEFT {
            return Ok(came);
        }
        match inlet.gather(self.alone).map_err(failed)? {
            Some((from, segment, bytes)) => {
                if !self.alone && from.ip().to_canonical() == self.server {
                    self.alone = true;
                    self.receiver.alone();
                }
                let own = self.take(target, from, segment, bytes)?;
                Ok(Some(own || came == Some(true)))
            }
            None => Ok(came),
        }
    }

    /// Takes what one call brought; true when some of it was of this stream.
    fn take(
        &mut self,
        target: &Target<'_>,
        from: SocketAddr,
        segment: usize,
        bytes: &[u8],
    ) -> Result<bool> {
        let now = clock::now();
        let foreign = from.ip().to_canonical() != self.server
            || self.port.is_some_and(|port| port != from.port());
        let (mut count, strange) = (0, self.receiver.strange());
        // An empty datagram is one too.
        let datagrams = bytes
            .chunks(segment)
            .chain(bytes.is_empty().then_some(bytes));
        let (mut new, mut ended) = (0, Ok(()));
        for datagram in datagrams {
            count += 1;
            match self.take_one(target, foreign, datagram, now) {
                Ok(bytes) => new += bytes,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        // Once for all of them: the counters of a process's clients lie side by side in memory.
        target.moved.fetch_add(new, Ordering::Relaxed);
        if new > 0 {
            self.port.get_or_insert_with(|| from.port());
        }
        ended.map(|()| count > self.receiver.strange() - strange)
    }

    /// Takes one datagram; returns the payload bytes that are new by it.
    fn take_one(
        &mut self,
        target: &Target<'_>,
        foreign: bool,
        datagram: &[u8],
        now: Moment,
    ) -> Result<u64> {
        self.delivered += 1;
        if foreign {
            self.receiver.handle_foreign();
            return Ok(0);
        }
        let (offset, written) = match self.receiver.handle(datagram, now) {
            Heard::Nothing => return Ok(0),
            Heard::Block { offset, payload } => {
                let put = self.writer.put(offset, payload);
                put.map_err(|stop| disk(target, stop))?;
                (offset, payload.len())
            }
            Heard::Coded {
                lacking,
                others,
                payload,
            } => {
                let places: Vec<_> = others.iter().map(|&b| self.receiver.place(b)).collect();
                let place = self.receiver.place(lacking);
                let decoded = self.writer.decode(payload, &places, place);
                decoded.map_err(|stop| disk(target, stop))?;
                self.receiver.repaired(lacking);
                place
            }
        };
        self.first.get_or_insert(now);
        self.last = now;
        let end = (offset + written as u64).min(self.range.end);
        Ok(end.saturating_sub(offset.max(self.range.start)))
    }
}

/// Raw measures when each datagram comes; the others only need them all.
fn receive(inlet: &mut Inlet, how: How) -> io::Result<Option<(SocketAddr, usize, &[u8])>> {
    match how {
        How::Raw => inlet.receive(),
        How::Unicast | How::Multicast(_) => inlet.gather(true),
    }
}

/// What the client knows; the server adds what it knows.
fn counts(account: Account, delivered: u64, drops: Option<u64>) -> Counts {
    let figures = account.figures;
    let us = |span: Option<Duration>| span.map(micros);
    Counts {
        lost: Some(figures.lost),
        duplicate: Some(figures.duplicate),
        reordered: Some(figures.reordered),
        jitter_us: us(figures.jitter),
        offered: Some(figures.unique + figures.lost),
        host_rx_drop: drops,
        delivered: Some(delivered - account.ends),
        unique: Some(figures.unique),
        corrupt: Some(account.corrupt),
        foreign: Some(account.foreign),
        late: Some(figures.late),
        reorder_extent: Some(figures.reorder_extent),
        loss_burst: Some(figures.burst),
        jitter_p50_us: us(figures.jitter_p50),
        jitter_p95_us: us(figures.jitter_p95),
        jitter_p99_us: us(figures.jitter_p99),
        delay_us: us(figures.delay),
        delay_max_us: us(figures.delay_max),
        ..Counts::default()
    }
}

/// Why a payload that is over is not whole.
fn holes(counts: &Counts, peer: SocketAddr) -> Error {
    let (lost, offered) = (counts.lost.unwrap_or(0), counts.offered.unwrap_or(0));
    let why = format!("{lost} of {offered} datagrams were lost");
    Error::io("receive the whole file", peer)(io::Error::new(io::ErrorKind::UnexpectedEof, why))
}

fn disk(target: &Target<'_>, stop: copy::Stop) -> Error {
    let at = target.order.out.display();
    match stop {
        copy::Stop::Disk(error) | copy::Stop::Peer(error) => Error::io("write the copy", at)(error),
        copy::Stop::Short | copy::Stop::Stalled => Error::Corrupt {
            what: "the copy is shorter than what was written".to_owned(),
        },
    }
}

/// Nothing comes: the server may have said why, or be gone.
fn look(lines: &mut LineStream<'_>) -> Result<()> {
    let until = clock::now().after(Duration::from_millis(1));
    match lines.read_line(until, Phase::Transfer) {
        Ok(line) => Err(told(lines.peer(), &line)),
        Err(Error::TimedOut { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the server says to a client that receives, as this client's error.
fn told(peer: SocketAddr, line: &str) -> Error {
    match FromServer::decode(line) {
        Ok(FromServer::Error { code, reason }) => {
            let reason = crate::text::escape(&reason);
            match code {
                ErrorCode::Changed => Error::SourceChanged {
                    at: peer.to_string(),
                    what: reason,
                },
                _ => Error::refused(peer, reason),
            }
        }
        Ok(FromServer::Summary(summary)) => {
            let reason = summary
                .reason
                .unwrap_or_else(|| summary.outcome.to_string());
            Error::refused(peer, crate::text::escape(&reason))
        }
        _ => Error::protocol(peer, "no message for a client that receives"),
    }
}

#[cfg(test)]
mod tests;
