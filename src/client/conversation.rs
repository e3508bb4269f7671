//! One client's conversation with the server, from JOIN to its receipt.

use std::cell::Cell;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::Client;
use crate::client::ClientReport;
use crate::client::ClientStage;
use crate::client::FetchConfig;
use crate::client::FetchRun;
use crate::client::OFFER_LIMIT;
use crate::client::SUMMARY_LIMIT;
use crate::client::outcome_of;
use crate::client::part::Part;
use crate::client::read_message;
use crate::client::receive::PrepareContext;
use crate::client::receive::ReceiveContext;
use crate::client::receive::ReceiveSession;
use crate::client::receive::ReceiveTransport;
use crate::client::receive::Received;
use crate::client::server_error;
use crate::client::verify::Prefix;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::line_stream::LineStream;
use crate::proto::native::ClientHello;
use crate::proto::native::FromClient;
use crate::proto::native::FromServer;
use crate::proto::native::Join;
use crate::proto::native::Offer;
use crate::proto::native::Receipt;
use crate::session::SeatId;
use crate::transfer::Outcome;
use crate::transfer::Transfer;

/// What a client has ready for GO: its part, what is hashed of it, and its way.
type Begun = (Part, Prefix, Box<dyn ReceiveSession>);

/// How long the gate may be silent; it says WAIT every second.
const GATE_SILENCE: Duration = Duration::from_secs(10);

impl Client {
    pub(super) fn converse(
        &self,
        fetch: &FetchRun,
        order: &FetchConfig,
        number: u16,
        intakes: &[&dyn ReceiveTransport],
        end: &mut ClientReport,
    ) -> Result<()> {
        let stream = self.connect(fetch, order)?;
        let peer = stream
            .peer_addr()
            .map_err(Error::io("connect", "the server"))?;
        let mut lines = LineStream::new(&stream, peer, b"");
        self.set_stage(ClientStage::Joining);

        let name = order.name_of(number)?;
        let group = order.group.unwrap_or(order.clients);
        let join = Join {
            file: order.file.clone(),
            group,
            via: order.via,
            name: name.clone(),
        };
        lines.write_line(&ClientHello::Join(join).encode())?;
        let offer = match read_message(&mut lines, clock::now().after(OFFER_LIMIT), Phase::Offer)? {
            FromServer::Offer(offer) => offer,
            FromServer::Error { code, reason } => return Err(server_error(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no offer")),
        };
        let mut transfer = Transfer::new(offer.seat, name.as_str(), Outcome::Complete);
        transfer.client = stream.local_addr().ok();
        transfer.server = Some(peer);
        end.transfer = Some(transfer);
        end.offer = Some(offer.clone());

        let begun = self.begin(order, number, &offer, intakes, &stream, &mut lines);
        let (mut part, hasher, mut armed) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                refuse(&lines, &error);
                return Err(error);
            }
        };
        let offset = armed.bytes_held().unwrap_or_else(|| part.resumed());
        lines.write_line(&FromClient::Ready { offset }.encode())?;
        self.set_stage(ClientStage::Waiting);
        self.wait(&mut lines, &offer, offset)?;
        let released = lines.last_read_at();
        end.released_at = Some(clock::wall());
        self.set_stage(ClientStage::Receiving);

        let transfer = end.transfer.as_mut().expect("made above");
        transfer.bytes_resumed = offset;
        let range = offset..offer.file.bytes;
        let want = range.end - range.start;
        if let Err(error) = part.begin_holes() {
            fail(&lines, &error, 0, transfer);
            return Err(error);
        }
        let incoming = ReceiveContext {
            stream: &stream,
            offer: &offer,
            order,
            file: part.file(),
            range,
            moved: &self.moved,
            holed: Cell::new(None),
            stopped: &fetch.stopped,
        };
        let receiving = fetch.begin_receiving();
        let taken = armed.receive(&incoming, &mut lines);
        drop(receiving);
        let bytes = self.moved.load(Ordering::Relaxed);
        transfer.bytes_client = Some(bytes);
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                let holed = incoming.holed.get();
                if let Some(holed) = holed {
                    transfer.counts = holed.counts;
                    transfer.seconds_client = holed.last.map(|last| last.since(released));
                }
                if holed.is_some_and(|holed| holed.cut) {
                    part.end_holes();
                }
                fail(&lines, &error, bytes, transfer);
                if holed.is_some() {
                    self.read_summary(&mut lines, transfer, &mut end.sender);
                }
                return Err(error);
            }
        };
        transfer.counts = taken.counts;
        transfer.seconds_client = Some(taken.last.since(released));
        log_error(lines.write_line(&FromClient::Last { bytes }.encode()));
        self.set_stage(ClientStage::Verifying);
        fetch.wait_for_receivers();
        let part = self.verify(
            &offer, part, hasher, &mut lines, released, &taken, want, transfer,
        )?;
        let (path, durable) = match store(part, order.durable, &lines, offer.file.bytes) {
            Ok(path) => (path, order.durable.then(|| clock::now().since(released))),
            Err(error) => {
                fail(&lines, &error, bytes, transfer);
                return Err(error);
            }
        };
        transfer.seconds_durable = durable;
        transfer.verified = Some(true);
        end.path = Some(path);
        self.conclude(&mut lines, &offer, bytes, &taken, transfer, &mut end.sender);
        armed.serve_others(&fetch.stopped);
        Ok(())
    }

    /// Checks the offer and opens the part; with a part of an earlier session, hashes it.
    fn begin(
        &self,
        order: &FetchConfig,
        number: u16,
        offer: &Offer,
        intakes: &[&dyn ReceiveTransport],
        stream: &TcpStream,
        lines: &mut LineStream<'_>,
    ) -> Result<Begun> {
        let peer = lines.peer();
        let info = &offer.file;
        if let Some(file) = order.file.as_ref().filter(|file| **file != info.name) {
            return Err(Error::protocol(
                peer,
                format!("offered '{}' and not '{file}'", info.name),
            ));
        }
        if let Some(sha1) = order.sha1.filter(|sha1| *sha1 != info.sha1) {
            let reason = format!(
                "it offers '{}' with the SHA-1 {}, not {sha1}",
                info.name, info.sha1
            );
            return Err(Error::refused(peer, reason));
        }
        let intake = intakes.iter().find(|intake| intake.via() == offer.via);
        let Some(&intake) = intake else {
            return Err(Error::refused(
                "gatecast",
                format!("this client cannot receive via {}", offer.via),
            ));
        };
        let name = order.copy_name(offer.seat, &info.name)?;
        let open = match () {
            () if intake.scattered() => Part::open_scattered,
            () if intake.leaves_holes() => Part::open_holed,
            () => Part::open,
        };
        let part = open(
            &order.out,
            &name,
            info.bytes,
            info.sha1,
            number,
            order.resume,
        )?;
        let left = info.bytes - part.resumed();
        self.bytes.store(left, Ordering::Relaxed);
        if let Err(error) = order.needs_room(left) {
            if part.resumed() == 0 {
                part.discard();
            }
            return Err(error);
        }
        let mut prefix = Prefix::default();
        let arriving = PrepareContext {
            stream,
            offer,
            order,
            file: part.file(),
        };
        let armed = intake.prepare(&arriving, lines)?;
        match armed.bytes_held() {
            Some(held) => self.bytes.store(info.bytes - held, Ordering::Relaxed),
            None => {
                let resumed = part.resumed();
                prefix.extend(&part, resumed, |alive| lines.write_line(alive))?;
            }
        }
        Ok((part, prefix, armed))
    }

    /// At the gate: until GO.
    fn wait(&self, lines: &mut LineStream<'_>, offer: &Offer, offset: u64) -> Result<()> {
        let peer = lines.peer();
        loop {
            match read_message(lines, clock::now().after(GATE_SILENCE), Phase::Muster)? {
                FromServer::Wait { ready, clients } => {
                    self.muster.store(
                        u64::from(ready) << 16 | u64::from(clients),
                        Ordering::Relaxed,
                    );
                }
                FromServer::Go { bytes } if bytes == offer.file.bytes - offset => return Ok(()),
                FromServer::Go { bytes } => {
                    let what = format!(
                        "GO with {bytes} bytes of the {} that are missing",
                        offer.file.bytes - offset
                    );
                    return Err(Error::protocol(peer, what));
                }
                FromServer::Error { code, reason } => return Err(server_error(peer, code, reason)),
                _ => return Err(Error::protocol(peer, "no message for a client at the gate")),
            }
        }
    }

    /// Sends the receipt and hears the summary. The copy is proven by now; a server that is gone
    /// takes only its own figures with it.
    fn conclude(
        &self,
        lines: &mut LineStream<'_>,
        offer: &Offer,
        bytes: u64,
        taken: &Received,
        transfer: &mut Transfer,
        sender: &mut Option<String>,
    ) {
        let receipt = Receipt {
            bytes,
            sha1: offer.file.sha1,
            last: transfer.seconds_client.unwrap_or_default(),
            hashed: transfer.seconds_verified.unwrap_or_default(),
            durable: transfer.seconds_durable,
            first: taken.first.map(|first| (clock::id(), first)),
            counts: taken.counts,
        };
        match lines.write_line(&FromClient::Receipt(receipt).encode()) {
            Ok(()) => self.read_summary(lines, transfer, sender),
            Err(error) => log::warn!("seat {}: no summary: {error}", offer.seat),
        }
    }

    /// Hears the server's account; without it the copy is no less proven.
    fn read_summary(
        &self,
        lines: &mut LineStream<'_>,
        transfer: &mut Transfer,
        sender: &mut Option<String>,
    ) {
        let seat = transfer.seat;
        match read_message(lines, clock::now().after(SUMMARY_LIMIT), Phase::Receipt) {
            Ok(FromServer::Summary(summary)) => {
                transfer.bytes_server = Some(summary.bytes);
                transfer.seconds_server = summary.last;
                transfer.woke = Some(summary.woke);
                transfer.first_server = summary.first;
                transfer.counts = summary.counts;
                if summary.outcome == Outcome::Complete {
                    transfer.reason = summary.reason;
                } else if transfer.outcome == Outcome::Complete && transfer.verified.is_some() {
                    let outcome = summary.outcome;
                    let reason = crate::text::escape(&summary.reason.unwrap_or_default());
                    log::warn!("the server counts this copy as {outcome}: {reason}");
                }
                *sender = Some(summary.sender);
            }
            Ok(_) => log::warn!("seat {seat}: the server's last word was no summary"),
            Err(error) => log::warn!("seat {seat}: no summary: {error}"),
        }
    }
}

/// Syncs and renames.
fn store(part: Part, durable: bool, lines: &LineStream<'_>, bytes: u64) -> Result<PathBuf> {
    if durable {
        // A slow disk may take long; the server is told before and gives the same time again.
        log_error(lines.write_line(&FromClient::Alive { bytes }.encode()));
        part.sync()?;
    }
    part.publish(durable)
}

/// Once the last byte is in, a server that is gone takes only its own figures with it: the copy is
/// verified, and whole or not, without it.
pub(super) fn log_error(said: Result<()>) {
    if let Err(error) = said {
        log::warn!("{error}");
    }
}

/// Says that this client cannot be served, before the release.
fn refuse(lines: &LineStream<'_>, error: &Error) {
    let nobody = Transfer::new(SeatId(0), "", Outcome::Refused);
    send_failure(lines, Outcome::Refused, error, 0, &nobody);
}

/// Says how the transfer failed, with what was counted of it.
fn fail(lines: &LineStream<'_>, error: &Error, bytes: u64, transfer: &Transfer) {
    send_failure(lines, outcome_of(error), error, bytes, transfer);
}

fn send_failure(
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
