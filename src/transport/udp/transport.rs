//! UDP as the server has it: `udp`, `raw` and `multicast`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::{Arc, Mutex, atomic::Ordering},
};

use crossbeam_channel::Sender;

use crate::{
    error::{Error, Result},
    net::{clock, copy, datagrams::unspecified, lock, spawn},
    proto::udp::{
        blocks::{BLOCKS_MAX, BlockLayout},
        control::{Listen, Terms},
        packet::{DATAGRAM, DATAGRAM_MAX, DATAGRAM_MIN, block_len},
    },
    server::{
        catalog::Source,
        gate::SeatConnection,
        transport::{
            ControlExtension, GroupRoute, NativeJob, SeatDetail, SendPlan, SendResult, SendSession,
            Transport,
        },
    },
    session::{SeatId, Via},
    transfer::{Counts, Evidence},
    transport::{
        cut,
        udp::{
            config::UdpConfig,
            seat_counters::SeatCounters,
            send_loop::{self, SendCommand, StreamSpec},
            socket::SendSocket,
        },
    },
    units::{Moment, Rate},
};

/// One of the three transports over UDP.
#[derive(Clone, Copy, Debug)]
pub struct UdpTransport {
    /// Which of the three: `udp`, `raw` or `multicast`.
    pub via: Via,
    /// How its datagrams are made.
    pub config: UdpConfig,
}

/// One session.
#[derive(Debug)]
pub(super) struct UdpSession {
    via: Via,
    source: Arc<Source>,
    pub(super) terms: Terms,
    ttl: u32,
    pub(super) rate: Option<Rate>,
    pub(super) layout: BlockLayout,
    state: Mutex<UdpSessionState>,
}

/// What is opened before the release, and what runs after it. The lock is never held while
/// anything blocks.
#[derive(Debug, Default)]
struct UdpSessionState {
    /// The client of each seat and where it listens. A seat that was given back may get another.
    listening: BTreeMap<SeatId, (SocketAddr, Listen)>,
    counters: BTreeMap<SeatId, Arc<SeatCounters>>,
    /// The addresses and ports of the sending sockets.
    outlets: Vec<SocketAddr>,
    /// The sockets, in the same order, until the thread takes them.
    sockets: Vec<SendSocket>,
    commands: Option<Sender<SendCommand>>,
    segmented: bool,
}

/// Most commands that wait for the sending thread; then the clients' connections wait.
const COMMANDS_MAX: usize = 1024;

/// Most addresses of this host by which the clients of one session may come: over each interface a
/// group's datagrams are sent once more.
const OUTLETS_MAX: usize = 8;

/// The rate from which on the kernel may send many datagrams as one. Below it they would be a
/// burst; above it single sends cost more than the network.
const SEGMENTED_FROM: Rate = Rate(900_000_000);

impl Transport for UdpTransport {
    fn via(&self) -> Via {
        self.via
    }

    fn group_route(&self) -> Option<GroupRoute> {
        let UdpConfig { group, interface, ttl, .. } = self.config;
        let group = || group.unwrap_or_else(random_group);
        (self.via == Via::Multicast).then(|| GroupRoute { group: group(), interface, ttl })
    }

    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>> {
        let SendPlan { source, rate, .. } = plan;
        let size = self.config.size;
        if !(DATAGRAM_MIN..=DATAGRAM_MAX).contains(&size) {
            let what = format!(
                "invalid datagram size {size}: expected {DATAGRAM_MIN} to {DATAGRAM_MAX} bytes"
            );
            return Err(Error::Usage { what });
        }
        if size > DATAGRAM {
            log::warn!(
                "a datagram of {size} bytes travels as several packets, and is lost if one of them is"
            );
        }
        let multicast = self.via == Via::Multicast;
        let layout =
            BlockLayout { bytes: source.info.bytes, block_len: block_len(size, multicast) };
        if layout.count() > BLOCKS_MAX {
            let reason = "the file has more blocks than datagrams can number";
            return Err(Error::refused("the server", reason));
        }
        let group = multicast.then(|| self.config.group.unwrap_or_else(random_group));
        let from = self.config.interface.filter(|_| multicast);
        Ok(Box::new(UdpSession {
            via: self.via,
            source: Arc::clone(source),
            terms: Terms { datagram: size, group, from: from.map(IpAddr::from), port: None },
            ttl: self.config.ttl,
            rate: *rate,
            layout,
            state: Mutex::default(),
        }))
    }
}

/// A group of the organisation's own (RFC 2365, section 6.2), chosen at random so that two
/// sessions have two.
fn random_group() -> SocketAddr {
    let random = clock::random().to_le_bytes();
    let address = Ipv4Addr::new(239, 255, random[0], random[1].max(1));
    let port = 20_000 + u16::from_le_bytes([random[2], random[3]]) % 10_000;
    (address, port).into()
}

impl SendSession for UdpSession {
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()> {
        let from = self.source_ip(stream)?;
        let mut state = lock(&self.state);
        if state.outlet(from).is_some() {
            return Ok(());
        }
        if state.outlets.len() == OUTLETS_MAX {
            let reason =
                format!("this session's clients come by {OUTLETS_MAX} addresses, not by {from}");
            return Err(Error::refused("the server", reason));
        }
        // Without a rate of its own a session is as fast as its clients' buffers allow.
        let segmented = self.rate.is_none_or(|rate| rate >= SEGMENTED_FROM);
        let ttl = (self.via == Via::Multicast).then_some(self.ttl);
        let socket = SendSocket::open(from, segmented, ttl)?;
        state.segmented = socket.is_segmented();
        state.outlets.push((from, socket.port()?).into());
        state.sockets.push(socket);
        Ok(())
    }

    fn description(&self, _: &TcpStream) -> String {
        let size = self.terms.datagram;
        let segmented = if lock(&self.state).segmented { ", segmented by the kernel" } else { "" };
        match self.rate {
            Some(rate) => format!("datagrams of {size}{segmented}, {rate}"),
            None => format!("datagrams of {size}{segmented}"),
        }
    }

    fn control(&self) -> Option<&dyn ControlExtension> {
        Some(self)
    }

    fn detail(&self, seat: SeatId) -> SeatDetail {
        let state = lock(&self.state);
        let counters = state.counters.get(&seat);
        SeatDetail {
            lost: counters.map(|counters| counters.lost.load(Ordering::Relaxed)),
            ..SeatDetail::default()
        }
    }

    fn add_counts(&self, seat: SeatId, counts: &mut Counts) {
        let counters = lock(&self.state).counters.get(&seat).map(Arc::clone);
        if let Some(counters) = counters {
            counters.complete(counts, self.via == Via::Raw);
        }
    }
}

impl ControlExtension for UdpSession {
    fn terms(&self, seat: &SeatConnection) -> Vec<u8> {
        let port = self.outlet(seat).map(|(_, addr)| addr.port());
        Terms { port, ..self.terms }.encode()
    }

    fn on_line(&self, seat: &SeatConnection, line: &str) -> Result<()> {
        let wrong = |error: String| Error::protocol(seat.id, error);
        let listen = Listen::decode(line).map_err(|error| wrong(error.to_string()))?;
        let mut state = lock(&self.state);
        let before = state.listening.insert(seat.id, (seat.peer, listen));
        if before.is_some_and(|(other, _)| other == seat.peer) {
            return Err(wrong("LISTEN a second time".to_owned()));
        }
        Ok(())
    }

    fn send_native(&self, seat: &SeatConnection, mut job: NativeJob<'_, '_>) -> SendResult {
        let release = seat.release();
        // Nothing is sent over TCP after GO but the last words.
        drop(release.fair_start.guard());
        let deadline = clock::now().after(seat.session.stall);
        let sent = copy::send_all(&seat.stream, &job.preface, deadline);
        let listen = lock(&self.state).listening.remove(&seat.id);
        let listen = listen.filter(|(peer, _)| *peer == seat.peer);
        let end = match (sent, listen) {
            _ if job.range.is_empty() => Ok(()),
            (Ok(()), Some((_, listen))) => {
                let buffer_bytes = Some(listen.buffer);
                let end = self.serve_seat(seat, listen, &mut job);
                let counters = self.counters(seat.id);
                let seen = counters.evidence.get().copied().unwrap_or_default();
                seat.note(Evidence { buffer_bytes, ..seen });
                let sent = counters.payload.load(Ordering::Relaxed);
                seat.moved.store(sent, Ordering::Relaxed);
                let first = counters.first_us.load(Ordering::Relaxed);
                return SendResult {
                    first: (first > 0).then(|| Moment(first).since(release.released())),
                    end,
                };
            }
            (Ok(()), None) => Err("sent no LISTEN with its port"),
            (Err(_), _) => Err("the connection failed at GO"),
        };
        self.send_command(seat, SendCommand::Absent);
        SendResult { first: None, end: end.map_err(cut) }
    }
}

impl UdpSessionState {
    /// The socket with the address `ip`.
    fn outlet(&self, ip: IpAddr) -> Option<(usize, SocketAddr)> {
        let mut outlets = self.outlets.iter().copied().enumerate();
        outlets.find(|(_, addr)| addr.ip() == ip)
    }
}

impl UdpSession {
    /// The address that is sent from to the client at the other end of `stream`. To a group it is
    /// the one that the client knows, so that datagrams leave by that interface.
    fn source_ip(&self, stream: &TcpStream) -> Result<IpAddr> {
        let local = stream.local_addr();
        let local = local.map_err(Error::io("read the addresses of the connection", "a client"))?;
        let local = local.ip().to_canonical();
        Ok(match self.terms.from {
            Some(from) => from,
            None if self.via == Via::Multicast => local,
            None => unspecified(local),
        })
    }

    /// The socket that sends to `seat`: its number, and its address.
    pub(super) fn outlet(&self, seat: &SeatConnection) -> Option<(usize, SocketAddr)> {
        let from = self.source_ip(&seat.stream).ok()?;
        lock(&self.state).outlet(from)
    }

    pub(super) fn counters(&self, seat: SeatId) -> Arc<SeatCounters> {
        Arc::clone(lock(&self.state).counters.entry(seat).or_default())
    }

    /// Passes a command to the sending thread, which the first one starts.
    pub(super) fn send_command(&self, seat: &SeatConnection, command: SendCommand) -> bool {
        self.commands(seat).is_some_and(|commands| commands.send(command).is_ok())
    }

    /// The channel to the sending thread; `None` if the thread cannot be started.
    fn commands(&self, seat: &SeatConnection) -> Option<Sender<SendCommand>> {
        let mut state = lock(&self.state);
        if state.commands.is_none() {
            let sockets = std::mem::take(&mut state.sockets);
            let (sender, commands) = crossbeam_channel::bounded(COMMANDS_MAX);
            let spec = StreamSpec {
                via: self.via,
                stream: seat.session.id.0 as u32,
                source: Arc::clone(&self.source),
                layout: self.layout,
                datagram: usize::from(self.terms.datagram),
                rate: self.rate,
                sockets,
                group: self.terms.group,
            };
            let name = format!("send-{:04x}", seat.session.id.0 >> 48);
            let started = spawn(name, move || send_loop::run(spec, &commands));
            if let Err(error) = started {
                log::error!("cannot start the sending thread: {error}");
                return None;
            }
            state.commands = Some(sender);
        }
        state.commands.clone()
    }
}
