//! `gatecast doctor`: what reaches whom, over real sockets, and what a client that asks for echoes
//! cannot make the server do.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    thread,
    time::Duration,
};

use gatecast::internals::{
    client::echo::{EchoAnswer, EchoReport, echo},
    proto::{
        key::Key,
        native::echo::{EchoOrder, EchoResult, EchoTerms, ORDERS_MAX},
    },
    server::config::ServerConfig,
    session::Via,
    transport::{tcp, udp, udp::config::UdpConfig},
};

use crate::common::{Peer, Server, within};

#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod program;

const LIMIT: Duration = Duration::from_secs(120);

/// A server that sends by TCP and UDP, to `group` where one is given.
fn server(group: Option<SocketAddr>, set: impl FnOnce(&mut ServerConfig)) -> Server {
    let config = UdpConfig { group, ..UdpConfig::default() };
    Server::with(1000, set, |host| udp::serve(tcp::serve(host).expect("TCP"), config))
}

fn report(answer: EchoAnswer) -> EchoReport {
    match answer {
        EchoAnswer::Echo(report) => report,
        other => panic!("{other:?}"),
    }
}

/// A client that has asked for echoes, and the server's terms.
fn asking(server: &Server) -> (Peer, EchoTerms) {
    let mut peer = server.peer();
    peer.send("GATECAST/1 ECHO\n");
    let terms = EchoTerms::decode(&peer.read_line()).expect("terms");
    (peer, terms)
}

/// A socket for echoes, and a port that can be connected to.
fn sockets(ip: [u8; 4]) -> (UdpSocket, TcpListener) {
    let udp = UdpSocket::bind(SocketAddr::from((ip, 0))).expect("a port");
    udp.set_nonblocking(true).expect("a setting");
    (udp, TcpListener::bind(SocketAddr::from((ip, 0))).expect("a port"))
}

fn order(udp: &UdpSocket, tcp: &TcpListener) -> EchoOrder {
    let udp = udp.local_addr().expect("bound").port();
    EchoOrder { udp, tcp: tcp.local_addr().expect("bound").port(), random: 0x0123_4567_89ab_cdef }
}

/// Lengths of the datagrams that are there.
fn lengths(socket: &UdpSocket) -> Vec<usize> {
    let mut bytes = [0; 2048];
    std::iter::from_fn(|| socket.recv_from(&mut bytes).ok()).map(|(len, _)| len).collect()
}

#[test]
fn everything_arrives_between_two_addresses() {
    within(LIMIT, || {
        let group = "239.255.19.7:40719".parse().expect("a group");
        let server = server(Some(group), |_| {});
        let report = report(echo(&[server.addr], None, Some(Ipv4Addr::LOCALHOST)));
        assert!(report.udp_in && report.udp_out && report.tcp_in, "{report:?}");
        assert_eq!(report.group, Some((group, true)), "{report:?}");
        assert_eq!((report.server, report.via), (server.addr, None));
        assert!(report.clock_off_us < 60_000_000, "{report:?}");
    });
}

#[test]
fn echo_goes_to_no_group_that_is_not_sent_to() {
    within(LIMIT, || {
        let tcp_only = server(None, |settings| settings.via = Some(Via::Tcp));
        let report = report(echo(&[tcp_only.addr], None, None));
        assert_eq!((report.via, report.group), (Some(Via::Tcp), None));
        // Without one of its own a server chooses one of the organisation's, new each time.
        let any = server(None, |_| {});
        let groups = [(); 2].map(|()| asking(&any).1.group.expect("multicast is possible"));
        assert_ne!(groups[0], groups[1]);
        for group in groups {
            assert!(group.to_string().starts_with("239.255."), "{group}");
        }
    });
}

#[test]
fn echo_goes_only_to_the_address_that_asked() {
    within(LIMIT, || {
        let server = server(None, |settings| settings.via = Some(Via::Tcp));
        let (mut peer, terms) = asking(&server);
        // The same ports at another address of this machine: nothing may come there.
        let (ours, listener) = sockets([127, 0, 0, 1]);
        let order = order(&ours, &listener);
        let other = |port| SocketAddr::from(([127, 0, 0, 9], port));
        let (Ok(victim), Ok(door)) =
            (UdpSocket::bind(other(order.udp)), TcpListener::bind(other(order.tcp)))
        else {
            return eprintln!("passed by: this system has one loopback address");
        };
        victim.set_nonblocking(true).expect("a setting");
        door.set_nonblocking(true).expect("a setting");
        // A datagram that another address forges, or that comes from it, is not counted either.
        let digits = order.digits();
        let to = (Ipv4Addr::LOCALHOST, terms.port);
        victim.send_to(digits.as_bytes(), to).expect("sent");
        // A field that names an address is passed over, as any that is not known.
        let line = String::from_utf8(order.encode()).expect("text");
        peer.send(line.replace('\n', " at=127.0.0.9 ip=127.0.0.9\n"));
        let result = EchoResult::decode(&peer.read_line()).expect("a result");
        assert!(!result.heard);
        assert_eq!(lengths(&ours), [16]);
        listener.accept().expect("a connection");
        assert_eq!(lengths(&victim), [0; 0]);
        assert!(door.accept().is_err());
        // Nor does a datagram make the server send anything.
        assert_eq!(lengths(&ours), [0; 0]);
    });
}

#[test]
fn server_never_sends_more_bytes_than_it_received() {
    within(LIMIT, || {
        let server = server(None, |settings| settings.via = Some(Via::Tcp));
        let (mut peer, terms) = asking(&server);
        let (ours, listener) = sockets([127, 0, 0, 1]);
        let order = order(&ours, &listener);
        let mut received = 0;
        for _ in 0..ORDERS_MAX {
            ours.send_to(&[7; 1000], (Ipv4Addr::LOCALHOST, terms.port)).expect("sent");
            peer.send(order.encode());
            received += order.encode().len();
            EchoResult::decode(&peer.read_line()).expect("a result");
        }
        let sent: usize = lengths(&ours).iter().sum();
        assert_eq!(sent, 16 * ORDERS_MAX);
        // As much again would have gone to a group.
        assert!(2 * sent < received, "{sent} of {received}");
        // Then the conversation is over.
        peer.send(order.encode());
        assert_eq!(peer.read_to_close(), b"");
        assert_eq!(lengths(&ours), [0; 0]);
    });
}

#[test]
fn flood_of_echoes_from_one_address_is_bounded() {
    within(LIMIT, || {
        let server = server(None, |settings| settings.via = Some(Via::Tcp));
        let (ours, listener) = sockets([127, 0, 0, 1]);
        let order = order(&ours, &listener);
        let (mut answered, mut refusal) = (0, String::new());
        while refusal.is_empty() {
            assert!(answered < 10_000, "no end of echoes");
            let (mut peer, _) = asking(&server);
            for _ in 0..ORDERS_MAX {
                peer.send(order.encode());
                let line = peer.read_line();
                if EchoResult::decode(&line).is_err() {
                    refusal = line;
                    break;
                }
                answered += 1;
                drop(listener.accept().expect("a connection"));
            }
        }
        assert!(refusal.contains("code=refused") && refusal.contains("too%20many"), "{refusal}");
        assert!(answered >= 256, "a room behind one address: {answered}");
        // Whoever wants a file is served all the same.
        let ends = server.fetch("c", |_| {}).join().expect("no panic");
        crate::common::whole(ends, &server);
    });
}

#[test]
fn order_for_a_port_of_the_system_is_refused() {
    within(LIMIT, || {
        let server = server(None, |_| {});
        for ports in ["udp=53 tcp=40000", "udp=40000 tcp=22"] {
            let (mut peer, _) = asking(&server);
            peer.send(format!("ECHO {ports} random=0123456789abcdef\n"));
            let line = peer.read_line();
            assert!(line.starts_with("ERROR code=protocol"), "{line}");
        }
    });
}

#[test]
fn echoes_are_for_who_has_the_key() {
    within(LIMIT, || {
        let key = || Key::new(b"a key that both ends have").expect("long enough");
        let server = server(None, |settings| settings.key = Some(key()));
        assert!(report(echo(&[server.addr], Some(&key()), None)).udp_in);
        let other = Key::new(b"a key that only one has").expect("long enough");
        for key in [None, Some(&other)] {
            let EchoAnswer::Refused(error) = echo(&[server.addr], key, None) else {
                panic!("served without the key");
            };
            assert!(error.to_string().contains("key"), "{error}");
        }
    });
}

#[test]
fn server_older_than_echoes_is_told_from_others() {
    within(LIMIT, || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let old = thread::spawn(move || {
            let mut peer = Peer::over(listener.accept().expect("a client").0);
            assert_eq!(peer.read_line(), "GATECAST/1 ECHO");
            let says = "the%20first%20word%20is%20JOIN%20or%20LIST,%20not%20'ECHO'";
            peer.send(format!("ERROR code=protocol reason={says}\n"));
        });
        assert!(matches!(echo(&[addr], None, None), EchoAnswer::Older));
        old.join().expect("no panic");
        // Nobody listens there any more.
        assert!(matches!(echo(&[addr], None, None), EchoAnswer::Unreachable(_)));
    });
}
