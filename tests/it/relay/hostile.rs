//! Viewers that send what they should not, that fall silent, or that do not read.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::proto::relay::{ViewerState, log::ViewerEnd};

use crate::{
    common::{turn::in_turn, until, within},
    relay::{LIMIT, LOCAL, Lab, Source, relay, relay_with, visits, watch, whole},
};

#[test]
fn hostile_commands_are_refused_and_change_nothing() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::to(&relay);
        for command in ["CONTINUAR", "INTERRUMPIR", "conectar 5000", "", "CONECTAR 80"] {
            let answer = lab.ask(command);
            assert!(answer.starts_with("ERROR "), "{command}: {answer}");
        }
        for target in ["192.0.2.1 5000", "192.0.2.1:5000", "<192.0.2.1>", "localhost", "65536"] {
            let answer = lab.ask(&format!("CONECTAR {target}"));
            assert!(answer.starts_with("ERROR "), "{target}: {answer}");
        }
        lab.send(b"\xff\xfd\x06\0CONECTAR\n");
        assert!(lab.read_line().starts_with("ERROR "));
        assert!(relay.snapshot().viewers.is_empty());
        // Two commands in one segment, then one command in segments of one byte.
        let two = format!("{}\nINTERRUMPIR\n", lab.conectar());
        lab.send(two.as_bytes());
        assert_eq!((lab.read_line(), lab.read_line()), ("OK\n".to_owned(), "OK\n".to_owned()));
        lab.control.get_ref().set_nodelay(true).expect("a socket");
        for byte in b"CONTINUAR\r\n" {
            lab.send(&[*byte]);
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(lab.read_line(), "OK\n");
        assert_eq!(lab.ask(&lab.conectar()), "ERROR connected already\n");
        assert_eq!(lab.ask("CONTINUAR"), "ERROR not interrupted\n");
        let shot = relay.snapshot();
        assert_eq!(shot.viewers[0].state, ViewerState::Running);
        assert_eq!(shot.viewers[0].to, lab.socket.local_addr().expect("bound"));
        source.send(5);
        assert!(lab.receive(5).into_iter().eq(0..5));
    });
}

#[test]
fn million_bytes_without_newline_are_one_error() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::connected(&relay);
        lab.send(&vec![b'x'; 1_000_000]);
        assert!(lab.read_line().contains("longer"));
        source.send(5);
        assert_eq!(lab.receive(5).len(), 5);
        lab.send(b"\n");
        assert_eq!(lab.ask("INTERRUMPIR"), "OK\n");
        // A line without end closes the connection.
        let endless = vec![b'x'; 1 << 20];
        let ended = (0..64).find(|_| lab.control.get_mut().write_all(&endless).is_err());
        assert!(ended.is_some(), "never closed");
    });
}

#[test]
fn second_viewer_at_a_port_and_viewer_too_many_are_refused() {
    within(LIMIT, || {
        let relay = relay_with(|builder| builder.max_viewers(2));
        let lab = Lab::connected(&relay);
        let mut other = Lab::to(&relay);
        let answer = other.ask(&lab.conectar());
        assert!(answer.contains("has a viewer already"), "{answer}");
        assert_eq!(other.ask(&other.conectar()), "OK\n");
        let mut third = Lab::to(&relay);
        let answer = third.ask(&third.conectar());
        assert!(answer.contains("2 viewers already"), "{answer}");
        drop(lab);
        until("its place is free", || relay.snapshot().viewers.len() == 1);
        assert_eq!(third.ask(&third.conectar()), "OK\n");
    });
}

#[test]
fn thousand_silent_connections_keep_no_viewer_out() {
    in_turn("connections to a relay", LIMIT, || {
        let relay = relay();
        let silent: Vec<TcpStream> = (0..1_000)
            .map(|n| TcpStream::connect(relay.local_addr()).unwrap_or_else(|e| panic!("{n}: {e}")))
            .collect();
        let mut source = Source::to(&relay);
        let lab = Lab::connected(&relay);
        source.send(50);
        assert!(lab.receive(50).into_iter().eq(0..50));
        assert!(relay.connections() > 900);
        drop(silent);
        until("their threads end", || relay.connections() == 1);
    });
}

#[test]
fn viewer_that_never_reads_costs_others_nothing() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let _deaf = Lab::connected(&relay);
        // This one sends commands without end, and does not read the answers either.
        let mut loud = Lab::connected(&relay);
        let flood = b"CONTINUAR\n".repeat(1 << 20);
        loud.control.get_ref().set_nonblocking(true).expect("a socket");
        let mut said = 0;
        while said < flood.len()
            && let Ok(n) = loud.control.get_mut().write(&flood[said..])
        {
            said += n;
        }
        let watch = watch(&relay);
        source.send_through(&relay, &[&watch], 3_000);
        whole(&watch.quit().expect("nothing recorded"), 3_000);
        until("who asks without end is let go, who is deaf is not", || {
            relay.snapshot().viewers.len() == 1
        });
    });
}

#[test]
fn native_viewer_is_removed_when_silent() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::connected(&relay);
        let answer = lab.ask("ALIVE datagrams=0 bytes=0 cc=0");
        assert!(answer.starts_with("OK sent="), "{answer}");
        let begun = Instant::now();
        until("it is let go", || {
            source.send(1);
            relay.snapshot().viewers.is_empty()
        });
        let took = begun.elapsed();
        // The relay promises 5 s; on a busy machine it may notice later.
        assert!(took < Duration::from_secs(8), "{took:?}");
        assert!(took > Duration::from_secs(3), "{took:?}");
        assert_eq!(lab.read_line(), "ERROR no command within 4 s\n");
        assert_eq!(lab.read_line(), "");
        assert_eq!(visits(relay)[0].end, ViewerEnd::Silent);
    });
}

#[test]
fn client_that_floods_commands_is_told_once_and_closed() {
    within(LIMIT, || {
        let relay = relay();
        let mut lab = Lab::connected(&relay);
        lab.send(&b"CONTINUAR\n".repeat(1_000));
        let refused: Vec<String> = std::iter::from_fn(|| Some(lab.read_line()))
            .take_while(|line| !line.is_empty())
            .collect();
        let (last, answers) = refused.split_last().expect("answers");
        assert_eq!(last, "ERROR more than 256 commands in a second\n");
        assert!(answers.iter().all(|line| line == "ERROR not interrupted\n"));
        // CONECTAR was the first command. On a busy machine the count may begin anew in between.
        assert!((255..1_000).contains(&answers.len()), "{}", answers.len());
        until("it is let go", || relay.snapshot().viewers.is_empty());
        // 200 commands in more than a second are allowed.
        let mut lab = Lab::connected(&relay);
        for _ in 0..100 {
            assert_eq!(lab.ask("INTERRUMPIR"), "OK\n");
            assert_eq!(lab.ask("CONTINUAR"), "OK\n");
            thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn one_address_cannot_take_all_places() {
    within(LIMIT, || {
        let Some(host) = gatecast::internals::net::address::outward() else {
            return eprintln!("passed by: no address but loopback");
        };
        let relay = relay_with(|builder| builder.viewers_per_address(2).listen((host, 0)));
        let labs = [Lab::connected(&relay), Lab::connected(&relay)];
        let mut third = Lab::to(&relay);
        let answer = third.ask(&third.conectar());
        assert_eq!(answer, "ERROR your address has 2 viewers already\n");
        drop(labs);
        until("there is room", || relay.snapshot().viewers.is_empty());
        assert_eq!(third.ask(&third.conectar()), "OK\n");
        // On this host there is no such bound.
        let relay = relay_with(|builder| builder.viewers_per_address(2));
        let _labs = [0; 5].map(|_| Lab::connected(&relay));
        assert_eq!(relay.snapshot().viewers.len(), 5);
    });
}

#[test]
fn client_without_viewer_is_closed_when_silent() {
    within(LIMIT, || {
        let relay = relay_with(|builder| builder.max_silence(Duration::from_secs(1)));
        let mut lab = Lab::to(&relay);
        assert_eq!(lab.read_line(), "ERROR no command within 1 s\n");
        until("it is gone", || relay.connections() == 0);
        assert!(visits(relay).is_empty(), "it was no viewer");
    });
}

#[test]
fn impossible_receiver_report_is_refused_and_not_logged() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::connected(&relay);
        source.send(5);
        assert_eq!(lab.receive(5).len(), 5);
        until("they are counted", || relay.snapshot().viewers[0].sent.sent == 5);
        let answer = lab.ask("ALIVE datagrams=5 bytes=6580 cc=0");
        assert!(answer.starts_with("OK sent=5 "), "{answer}");
        let answer = lab.ask("ALIVE datagrams=18446744073709551615 bytes=1 cc=0");
        let lie = "ERROR a receipt of 18446744073709551615 datagrams where 5 were sent\n";
        assert_eq!(answer, lie);
        assert_eq!(lab.ask("DESCONECTAR"), "OK\n");
        let visits = visits(relay);
        let received = visits[0].received.expect("its honest word");
        assert_eq!(received.datagrams, 5);
        // The table of two such visits does not overflow.
        gatecast::internals::report::relay::viewer_table(
            &[visits[0].clone(), visits[0].clone()],
            None,
        );
    });
}

#[test]
fn lab_client_may_be_silent_up_to_the_limit() {
    within(LIMIT, || {
        let relay = relay_with(|builder| builder.max_silence(Duration::from_secs(1)));
        let mut lab = Lab::connected(&relay);
        assert_eq!(lab.read_line(), "ERROR no command within 1 s\n");
        assert_eq!(visits(relay)[0].end, ViewerEnd::Silent);
    });
}

#[test]
fn viewer_is_removed_when_nobody_listens_at_its_port() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::to(&relay);
        let command = lab.conectar();
        lab.socket = UdpSocket::bind(LOCAL).expect("another free port");
        assert_eq!(lab.ask(&command), "OK\n");
        let begun = Instant::now();
        until("it is let go", || {
            source.send(1);
            relay.snapshot().viewers.is_empty()
        });
        assert!(begun.elapsed() < Duration::from_secs(8));
        let answer = lab.read_line();
        assert!(answer.starts_with("ERROR nobody listens at port"), "{answer}");
        assert_eq!(visits(relay)[0].end, ViewerEnd::Refused);
    });
}

#[test]
fn viewer_stays_when_its_player_starts_late() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::to(&relay);
        let addr = lab.socket.local_addr().expect("bound");
        let command = lab.conectar();
        lab.socket = UdpSocket::bind(LOCAL).expect("another free port");
        assert_eq!(lab.ask(&command), "OK\n");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            source.send(1);
            thread::sleep(Duration::from_millis(5));
        }
        lab.socket = UdpSocket::bind(addr).expect("free again");
        let from = source.next;
        while begun.elapsed() < Duration::from_secs(5) {
            source.send(1);
            thread::sleep(Duration::from_millis(5));
        }
        let first = lab.receive(1)[0];
        assert!(first <= from + 1, "{first} of {from}");
        assert_eq!(relay.snapshot().viewers.len(), 1);
    });
}

#[test]
fn viewer_is_removed_when_its_connection_half_closes() {
    within(LIMIT, || {
        let relay = relay();
        let lab = Lab::connected(&relay);
        lab.control.get_ref().shutdown(Shutdown::Write).expect("open");
        until("it is gone", || relay.snapshot().viewers.is_empty());
        let mut rest = Vec::new();
        let _ = lab.control.get_ref().read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
    });
}
