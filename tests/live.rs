//! The relay and its viewers as programs, with the sources and players of the world: ffmpeg, VLC,
//! and the lab's client in Python.

#![cfg(all(target_os = "linux", feature = "cli"))]

mod common;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use common::have;
use common::installed;
use common::program::GATECAST;
use common::until;
use common::within;

const LIMIT: Duration = Duration::from_secs(120);

/// A running program whose lines are collected; killed when it is dropped.
struct Program {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    printed: Arc<Mutex<Vec<String>>>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("GATECAST_LOG")
            .spawn()
            .expect("the program starts");
        let said = collect(child.stderr.take().expect("piped"));
        let printed = collect(child.stdout.take().expect("piped"));
        Self {
            child,
            said,
            printed,
        }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no panic").join("\n")
    }

    fn printed(&self) -> Vec<String> {
        self.printed.lock().expect("no panic").clone()
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// Says `order` and returns the line that it prints for it.
    fn ask(&mut self, order: &str) -> String {
        let before = self.printed().len();
        self.type_line(order);
        until(order, || self.printed().len() > before);
        self.printed()[before].clone()
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.expect("sh").success(), "{kill}");
    }

    /// The exit code, once it has ended by itself within `limit`.
    fn code(&mut self, limit: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                return status.code();
            }
            assert!(begun.elapsed() < limit, "it does not end: {}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            hearing.lock().expect("no panic").push(line);
        }
    });
    lines
}

/// `gatecast relay` on ports that the system chooses; where its source and viewers go.
fn relay(folder: &Path) -> (Program, SocketAddr, SocketAddr) {
    let relay = Program::start(
        Command::new(GATECAST)
            .args(["relay", "--input", "127.0.0.1:0", "--listen", "127.0.0.1:0"])
            .current_dir(folder),
    );
    until("it relays", || relay.said().contains("relaying"));
    let said = relay.said();
    let words: Vec<&str> = said.split([' ', ';']).collect();
    let after = |word: &str| {
        let at = words.iter().position(|found| *found == word).expect(word);
        let addr = words[at + 1].trim_start_matches("udp://");
        addr.parse().expect("an address")
    };
    (relay, after("to"), after("at"))
}

fn watch(folder: &Path, at: SocketAddr, arguments: &[&str]) -> Program {
    let watch = Program::start(
        Command::new(GATECAST)
            .args(["watch", &at.to_string()])
            .args(arguments)
            .current_dir(folder),
    );
    until("it watches", || watch.said().contains("watching"));
    watch
}

/// The last line of JSON that a program with `--events` printed.
fn last_event(program: &Program) -> serde_json::Value {
    let printed = program.printed();
    let line = printed.iter().rfind(|line| line.starts_with('{'));
    serde_json::from_str(line.expect("an event")).expect("JSON")
}

/// Ends a viewer by `q`, and what it printed last.
fn quit(watch: &mut Program) -> serde_json::Value {
    watch.type_line("q");
    assert_eq!(
        watch.code(Duration::from_secs(20)),
        Some(0),
        "{}",
        watch.said()
    );
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

/// How many pictures ffprobe finds in a recording, and what it complains of.
fn probe(file: &Path) -> (u64, String) {
    let output = Command::new("ffprobe")
        .args(["-v", "warning", "-count_packets", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=nb_read_packets"])
        .args(["-of", "default=noprint_wrappers=1:nokey=1"])
        .arg(file)
        .output()
        .expect("ffprobe");
    let text = String::from_utf8_lossy(&output.stdout);
    let pictures = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse().ok());
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    (pictures.unwrap_or(0), complaints)
}

#[test]
fn what_ffmpeg_sends_three_viewers_record_whole() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (mut relay, input, at) = relay(place);
        let mut watches: Vec<Program> = ["1.ts", "2.ts", "3.ts"]
            .iter()
            .map(|file| watch(place, at, &["--record", file, "--events"]))
            .collect();
        ffmpeg(5, "mpegts", &format!("udp://{input}?pkt_size=1316"));
        for watch in &mut watches {
            let event = quit(watch);
            let (received, sent) = (&event["received"], &event["sent"]);
            assert_eq!(received["cc_errors"], 0, "{event}");
            assert_eq!(received["datagrams"], sent["datagrams"], "{event}");
            assert_eq!(event["network_lost"], 0, "{event}");
        }
        let first = fs::read(place.join("1.ts")).expect("recorded");
        assert!(first.len() > 100_000 && first.len().is_multiple_of(188));
        for file in ["1.ts", "2.ts", "3.ts"] {
            assert_eq!(
                fs::read(place.join(file)).expect("recorded"),
                first,
                "{file}"
            );
            let (pictures, complaints) = probe(&place.join(file));
            assert_eq!((pictures, complaints.as_str()), (125, ""), "{file}");
        }
        relay.signal("INT");
        assert_eq!(
            relay.code(Duration::from_secs(20)),
            Some(0),
            "{}",
            relay.said()
        );
        let log = fs::read_dir(place.join("logs"))
            .expect("a log")
            .flatten()
            .next();
        let report = Command::new(GATECAST)
            .arg("report")
            .arg(log.expect("a log").path())
            .output()
            .expect("the program");
        let report = String::from_utf8_lossy(&report.stdout);
        assert!(report.contains("3 viewers: "), "{report}");
        assert!(report.contains("0 lost by the network"), "{report}");
    });
}

#[test]
fn a_viewer_that_pauses_and_one_that_joins_late_see_no_error() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (_relay, input, at) = relay(place);
        let mut whole = watch(place, at, &["--events"]);
        let mut pausing = watch(place, at, &["--events"]);
        let source = thread::spawn(move || ffmpeg(6, "mpegts", &format!("udp://{input}")));
        let got = |watch: &Program| {
            let events = watch.printed().iter().any(|line| line.starts_with('{'));
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
fn in_rtp_loss_is_counted_exactly_and_the_recording_is_plain() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    within(LIMIT, || {
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
    let mut command = match root {
        true => {
            let mut command = Command::new("runuser");
            command.args(["-u", "nobody", "--", "cvlc"]);
            command
        }
        false => Command::new("cvlc"),
    };
    command.env("HOME", folder).env_remove("XDG_RUNTIME_DIR");
    command.args(["-q", "--no-audio"]);
    command
}

#[test]
fn vlc_is_source_and_player() {
    let there = installed("ffmpeg") && installed("cvlc");
    if !have("ffmpeg and VLC", there) {
        return;
    }
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        // VLC is somebody else, and writes here.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(place, everybody).expect("ours");
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi"])
            .args(["-i", "testsrc2=size=640x360:rate=25", "-t", "8"])
            .args([
                "-c:v",
                "mpeg2video",
                "-g",
                "12",
                "-b:v",
                "2M",
                "-f",
                "mpegts",
            ])
            .arg(place.join("film.ts"))
            .stdin(Stdio::null())
            .status();
        assert!(made.expect("ffmpeg").success());
        let (_relay, input, at) = relay(place);
        // A port that is free now: the player takes it in a moment.
        let free = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let player = free.local_addr().expect("bound");
        drop(free);
        let out = place.join("played.ts");
        let playing = Program::start(vlc(place).arg(format!("udp://@{player}")).arg(format!(
            "--sout=#std{{access=file,mux=ts,dst={}}}",
            out.display()
        )));
        let taken = || {
            !fs::read_to_string("/proc/net/udp")
                .is_ok_and(|table| !table.contains(&format!("0100007F:{:04X}", player.port())))
        };
        until("VLC listens", taken);
        let arguments = [
            "--player",
            &player.to_string(),
            "--record",
            "w.ts",
            "--events",
        ];
        let mut viewer = watch(place, at, &arguments);
        let mut source = Program::start(
            vlc(place)
                .arg(place.join("film.ts"))
                .arg(format!("--sout=#std{{access=udp,mux=ts,dst={input}}}"))
                .arg("vlc://quit"),
        );
        source.code(Duration::from_secs(60));
        let event = quit(&mut viewer);
        let (received, sent) = (&event["received"], &event["sent"]);
        assert_eq!(received["datagrams"], sent["datagrams"], "{event}");
        assert_eq!(received["cc_errors"], sent["source_cc_errors"], "{event}");
        assert_eq!(event["unplayed"], 0, "{event}");
        let (pictures, _) = probe(&place.join("w.ts"));
        assert!(
            pictures >= 25,
            "a second at least, not {pictures}: {}",
            source.said()
        );
        // VLC writes what it has played when it ends.
        let played = || fs::metadata(&out).is_ok_and(|file| file.len() > 100_000);
        until("VLC has played", played);
        Command::new("sh")
            .args([
                "-c",
                &format!("pkill -TERM -P {0}; kill -TERM {0}", playing.child.id()),
            ])
            .status()
            .expect("sh");
        until("what VLC has played", || probe(&out).0 >= 25);
    });
}

#[test]
fn the_labs_client_is_served_as_its_wire_format_says() {
    if !have("python3", installed("python3")) {
        return;
    }
    within(LIMIT, || {
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
        let mut lab = Program::start(Command::new("python3").args(arguments));
        let port = lab.ask("port");
        assert!(lab.ask("say CONTINUAR").starts_with("ERROR "));
        assert!(lab.ask("say INTERRUMPIR").starts_with("ERROR "));
        assert!(
            lab.ask(&format!("say conectar {port}"))
                .starts_with("ERROR ")
        );
        assert!(lab.ask("say CONECTAR 80").starts_with("ERROR "));
        assert_eq!(lab.ask(&format!("say CONECTAR <{port}>")), "OK");
        assert!(
            lab.ask(&format!("say CONECTAR {port}"))
                .starts_with("ERROR ")
        );
        // As many as its queue holds until it is asked to take them.
        send(64);
        assert_eq!(lab.ask("take 64"), "64 84224");
        assert_eq!(lab.ask("say INTERRUMPIR"), "OK");
        assert!(lab.ask("say INTERRUMPIR").starts_with("ERROR "));
        send(50);
        assert_eq!(lab.ask("quiet 500"), "0");
        let hex = |text: &str| {
            text.bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        assert_eq!(lab.ask(&format!("raw {}", hex("CONTINUAR\r\n"))), "OK");
        send(64);
        assert_eq!(lab.ask("take 64"), "64 84224");
        assert_eq!(lab.ask("quiet 200"), "0", "no stale burst");
        assert_eq!(lab.ask("say DESCONECTAR"), "OK");
        assert_eq!(lab.ask("closed"), "yes");
        send(20);
        assert_eq!(lab.ask("quiet 300"), "0");
    });
}

#[test]
fn one_stopped_viewer_of_five_costs_the_others_nothing_and_is_let_go() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (relay, input, at) = relay(place);
        let mut watches: Vec<Program> = (0..5).map(|_| watch(place, at, &["--events"])).collect();
        let stopped = watches.pop().expect("five");
        let source = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        source.connect(input).expect("an address");
        stopped.signal("STOP");
        let begun = Instant::now();
        let mut let_go = None;
        // 8 s of 10 Mbit/s.
        while begun.elapsed() < Duration::from_secs(8) {
            for _ in 0..5 {
                source.send(&[0x47; 1316]).expect("sent");
            }
            thread::sleep(Duration::from_millis(5));
            if let_go.is_none() && relay.said().contains(": silent after") {
                let_go = Some(begun.elapsed());
            }
        }
        let let_go = let_go.unwrap_or_else(|| panic!("never let go: {}", relay.said()));
        assert!(let_go < Duration::from_secs(7), "{let_go:?}");
        for watch in &mut watches {
            let event = quit(watch);
            assert_eq!(
                event["received"]["datagrams"], event["sent"]["datagrams"],
                "{event}"
            );
            assert_eq!(event["sent"]["dropped"], 0, "{event}");
        }
    });
}

/// A network namespace with a link of its own to this host; gone when it is dropped.
#[cfg(feature = "sockopt")]
struct Elsewhere {
    name: String,
    link: String,
}

#[cfg(feature = "sockopt")]
impl Elsewhere {
    /// `None` where the system does not let us.
    fn new() -> Option<Self> {
        let id = std::process::id();
        let elsewhere = Self {
            name: format!("gcl{id}"),
            link: format!("gcl{id}v"),
        };
        let (name, link) = (&elsewhere.name, &elsewhere.link);
        let peer = format!("{link}p");
        let steps = [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name {peer}"),
            format!("link set {peer} netns {name}"),
            format!("addr add 198.18.77.1/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add 198.18.77.2/30 dev {peer}"),
            format!("-n {name} link set {peer} up"),
        ];
        steps.iter().all(|step| ip(step)).then_some(elsewhere)
    }
}

#[cfg(feature = "sockopt")]
impl Drop for Elsewhere {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.link));
        ip(&format!("netns del {}", self.name));
    }
}

#[cfg(feature = "sockopt")]
fn ip(words: &str) -> bool {
    let done = Command::new("ip")
        .args(words.split(' '))
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}

#[test]
#[cfg(feature = "sockopt")] // Keep-alive in seconds is not in std.
fn a_host_that_vanishes_without_a_word_is_not_sent_to_for_long() {
    let elsewhere = Elsewhere::new();
    let there = elsewhere.is_some() && installed("python3");
    if !have("network namespaces (root) and python3", there) {
        return;
    }
    within(LIMIT, move || {
        let elsewhere = elsewhere.expect("made");
        let folder = tempfile::tempdir().expect("room");
        let relay = Program::start(
            Command::new(GATECAST)
                .args([
                    "relay",
                    "--input",
                    "127.0.0.1:0",
                    "--listen",
                    "198.18.77.1:0",
                ])
                .arg("--events")
                .current_dir(folder.path()),
        );
        until("it relays", || relay.said().contains("relaying"));
        let said = relay.said();
        let (_, input) = said.split_once("udp://").expect("its input");
        let input = input.split(' ').next().expect("an address").to_owned();
        let (_, at) = said.split_once("viewers at ").expect("its address");
        let port = at.split([':', ';']).nth(1).expect("a port").to_owned();
        // A client of the lab's kind: it says nothing after its command.
        let script = "import socket, sys, time\n\
            c = socket.create_connection(('198.18.77.1', int(sys.argv[1])))\n\
            u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            u.bind(('198.18.77.2', 0))\n\
            c.sendall(b'CONECTAR %d\\n' % u.getsockname()[1])\n\
            print(c.recv(10).decode().strip(), flush=True)\n\
            while True: u.recv(2048)\n";
        let lab = Program::start(
            Command::new("ip")
                .args(["netns", "exec", &elsewhere.name])
                .args(["python3", "-c", script, &port]),
        );
        until("it is connected", || lab.printed() == ["OK"]);
        let source = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        source.connect(&input).expect("an address");
        let pour = |time: Duration, done: &dyn Fn() -> bool| {
            let begun = Instant::now();
            while begun.elapsed() < time && !done() {
                source.send(&[0x47; 1316]).expect("sent");
                thread::sleep(Duration::from_millis(2));
            }
            begun.elapsed()
        };
        pour(Duration::from_secs(1), &|| false);
        assert!(!relay.said().contains("after"), "{}", relay.said());
        // From one moment to the next nothing comes from there, not even a refusal.
        assert!(ip(&format!(
            "-n {} link set {}p down",
            elsewhere.name, elsewhere.link
        )));
        let took = pour(Duration::from_secs(30), &|| {
            relay.said().contains(" after ")
        });
        assert!(took < Duration::from_secs(7), "{took:?}: {}", relay.said());
        eprintln!("let go after {took:?}: {}", relay.said());
    });
}

#[test]
fn with_no_viewer_a_relay_does_no_work_of_its_own() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (relay, input, _) = relay(folder.path());
        let source = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        source.connect(input).expect("an address");
        let user = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", relay.child.id()));
            let stat = stat.expect("alive");
            // The fields after the name, which stands in parentheses: utime is the 14th of all.
            let (_, fields) = stat.rsplit_once(')').expect("a name");
            let utime = fields.split_whitespace().nth(11).expect("utime");
            utime.parse::<u64>().expect("hundredths of a second")
        };
        let before = user();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            // 200 Mbit/s.
            for _ in 0..19 {
                source.send(&[0x47; 1316]).expect("sent");
            }
            thread::sleep(Duration::from_millis(1));
        }
        // A hundredth of 3 s are 3 ticks.
        assert!(user() - before <= 3, "{} ticks", user() - before);
    });
}
