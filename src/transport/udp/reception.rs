//! One client's reception of a payload: datagrams in, blocks to their places, reports out.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
    time::Duration,
};

use crate::{
    client::{
        messages::server_error,
        receive::{self, PartialReceive, ReceiveContext, ReceiveError, Received},
    },
    error::{Error, Phase, Result},
    net::{clock, copy, line_stream::LineStream},
    proto::{
        native::FromServer,
        udp::{
            receiver::{BlockReceiver, Delivery, ReceiverCounts},
            reports::RepairMode,
        },
    },
    text::escape,
    transfer::{Counts, Evidence},
    transport::udp::{
        block_writer::{BlockRun, BlockWriter},
        group_receiver::Subscription,
        socket::{POLL_INTERVAL, ReceivedRow, RecvSocket},
    },
    units::{Moment, micros},
};

/// Where datagrams come from.
#[derive(Debug)]
pub(super) struct DatagramSource {
    /// This client's own socket; with a group it gets what the group leaves to be repaired.
    pub(super) socket: RecvSocket,
    pub(super) group: Option<Subscription>,
}

/// One client's reception.
pub(super) struct Reception<'a> {
    context: &'a ReceiveContext<'a>,
    mode: RepairMode,
    receiver: BlockReceiver,
    writer: BlockWriter<'a>,
    server: IpAddr,
    /// The port from which the stream comes: the one in the terms, or that of the first block.
    port: Option<u16>,
    /// All datagrams, from whatever sender.
    delivered: u64,
    first: Option<Moment>,
    last: Moment,
    /// When the sender said that everything was sent.
    ended_at: Option<Moment>,
    /// The group is done, and what comes now is for this client alone.
    alone: bool,
}

/// How long raw waits for datagrams that were overtaken, after the sender has said that it is done.
const GRACE: Duration = Duration::from_millis(300);

/// After so long without a datagram the control connection is read.
const QUIET: Duration = Duration::from_millis(500);

/// So long after the group's last block a client reads its own socket too.
const GROUP_SILENCE: Duration = Duration::from_millis(30);

impl DatagramSource {
    /// The receive buffer, bytes as the kernel counts them.
    pub(super) fn room(&self) -> u64 {
        let group = self.group.as_ref().map_or(u64::MAX, Subscription::room);
        self.socket.room.min(group)
    }

    /// Datagrams dropped on this machine, where the system counts them.
    fn drops(&self) -> Option<u64> {
        let group = self.group.as_ref().map_or(Some(0), Subscription::drops)?;
        Some(group + self.socket.drops()?)
    }
}

impl<'a> Reception<'a> {
    /// A reception of what `context` describes, from `server` and the port that it has named.
    pub(super) fn new(
        context: &'a ReceiveContext<'a>,
        mode: RepairMode,
        receiver: BlockReceiver,
        (server, port): (IpAddr, Option<u16>),
    ) -> Self {
        Self {
            context,
            mode,
            receiver,
            writer: BlockWriter::new(context.file),
            server,
            port,
            delivered: 0,
            first: None,
            last: clock::now(),
            ended_at: None,
            alone: false,
        }
    }

    /// Receives the payload.
    ///
    /// # Errors
    /// Why it ended early.
    pub(super) fn run(
        mut self,
        source: &mut DatagramSource,
        lines: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        let begun = clock::now();
        let ended = self.receive_all(source, lines);
        // However it ended: what is held counts as received.
        let flushed = self.flush();
        let ended = ended.and(flushed);
        let whole = self.receiver.is_whole();
        let over = self.ended_at.is_some() || whole;
        let prefix = u64::from(self.receiver.blocks.first_hole());
        let kept = (prefix * self.receiver.layout.block_len as u64)
            .min(self.writer.failed_at)
            .min(self.context.range.end);
        let counts = counts(self.receiver.finish(), self.delivered, source.drops());
        let error = match ended {
            Ok(()) if whole => {
                let (first, last, evidence) = (self.first, self.last, Evidence::default());
                return Ok(Received { first, last, counts, evidence });
            }
            Ok(()) => holes(&counts, lines.peer),
            Err(error) => error,
        };
        // A later session can only continue where the first hole begins. Raw has no later session:
        // it keeps what it has measured.
        let cut = self.mode != RepairMode::Raw && {
            let cut = self.context.file.cut(kept.max(self.context.range.start));
            cut.inspect_err(|error| log::warn!("cannot cut the part at its first hole: {error}"))
                .is_ok()
        };
        Err(ReceiveError {
            error,
            partial: Some(Box::new(PartialReceive {
                last: over.then(|| self.last.max(begun)),
                cut,
                counts,
            })),
        })
    }

    /// Receives datagrams until the file is whole or nothing more can come.
    fn receive_all(
        &mut self,
        source: &mut DatagramSource,
        lines: &mut LineStream<'_>,
    ) -> Result<()> {
        let range = &self.context.range;
        let stall = self.context.config.stall;
        // A session's rate is shared by its seats.
        let seats = u64::from(self.context.offer.clients);
        let deadline = copy::deadline((range.end - range.start).saturating_mul(seats), stall);
        let mut quiet_since = clock::now();
        let mut checked_at = quiet_since;
        loop {
            let came = match &source.group {
                Some(group) => self.receive_from_group(group, &mut source.socket)?,
                None => self.receive_own(&mut source.socket)?,
            };
            let now = clock::now();
            for report in self.receiver.poll_reports(now) {
                lines.write_line(&report.encode().0)?;
            }
            if self.receiver.is_whole() {
                return Ok(());
            }
            if self.context.stopped.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if self.mode == RepairMode::Raw && self.receiver.is_ended() {
                let ended = *self.ended_at.get_or_insert(now);
                // If blocks still come, the END may be forged.
                if now >= ended.max(self.last).after(GRACE) {
                    return Ok(());
                }
            }
            match came {
                // A stranger's datagrams are no sign that the server is alive.
                Some(true) => quiet_since = now,
                Some(false) => {}
                None => self.flush()?,
            }
            let quiet = now.since(quiet_since);
            if quiet > stall || now >= deadline {
                return Err(Error::timed_out(Phase::Transfer, lines.peer, stall));
            }
            if quiet > QUIET && now.since(checked_at) > QUIET {
                checked_at = now;
                check_control(lines)?;
            }
        }
    }

    /// Receives from this client's own socket: `None` where nothing came, otherwise whether some
    /// of it was of this stream.
    fn receive_own(&mut self, socket: &mut RecvSocket) -> Result<Option<bool>> {
        // Raw measures when each datagram comes; the others only need them all.
        let came =
            if self.mode == RepairMode::Raw { socket.receive() } else { socket.gather(true) };
        let came = came.map_err(Error::io("receive datagrams", self.server))?;
        came.map(|row| self.accept(row)).transpose()
    }

    /// Receives from the group and, once that is silent, from this client's own socket. Returns the
    /// same as [`Reception::receive_own`].
    fn receive_from_group(
        &mut self,
        group: &Subscription,
        socket: &mut RecvSocket,
    ) -> Result<Option<bool>> {
        let wait = if self.alone {
            Duration::ZERO
        } else {
            clock::left(self.receiver.poll_timeout())
                .unwrap_or(Duration::from_micros(50))
                .min(POLL_INTERVAL)
        };
        let server = self.server;
        let failed = || Error::io("receive datagrams", server);
        let mut came = None;
        if let Some(batch) = group.receive(wait).map_err(failed())? {
            let row = (batch.from, batch.segment, &batch.bytes[..], batch.came_at);
            came = Some(self.accept(row)?);
        }
        // A silent group may have left this client to a stream of its own.
        if came == Some(true) || !self.alone && clock::now().since(self.last) < GROUP_SILENCE {
            return Ok(came);
        }
        let gathered = socket.gather(self.alone);
        let Some(row) = gathered.map_err(failed())? else {
            return Ok(came);
        };
        let own = self.accept(row)?;
        if own && !self.alone {
            self.alone = true;
            self.receiver.leave_group();
        }
        Ok(Some(own))
    }

    /// Takes in what one call received; true when some of it was of this stream.
    fn accept(&mut self, (from, segment, bytes, came): ReceivedRow<'_>) -> Result<bool> {
        let foreign = from.ip().to_canonical() != self.server
            || self.port.is_some_and(|port| port != from.port());
        let strange = self.receiver.strange();
        // An empty datagram is one too.
        let datagrams = bytes.chunks(segment).chain(bytes.is_empty().then_some(bytes));
        let (mut count, mut new, mut ended) = (0, 0, Ok(()));
        let mut run = BlockRun::default();
        for datagram in datagrams {
            count += 1;
            match self.accept_one(foreign, datagram, &mut run, came) {
                Ok(bytes) => new += bytes,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        let written = self.writer.end_run(&mut run).map_err(|stop| self.disk(stop));
        // Once for all of them: the counters of a process's clients lie side by side in memory.
        self.context.moved.fetch_add(new, Ordering::Relaxed);
        if new > 0 {
            self.port.get_or_insert_with(|| from.port());
        }
        ended.and(written).map(|()| count > self.receiver.strange() - strange)
    }

    /// Takes in one datagram; returns how many payload bytes it brought that are new.
    fn accept_one<'r>(
        &mut self,
        foreign: bool,
        datagram: &'r [u8],
        run: &mut BlockRun<'r>,
        came: (Moment, Moment),
    ) -> Result<u64> {
        self.delivered += 1;
        if foreign {
            self.receiver.handle_foreign();
            return Ok(0);
        }
        let (written, (offset, len)) = match self.receiver.handle(datagram, came.1) {
            Delivery::Nothing => return Ok(0),
            Delivery::Block { offset, payload } => {
                (self.writer.write(run, offset, payload), (offset, payload.len()))
            }
            Delivery::Coded { lacking, others, payload } => {
                let layout = self.receiver.layout;
                let others: Vec<_> = others.iter().map(|&b| layout.place(b)).collect();
                let place = layout.place(lacking);
                let written = self.writer.write_decoded(run, payload, &others, place);
                if written.is_ok() {
                    self.receiver.repaired(lacking);
                }
                (written, place)
            }
        };
        written.map_err(|stop| self.disk(stop))?;
        self.first.get_or_insert(came.0);
        self.last = came.1;
        let range = &self.context.range;
        let end = (offset + len as u64).min(range.end);
        Ok(end.saturating_sub(offset.max(range.start)))
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|stop| self.disk(stop))
    }

    fn disk(&self, stop: copy::Stop) -> Error {
        receive::stopped(stop, self.server, self.context.config, (0, 0))
    }
}

/// What the client knows; the server adds what it knows.
fn counts(counted: ReceiverCounts, delivered: u64, drops: Option<u64>) -> Counts {
    let figures = counted.figures;
    let us = |span: Option<Duration>| span.map(micros);
    Counts {
        lost: Some(figures.lost),
        duplicate: Some(figures.duplicate),
        reordered: Some(figures.reordered),
        jitter_us: us(figures.jitter),
        offered: Some(figures.unique + figures.lost),
        host_rx_drop: drops,
        delivered: Some(delivered - counted.ends),
        unique: Some(figures.unique),
        corrupt: Some(counted.corrupt),
        foreign: Some(counted.foreign),
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

/// The server may have sent a message on the control connection, or be gone.
fn check_control(lines: &mut LineStream<'_>) -> Result<()> {
    let until = clock::now().after(Duration::from_millis(1));
    let line = match lines.read_line(until, Phase::Transfer) {
        Ok(line) => line,
        Err(Error::TimedOut { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let peer = lines.peer;
    Err(match FromServer::decode(&line) {
        Ok(FromServer::Error { code, reason }) => server_error(peer, code, reason),
        Ok(FromServer::Summary(summary)) => {
            let outcome = summary.outcome.to_string();
            Error::refused(peer, escape(&summary.reason.unwrap_or(outcome)))
        }
        _ => Error::protocol(peer, "unexpected message during the transfer"),
    })
}

#[cfg(test)]
mod tests;
