//! The relay and its viewers as programs, with real sources and players: ffmpeg, VLC and the lab's
//! client in Python.

mod faults;
mod file;
mod http;
mod launch;
#[cfg(feature = "sockopt")] // It shares a host with `vanished`.
mod sap;
mod terminal;
#[cfg(feature = "sockopt")] // Keep-alive in seconds is not in std.
mod vanished;

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::common::{
    have, installed,
    program::{GATECAST, Program},
    schema,
    turn::in_turn,
    until,
};

const LIMIT: Duration = Duration::from_secs(120);

/// Starts `gatecast relay`. Returns it with the addresses for its source and for its viewers.
fn relay(folder: &Path) -> (Program, SocketAddr, SocketAddr) {
    relay_with(folder, &[])
}

fn relay_with(folder: &Path, arguments: &[&str]) -> (Program, SocketAddr, SocketAddr) {
    let words = ["relay", "--input", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    relaying(Command::new(GATECAST).args(words).args(arguments), folder)
}

/// Starts the relay by `command`. Returns it with the addresses for its source and for its viewers.
fn relaying(command: &mut Command, folder: &Path) -> (Program, SocketAddr, SocketAddr) {
    let relay = Program::interactive(command.current_dir(folder));
    until("it relays", || relay.stderr().contains("relaying"));
    let said = relay.stderr();
    let words: Vec<&str> = said.split([' ', ';']).collect();
    let after = |word: &str| {
        let at = words.iter().position(|found| *found == word).expect(word);
        let addr = words[at + 1].trim_start_matches("udp://");
        addr.parse().expect("an address")
    };
    (relay, after("to"), after("at"))
}

fn watch(folder: &Path, at: SocketAddr, arguments: &[&str]) -> Program {
    let watch = Program::interactive(
        Command::new(GATECAST).args(["watch", &at.to_string()]).args(arguments).current_dir(folder),
    );
    until("it watches", || watch.stderr().contains("watching"));
    watch
}

/// Gives `order` to the lab's client and returns the line that it prints for it.
fn ask(lab: &mut Program, order: &str) -> String {
    let before = lab.stdout().len();
    lab.type_line(order);
    until(order, || lab.stdout().len() > before);
    lab.stdout()[before].clone()
}

/// The lines of JSON that a program with `--events` printed.
fn events(program: &Program) -> Vec<serde_json::Value> {
    let printed = program.stdout();
    let lines = printed.iter().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn last_event(program: &Program) -> serde_json::Value {
    events(program).pop().expect("an event")
}

/// Ends a viewer by `q`, and returns the last event that it printed.
fn quit(watch: &mut Program) -> serde_json::Value {
    watch.type_line("q");
    assert_eq!(watch.code(), 0, "{}", watch.stderr());
    let whole = || last_event(watch)["sent"]["datagrams"].is_u64();
    until("its last event", whole);
    last_event(watch)
}

/// Runs ffmpeg as a source of `seconds` of a test picture.
fn ffmpeg(seconds: u32, format: &str, to: &str) {
    let seconds = seconds.to_string();
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-re", "-f", "lavfi"])
        .args(["-i", "testsrc2=size=640x360:rate=25", "-t", &seconds])
        .args(["-c:v", "mpeg2video", "-g", "12", "-b:v", "2M"])
        .args(["-f", format, to])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg");
    assert!(output.status.success(), "{output:?}");
}

/// How many pictures ffprobe finds in a recording, and its warnings.
fn probe(file: &Path) -> (u64, String) {
    let output = Command::new("ffprobe")
        .args(["-v", "warning", "-count_packets", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=nb_read_packets"])
        .args(["-of", "default=noprint_wrappers=1:nokey=1"])
        .arg(file)
        .output()
        .expect("ffprobe");
    let text = String::from_utf8_lossy(&output.stdout);
    let pictures = text.lines().next().and_then(|line| line.trim().parse().ok());
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    (pictures.unwrap_or(0), complaints)
}

/// A free port for a player that will bind it in a moment.
fn free_port() -> SocketAddr {
    let free = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("bound")
}

/// Waits until a socket of this host is bound to `player`.
fn until_taken(player: SocketAddr) {
    let row = format!(":{:04X} ", player.port());
    until("the player listens", || {
        fs::read_to_string("/proc/net/udp").is_ok_and(|table| table.contains(&row))
    });
}

/// ffprobe as a player: it reads a live stream and prints what is in it.
fn live_probe() -> (SocketAddr, Program) {
    let player = free_port();
    let probe = Program::interactive(
        Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v:0"])
            .args(["-show_entries", "stream=codec_name,width,height"])
            .args(["-of", "csv=p=0"])
            .arg(format!("udp://{player}?timeout=20000000")),
    );
    until_taken(player);
    (player, probe)
}

#[test]
fn three_viewers_record_what_ffmpeg_sends() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (mut relay, input, at) = relay(place);
        // Each viewer has its own player and a recording.
        let files = ["1.ts", "2.ts", "3.ts"];
        let mut players = Vec::new();
        let mut watches = Vec::new();
        for file in files {
            let (player, probe) = live_probe();
            let player = player.to_string();
            let words = ["--player", &player, "--record", file, "--events"];
            watches.push(watch(place, at, &words));
            players.push(probe);
        }
        ffmpeg(5, "mpegts", &format!("udp://{input}?pkt_size=1316"));
        for player in &mut players {
            assert_eq!(player.code_within(Duration::from_secs(30)), Some(0));
            let found = player.stdout().join(" ");
            assert!(found.contains("mpeg2video,640,360"), "{found}");
        }
        let mut sent_in_all = 0;
        for watch in &mut watches {
            let event = quit(watch);
            let (received, sent) = (&event["received"], &event["sent"]);
            assert_eq!(received["cc_errors"], 0, "{event}");
            assert_eq!(sent["source_cc_errors"], 0, "{event}");
            assert_eq!(received["datagrams"], sent["datagrams"], "{event}");
            assert_eq!(event["network_lost"], 0, "{event}");
            sent_in_all += sent["datagrams"].as_u64().expect("a count");
        }
        let first = fs::read(place.join("1.ts")).expect("recorded");
        assert!(first.len() > 100_000 && first.len().is_multiple_of(188));
        for file in files {
            assert_eq!(fs::read(place.join(file)).expect("recorded"), first, "{file}");
            let (pictures, complaints) = probe(&place.join(file));
            assert_eq!((pictures, complaints.as_str()), (125, ""), "{file}");
        }
        relay.signal("INT");
        assert_eq!(relay.code(), 0, "{}", relay.stderr());
        let log = fs::read_dir(place.join("logs")).expect("a log").flatten().next();
        let log = log.expect("a log").path();
        let report = |words: &[&str]| {
            let mut command = Command::new(GATECAST);
            let output = command.arg("report").arg(&log).args(words).output();
            String::from_utf8(output.expect("the program").stdout).expect("text")
        };
        let visits = serde_json::from_str(&report(&["--json"])).expect("JSON");
        schema::check(&visits, schema::LIVE);
        assert_eq!(visits["visits"].as_array().map(Vec::len), Some(3));
        let report = report(&[]);
        let sums = format!("3 viewers: {sent_in_all} datagrams and ");
        assert!(report.contains(&sums), "{report}");
        let told = format!("of the 3 that tell: {sent_in_all} received, 0 lost by the network");
        assert!(report.contains(&told), "{report}");
    });
}

#[test]
fn paused_viewer_and_late_viewer_see_no_error() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (_relay, input, at) = relay(place);
        let mut whole = watch(place, at, &["--events"]);
        let mut pausing = watch(place, at, &["--events"]);
        let source = thread::spawn(move || ffmpeg(6, "mpegts", &format!("udp://{input}")));
        let got = |watch: &Program| {
            let events = watch.stdout().iter().any(|line| line.starts_with('{'));
            events && last_event(watch)["received"]["datagrams"].as_u64() > Some(100)
        };
        until("the stream", || got(&pausing));
        pausing.type_line("p");
        until("the pause", || last_event(&pausing)["standing"] == "paused");
        let mut late = watch(place, at, &["--record", "late.ts", "--events"]);
        until("the late one has the stream", || got(&late));
        pausing.type_line("c");
        source.join().expect("sent");
        let event = quit(&mut pausing);
        assert_eq!(event["received"]["cc_errors"], 0, "{event}");
        assert!(event["sent"]["paused"].as_u64() > Some(0), "{event}");
        assert_eq!(event["received"]["datagrams"], event["sent"]["datagrams"]);
        let event = quit(&mut whole);
        assert_eq!(event["received"]["cc_errors"], 0, "{event}");
        let event = quit(&mut late);
        assert_eq!(event["received"]["cc_errors"], 0, "{event}");
        // Its first packets are the tables, so that a player knows at once what will come.
        let recorded = fs::read(place.join("late.ts")).expect("recorded");
        let pid = |at: usize| u16::from_be_bytes([recorded[at + 1] & 0x1F, recorded[at + 2]]);
        assert_eq!(pid(0), 0, "the program association");
        let (pictures, _) = probe(&place.join("late.ts"));
        assert!(pictures > 10, "{pictures}");
    });
}

#[test]
fn rtp_loss_is_exact_and_recording_has_no_rtp() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (_relay, input, at) = relay(place);
        let mut viewer = watch(place, at, &["--record", "rtp.ts", "--events"]);
        ffmpeg(3, "rtp_mpegts", &format!("rtp://{input}"));
        let event = quit(&mut viewer);
        assert_eq!(event["received"]["rtp_lost"], 0, "{event}");
        assert_eq!(event["sent"]["source_rtp_lost"], 0, "{event}");
        assert_eq!(event["received"]["cc_errors"], 0, "{event}");
        assert!(event["received"]["jitter_us"].is_f64(), "{event}");
        assert_eq!(probe(&place.join("rtp.ts")), (75, String::new()));
    });
}

/// VLC refuses to run as root.
fn vlc(folder: &Path) -> Command {
    let root = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
    let mut command = Command::new(if root { "runuser" } else { "cvlc" });
    if root {
        command.args(["-u", "nobody", "--", "cvlc"]);
    }
    command.env("HOME", folder).env_remove("XDG_RUNTIME_DIR");
    command.args(["-q", "--no-audio"]);
    command
}

#[test]
fn vlc_sends_and_plays_through_relay() {
    let there = installed("ffmpeg") && installed("cvlc");
    if !have("ffmpeg and VLC", there) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        // VLC runs as another user, who must be able to write here.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(place, everybody).expect("ours");
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi"])
            .args(["-i", "testsrc2=size=640x360:rate=25", "-t", "8"])
            .args(["-c:v", "mpeg2video", "-g", "12", "-b:v", "2M", "-f", "mpegts"])
            .arg(place.join("film.ts"))
            .stdin(Stdio::null())
            .status();
        assert!(made.expect("ffmpeg").success());
        let (_relay, input, at) = relay(place);
        let player = free_port();
        let out = place.join("played.ts");
        let playing = Program::interactive(
            vlc(place)
                .arg(format!("udp://@{player}"))
                .arg(format!("--sout=#std{{access=file,mux=ts,dst={}}}", out.display())),
        );
        until_taken(player);
        let player = player.to_string();
        let mut watches = [
            watch(place, at, &["--player", &player, "--record", "1.ts", "--events"]),
            watch(place, at, &["--record", "2.ts", "--events"]),
            watch(place, at, &["--record", "3.ts", "--events"]),
        ];
        let mut source = Program::interactive(
            vlc(place)
                .arg(place.join("film.ts"))
                .arg(format!("--sout=#std{{access=udp,mux=ts,dst={input}}}"))
                .arg("vlc://quit"),
        );
        source.code_within(Duration::from_secs(60));
        for watch in &mut watches {
            let event = quit(watch);
            let (received, sent) = (&event["received"], &event["sent"]);
            assert_eq!(received["datagrams"], sent["datagrams"], "{event}");
            // VLC itself may have left packets out. The relay loses no more.
            assert_eq!(received["cc_errors"], sent["source_cc_errors"], "{event}");
            assert_eq!(event["unplayed"], 0, "{event}");
        }
        let first = fs::read(place.join("1.ts")).expect("recorded");
        for file in ["1.ts", "2.ts", "3.ts"] {
            let recorded = fs::read(place.join(file)).expect("recorded");
            assert_eq!(recorded, first, "{file}");
            let (pictures, _) = probe(&place.join(file));
            let said = source.stderr();
            assert!(pictures >= 100, "{pictures} of 8 s in {file}: {said}");
        }
        // VLC writes what it has played when it ends.
        let played = || fs::metadata(&out).is_ok_and(|file| file.len() > 100_000);
        until("VLC has played", played);
        Command::new("sh")
            .args(["-c", &format!("pkill -TERM -P {0}; kill -TERM {0}", playing.child.id())])
            .status()
            .expect("sh");
        until("what VLC has played", || probe(&out).0 >= 25);
    });
}

#[test]
fn lab_client_is_served_by_its_wire_format() {
    if !have("python3", installed("python3")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (_relay, input, at) = relay(folder.path());
        let source = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        source.connect(input).expect("an address");
        let send = |count: usize| {
            for n in 0..count {
                source.send(&[0x47; 1316]).expect("sent");
                if n % 32 == 31 {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        };
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/relay_client.py");
        let arguments = [client, &at.ip().to_string(), &at.port().to_string()];
        let mut lab = Program::interactive(Command::new("python3").args(arguments));
        let port = ask(&mut lab, "port");
        assert!(ask(&mut lab, "say CONTINUAR").starts_with("ERROR "));
        assert!(ask(&mut lab, "say INTERRUMPIR").starts_with("ERROR "));
        assert!(ask(&mut lab, &format!("say conectar {port}")).starts_with("ERROR "));
        assert!(ask(&mut lab, "say CONECTAR 80").starts_with("ERROR "));
        assert_eq!(ask(&mut lab, &format!("say CONECTAR <{port}>")), "OK");
        assert!(ask(&mut lab, &format!("say CONECTAR {port}")).starts_with("ERROR "));
        // As many as the queue of its socket holds.
        send(64);
        assert_eq!(ask(&mut lab, "take 64"), "64 84224");
        assert_eq!(ask(&mut lab, "say INTERRUMPIR"), "OK");
        assert!(ask(&mut lab, "say INTERRUMPIR").starts_with("ERROR "));
        send(50);
        assert_eq!(ask(&mut lab, "quiet 500"), "0");
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(ask(&mut lab, &format!("raw {}", hex("CONTINUAR\r\n"))), "OK");
        send(64);
        assert_eq!(ask(&mut lab, "take 64"), "64 84224");
        assert_eq!(ask(&mut lab, "quiet 200"), "0", "no stale burst");
        assert_eq!(ask(&mut lab, "say DESCONECTAR"), "OK");
        assert_eq!(ask(&mut lab, "closed"), "yes");
        send(20);
        assert_eq!(ask(&mut lab, "quiet 300"), "0");
    });
}
