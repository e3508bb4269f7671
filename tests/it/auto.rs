//! The measurement before a release (`--via auto`), with honest and hostile clients.

use std::time::Duration;

use gatecast::internals::{
    proto::native::FromClient,
    server::config::{AutoMode, ServerConfig},
    session::Via,
    transfer::Record,
    transport::{tcp, udp},
};

use crate::common::{Peer, Server, receipt, until, whole, within};

const LIMIT: Duration = Duration::from_secs(60);

/// Far more than the second that a measurement may take: the machine may be busy.
const PATIENCE_US: u64 = 5_000_000;

/// What two clients of it get is worth a measurement.
const BYTES: u64 = 5_000_000;

fn server(set: impl FnOnce(&mut ServerConfig)) -> Server {
    let settings = |settings: &mut ServerConfig| {
        settings.auto = AutoMode::Always;
        settings.clients = Some(2);
        set(settings);
    };
    Server::with(BYTES, settings, |host| {
        udp::serve(tcp::serve(host).expect("TCP"), udp::config::UdpConfig::default())
    })
}

/// A client that can be measured, and waits at the gate.
fn waiting(server: &Server, name: &str) -> Peer {
    let mut peer = server.peer();
    peer.send(format!("GATECAST/1 JOIN group=2 name={name} ways=tcp,multicast\n"));
    let offer = peer.read_line();
    assert!(offer.starts_with("OFFER ") && offer.contains(" via=tcp"), "{offer}");
    peer.send("READY offset=0\n");
    peer
}

/// Reads the bursts to the last one.
fn take_bursts(peer: &mut Peer) {
    let probe = peer.read_past_wait();
    assert!(probe.starts_with("PROBE group=239."), "{probe}");
    loop {
        let line = peer.read_line();
        let bytes = line.strip_prefix("BURST bytes=").expect(&line);
        match bytes.parse().expect("a number") {
            0 => return,
            bytes => drop(peer.read_payload(bytes)),
        }
    }
}

/// Receives as an honest client does.
fn receive(peer: &mut Peer, server: &Server) {
    let sha1 = peer.receive_to_last();
    assert_eq!(sha1, server.sha1);
    peer.send_message(&FromClient::Hashed { sha1 });
    peer.send_message(&receipt(BYTES, sha1));
    let summary = peer.read_line();
    assert!(summary.starts_with("SUMMARY outcome=complete "), "{summary}");
}

fn went_by_tcp(record: &Record, why: &str) {
    assert_eq!((record.via, record.proven()), (Via::Tcp, 2), "{record:?}");
    assert!(record.broken_identities().is_empty());
    let choice = record.auto.as_ref().expect("chosen");
    assert!(choice.why.contains(why), "{}", choice.why);
    assert!(choice.figures.measured_us.is_none_or(|us| us < PATIENCE_US), "{choice:?}");
}

#[test]
fn session_on_one_machine_is_measured_and_goes_by_tcp() {
    within(LIMIT, || {
        let server = server(|_| {});
        let mut peers = ["one", "two"].map(|name| waiting(&server, name));
        for peer in &mut peers {
            take_bursts(peer);
        }
        for peer in &mut peers {
            assert_eq!(peer.read_line(), "PROBED");
            peer.send("PROBED datagrams=0\n");
        }
        let [mut one, mut two] = peers;
        std::thread::scope(|scope| {
            scope.spawn(|| receive(&mut one, &server));
            receive(&mut two, &server);
        });
        let record = server.record();
        let measures = cfg!(all(target_os = "linux", feature = "sockopt"));
        went_by_tcp(&record, if measures { "on this machine" } else { "does not tell" });
        let figures = record.auto.as_ref().expect("chosen").figures;
        assert_eq!(figures.server_up.is_some(), measures, "{figures:?}");
        assert!(figures.measured_us.is_some());
        drop((one, two));
        server.stop();
    });
}

#[test]
fn client_that_dies_in_the_measurement_frees_its_seat() {
    within(LIMIT, || {
        let server = server(|_| {});
        let mut stays = waiting(&server, "stays");
        let mut dies = waiting(&server, "dies");
        let probe = dies.read_past_wait();
        assert!(probe.starts_with("PROBE "), "{probe}");
        drop(dies);
        take_bursts(&mut stays);
        assert_eq!(stays.read_line(), "PROBED");
        stays.send("PROBED datagrams=0\n");
        until("the seat to be free", || server.seats().0 == 1);
        let next = server.fetch("next", |_| {});
        receive(&mut stays, &server);
        whole(next.join().expect("no panic"), &server);
        let record = server.record();
        assert_eq!(record.proven(), 2, "{record:?}");
        drop(stays);
        server.stop();
    });
}

#[test]
fn client_that_answers_late_or_lies_delays_nobody() {
    within(LIMIT, || {
        let server = server(|_| {});
        let mut late = waiting(&server, "late");
        let mut liar = waiting(&server, "liar");
        take_bursts(&mut late);
        take_bursts(&mut liar);
        liar.send(
            "HEARD step=31 datagrams=4294967295 span_us=18446744073709551615 tail=9 tail_us=1\n",
        );
        for _ in 0..40 {
            liar.send("HEARD step=0 datagrams=9 span_us=0 tail=99 tail_us=1\n");
        }
        assert_eq!(liar.read_line(), "PROBED");
        liar.send("PROBED datagrams=4294967295\n");
        assert_eq!(late.read_line(), "PROBED");
        // Once the gate is open, its words on the measurement mean nothing.
        until("the release", || {
            server.running().lobby().views().iter().any(|view| view.released.is_some())
        });
        late.send("HEARD step=0 datagrams=1 span_us=1 tail=1 tail_us=1\nPROBED datagrams=1\n");
        std::thread::scope(|scope| {
            scope.spawn(|| receive(&mut late, &server));
            receive(&mut liar, &server);
        });
        went_by_tcp(&server.record(), "");
        drop((late, liar));
        server.stop();
    });
}

#[test]
fn client_that_cannot_be_measured_makes_the_session_tcp() {
    within(LIMIT, || {
        let server = server(|_| {});
        let old = server.waiting(2, "old");
        let new = server.fetch("new", |_| {});
        let mut old = old;
        receive(&mut old, &server);
        whole(new.join().expect("no panic"), &server);
        let record = server.record();
        went_by_tcp(&record, "(old) cannot use it");
        assert_eq!(record.auto.as_ref().expect("chosen").figures.measured_us, None);
        drop(old);
        server.stop();
    });
}

#[test]
fn way_that_is_not_chosen_from_is_refused() {
    within(LIMIT, || {
        let server = server(|_| {});
        let mut peer = server.peer();
        peer.send("GATECAST/1 JOIN group=2 via=udp name=u\n");
        let answer = peer.read_line();
        assert!(answer.starts_with("ERROR code=refused "), "{answer}");
        assert!(answer.contains("chooses"), "{answer}");
        drop(peer);
        server.stop();
    });
}

#[test]
fn client_asks_for_auto_where_the_server_names_no_way() {
    within(LIMIT, || {
        let server = Server::new(1000, |_| {});
        let asks = |order: &mut gatecast::internals::client::FetchConfig| {
            (order.auto, order.group) = (true, Some(2));
        };
        let ends = ["one", "two"].map(|name| server.fetch(name, asks));
        for end in ends {
            whole(end.join().expect("no panic"), &server);
        }
        went_by_tcp(&server.record(), "");
        server.stop();
        let server = Server::new(1000, |settings| settings.via = Some(Via::Tcp));
        let ends = ["one", "two"].map(|name| server.fetch(name, asks));
        for end in ends {
            whole(end.join().expect("no panic"), &server);
        }
        assert_eq!(server.record().auto, None);
        server.stop();
    });
}
