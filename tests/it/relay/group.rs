//! A relay's group: who hears it takes the stream from it, who does not gets it to a port of its own,
//! and the counts stay true over every change from one to the other.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use gatecast::internals::{
    net::http::guard::AccessGuard,
    proto::relay::ViewerState,
    relay::{
        Relay,
        watch::{Watch, WatchConfig},
    },
    server::transport::GroupRoute,
};

use crate::{
    common::{until, within},
    relay::{
        LIMIT, LOCAL, Source,
        page::{TOKEN, post},
        relay, relay_with,
    },
};

/// A group of this test's own, on the loopback interface.
fn route() -> GroupRoute {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [low, high] = u16::try_from(std::process::id() % 60_000).expect("small").to_be_bytes();
    let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed);
    let group = SocketAddr::from(([239, 255, low, high], port));
    GroupRoute { group, interface: Some(Ipv4Addr::LOCALHOST), ttl: 1 }
}

/// A socket in the group at `at`; `None` where this machine has no multicast.
fn member(at: SocketAddr) -> Option<UdpSocket> {
    let IpAddr::V4(group) = at.ip() else { panic!("IPv4") };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    let socket = socket.expect("a socket");
    socket.set_reuse_address(true).expect("a setting");
    socket.bind(&at.into()).expect("a group");
    if let Err(error) = socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST) {
        eprintln!("SKIPPED: no multicast here: {error}");
        return None;
    }
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a setting");
    Some(socket.into())
}

/// Begins to watch while the source sends.
fn begin(source: &mut Source, config: &WatchConfig) -> Watch {
    thread::scope(|scope| {
        let starting = scope.spawn(|| Watch::start(config));
        while !starting.is_finished() {
            source.send(8);
            thread::sleep(Duration::from_millis(10));
        }
        starting.join().expect("no panic").expect("a relay")
    })
}

/// Sends until all of `watches` take the stream by the group.
fn by_group(source: &mut Source, watches: &[&Watch]) {
    until("they take the group", || {
        source.send(8);
        watches.iter().all(|watch| watch.snapshot().state == ViewerState::Grouped)
    });
}

fn config(relay: &Relay) -> WatchConfig {
    WatchConfig::new(vec![relay.local_addr()])
}

#[test]
fn group_is_sent_once_and_counted_for_each_viewer() {
    within(LIMIT, || {
        let route = route();
        let Some(_socket) = member(route.group) else { return };
        let relay = relay_with(|builder| builder.group(route));
        let mut source = Source::to(&relay);
        let first = begin(&mut source, &config(&relay));
        let second = begin(&mut source, &config(&relay));
        let alone = WatchConfig { by_group: Some(false), ..config(&relay) };
        let alone = begin(&mut source, &alone);
        let only = WatchConfig { by_group: Some(true), ..config(&relay) };
        let only = begin(&mut source, &only);
        by_group(&mut source, &[&first, &second, &only]);
        assert_eq!(alone.snapshot().state, ViewerState::Running);
        // What is in a pause is nobody's loss, and neither is what comes while the way changes.
        for _ in 0..3 {
            source.send(100);
            first.pause().expect("it runs");
            only.pause().expect("it runs");
            assert_eq!(first.snapshot().state, ViewerState::Paused);
            source.send(100);
            first.resume().expect("it paused");
            only.resume().expect("it paused");
            source.send(100);
            by_group(&mut source, &[&first, &only]);
        }
        // What came before the relay read its input is no part of the stream.
        until("the relay has read all", || {
            let shot = relay.snapshot();
            shot.input.datagrams + shot.stale == source.next
        });
        let shot = relay.snapshot();
        let group = shot.group.expect("a group");
        assert_eq!((group.to, group.sent.dropped), (route.group, 0));
        assert_eq!(group.sent.sent, shot.input.datagrams);
        for (watch, paused) in [(first, true), (second, false), (alone, false), (only, true)] {
            let view = watch.quit().expect("nothing recorded");
            let sent = view.sent.expect("ours tells");
            assert_eq!(sent.sent, view.received.datagrams, "{view:?}");
            assert_eq!(sent.bytes, view.received.bytes, "{view:?}");
            assert_eq!(sent.network_lost(Some(&view.receiver_report())), Some(0), "{view:?}");
            assert_eq!(view.received.ts.errors, 0, "{view:?}");
            assert_eq!(sent.paused > 0, paused, "{view:?}");
        }
        let records = relay.stop().expect("no log");
        for record in &records {
            let by_group = record.reason.as_deref().map(|reason| reason.split_once(' '));
            let is_alone = record.viewer == 3;
            assert_eq!(by_group.is_none(), is_alone, "{record:?}");
            if let Some(Some((count, words))) = by_group {
                assert_eq!(words, "by the group");
                assert!((1..=record.sent.sent).contains(&count.parse().expect("a count")));
            }
        }
        assert_eq!(records.len(), 4);
    });
}

#[test]
fn stream_in_rtp_comes_by_the_group_without_its_own() {
    within(LIMIT, || {
        let route = route();
        let Some(group) = member(route.group) else { return };
        let relay = relay_with(|builder| builder.group(route));
        let source = UdpSocket::bind(LOCAL).expect("a free port");
        let in_rtp = |n: u16| {
            let mut datagram = vec![0x80, 33];
            datagram.extend(n.to_be_bytes());
            datagram.extend([0, 0, 0, 9, 1, 2, 3, 4]);
            datagram.extend(Source::datagram(n.into()));
            source.send_to(&datagram, relay.input()).expect("sent");
        };
        // The relay may not read yet, and knows a stream in RTP by its second datagram.
        let mut sent = 1000;
        until("the relay reads it", || {
            in_rtp(sent);
            sent += 1;
            relay.snapshot().input.rtp.is_some()
        });
        let end = sent + 20;
        (sent..end).for_each(in_rtp);
        let mut heard = [0; 2000];
        for number in 0.. {
            let (len, _) = group.recv_from(&mut heard).expect("it is heard");
            assert_eq!(heard[..2], [0x80, 33]);
            assert_eq!(heard[2..4], u16::to_be_bytes(number), "the relay's own numbers");
            if heard[12..len] == Source::datagram((end - 1).into()) {
                return;
            }
        }
    });
}

#[test]
fn datagrams_of_others_in_the_group_are_counted_apart() {
    within(LIMIT, || {
        let route = route();
        let Some(_socket) = member(route.group) else { return };
        let relay = relay_with(|builder| builder.group(route));
        let mut source = Source::to(&relay);
        let watch = begin(&mut source, &config(&relay));
        by_group(&mut source, &[&watch]);
        let other = UdpSocket::bind(LOCAL).expect("a free port");
        let mut theirs = vec![0x80, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        theirs.extend(Source::datagram(0));
        for datagram in [&theirs[..], &theirs[12..], b"", b"no stream", &[0xff; 1400]] {
            for _ in 0..20 {
                other.send_to(datagram, route.group).expect("sent");
                source.send(1);
            }
        }
        until("all are told apart", || watch.snapshot().foreign == 100);
        let view = watch.quit().expect("nothing recorded");
        assert_eq!(view.sent.expect("told").sent, view.received.datagrams, "{view:?}");
        assert_eq!((view.received.ts.errors, view.received.not_ts), (0, 0), "{view:?}");
    });
}

#[test]
fn viewer_that_hears_nothing_is_not_kept_waiting() {
    within(LIMIT, || {
        let route = route();
        let Some(_socket) = member(route.group) else { return };
        let relay = relay_with(|builder| builder.group(route));
        // The source comes after the class.
        let watch = Watch::start(&config(&relay)).expect("a relay");
        assert_eq!(watch.snapshot().state, ViewerState::Running, "after two seconds");
        let mut source = Source::to(&relay);
        by_group(&mut source, &[&watch]);
        source.is_read(&relay, source.next);
        let view = watch.quit().expect("nothing recorded");
        let sent = view.sent.expect("told");
        assert_eq!(
            (sent.sent, sent.network_lost(Some(&view.receiver_report()))),
            (source.next, Some(0))
        );
        assert_eq!(view.received.ts.errors, 0, "{view:?}");
    });
}

#[test]
fn group_viewer_gets_nothing_twice_when_the_page_acts() {
    within(LIMIT, || {
        let route = route();
        let Some(_socket) = member(route.group) else { return };
        let guard = AccessGuard::new(Some(TOKEN.to_owned()), Vec::new(), Vec::new());
        let relay = relay_with(|builder| builder.group(route).access(guard));
        let page = |action: &str| post(&relay, &format!("/viewers/1/{action}")).0;
        // It has not heard the group when the page pauses it, and takes the group after that.
        let watch = Watch::start(&config(&relay)).expect("a relay");
        assert_eq!(page("pause"), 200);
        let mut source = Source::to(&relay);
        source.send(100);
        source.is_read(&relay, 100);
        assert_eq!(page("resume"), 200);
        by_group(&mut source, &[&watch]);
        // The page cannot stop what the group gets, and gives nobody his own datagrams beside it.
        for action in ["pause", "resume"] {
            assert_eq!(page(action), 409);
            assert_eq!(post(&relay, &format!("/viewers/all/{action}")).0, 409);
            assert_eq!(relay.snapshot().viewers[0].state, ViewerState::Grouped);
            source.send(50);
        }
        assert_eq!(page("eat"), 404);
        // It pauses by itself, the page resumes it, it takes the group, and only then asks to go on.
        watch.pause().expect("it runs");
        source.send(50);
        assert_eq!(page("resume"), 200);
        by_group(&mut source, &[&watch]);
        watch.resume().expect("it is by the group");
        source.send(100);
        by_group(&mut source, &[&watch]);
        let view = watch.quit().expect("nothing recorded");
        let sent = view.sent.expect("ours tells");
        assert_eq!((sent.sent, sent.bytes), (view.received.datagrams, view.received.bytes));
        assert!(sent.paused >= 100, "{view:?}");
        assert_eq!(sent.network_lost(Some(&view.receiver_report())), Some(0), "{view:?}");
    });
}

#[test]
fn viewer_of_a_group_alone_is_told_where_there_is_none() {
    within(LIMIT, || {
        let relay = relay();
        let config = WatchConfig { by_group: Some(true), ..config(&relay) };
        let error = Watch::start(&config).expect_err("refused");
        assert!(error.to_string().contains("this relay has no group"), "{error}");
    });
}

#[test]
fn group_is_announced_and_taken_back() {
    within(LIMIT, || {
        let route = route();
        let Some(heard) = member("239.255.255.255:9875".parse().expect("an address")) else {
            return;
        };
        let relay = relay_with(|builder| builder.group(route));
        let media = format!("m=video {} RTP/AVP 33\r\n", route.group.port());
        // Others may announce theirs on this machine.
        let next = || loop {
            let mut bytes = [0; 2000];
            let (len, from) = heard.recv_from(&mut bytes).expect("it is announced");
            let text = String::from_utf8_lossy(&bytes[8..len]).into_owned();
            if text.contains(&media) {
                assert_eq!(from.ip(), Ipv4Addr::LOCALHOST);
                assert!(text.contains(&format!("c=IN IP4 {}/1\r\n", route.group.ip())), "{text}");
                return (bytes[0], text);
            }
        };
        let (first, said) = next();
        assert_eq!(first, 0x20);
        relay.shutdown().expect("no log");
        loop {
            let (flags, again) = next();
            assert_eq!(again, said);
            if flags == 0x24 {
                return;
            }
        }
    });
}
