//! One client's conversation with the server, from JOIN to its receipt.

use std::cell::Cell;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::Client;
use crate::client::End;
use crate::client::Fetch;
use crate::client::OFFER_LIMIT;
use crate::client::Order;
use crate::client::SUMMARY_LIMIT;
use crate::client::Stage;
use crate::client::hear;
use crate::client::outcome_of;
use crate::client::part::Part;
use crate::client::receive::Armed;
use crate::client::receive::Arriving;
use crate::client::receive::Incoming;
use crate::client::receive::Intake;
use crate::client::receive::Taken;
use crate::client::told;
use crate::client::verify::Prefix;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::line_stream::Dialogue;
use crate::proto::native::FromClient;
use crate::proto::native::FromServer;
use crate::proto::native::Join;
use crate::proto::native::Offer;
use crate::proto::native::Opening;
use crate::proto::native::Receipt;
use crate::session::SeatId;
use crate::transfer::Outcome;
use crate::transfer::Transfer;

/// What a client has ready for GO: its part, what is hashed of it, and its way.
type Begun = (Part, Prefix, Box<dyn Armed>);

/// How long the gate may be silent; it says WAIT every second.
const GATE_SILENCE: Duration = Duration::from_secs(10);

impl Client {
    pub(super) fn converse(
        &self,
        fetch: &Fetch,
        order: &Order,
        number: u16,
        intakes: &[&dyn Intake],
        end: &mut End,
    ) -> Result<()> {
        let stream = self.connect(fetch, order)?;
        let peer = stream
            .peer_addr()
            .map_err(Error::io("connect", "the server"))?;
        let mut dialogue = Dialogue::new(&stream, peer, b"");
        self.enter(Stage::Joining);

        let name = order.name_of(number)?;
        let group = order.group.unwrap_or(order.clients);
        let join = Join {
            file: order.file.clone(),
            group,
            via: order.via,
            name: name.clone(),
        };
        dialogue.say(&Opening::Join(join).encode())?;
        let offer = match hear(&mut dialogue, clock::now().after(OFFER_LIMIT), Phase::Offer)? {
            FromServer::Offer(offer) => offer,
            FromServer::Error { code, reason } => return Err(told(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no offer")),
        };
        let mut transfer = Transfer::new(offer.seat, name.as_str(), Outcome::Complete);
        transfer.client = stream.local_addr().ok();
        transfer.server = Some(peer);
        end.transfer = Some(transfer);
        end.offer = Some(offer.clone());

        let begun = self.begin(order, number, &offer, intakes, &stream, &mut dialogue);
        let (mut part, hasher, mut armed) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                refuse(&dialogue, &error);
                return Err(error);
            }
        };
        let offset = armed.held().unwrap_or_else(|| part.resumed());
        dialogue.say(&FromClient::Ready { offset }.encode())?;
        self.enter(Stage::Waiting);
        self.wait(&mut dialogue, &offer, offset)?;
        let released = dialogue.heard_at();
        end.released_at = Some(clock::wall());
        self.enter(Stage::Receiving);

        let transfer = end.transfer.as_mut().expect("made above");
        transfer.bytes_resumed = offset;
        let range = offset..offer.file.bytes;
        let want = range.end - range.start;
        if let Err(error) = part.begin_holes() {
            fail(&dialogue, &error, 0, transfer);
            return Err(error);
        }
        let incoming = Incoming {
            stream: &stream,
            offer: &offer,
            order,
            file: part.file(),
            range,
            moved: &self.moved,
            holed: Cell::new(None),
            stopped: &fetch.stopped,
        };
        let receiving = fetch.receives();
        let taken = armed.receive(&incoming, &mut dialogue);
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
                fail(&dialogue, &error, bytes, transfer);
                if holed.is_some() {
                    self.hear_summary(&mut dialogue, transfer, &mut end.sender);
                }
                return Err(error);
            }
        };
        transfer.counts = taken.counts;
        transfer.seconds_client = Some(taken.last.since(released));
        note(dialogue.say(&FromClient::Last { bytes }.encode()));
        self.enter(Stage::Verifying);
        fetch.wait_for_the_others();
        let part = self.verify(
            &offer,
            part,
            hasher,
            &mut dialogue,
            released,
            &taken,
            want,
            transfer,
        )?;
        let (path, durable) = match store(part, order.durable, &dialogue, offer.file.bytes) {
            Ok(path) => (path, order.durable.then(|| clock::now().since(released))),
            Err(error) => {
                fail(&dialogue, &error, bytes, transfer);
                return Err(error);
            }
        };
        transfer.seconds_durable = durable;
        transfer.verified = Some(true);
        end.path = Some(path);
        self.conclude(
            &mut dialogue,
            &offer,
            bytes,
            &taken,
            transfer,
            &mut end.sender,
        );
        armed.leave(&fetch.stopped);
        Ok(())
    }

    /// Checks the offer and opens the part; with a part of an earlier session, hashes it.
    fn begin(
        &self,
        order: &Order,
        number: u16,
        offer: &Offer,
        intakes: &[&dyn Intake],
        stream: &TcpStream,
        dialogue: &mut Dialogue<'_>,
    ) -> Result<Begun> {
        let peer = dialogue.peer();
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
        let arriving = Arriving {
            stream,
            offer,
            order,
            file: part.file(),
        };
        let armed = intake.arm(&arriving, dialogue)?;
        match armed.held() {
            Some(held) => self.bytes.store(info.bytes - held, Ordering::Relaxed),
            None => {
                let resumed = part.resumed();
                prefix.extend(&part, resumed, |alive| dialogue.say(alive))?;
            }
        }
        Ok((part, prefix, armed))
    }

    /// At the gate: until GO.
    fn wait(&self, dialogue: &mut Dialogue<'_>, offer: &Offer, offset: u64) -> Result<()> {
        let peer = dialogue.peer();
        loop {
            match hear(dialogue, clock::now().after(GATE_SILENCE), Phase::Muster)? {
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
                FromServer::Error { code, reason } => return Err(told(peer, code, reason)),
                _ => return Err(Error::protocol(peer, "no message for a client at the gate")),
            }
        }
    }

    /// Sends the receipt and hears the summary. The copy is proven by now; a server that is gone
    /// takes only its own figures with it.
    fn conclude(
        &self,
        dialogue: &mut Dialogue<'_>,
        offer: &Offer,
        bytes: u64,
        taken: &Taken,
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
        match dialogue.say(&FromClient::Receipt(receipt).encode()) {
            Ok(()) => self.hear_summary(dialogue, transfer, sender),
            Err(error) => log::warn!("seat {}: no summary: {error}", offer.seat),
        }
    }

    /// Hears the server's account; without it the copy is no less proven.
    fn hear_summary(
        &self,
        dialogue: &mut Dialogue<'_>,
        transfer: &mut Transfer,
        sender: &mut Option<String>,
    ) {
        let seat = transfer.seat;
        match hear(dialogue, clock::now().after(SUMMARY_LIMIT), Phase::Receipt) {
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
fn store(part: Part, durable: bool, dialogue: &Dialogue<'_>, bytes: u64) -> Result<PathBuf> {
    if durable {
        // A slow disk may take long; the server is told before and gives the same time again.
        note(dialogue.say(&FromClient::Alive { bytes }.encode()));
        part.sync()?;
    }
    part.publish(durable)
}

/// Once the last byte is in, a server that is gone takes only its own figures with it: the copy is
/// verified, and whole or not, without it.
pub(super) fn note(said: Result<()>) {
    if let Err(error) = said {
        log::warn!("{error}");
    }
}

/// Says that this client cannot be served, before the release.
fn refuse(dialogue: &Dialogue<'_>, error: &Error) {
    let nobody = Transfer::new(SeatId(0), "", Outcome::Refused);
    tell(dialogue, Outcome::Refused, error, 0, &nobody);
}

/// Says how the transfer failed, with what was counted of it.
fn fail(dialogue: &Dialogue<'_>, error: &Error, bytes: u64, transfer: &Transfer) {
    tell(dialogue, outcome_of(error), error, bytes, transfer);
}

fn tell(dialogue: &Dialogue<'_>, outcome: Outcome, error: &Error, bytes: u64, transfer: &Transfer) {
    let line = FromClient::Fail {
        outcome,
        bytes,
        reason: error.to_string(),
        last: transfer.seconds_client,
        counts: transfer.counts,
    }
    .encode();
    // The connection may be what failed.
    if let Err(error) = dialogue.say(&line) {
        log::debug!("{error}");
    }
}
