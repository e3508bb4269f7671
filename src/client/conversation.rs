//! One client's conversation with the server, from JOIN to its receipt.

use std::{net::TcpStream, sync::atomic::Ordering, time::Duration};

use crate::{
    client::{
        config::FetchConfig,
        download::{Checked, Download, Verified},
        messages::{OFFER_LIMIT, prove, read_message, server_error},
        part::PublishedCopy,
        receive::{
            PrepareContext, ReceiveContext, ReceiveError, ReceiveSession, ReceiveTransport,
            Received,
        },
        report::{ClientReport, outcome_of},
        run::FetchRun,
        shared::{Client, ClientStage},
        waiting::{self, WaitEnd},
    },
    digest::Digest,
    error::{Error, Phase, Result},
    net::{clock, cpu_times, cpu_times_since, line_stream::LineStream},
    proto::native::{ClientHello, ErrorCode, FromClient, FromServer, Join, Offer, Receipt},
    session::{SeatId, Via},
    text::escape,
    transfer::{Evidence, Outcome, Transfer},
    units::{Moment, micros},
};

/// How long the server's summary is waited for.
const SUMMARY_LIMIT: Duration = Duration::from_secs(30);

impl FetchRun {
    /// Runs every client to its end, each by a native conversation with the server.
    ///
    /// # Errors
    /// The fetch cannot be begun: a number out of range, too few file descriptors. What happens
    /// to a client after that is in its [`ClientReport`].
    pub fn run(
        &self,
        config: &FetchConfig,
        transports: &[&dyn ReceiveTransport],
    ) -> Result<Vec<ClientReport>> {
        self.run_each(config, &|client, number| {
            let mut conversation = Conversation {
                run: self,
                config,
                client,
                number,
                transports,
                report: ClientReport::default(),
                released: clock::now(),
            };
            let result = conversation.run();
            conversation.report.close(result, self.is_stopped());
            // The server waits for the connection to close; it must not outlive its conversation.
            client.set_stream(None);
            client.set_stage(ClientStage::Ended);
            conversation.report
        })
    }
}

/// One client's way through one session.
struct Conversation<'a> {
    run: &'a FetchRun,
    config: &'a FetchConfig,
    client: &'a Client,
    number: u16,
    transports: &'a [&'a dyn ReceiveTransport],
    report: ClientReport,
    /// When GO came.
    released: Moment,
}

/// What a client has ready for GO.
struct Prepared {
    download: Download,
    session: Box<dyn ReceiveSession>,
    /// Where the bytes that it lacks begin.
    offset: u64,
}

impl Conversation<'_> {
    fn run(&mut self) -> Result<()> {
        let stream = self.run.connect(self.client, self.config)?;
        let peer = stream.peer_addr().map_err(Error::io("connect", "the server"))?;
        let mut lines = LineStream::new(&stream, peer, b"");
        self.client.set_stage(ClientStage::Joining);
        let mut offer = self.join(&stream, &mut lines)?;
        let mut prepared = self.get_ready(&offer, &mut lines)?;
        let others = loop {
            match waiting::wait(
                (self.client, self.transports),
                &stream,
                &mut lines,
                (&offer, prepared.offset),
            )? {
                WaitEnd::Go(others) => break others,
                WaitEnd::Offer(chosen) => {
                    // Its part has another name, or is another's until this is closed.
                    drop(prepared);
                    offer = chosen;
                    self.report.offer = Some(offer.clone());
                    prepared = self.get_ready(&offer, &mut lines)?;
                }
            }
        };
        let offset = prepared.offset;
        if !others.is_empty() {
            prepared.session.limit_peers(others);
        }
        self.released = lines.came_at;
        let cpu = cpu_times(); // Not before: the muster is no part of these seconds.
        self.report.released_at = Some(clock::wall());
        self.client.set_stage(ClientStage::Receiving);
        self.transfer().bytes_resumed = offset;

        let received = self.receive(&mut prepared, &offer, &stream, &mut lines)?;
        let Prepared { download, session, .. } = prepared;
        let released = self.released;
        let transfer = self.transfer();
        (transfer.counts, transfer.evidence) = (received.counts, received.evidence);
        transfer.seconds_client = Some(received.last.since(released));
        let bytes = transfer.bytes_client.unwrap_or_default();
        log_error(lines.write_line(&FromClient::Last { bytes }.encode()));
        if offer.via == Via::Multicast {
            // A group waits for it, and TCP finds out at once that it is lost if a line follows.
            log_error(lines.write_line(&FromClient::Alive { bytes: 0 }.encode()));
        }
        self.client.set_stage(ClientStage::Verifying);
        self.run.wait_for_receivers();

        let begun = clock::now();
        let verified = self.verify(download, &offer, &received, &mut lines)?;
        let (hashed, sha1) = (clock::now(), verified.sha1);
        let published = self.publish(verified, &lines, offer.file.bytes);
        let copy =
            published.inspect_err(|error| send_failure(&lines, error, bytes, self.transfer()))?;
        let (synced, cpu) = (clock::now().since(hashed), cpu_times_since(cpu));
        let transfer = self.transfer();
        transfer.evidence = Evidence {
            hash_us: Some(micros(hashed.since(begun))),
            sync_us: copy.is_durable.then(|| micros(synced)),
            cpu_us: cpu.map(|(ran, _)| micros(ran)),
            cpu_wait_us: cpu.map(|(_, waited)| micros(waited)),
            ..transfer.evidence
        };
        transfer.seconds_durable = copy.is_durable.then(|| clock::now().since(released));
        transfer.verified = Some(true);
        self.report.path = Some(copy.path);
        self.conclude(sha1, &received, &mut lines);
        session.serve_others(&self.run.stopped);
        Ok(())
    }

    /// The row of this client, which is there from the offer on.
    fn transfer(&mut self) -> &mut Transfer {
        self.report.transfer.as_mut().expect("made with the offer, before anything else")
    }

    /// JOIN to OFFER.
    fn join(&mut self, stream: &TcpStream, lines: &mut LineStream<'_>) -> Result<Offer> {
        let (config, peer) = (self.config, lines.peer);
        let name = config.name_of(self.number)?;
        let join = Join {
            file: config.file.clone(),
            group: config.group.unwrap_or(config.clients),
            via: config.via,
            name: name.clone(),
            takes_trees: config.takes_trees(),
            ways: waiting::ways(self.transports),
            auto: config.auto,
        };
        prove(lines, config.key.as_ref())?;
        self.report.key = lines.is_sealed();
        lines.write_line(&ClientHello::Join(join).encode())?;
        let offer = match read_message(lines, clock::now().after(OFFER_LIMIT), Phase::Offer)? {
            FromServer::Offer(offer) => offer,
            FromServer::Error { code, reason } => return Err(server_error(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no offer")),
        };
        config.compare_group(self.number, offer.clients);
        let mut transfer = Transfer::new(offer.seat, name.as_str(), Outcome::Complete);
        transfer.client = stream.local_addr().ok();
        transfer.server = Some(peer);
        self.report.transfer = Some(transfer);
        self.report.offer = Some(offer.clone());
        Ok(offer)
    }

    /// OFFER to READY.
    fn get_ready(&self, offer: &Offer, lines: &mut LineStream<'_>) -> Result<Prepared> {
        let prepared = self.prepare(offer, lines);
        let prepared = prepared.inspect_err(|error| send_refusal(lines, error))?;
        lines.write_line(&FromClient::Ready { offset: prepared.offset }.encode())?;
        self.client.set_stage(ClientStage::Waiting);
        Ok(prepared)
    }

    /// Checks the offer and opens the part; hashes what an earlier session left in it.
    fn prepare(&self, offer: &Offer, lines: &mut LineStream<'_>) -> Result<Prepared> {
        let (config, info, peer) = (self.config, &offer.file, lines.peer);
        if let Some(file) = config.file.as_ref().filter(|file| **file != info.name) {
            let what = format!("offered '{}' and not '{file}'", info.name);
            return Err(Error::protocol(peer, what));
        }
        if config.run.is_some() && config.run != offer.run {
            return Err(Error::refused(peer, "it was started anew after it was asked"));
        }
        config.check_name(peer, &info.name)?;
        config.check_sha1(peer, &info.name, Some(info.sha1))?;
        let transport = self.transports.iter().find(|t| t.via() == offer.via);
        let Some(transport) = transport else {
            let reason = format!("this client cannot receive via {}", offer.via);
            return Err(Error::refused("gatecast", reason));
        };
        let order = transport.byte_order();
        let mut download = self.run.open_part(config, self.number, offer, order, lines)?;
        self.client.expect(info.bytes - download.resumed());
        let context = PrepareContext { lines, offer, file: download.file() };
        let session = transport.prepare(context)?;
        let offset = match session.bytes_held() {
            Some(held) => held,
            None => {
                let resumed = download.resumed();
                download.hash_to(resumed, |bytes| self.run.send_alive(lines, bytes))?;
                resumed
            }
        };
        self.client.expect(info.bytes - offset);
        Ok(Prepared { download, session, offset })
    }

    /// GO to the last byte. A failure is sent to the server, with what was counted.
    fn receive(
        &mut self,
        prepared: &mut Prepared,
        offer: &Offer,
        stream: &TcpStream,
        lines: &mut LineStream<'_>,
    ) -> Result<Received> {
        let download = &mut prepared.download;
        download
            .begin_holes()
            .inspect_err(|error| send_failure(lines, error, 0, self.transfer()))?;
        let context = ReceiveContext {
            stream,
            offer,
            config: self.config,
            file: download.file(),
            range: prepared.offset..offer.file.bytes,
            moved: &self.client.moved,
            stopped: &self.run.stopped,
        };
        let early_sync = self.config.durable.then(|| download.early_sync()).flatten();
        let receiving = self.run.begin_receiving(early_sync);
        let received = prepared.session.receive(&context, lines);
        drop(receiving);
        let bytes = self.client.moved.load(Ordering::Relaxed);
        self.transfer().bytes_client = Some(bytes);
        let ReceiveError { error, partial } = match received {
            Ok(received) => return Ok(received),
            Err(stop) => stop,
        };
        // Whatever else the stop has broken, this is why.
        let error = if self.run.is_stopped() { Error::Interrupted } else { error };
        // A part with holes is removed, unless it was cut to what has none; a folder's is kept.
        let has_holes =
            offer.tree.is_none() && matches!(offer.via, Via::Udp | Via::Raw | Via::Multicast);
        self.report.is_kept = prepared.offset + bytes > 0
            && !self.config.is_in_place()
            && (!has_holes || partial.as_ref().is_some_and(|partial| partial.cut));
        if let Some(partial) = &partial {
            let released = self.released;
            let transfer = self.transfer();
            transfer.counts = partial.counts;
            transfer.seconds_client = partial.last.map(|last| last.since(released));
            if partial.cut {
                prepared.download.end_holes();
            }
        }
        send_failure(lines, &error, bytes, self.transfer());
        if partial.is_some() && !self.run.is_stopped() {
            self.read_summary(lines);
        }
        Err(error)
    }

    /// Reads the copy back from disk, and sends its digest. For a copy that is not the file the
    /// receipt follows at once.
    fn verify(
        &mut self,
        mut download: Download,
        offer: &Offer,
        received: &Received,
        lines: &mut LineStream<'_>,
    ) -> Result<Verified> {
        // All is there: who stops now finds it again.
        download.end_holes();
        let checked = self.run.may_go_on().and_then(|()| {
            download.verify(|bytes| {
                log_error(lines.write_line(&FromClient::Alive { bytes }.encode()));
                self.run.may_go_on()
            })
        });
        let checked = checked.inspect_err(|error| {
            self.report.is_kept = self.run.is_stopped() && !self.config.is_in_place();
            let bytes = self.transfer().bytes_client.unwrap_or_default();
            send_failure(lines, error, bytes, self.transfer());
        })?;
        let hashed = clock::now().since(self.released);
        let transfer = self.transfer();
        transfer.seconds_verified = Some(hashed);
        transfer.first_client = received.first.map(|first| (clock::id(), first));
        let sha1 = match &checked {
            Checked::Whole(verified) => verified.sha1,
            Checked::Corrupt { sha1, .. } => *sha1,
        };
        log_error(lines.write_line(&FromClient::Hashed { sha1 }.encode()));
        let why = match checked {
            Checked::Whole(verified) => return Ok(verified),
            Checked::Corrupt { why, .. } => why,
        };
        self.transfer().verified = Some(false);
        let receipt = self.receipt(sha1, received).encode();
        log_error(lines.write_line(&receipt));
        let answer = read_message(lines, clock::now().after(SUMMARY_LIMIT), Phase::Receipt);
        let why = match answer {
            Ok(FromServer::Error { code: ErrorCode::Changed, reason }) => escape(&reason),
            _ => why,
        };
        Err(Error::Corrupt { what: format!("'{}': {why}", offer.file.name) })
    }

    /// Makes the copy durable, where that was asked for, and gives it its final name.
    fn publish(
        &self,
        verified: Verified,
        lines: &LineStream<'_>,
        bytes: u64,
    ) -> Result<PublishedCopy> {
        if self.config.durable {
            // A slow disk may take long; the server is told before and gives the same time again.
            log_error(lines.write_line(&FromClient::Alive { bytes }.encode()));
            verified.sync()?;
        }
        verified.publish(self.config.durable)
    }

    fn receipt(&mut self, sha1: Digest, received: &Received) -> FromClient {
        let transfer = self.transfer();
        FromClient::Receipt(Receipt {
            bytes: transfer.bytes_client.unwrap_or_default(),
            sha1,
            last: transfer.seconds_client.unwrap_or_default(),
            hashed: transfer.seconds_verified.unwrap_or_default(),
            durable: transfer.seconds_durable,
            first: transfer.first_client,
            counts: received.counts,
            evidence: transfer.evidence,
        })
    }

    /// Sends the receipt and reads the summary. The copy is proven by now; a server that is gone
    /// takes only its own figures with it.
    fn conclude(&mut self, sha1: Digest, received: &Received, lines: &mut LineStream<'_>) {
        let receipt = self.receipt(sha1, received).encode();
        match lines.write_line(&receipt) {
            Ok(()) => self.read_summary(lines),
            Err(error) => log::warn!("seat {}: no summary: {error}", self.transfer().seat),
        }
    }

    /// Reads the server's account; without it the copy is no less proven.
    fn read_summary(&mut self, lines: &mut LineStream<'_>) {
        let transfer = self.transfer();
        let seat = transfer.seat;
        match read_message(lines, clock::now().after(SUMMARY_LIMIT), Phase::Receipt) {
            Ok(FromServer::Summary(summary)) => {
                transfer.bytes_server = Some(summary.bytes);
                transfer.seconds_server = summary.last;
                transfer.woke = Some(summary.woke);
                transfer.first_server = summary.first;
                transfer.counts = summary.counts;
                transfer.evidence = transfer.evidence.or(summary.evidence);
                if summary.outcome == Outcome::Complete {
                    transfer.reason = summary.reason;
                } else if transfer.outcome == Outcome::Complete && transfer.verified.is_some() {
                    let outcome = summary.outcome;
                    let reason = escape(&summary.reason.unwrap_or_default());
                    log::warn!("the server counts this copy as {outcome}: {reason}");
                }
                self.report.sender = Some(summary.sender);
            }
            Ok(_) => log::warn!("seat {seat}: the server's last message was no summary"),
            Err(error) => log::warn!("seat {seat}: no summary: {error}"),
        }
    }
}

/// Once the last byte is in, a server that is gone takes only its own figures with it: the copy is
/// verified, and whole or not, without it.
fn log_error(written: Result<()>) {
    if let Err(error) = written {
        log::warn!("{error}");
    }
}

/// Tells the server that this client cannot be served, before the release.
fn send_refusal(lines: &LineStream<'_>, error: &Error) {
    let nobody = Transfer::new(SeatId(0), "", Outcome::Refused);
    write_fail(lines, Outcome::Refused, error, 0, &nobody);
}

/// Tells the server how the transfer failed, with what was counted of it.
fn send_failure(lines: &LineStream<'_>, error: &Error, bytes: u64, transfer: &Transfer) {
    write_fail(lines, outcome_of(error), error, bytes, transfer);
}

fn write_fail(
    lines: &LineStream<'_>,
    outcome: Outcome,
    error: &Error,
    bytes: u64,
    transfer: &Transfer,
) {
    let line = FromClient::Fail {
        outcome,
        bytes,
        reason: error.to_string(),
        last: transfer.seconds_client,
        counts: transfer.counts,
    }
    .encode();
    // The connection may be what failed.
    if let Err(error) = lines.write_line(&line) {
        log::debug!("{error}");
    }
}
