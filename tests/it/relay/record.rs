//! A relay that records, and one that plays a file.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use gatecast::internals::{proto::relay::status::RecordSnapshot, relay::Relay};

use crate::{
    common::{until, within},
    relay::{LIMIT, Lab, Source, relay_with, source::tables, watch},
};

const MINUTE: Duration = Duration::from_secs(60);

fn recording(relay: &Relay) -> RecordSnapshot {
    relay.snapshot().recording.expect("it records")
}

/// The segments that a list names.
fn segments(list: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(list).expect("a list");
    let names = text.lines().filter(|line| !line.starts_with('#'));
    names.map(|name| list.with_file_name(name)).collect()
}

/// A packet in which a picture begins that needs no other.
fn key_frame() -> Vec<u8> {
    let mut packet = vec![0xAB; 188];
    packet[..6].copy_from_slice(&[0x47, 0x41, 0x00, 0x30, 1, 0x40]);
    packet
}

/// Tables, a key frame, and then `count` pieces of seven packets, a clock every 40 ms in front.
fn film(count: u64) -> Vec<u8> {
    let mut bytes = [tables(), key_frame()].concat();
    for n in 0..count {
        let base = u32::try_from(n * 3600 / 2).expect("short").to_be_bytes();
        let mut clock = [0xFF; 188];
        clock[..6].copy_from_slice(&[0x47, 0x01, 0x01, 0x20, 183, 0x10]);
        clock[6..10].copy_from_slice(&base);
        clock[10..12].copy_from_slice(&[0x7E, 0]);
        bytes.extend(clock);
        bytes.extend(Source::datagram(n));
    }
    bytes
}

#[test]
fn stream_is_recorded_while_nobody_watches() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path().join("recorded");
        let relay = relay_with(|builder| builder.record(place.clone(), MINUTE));
        let mut source = Source::to(&relay);
        until("it reads", || relay.snapshot().awake);
        let first = [tables(), key_frame()].concat();
        let mut firsts = 0;
        until("the first is read", || {
            source.socket.send(&first).expect("sent");
            firsts += 1;
            relay.snapshot().input.datagrams > 0
        });
        // None of them is read later: those that came too early were thrown away.
        let read = || relay.snapshot().input.datagrams + relay.snapshot().stale;
        until("all of them are read", || read() == firsts);
        source.send_through(&relay, &[], 320);
        // Garbage between them is in no segment.
        source.socket.send(&[7; 1000]).expect("sent");
        until("it is read", || read() == firsts + 321);
        source.send_through(&relay, &[], 320);
        relay.finish_recording();
        let shown = recording(&relay);
        assert_eq!((shown.segments, shown.lost, shown.failed), (1, 0, None));
        assert!(!relay.snapshot().awake, "it is over, and nobody watches");
        let [segment] = &segments(&shown.list)[..] else { panic!("one segment") };
        let recorded = fs::read(segment).expect("there");
        assert_eq!(recorded.len() as u64, shown.bytes);
        let sent: Vec<u8> = (0..640).flat_map(Source::datagram).collect();
        assert!(recorded.starts_with(&first) && recorded.ends_with(&sent));
        assert_eq!(fs::read_dir(&place).expect("there").count(), 2);
    });
}

#[test]
fn folder_that_vanishes_ends_recording_and_not_relay() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path().join("recorded");
        let relay = relay_with(|builder| builder.record(place.clone(), MINUTE));
        let mut source = Source::to(&relay);
        let lab = Lab::connected(&relay);
        source.socket.send(&[tables(), key_frame()].concat()).expect("sent");
        source.send(20);
        until("it records", || recording(&relay).bytes > 20 * 1316);
        fs::remove_dir_all(&place).expect("ours");
        source.send(20);
        until("it has ended", || recording(&relay).failed.is_some());
        let failed = recording(&relay).failed.expect("told");
        assert!(failed.starts_with("cannot write the recording ("), "{failed}");
        assert!(failed.ends_with("it is not there any more"), "{failed}");
        source.send(20);
        let mut bytes = [0; 2048];
        assert_eq!(lab.socket.recv(&mut bytes).expect("the tables and the key frame"), 3 * 188);
        assert!(lab.receive(60).into_iter().eq(0..60));
        drop(lab);
        until("nobody watches", || relay.snapshot().viewers.is_empty());
        until("it sleeps", || !relay.snapshot().awake);
        assert!(!place.exists());
    });
}

#[test]
fn played_file_begins_with_its_first_viewer_and_ends() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("film.ts");
        let bytes = film(50);
        // What is left of a last packet is no part of it.
        fs::write(&path, [&bytes[..], &[0x47; 9]].concat()).expect("room");
        let mut relay = relay_with(|builder| builder.play(path.clone(), false));
        assert!(relay.input().ip().is_loopback());
        thread::sleep(Duration::from_millis(300));
        assert_eq!(relay.snapshot().input.datagrams, 0, "it waits for a viewer");
        assert!(relay.file_end().is_none());
        let watch = watch(&relay);
        until("it is over", || match relay.file_end() {
            Some(ended) => ended.is_ok(),
            None => false,
        });
        let packets = bytes.len() as u64 / 188;
        until("all of it came", || watch.snapshot().received.ts.packets >= packets);
        let view = watch.quit().expect("nothing recorded");
        assert_eq!((view.received.ts.packets, view.received.not_ts), (packets, 0));
        assert!(view.watched >= Duration::from_millis(49 * 40), "{:?}", view.watched);
        assert_eq!(view.received.bytes, bytes.len() as u64);
    });
}

#[test]
fn repeated_file_is_recorded_without_an_error() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("film.ts");
        fs::write(&path, film(10)).expect("room");
        let place = folder.path().join("recorded");
        let builder =
            |it: gatecast::RelayBuilder| it.play(path.clone(), true).record(place.clone(), MINUTE);
        let mut relay = relay_with(builder);
        until("it plays again", || recording(&relay).bytes > 3 * film(10).len() as u64);
        assert!(relay.file_end().is_none());
        assert_eq!(relay.snapshot().input.ts.errors, 0, "jumps are announced");
        relay.finish_recording();
        let shown = recording(&relay);
        assert_eq!((shown.lost, shown.failed.clone()), (0, None));
        assert!(shown.segments >= 3, "{shown:?}: each pass is apart");
        let list = fs::read_to_string(&shown.list).expect("a list");
        assert_eq!(list.matches("#EXT-X-DISCONTINUITY\n").count() as u64, shown.segments - 1);
        for segment in segments(&shown.list) {
            assert!(fs::read(segment).expect("there").starts_with(&tables()));
        }
    });
}
