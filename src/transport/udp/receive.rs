//! UDP as a client has it: `udp`, `raw` and `multicast`.

use std::{net::Ipv4Addr, time::Duration};

use crate::{
    client::{
        part::ByteOrder,
        receive::{
            PrepareContext, ReceiveContext, ReceiveError, ReceiveSession, ReceiveTransport,
            Received,
        },
    },
    error::{Error, Phase, Result},
    net::{address, clock, line_stream::LineStream},
    proto::udp::{
        blocks::{BLOCKS_MAX, BlockLayout},
        control::{Listen, Terms, window},
        packet::block_len,
        receiver::BlockReceiver,
        reports::RepairMode,
    },
    session::Via,
    transport::udp::{
        group_receiver::Subscription,
        reception::{DatagramSource, Reception},
        socket::RecvSocket,
    },
};

/// One of the three transports over UDP.
#[derive(Clone, Copy, Debug)]
pub struct UdpReceiver {
    via: Via,
    interface: Option<Ipv4Addr>,
}

/// Reliable, to each client.
pub const UDP: UdpReceiver = UdpReceiver { via: Via::Udp, interface: None };
/// Measured, not repaired.
pub const RAW: UdpReceiver = UdpReceiver { via: Via::Raw, interface: None };
/// One stream for all.
pub const MULTICAST: UdpReceiver = UdpReceiver { via: Via::Multicast, interface: None };

/// What is open before the release.
#[derive(Debug)]
struct UdpReceiveSession {
    via: Via,
    terms: Terms,
    layout: BlockLayout,
    source: DatagramSource,
}

/// How long the server's terms are waited for after its offer.
const TERMS_LIMIT: Duration = Duration::from_secs(10);

/// How much later each client of a group answers an END than the one before it.
const SPREAD: Duration = Duration::from_micros(200);

/// Most clients over which answers are spread.
const SPREAD_MAX: u16 = 64;

impl UdpReceiver {
    /// Joins groups on the interface with the address `interface`; `None` is the address from which
    /// the server is reached.
    pub fn on_interface(self, interface: Option<Ipv4Addr>) -> Self {
        Self { interface, ..self }
    }
}

impl ReceiveTransport for UdpReceiver {
    fn via(&self) -> Via {
        self.via
    }

    fn interface(&self) -> Option<Ipv4Addr> {
        self.interface
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::AfterBeginning
    }

    fn prepare(&self, context: PrepareContext<'_, '_>) -> Result<Box<dyn ReceiveSession>> {
        let PrepareContext { lines, offer, .. } = context;
        let line = lines.read_line(clock::now().after(TERMS_LIMIT), Phase::Offer)?;
        let peer = lines.peer;
        let terms =
            Terms::decode(&line).map_err(|error| Error::protocol(peer, error.to_string()))?;
        let layout = BlockLayout {
            bytes: offer.file.bytes,
            block_len: block_len(terms.datagram, self.via == Via::Multicast),
        };
        if layout.count() > BLOCKS_MAX {
            return Err(Error::protocol(peer, "a file of more blocks than datagrams can number"));
        }
        let here = lines.local()?.ip().to_canonical();
        let group = match (self.via, terms.group) {
            (Via::Multicast, Some(group)) => {
                let reason = "multicast needs IPv4: name an IPv4 interface";
                let interface = self.interface.or_else(|| address::ipv4(here));
                let interface = interface.ok_or_else(|| Error::refused("gatecast", reason))?;
                Some(Subscription::join(group, interface)?)
            }
            (Via::Multicast, None) => {
                return Err(Error::protocol(peer, "multicast without a group"));
            }
            _ => None,
        };
        let socket = RecvSocket::open(here)?;
        let source = DatagramSource { socket, group };
        let listen = Listen { port: source.socket.port()?, buffer: source.room() };
        lines.write_line(&listen.encode())?;
        Ok(Box::new(UdpReceiveSession { via: self.via, terms, layout, source }))
    }
}

impl ReceiveSession for UdpReceiveSession {
    fn receive(
        &mut self,
        context: &ReceiveContext<'_>,
        lines: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        let now = clock::now();
        if context.range.is_empty() {
            return Ok(Received::nothing(now));
        }
        let mode = match self.via {
            Via::Raw => RepairMode::Raw,
            Via::Multicast => {
                let place = u32::from(context.offer.seat.0 % SPREAD_MAX);
                RepairMode::Multicast(SPREAD * place)
            }
            _ => RepairMode::Unicast,
        };
        let window = window(self.source.room(), self.terms.datagram);
        let receiver = BlockReceiver::new(
            context.offer.session.0 as u32,
            self.layout,
            context.range.start,
            mode,
            (window / 4).max(1),
            now,
        );
        let server = self.terms.from.unwrap_or_else(|| lines.peer.ip());
        let server = (server.to_canonical(), self.terms.port);
        Reception::new(context, mode, receiver, server).run(&mut self.source, lines)
    }
}
