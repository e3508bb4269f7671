//! Sources that stop, start again, send twice, lose packets, or send no transport stream, and a
//! source that nobody watches.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use gatecast::internals::relay::Relay;

use crate::{
    common::{until, within},
    relay::{LIMIT, LOCAL, Lab, NOTHING, Source, relay, watch},
};

#[test]
fn relay_reads_nothing_unwatched_and_sends_nothing_stale() {
    within(LIMIT, || {
        let _stamps = stamping_relay();
        let relay = relay();
        let mut source = Source::to(&relay);
        source.send(500);
        assert!(!relay.snapshot().awake);
        assert_eq!(relay.snapshot().input.datagrams, 0);
        let mut lab = Lab::connected(&relay);
        lab.receives_nothing();
        source.send(10);
        assert!(lab.receive(10).into_iter().eq(500..510));
        assert_eq!(lab.ask("INTERRUMPIR"), "OK\n");
        until("it sleeps", || !relay.snapshot().awake);
        // The relay checks ten times a second, so it may still read for so long.
        thread::sleep(Duration::from_millis(250));
        source.send(700);
        assert_eq!(lab.ask("CONTINUAR"), "OK\n");
        lab.receives_nothing();
        source.send(10);
        assert!(lab.receive(10).into_iter().eq(1210..1220));
        // A batch is counted when it has been sent to all.
        until("all is counted", || relay.snapshot().viewers[0].sent.sent == 20);
        let shot = relay.snapshot();
        if Relay::batched() {
            assert_eq!(shot.stale, 1200);
        } else {
            // Without `sockopt` the socket has the default queue, which holds less.
            assert!((1..=1200).contains(&shot.stale), "{}", shot.stale);
        }
        assert_eq!(shot.input.ts.errors, 0, "what nobody wanted is not lost");
        assert_eq!(shot.viewers[0].sent.paused, 700);
    });
}

/// A relay, once the system stamps what comes: Linux begins a moment after the first socket asked,
/// and gives a datagram of before the time at which it is read.
fn stamping_relay() -> Relay {
    let relay = relay();
    let mut source = Source::to(&relay);
    until("old datagrams are known as old", || {
        until("it sleeps", || !relay.snapshot().awake);
        source.send(1);
        let lab = Lab::connected(&relay);
        let patience = lab.socket.set_read_timeout(Some(NOTHING));
        patience.expect("a socket");
        lab.socket.recv(&mut [0; 2048]).is_err()
    });
    relay
}

#[test]
fn viewer_gets_tables_first_when_it_joins_late() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let first = Lab::connected(&relay);
        let tables = tables();
        source.socket.send(&tables).expect("sent");
        source.send(5);
        source.is_read(&relay, 6);
        let late = Lab::connected(&relay);
        source.send(5);
        let mut bytes = [0; 2048];
        let len = late.socket.recv(&mut bytes).expect("the tables");
        assert_eq!(&bytes[..len], tables);
        assert!(late.receive(5).into_iter().eq(5..10));
        drop((first, late));
        // When nobody watches, the relay forgets the tables: the stream may be another one later.
        until("both are gone", || relay.snapshot().viewers.is_empty());
        until("it sleeps", || !relay.snapshot().awake);
        thread::sleep(Duration::from_millis(250));
        let next = Lab::connected(&relay);
        until("it is awake", || relay.snapshot().awake);
        source.send(5);
        assert!(next.receive(5).into_iter().eq(10..15));
    });
}

/// A program association and a program map, a packet each.
pub(super) fn tables() -> Vec<u8> {
    let section = |pid: u16, body: &[u8]| {
        let crc = body.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
                crc << 1 ^ if crc >> 31 == 1 { 0x04C1_1DB7 } else { 0 }
            })
        });
        let [high, low] = (0x4000 | pid).to_be_bytes();
        let mut packet = vec![0x47, high, low, 0x10, 0];
        packet.extend(body);
        packet.extend(crc.to_be_bytes());
        packet.resize(188, 0xFF);
        packet
    };
    let mut tables = section(0, &[0, 0xB0, 13, 0, 1, 0xC1, 0, 0, 0, 1, 0xF0, 0]);
    tables.extend(section(
        0x1000,
        &[2, 0xB0, 18, 0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 0, 2, 0xE1, 0, 0xF0, 0],
    ));
    tables
}

#[test]
fn source_loss_is_counted_apart_from_later_loss() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let watch = watch(&relay);
        source.send_through(&relay, &[&watch], 100);
        source.skip(3);
        source.send_through(&relay, &[&watch], 100);
        source.skip(1);
        source.send_through(&relay, &[&watch], 100);
        let view = watch.quit().expect("nothing recorded");
        assert_eq!(view.received.ts.errors, 2);
        let sent = view.sent.expect("told");
        assert_eq!((sent.sent, sent.cc), (300, 2), "the source's, all of them");
    });
}

#[test]
fn second_source_is_ignored_until_the_first_is_silent() {
    within(LIMIT, || {
        let relay = relay();
        let (mut source, mut other) = (Source::to(&relay), Source::to(&relay));
        let lab = Lab::connected(&relay);
        source.send(1);
        source.is_read(&relay, 1);
        other.send(5);
        source.send(9);
        assert!(lab.receive(10).into_iter().eq(0..10));
        lab.receives_nothing();
        until("they are counted", || relay.snapshot().foreign == 5);
        // When the first source was silent for half a second, the other one is relayed.
        thread::sleep(Duration::from_millis(600));
        other.send(5);
        assert!(lab.receive(5).into_iter().eq(5..10));
        source.send(3);
        until("they are counted", || relay.snapshot().foreign == 8);
        lab.receives_nothing();
    });
}

#[test]
fn other_datagrams_are_relayed_unchanged() {
    within(LIMIT, || {
        let relay = relay();
        let source = Source::to(&relay);
        let lab = Lab::connected(&relay);
        let sizes = [1, 188, 565, 1400, 1472, 9000, 65_507];
        for size in sizes {
            source.socket.send(&vec![7; size]).expect("sent");
        }
        let mut bytes = vec![0; 65_536];
        lab.receive(0);
        for size in sizes {
            assert_eq!(lab.socket.recv(&mut bytes).expect("relayed"), size);
        }
        until("they are counted", || relay.snapshot().input.not_ts == 7);
    });
}

#[test]
fn restarted_source_brings_no_burst_and_no_relay_error() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let watch = watch(&relay);
        source.send_through(&relay, &[&watch], 100);
        // The source stalls and goes on.
        thread::sleep(Duration::from_millis(800));
        source.send_through(&relay, &[&watch], 100);
        assert_eq!(relay.snapshot().input.ts.errors, 0);
        // The source ends, and another process starts the stream again.
        drop(source);
        thread::sleep(Duration::from_millis(800));
        let mut source = Source::to(&relay);
        source.send_through(&relay, &[&watch], 100);
        let view = watch.quit().expect("nothing recorded");
        let sent = view.sent.expect("one of ours tells");
        assert_eq!((view.received.datagrams, sent.sent), (300, 300));
        assert_eq!(view.received.ts.errors, 1, "its counters begin again");
        assert_eq!(sent.cc, 1, "which is the source's affair");
        assert_eq!(relay.snapshot().foreign, 0);
        // Nothing was kept to be sent later.
        assert!(sent.delay.worst_us < Some(700_000), "{sent:?}");
    });
}

#[test]
fn doubled_source_is_relayed_doubled_without_added_error() {
    within(LIMIT, || {
        let relay = relay();
        let source = Source::to(&relay);
        let watch = watch(&relay);
        for n in 0..100 {
            source.socket.send(&Source::datagram(n)).expect("sent");
            source.socket.send(&Source::datagram(n)).expect("sent");
            thread::sleep(Duration::from_micros(200));
        }
        source.is_read(&relay, 200);
        let view = watch.quit().expect("nothing recorded");
        let sent = view.sent.expect("one of ours tells");
        assert_eq!((view.received.datagrams, sent.sent), (200, 200));
        // A packet may be repeated at once, but not seven of them: each time the counter goes back.
        assert_eq!(sent.cc, 100, "{sent:?}");
        assert_eq!(view.received.ts.errors, sent.cc);
    });
}

#[test]
fn relay_receives_from_multicast_group() {
    within(LIMIT, || {
        let group = SocketAddr::from(([239, 255, 77, 23], 0));
        let builder = Relay::builder().input(group).listen(LOCAL);
        let relay = match builder.interface(Ipv4Addr::LOCALHOST).start() {
            Ok(relay) => relay,
            Err(error) => return eprintln!("passed by: no multicast here: {error}"),
        };
        let to = SocketAddr::new(group.ip(), relay.input().port());
        let lab = Lab::connected(&relay);
        // Bound to the address of an interface, so that the system sends by that interface.
        let source = UdpSocket::bind(LOCAL).expect("a free port");
        for n in 0..20 {
            if let Err(error) = source.send_to(&Source::datagram(n), to) {
                return eprintln!("passed by: no multicast here: {error}");
            }
        }
        assert!(lab.receive(20).into_iter().eq(0..20));
    });
}
