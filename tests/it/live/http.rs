//! Players that open the relay's URL.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    common::{have, installed, program::Program, turn::in_turn, until},
    live::{LIMIT, ask, ffmpeg, probe, relay, vlc, watch},
};

/// How many viewers the relay's log has seen come over HTTP.
fn connected(relay: &Program) -> usize {
    relay.stderr().matches("connected over HTTP").count()
}

#[test]
fn players_get_every_picture_by_url() {
    let there = ["curl", "ffmpeg", "cvlc", "mpv", "python3"].into_iter().all(installed);
    if !have("curl, ffmpeg, VLC, mpv and Python", there) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        // VLC runs as another user, who must be able to write here.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(place, everybody).expect("ours");
        let (mut relay, input, at) = super::relay_with(place, &["-v"]);
        let url = format!("http://{at}/live.ts");
        let path = |name: &str| place.join(name).display().to_string();
        let mut curl = Command::new("curl");
        curl.args(["-sSN", "-o", &path("curl.ts"), &url]);
        let mut copy = Command::new("ffmpeg");
        copy.args(["-v", "error", "-i", &url, "-c", "copy", "-f", "mpegts", &path("ffmpeg.ts")]);
        let mut play = vlc(place);
        play.arg(&url).arg(format!("--sout=#std{{access=file,mux=ts,dst={}}}", path("vlc.ts")));
        play.arg("vlc://quit");
        // It shows its pictures to nobody, and keeps what it has shown.
        let mut shown = Command::new("mpv");
        shown.args(["--no-config", "--no-terminal", "--vo=null", "--ao=null", "--untimed"]);
        shown.args([&format!("--stream-record={}", path("mpv.ts")), &url]);
        let mut all = [curl, copy, play, shown];
        let mut players: Vec<Program> = all.iter_mut().map(Program::start).collect();
        until("they watch", || connected(&relay) == 4);
        // The lab's unmodified client and one of ours, at the same time.
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/relay_client.py");
        let arguments = [client, &at.ip().to_string(), &at.port().to_string()];
        let mut lab = Program::interactive(Command::new("python3").args(arguments));
        let port = ask(&mut lab, "port");
        assert_eq!(ask(&mut lab, &format!("say CONECTAR <{port}>")), "OK");
        let mut ours = watch(place, at, &["--events"]);
        ffmpeg(5, "mpegts", &format!("udp://{input}?pkt_size=1316"));
        let event = super::quit(&mut ours);
        assert_eq!(event["received"]["datagrams"], event["sent"]["datagrams"], "{event}");
        // Its end ends the players.
        relay.signal("INT");
        assert_eq!(relay.code(), 130, "{}", relay.stderr());
        for player in &mut players {
            player.code_within(Duration::from_secs(30));
        }
        for name in ["curl.ts", "ffmpeg.ts", "mpv.ts"] {
            let (pictures, complaints) = probe(&place.join(name));
            assert_eq!((pictures, complaints.as_str()), (125, ""), "{name}");
        }
        let (pictures, _) = probe(&place.join("vlc.ts"));
        assert!(pictures >= 120, "VLC leaves its last ones out: {pictures}");
    });
}

#[test]
fn late_player_sees_a_whole_picture_first() {
    if !have("curl and ffmpeg", installed("curl") && installed("ffmpeg")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (_relay, input, at) = relay(place);
        let early = watch(place, at, &["--events"]);
        let source = std::thread::spawn(move || ffmpeg(6, "mpegts", &format!("udp://{input}")));
        let got = || {
            let last = early.stdout().iter().rev().find(|line| line.starts_with('{')).cloned();
            let event = last.and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
            event.is_some_and(|event| event["received"]["datagrams"].as_u64() > Some(100))
        };
        until("the stream", got);
        let late = place.join("late.ts");
        let url = format!("http://{at}/live.ts");
        let mut curl =
            Program::start(Command::new("curl").args(["-sSN", "-o"]).arg(&late).arg(url));
        source.join().expect("sent");
        let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        until("it has something", || size(&late) > 100_000);
        curl.kill();
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "frame=pict_type"])
            .args(["-of", "csv=p=0"])
            .arg(&late)
            .output()
            .expect("ffprobe");
        let (pictures, errors) = (output.stdout, output.stderr);
        let pictures = String::from_utf8_lossy(&pictures);
        assert!(pictures.trim_start().starts_with('I'), "{pictures}");
        // What the end cut may be incomplete; what it began with is not.
        assert!(pictures.lines().count() > 10, "{pictures}{}", String::from_utf8_lossy(&errors));
    });
}
