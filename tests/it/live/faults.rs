//! A stopped viewer, a relay without viewers, and what relay and viewer report each second.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::{program::Program, schema, turn::in_turn},
    live::{LIMIT, events, quit, relay, relay_with, watch},
};

/// Sends a datagram of seven packets `rate` times a second for `time`, or until `done`. Returns how
/// long that took.
pub(super) fn pour(
    source: &UdpSocket,
    rate: u32,
    time: Duration,
    done: &mut dyn FnMut() -> bool,
) -> Duration {
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < time && !done() {
        let due = begun.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        while sent < due {
            source.send(&[0x47; 1316]).expect("sent");
            sent += 1;
        }
        thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

pub(super) fn source_to(input: SocketAddr) -> UdpSocket {
    let source = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    source.connect(input).expect("an address");
    source
}

/// One of 25 viewers is stopped.
#[test]
fn stopped_viewer_is_removed_and_costs_24_others_nothing() {
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (relay, input, at) = relay(place);
        let mut watches: Vec<Program> = (0..25).map(|_| watch(place, at, &["--events"])).collect();
        let stopped = watches.pop().expect("25");
        let source = source_to(input);
        // 5 Mbit/s, first without a stopped viewer, then with one.
        let three = Duration::from_secs(3);
        pour(&source, 500, three, &mut || false);
        stopped.signal("STOP");
        let mut let_go = None;
        let begun = Instant::now();
        pour(&source, 500, Duration::from_secs(8), &mut || {
            if let_go.is_none() && relay.stderr().contains(": silent after") {
                let_go = Some(begun.elapsed());
            }
            false
        });
        let let_go = let_go.unwrap_or_else(|| panic!("never let go: {}", relay.stderr()));
        // The relay promises 5 s after the last message; on a busy machine it may notice later.
        assert!(let_go < Duration::from_secs(7), "{let_go:?}");
        for watch in &mut watches {
            let event = quit(watch);
            let (received, sent) = (&event["received"], &event["sent"]);
            assert_eq!(received["datagrams"], sent["datagrams"], "{event}");
            assert_eq!(sent["dropped"], 0, "{event}");
            // If the others waited behind the stopped one, their delay would be seconds.
            let p99 = sent["delay_p99_us"].as_u64().expect("a delay");
            assert!(p99 < 250_000, "{event}");
        }
    });
}

#[test]
fn events_are_printed_each_second_by_both_sides() {
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (mut relay, input, at) = relay_with(place, &["--events"]);
        let mut watch = watch(place, at, &["--events"]);
        let source = source_to(input);
        pour(&source, 300, Duration::from_millis(4_500), &mut || false);
        let last = quit(&mut watch);
        assert_eq!(last["schema"], "gatecast.watch/1");
        relay.signal("INT");
        assert_eq!(relay.code(), 0);
        for (program, name) in [(&relay, "gatecast.relay/1"), (&watch, "gatecast.watch/1")] {
            let events = events(program);
            assert!(events.len() >= 4, "{events:?}");
            let seconds = |event: &serde_json::Value| event["seconds"].as_f64().expect("a time");
            for event in &events {
                assert_eq!(event["schema"], name);
                schema::check(event, schema::LIVE);
            }
            // The last event comes at the end, whenever that is.
            for pair in events[..events.len() - 1].windows(2) {
                let apart = seconds(&pair[1]) - seconds(&pair[0]);
                assert!((0.3..3.0).contains(&apart), "{apart} s: {pair:?}");
            }
        }
        let watched = |event: &&serde_json::Value| event["viewers"][0].is_object();
        let events = events(&relay);
        let event = events.iter().rfind(watched).expect("it watched");
        let viewer = &event["viewers"][0];
        assert_eq!(viewer["native"], true, "{event}");
        assert_eq!(viewer["standing"], "running", "{event}");
        for part in ["sent", "received"] {
            let datagrams = viewer[part]["datagrams"].as_u64().expect("a count");
            let bytes = viewer[part]["bytes"].as_u64().expect("a count");
            assert!(datagrams > 100 && bytes == 1316 * datagrams, "{event}");
        }
        assert_eq!(viewer["sent"]["dropped"], 0, "{event}");
        assert_eq!(viewer["sent"]["source_cc_errors"], 0, "{event}");
        assert_eq!(viewer["received"]["cc_errors"], 0, "{event}");
        for delay in ["delay_p50_us", "delay_p99_us", "delay_worst_us"] {
            assert!(viewer["sent"][delay].is_u64() && event[delay].is_u64(), "{event}");
        }
        assert!(event["input"]["datagrams"].as_u64() > Some(100), "{event}");
        assert_eq!(event["input"]["rtp_lost"], serde_json::Value::Null, "{event}");
    });
}

#[test]
fn relay_without_viewer_uses_no_processor() {
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (relay, input, _) = relay(folder.path());
        let source = source_to(input);
        let user = || relay.ticks()[0];
        let before = user();
        // 200 Mbit/s.
        pour(&source, 19_000, Duration::from_secs(3), &mut || false);
        // 3 ticks are one percent of 3 s.
        assert!(user() - before <= 3, "{} ticks", user() - before);
    });
}
