//! UDP as a client has it, three times: what comes is written where it belongs, and told.

use std::net::IpAddr;
use std::time::Duration;

use crate::client::part::ByteOrder;
use crate::client::receive::{
    PrepareContext, ReceiveContext, ReceiveError, ReceiveSession, ReceiveTransport, Received,
};
use crate::error::{Error, Phase, Result};
use crate::net::clock;
use crate::net::line_stream::LineStream;
use crate::proto::udp::control::{Listen, Terms, window};
use crate::proto::udp::packet::block_len;
use crate::proto::udp::receiver::{BlockReceiver, RepairMode};
use crate::session::Via;
use crate::transport::udp::block_writer::BlockWriter;
use crate::transport::udp::group_receiver;
use crate::transport::udp::reception::{CopyTarget, DatagramSource, Reception};
use crate::transport::udp::socket::RecvSocket;

/// One of the three ways.
#[derive(Clone, Copy, Debug)]
pub struct UdpReceiver(pub Via);

/// Reliable, to each client.
pub const UDP: UdpReceiver = UdpReceiver(Via::Udp);
/// Measured, not repaired.
pub const RAW: UdpReceiver = UdpReceiver(Via::Raw);
/// One stream for all.
pub const MULTICAST: UdpReceiver = UdpReceiver(Via::Multicast);

/// What is open before the release.
#[derive(Debug)]
struct UdpReceiveSession {
    via: Via,
    terms: Terms,
    /// Taken by the payload.
    source: Option<DatagramSource>,
}

/// How long the server's terms are waited for after its offer.
const TERMS_LIMIT: Duration = Duration::from_secs(10);

/// By how much each client of a group waits longer than the one before it to answer.
const SPREAD: Duration = Duration::from_micros(200);

/// Most clients over which answers are spread.
const SPREAD_MAX: u16 = 64;

impl ReceiveTransport for UdpReceiver {
    fn via(&self) -> Via {
        self.0
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::AfterBeginning
    }

    fn prepare(
        &self,
        arriving: &PrepareContext<'_>,
        lines: &mut LineStream<'_>,
    ) -> Result<Box<dyn ReceiveSession>> {
        let line = lines.read_line(clock::now().after(TERMS_LIMIT), Phase::Offer)?;
        let peer = lines.peer();
        let wrong = |error: String| Error::protocol(peer, error);
        let terms = Terms::decode(&line).map_err(|error| wrong(error.to_string()))?;
        let here = lines.local()?.ip().to_canonical();
        let (source, port, room) = match (self.0, terms.group) {
            (Via::Multicast, Some(group)) => {
                let interface = match (arriving.config.interface, here) {
                    (Some(interface), _) | (None, IpAddr::V4(interface)) => interface,
                    (None, IpAddr::V6(_)) => {
                        return Err(Error::refused("gatecast", "groups are of IPv4"));
                    }
                };
                let tap = group_receiver::join(group, interface)?;
                let inlet = RecvSocket::open(here)?;
                let (port, room) = (inlet.port()?, inlet.room().min(tap.room()));
                (DatagramSource::Group(tap, inlet), port, room)
            }
            (Via::Multicast, None) => return Err(wrong("multicast without a group".to_owned())),
            _ => {
                let inlet = RecvSocket::open(here)?;
                let (port, room) = (inlet.port()?, inlet.room());
                (DatagramSource::Own(inlet), port, room)
            }
        };
        let listen = Listen { port, buffer: room };
        lines.write_line(&listen.encode())?;
        Ok(Box::new(UdpReceiveSession {
            via: self.0,
            terms,
            source: Some(source),
        }))
    }
}

impl ReceiveSession for UdpReceiveSession {
    fn receive(
        &mut self,
        incoming: &ReceiveContext<'_>,
        lines: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        if incoming.range.is_empty() {
            return Ok(Received::nothing(clock::now()));
        }
        let terms = self.terms;
        let mut source = self.source.take().expect("a payload comes once");
        let seat = incoming.offer.seat.0;
        let (how, room) = match (self.via, &source) {
            (Via::Raw, DatagramSource::Own(inlet)) => (RepairMode::Raw, inlet.room()),
            (_, DatagramSource::Own(inlet)) => (RepairMode::Unicast, inlet.room()),
            (_, DatagramSource::Group(tap, inlet)) => (
                RepairMode::Multicast(SPREAD * u32::from(seat % SPREAD_MAX)),
                inlet.room().min(tap.room()),
            ),
        };
        let block_len = block_len(terms.datagram, self.via == Via::Multicast);
        let now = clock::now();
        let receiver = BlockReceiver::new(
            incoming.offer.session.0 as u32,
            incoming.offer.file.bytes,
            block_len,
            incoming.range.start,
            how,
            (window(room, terms.datagram) / 4).max(1),
            now,
        );
        let server = terms
            .from
            .unwrap_or_else(|| lines.peer().ip())
            .to_canonical();
        let writer = BlockWriter::new(incoming.file);
        let intake = Reception::new(how, receiver, writer, server, incoming.range.clone(), now);
        let target = CopyTarget {
            order: incoming.config,
            file: incoming.file,
            moved: incoming.moved,
        };
        intake.run(&target, &mut source, lines)
    }
}
