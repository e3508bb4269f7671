//! A relay that plays a file, and one that records, with real pictures.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    common::{
        have, installed,
        program::{GATECAST, Program},
        turn::in_turn,
        until,
    },
    live::{LIMIT, faults, ffmpeg, last_event, probe, relay_with, relaying, watch},
};

/// 8 s of pictures, a whole one each half second.
fn film(place: &Path) {
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-t", "8"])
        .args(["-c:v", "mpeg2video", "-g", "12", "-b:v", "2M", "-f", "mpegts"])
        .arg(place.join("film.ts"))
        .stdin(Stdio::null())
        .status();
    assert!(made.expect("ffmpeg").success());
}

fn list(folder: &Path) -> PathBuf {
    let mut paths = fs::read_dir(folder).expect("there").flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|kind| kind == "m3u8")).expect("a list")
}

fn kinds(segment: &Path) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "frame=pict_type"])
        .args(["-of", "csv=p=0"])
        .arg(segment)
        .output();
    String::from_utf8(output.expect("ffprobe").stdout).expect("text")
}

#[test]
fn class_sees_a_file_and_its_recording_is_whole() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        film(place);
        let words = ["relay", "--play", "film.ts", "--record", "lesson", "--segment", "2s"];
        let mut command = Command::new(GATECAST);
        command.args(words).args(["--listen", "127.0.0.1:0", "--events"]).current_dir(place);
        let mut relay = Program::interactive(&mut command);
        until("it relays", || relay.stderr().contains("relaying film.ts to viewers at "));
        assert_eq!(relay.code_within(Duration::from_secs(60)), Some(0), "{}", relay.stderr());
        assert!(relay.stderr().contains("film.ts has been played"), "{}", relay.stderr());
        let event = last_event(&relay);
        crate::common::schema::check(&event, crate::common::schema::LIVE);
        assert_eq!(event["input"]["cc_errors"], 0, "{event}");
        // It took its time: 8 s, less the last picture.
        assert!(event["seconds"].as_f64() > Some(7.5), "{event}");
        let recording = &event["recording"];
        assert_eq!((&recording["unrecorded"], recording["failed"].is_null()), (&0.into(), true));
        let list = list(&place.join("lesson"));
        let text = fs::read_to_string(&list).expect("a list");
        assert_eq!(probe(&list), (200, String::new()), "{text}");
        let names: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(names.len() >= 3 && recording["segments"] == names.len(), "{text}");
        for name in names {
            let kinds = kinds(&list.with_file_name(name));
            assert!(kinds.trim_start().starts_with('I'), "{name}: {kinds}");
        }
    });
}

#[test]
fn full_disk_ends_the_recording_and_the_relay_goes_on() {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let there = installed("unshare") && is_root;
    if !have("root and unshare", there) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        fs::create_dir(place.join("small")).expect("room");
        // A disk of its own, which nobody else sees and which ends with the program.
        let script = "mount -t tmpfs -o size=1m none small && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", GATECAST, "relay"]);
        command.args(["--input", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--record", "small"]);
        let (mut relay, input, at) = relaying(command.arg("--events"), place);
        let mut viewer = watch(place, at, &["--events"]);
        let source = faults::source_to(input);
        let said = "the recording has ended, the relay goes on: cannot write the recording (small/";
        // 2 Mbit/s. It begins after 5 s, since nothing marks a key frame.
        faults::pour(&source, 200, LIMIT / 2, &mut || relay.stderr().contains(said));
        let line = relay.stderr().lines().find(|line| line.contains(said)).map(str::to_owned);
        assert!(line.expect("told").contains("No space left on device"));
        assert_eq!(relay.stderr().matches("the recording has ended").count(), 1);
        faults::pour(&source, 200, Duration::from_secs(1), &mut || false);
        let event = super::quit(&mut viewer);
        assert_eq!(event["received"]["datagrams"], event["sent"]["datagrams"], "{event}");
        assert_eq!(event["sent"]["dropped"], 0, "{event}");
        relay.signal("INT");
        assert_eq!(relay.code(), 1, "its recording is not whole");
        assert!(relay.stderr().contains("; it ended early: "), "{}", relay.stderr());
        assert!(last_event(&relay)["recording"]["failed"].is_string());
    });
}

#[test]
fn source_that_is_another_one_later_is_recorded_apart() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (mut relay, input, _) = relay_with(place, &["--record", "rec", "--events"]);
        until("it reads", || relay.stdout().last().is_some_and(|line| line.contains("true")));
        let to = format!("udp://{input}?pkt_size=1316");
        ffmpeg(3, "mpegts", &to);
        // It comes back from another program, with sound, so its tables are others.
        std::thread::sleep(Duration::from_secs(1));
        let other = Command::new("ffmpeg")
            .args(["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"])
            .args(["-f", "lavfi", "-i", "sine", "-t", "3", "-c:v", "mpeg2video", "-g", "12"])
            .args(["-c:a", "mp2", "-f", "mpegts", &to])
            .stdin(Stdio::null())
            .status();
        assert!(other.expect("ffmpeg").success());
        relay.signal("INT");
        assert_eq!(relay.code(), 0, "{}", relay.stderr());
        let list = list(&place.join("rec"));
        let text = fs::read_to_string(&list).expect("a list");
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
        let names = text.lines().filter(|line| !line.starts_with('#'));
        let pictures: Vec<u64> = names.map(|name| probe(&list.with_file_name(name)).0).collect();
        assert_eq!(pictures, [75, 75], "{text}");
    });
}
