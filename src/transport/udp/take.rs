//! UDP as a client has it, three times: what comes is written where it belongs, and told.

use std::net::IpAddr;
use std::time::Duration;

use crate::client::part::ByteOrder;
use crate::client::receive::PrepareContext;
use crate::client::receive::ReceiveContext;
use crate::client::receive::ReceiveError;
use crate::client::receive::ReceiveSession;
use crate::client::receive::ReceiveTransport;
use crate::client::receive::Received;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::line_stream::LineStream;
use crate::proto::udp::control::Listen;
use crate::proto::udp::control::Terms;
use crate::proto::udp::control::window;
use crate::proto::udp::packet::block_len;
use crate::proto::udp::receiver::How;
use crate::proto::udp::receiver::Receiver;
use crate::session::Via;
use crate::transport::udp::hub;
use crate::transport::udp::reception::Reception;
use crate::transport::udp::reception::Source;
use crate::transport::udp::reception::Target;
use crate::transport::udp::socket::Inlet;
use crate::transport::udp::writer::Writer;

/// One of the three ways.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams(pub Via);

/// Reliable, to each client.
pub const UDP: Datagrams = Datagrams(Via::Udp);
/// Measured, not repaired.
pub const RAW: Datagrams = Datagrams(Via::Raw);
/// One stream for all.
pub const MULTICAST: Datagrams = Datagrams(Via::Multicast);

/// What is open before the release.
#[derive(Debug)]
struct Open {
    via: Via,
    terms: Terms,
    /// Taken by the payload.
    source: Option<Source>,
}

/// How long the server's terms are waited for after its offer.
const TERMS_LIMIT: Duration = Duration::from_secs(10);

/// By how much each client of a group waits longer than the one before it to answer.
const SPREAD: Duration = Duration::from_micros(200);

/// Most clients over which answers are spread.
const SPREAD_MAX: u16 = 64;

impl ReceiveTransport for Datagrams {
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
                let tap = hub::tap(group, interface)?;
                let inlet = Inlet::open(here)?;
                let (port, room) = (inlet.port()?, inlet.room().min(tap.room()));
                (Source::Group(tap, inlet), port, room)
            }
            (Via::Multicast, None) => return Err(wrong("multicast without a group".to_owned())),
            _ => {
                let inlet = Inlet::open(here)?;
                let (port, room) = (inlet.port()?, inlet.room());
                (Source::Own(inlet), port, room)
            }
        };
        let listen = Listen { port, buffer: room };
        lines.write_line(&listen.encode())?;
        Ok(Box::new(Open {
            via: self.0,
            terms,
            source: Some(source),
        }))
    }
}

impl ReceiveSession for Open {
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
            (Via::Raw, Source::Own(inlet)) => (How::Raw, inlet.room()),
            (_, Source::Own(inlet)) => (How::Unicast, inlet.room()),
            (_, Source::Group(tap, inlet)) => (
                How::Multicast(SPREAD * u32::from(seat % SPREAD_MAX)),
                inlet.room().min(tap.room()),
            ),
        };
        let block_len = block_len(terms.datagram, self.via == Via::Multicast);
        let now = clock::now();
        let receiver = Receiver::new(
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
        let writer = Writer::new(incoming.file);
        let intake = Reception::new(how, receiver, writer, server, incoming.range.clone(), now);
        let target = Target {
            order: incoming.config,
            file: incoming.file,
            moved: incoming.moved,
        };
        intake.run(&target, &mut source, lines)
    }
}
