//! Asks a server what reaches this machine, and what of this machine reaches it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use crate::{
    client::messages::{prove, server_error},
    error::{Error, Phase, Result},
    net::{address, clock, datagrams::BatchSocket, line_stream::LineStream, socket},
    proto::{
        key::Key,
        line::DecodeError,
        native::{
            ClientHello, ErrorCode, FromServer,
            echo::{EchoOrder, EchoResult, EchoTerms},
        },
    },
    session::Via,
};

/// What came of asking.
#[derive(Debug)]
pub enum EchoAnswer {
    /// No connection.
    Unreachable(Error),
    /// A connection, and a server that does not serve this client.
    Refused(Error),
    /// A server that is older than echoes.
    Older,
    /// Echoes.
    Echo(EchoReport),
}

/// What reached whom.
#[derive(Clone, Debug)]
pub struct EchoReport {
    /// The server.
    pub server: SocketAddr,
    /// The only way by which the server sends files.
    pub via: Option<Via>,
    /// The server's datagrams come here, unasked.
    pub udp_in: bool,
    /// Our datagrams come to the server.
    pub udp_out: bool,
    /// The server's connections come here.
    pub tcp_in: bool,
    /// The server's group, and whether its datagrams come here.
    pub group: Option<(SocketAddr, bool)>,
    /// How far the server's time of day is from ours, microseconds.
    pub clock_off_us: u64,
}

/// How long a connection may take; a server that is there answers in less.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// How long an answer may take: the server waits as long for a place, and connects to us.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// How long echoes may come later than the line that follows them.
const ECHO_WAIT: Duration = Duration::from_millis(300);

/// How often what did not come is asked for again.
const ROUNDS: usize = 3;

/// How often what may have come is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Most datagrams, and most connections, that are looked at in one turn: strangers may send without
/// end, and the turns have a deadline.
const STRANGERS_MAX: usize = 64;

/// The sockets of this end.
struct EchoSockets {
    udp: UdpSocket,
    /// Another port sends, so that a firewall does not take the server's datagram for an answer.
    outlet: UdpSocket,
    tcp: TcpListener,
    group: Option<BatchSocket>,
}

/// Asks the server at `server`. Its group is joined on `interface`; `None` is the address from which
/// the server is reached.
pub fn echo(server: &[SocketAddr], key: Option<&Key>, interface: Option<Ipv4Addr>) -> EchoAnswer {
    let stream = match socket::connect(server, clock::now().after(CONNECT_LIMIT)) {
        Ok(stream) => stream,
        Err(error) => return EchoAnswer::Unreachable(error),
    };
    match converse(&stream, key, interface) {
        Ok(Some(report)) => EchoAnswer::Echo(report),
        Ok(None) => EchoAnswer::Older,
        Err(error) => EchoAnswer::Refused(error),
    }
}

/// `None` where the server does not know echoes.
fn converse(
    stream: &TcpStream,
    key: Option<&Key>,
    interface: Option<Ipv4Addr>,
) -> Result<Option<EchoReport>> {
    let peer = address::canonical(stream.peer_addr().map_err(Error::io("connect", "the server"))?);
    let mut lines = LineStream::new(stream, peer, b"");
    prove(&mut lines, key)?;
    lines.write_line(&ClientHello::Echo.encode())?;
    let Some(terms) = read(&mut lines, EchoTerms::decode)? else { return Ok(None) };
    let sockets = EchoSockets::open(&lines, &terms, interface)?;
    let failed = || Error::io("open a port", "this host");
    let order = EchoOrder {
        udp: sockets.udp.local_addr().map_err(failed())?.port(),
        tcp: sockets.tcp.local_addr().map_err(failed())?.port(),
        random: clock::random(),
    };
    let mut report = EchoReport {
        server: peer,
        via: terms.via,
        udp_in: false,
        udp_out: false,
        tcp_in: false,
        group: terms.group.map(|group| (group, false)),
        clock_off_us: 0,
    };
    let mut port = peer;
    port.set_port(terms.port);
    for _ in 0..ROUNDS {
        if let Err(error) = sockets.outlet.send_to(order.digits().as_bytes(), port) {
            log::debug!("no datagram to {port}: {error}");
        }
        lines.write_line(&order.encode())?;
        let Some(result) = read(&mut lines, EchoResult::decode)? else { return Ok(None) };
        let here = clock::wall().unix_timestamp_nanos() / 1000;
        let here = u64::try_from(here).unwrap_or_default();
        report.clock_off_us = result.at_us.abs_diff(here);
        report.udp_out |= result.heard;
        let deadline = clock::now().after(ECHO_WAIT);
        while !sockets.collect(&order, &mut report) && clock::left(deadline).is_some() {
            thread::sleep(POLL_INTERVAL);
        }
        if sockets.collect(&order, &mut report) && report.udp_out {
            break;
        }
    }
    Ok(Some(report))
}

/// The server's next line; `None` where it does not know what it was asked.
fn read<T>(
    lines: &mut LineStream<'_>,
    decode: fn(&str) -> Result<T, DecodeError>,
) -> Result<Option<T>> {
    let line = lines.read_line(clock::now().after(ANSWER_LIMIT), Phase::Greet)?;
    match FromServer::decode(&line) {
        Ok(FromServer::Error { code: ErrorCode::Protocol, .. }) => return Ok(None),
        Ok(FromServer::Error { code, reason }) => {
            return Err(server_error(lines.peer, code, reason));
        }
        _ => {}
    }
    decode(&line).map(Some).map_err(|error| Error::protocol(lines.peer, error.to_string()))
}

impl EchoSockets {
    fn open(
        lines: &LineStream<'_>,
        terms: &EchoTerms,
        interface: Option<Ipv4Addr>,
    ) -> Result<Self> {
        let mut here = address::canonical(lines.local()?);
        here.set_port(0);
        let failed = || Error::io("open a port", here);
        let udp = UdpSocket::bind(here).map_err(failed())?;
        let outlet = UdpSocket::bind(here).map_err(failed())?;
        let tcp = TcpListener::bind(here).map_err(failed())?;
        udp.set_nonblocking(true).map_err(failed())?;
        tcp.set_nonblocking(true).map_err(failed())?;
        let interface = interface.or_else(|| address::ipv4(here.ip()));
        let join = |group| {
            let socket = BatchSocket::bind(group, interface)?;
            socket.socket().set_nonblocking(true).map_err(failed())?;
            Ok::<_, Error>(socket)
        };
        let group = terms.group.and_then(|group| match join(group) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("{error}");
                None
            }
        });
        Ok(Self { udp, outlet, tcp, group })
    }

    /// Takes what has come; true when all has.
    fn collect(&self, order: &EchoOrder, report: &mut EchoReport) -> bool {
        let server = report.server.ip();
        let digits = order.digits();
        let has_come = |socket: &UdpSocket, from: Option<IpAddr>| {
            let mut bytes = [0; 64];
            for _ in 0..STRANGERS_MAX {
                let Ok((len, addr)) = socket.recv_from(&mut bytes) else { break };
                let is_from = from.is_none_or(|ip| ip == addr.ip());
                if is_from && bytes[..len] == *digits.as_bytes() {
                    return true;
                }
            }
            false
        };
        report.udp_in |= has_come(&self.udp, Some(server));
        for _ in 0..STRANGERS_MAX {
            let Ok((_, from)) = self.tcp.accept() else { break };
            report.tcp_in |= from.ip() == server;
        }
        if let (Some(socket), Some((_, heard))) = (&self.group, &mut report.group) {
            *heard |= has_come(socket.socket(), None);
        }
        report.udp_in && report.tcp_in && report.group.is_none_or(|(_, heard)| heard)
    }
}
