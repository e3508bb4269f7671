//! The program as its users type it: outputs, documents and exit codes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use gatecast::internals::digest::Digest;
use serde_json::Value;
use tempfile::TempDir;

/// The program in a folder of its own.
struct Place(TempDir);

/// A server in the background, with the address that it told.
struct Server {
    child: Child,
    addr: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("room");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatecast"));
        command
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .env_remove("GATECAST_LOG");
        command
    }

    fn gatecast(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the program starts")
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        let all = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        let mut child = self
            .command(&all)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let line = lines.next().expect("a line").expect("text");
        let addr = line
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned();
        // Read on, or the server would be told that nobody listens.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, addr }
    }
}

impl Server {
    fn end(mut self) -> Output {
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().expect("true"));
        child.wait_with_output().expect("the server ends")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn run_sends_a_file_to_every_client_and_says_so() {
    let place = Place::new();
    let output = place.gatecast(&["run", "--clients", "5", "--size", "1MB", "--keep", "kept"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let out = text(&output.stdout);
    assert!(out.contains("whole and verified  5 of 5"), "{out}");
    assert!(out.contains("numbers: hold"), "{out}");
    let mut names: Vec<_> = std::fs::read_dir(place.path().join("kept"))
        .expect("made")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "C1-1MB.bin",
            "C2-1MB.bin",
            "C3-1MB.bin",
            "C4-1MB.bin",
            "C5-1MB.bin"
        ]
    );
}

#[test]
fn run_leaves_nothing_behind_without_keep() {
    let (place, temporary) = (Place::new(), Place::new());
    let output = place
        .command(&["run", "--clients", "2", "--size", "10kB"])
        .env("TMPDIR", temporary.path())
        .output()
        .expect("the program starts");
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(
        std::fs::read_dir(temporary.path()).expect("there").count(),
        0
    );
    assert_eq!(std::fs::read_dir(place.path()).expect("there").count(), 0);
}

#[test]
fn the_document_adds_up() {
    let place = Place::new();
    let output = place.gatecast(&[
        "run",
        "--clients",
        "3",
        "--size",
        "100kB",
        "--runs",
        "3",
        "--json",
    ]);
    assert_eq!(code(&output), 0, "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["schema"], "gatecast.session/1");
    assert_eq!(document["identities"], "hold");
    assert_eq!(document["file"]["bytes"], 100_000);
    assert_eq!(document["global"]["bytes"], 300_000);
    assert_eq!(
        document["sessions"].as_array().expect("three runs").len(),
        3
    );
    let results = document["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    for result in results {
        assert_eq!(result["outcome"], "complete");
        assert_eq!(result["verified"], true);
        assert_eq!(
            (&result["bytes_client"], &result["bytes_server"]),
            (&100_000.into(), &100_000.into())
        );
        assert_eq!(
            result["seconds_durable"],
            Value::Null,
            "run does not sync what it throws away"
        );
        assert_eq!(result["lost"], Value::Null);
    }
    assert!(
        document["release"]["skew_client_us"].is_u64(),
        "one process has one clock"
    );
}

#[test]
fn an_empty_file_is_a_file() {
    let place = Place::new();
    let file = place.file("empty.bin", b"");
    let output = place.gatecast(&["run", &file, "--clients", "2", "--json", "--keep", "kept"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["release"]["skew_us"], Value::Null);
    assert_eq!(document["global"]["rate_mbit"], Value::Null);
    assert_eq!(
        std::fs::read(place.path().join("kept/C2-empty.bin")).expect("there"),
        b""
    );
}

#[test]
fn serve_and_fetch_end_with_the_same_verdict_and_a_log_that_report_reads() {
    let place = Place::new();
    let file = place.file("lesson.txt", &[7; 50_000]);
    let server = place.serve(&[&file, "--clients", "3", "--one-off"]);
    let listed = place.gatecast(&["list", &server.addr]);
    assert!(
        text(&listed.stdout).contains(&Digest::of(&[7; 50_000]).to_string()),
        "{listed:?}"
    );
    let fetched = place.gatecast(&["fetch", &server.addr, "lesson.txt", "--clients", "3"]);
    assert_eq!(code(&fetched), 0, "{fetched:?}");
    let served = server.end();
    assert_eq!(code(&served), 0, "{served:?}");
    for seat in 1..=3 {
        let copy = std::fs::read(place.path().join(format!("received/C{seat}-lesson.txt")))
            .expect("there");
        assert_eq!(copy, [7; 50_000]);
    }
    let log = std::fs::read_dir(place.path().join("logs"))
        .expect("made")
        .next()
        .expect("a log")
        .expect("readable");
    let log = log.path();
    assert_eq!(
        std::fs::read_to_string(&log).expect("text").lines().count(),
        1 + 3
    );

    let log = log.to_str().expect("UTF-8");
    let reported = place.gatecast(&["report", log]);
    assert_eq!(code(&reported), 0, "{reported:?}");
    let table = text(&served.stdout).trim_end();
    assert_eq!(
        text(&reported.stdout).trim_end(),
        table,
        "the log holds what the server showed"
    );
    let plots = ["--svg", "rates.svg", "--svg-loss", "losses.svg"];
    let csv = place.gatecast(&[&["report", log, "--csv"], &plots[..]].concat());
    assert_eq!(text(&csv.stdout).lines().count(), 1 + 3);
    let plot = |name| std::fs::read_to_string(place.path().join(name)).expect("written");
    assert!(plot("rates.svg").starts_with("<svg"));
    assert!(!plot("rates.svg").contains("no data"));
    assert!(plot("losses.svg").contains("no data"), "tcp counts none");
}

#[test]
fn exit_codes_tell_who_was_at_fault() {
    let place = Place::new();
    let file = place.file("f", b"abc");
    let of = |arguments: &[&str]| code(&place.gatecast(arguments));
    assert_eq!(of(&["run", "--size", "100"]), 2, "a size without a unit");
    assert_eq!(of(&["run", "--clients", "0"]), 2);
    assert_eq!(of(&["run", "--clients", "10001"]), 2);
    assert_eq!(of(&["run", "missing.bin"]), 1);
    assert_eq!(of(&["serve", &file, "--file", "other"]), 2);
    assert_eq!(of(&["serve", &file, "--clients", "2", "--quorum", "3"]), 2);
    assert_eq!(of(&["serve", &file, &file]), 2, "two files of one name");
    assert_eq!(of(&["fetch", "127.0.0.1:1"]), 1, "nobody is there");
    assert_eq!(of(&["report", &file]), 1, "no session log");

    let server = place.serve(&[&file, "--clients", "2", "--max-wait", "300ms", "--one-off"]);
    assert_eq!(of(&["fetch", &server.addr]), 3);
    assert_eq!(code(&server.end()), 3);

    let server = place.serve(&[
        &file,
        "--clients",
        "2",
        "--quorum",
        "1",
        "--max-wait",
        "300ms",
        "--one-off",
    ]);
    assert_eq!(of(&["fetch", &server.addr]), 0, "its own copy is proven");
    assert_eq!(code(&server.end()), 4, "one of two is missing");

    let server = place.serve(&[&file]);
    assert_eq!(
        of(&["fetch", &server.addr, "other", "--out", "none"]),
        1,
        "not offered"
    );
    assert_eq!(
        of(&[
            "fetch",
            &server.addr,
            "--sha1",
            &"0".repeat(40),
            "--out",
            "none"
        ]),
        1,
        "another file of that name"
    );
    assert!(!place.path().join("none").exists());
}

#[test]
fn the_value_and_the_place_are_in_the_message() {
    let place = Place::new();
    let output = place.gatecast(&["run", "--rate", "100MB"]);
    assert!(
        text(&output.stderr).contains("'100MB' is not a rate"),
        "{output:?}"
    );
    let server = place.serve(&[&place.file("f", b"abc")]);
    let again = place.gatecast(&["serve", &place.file("g", b"abc"), "--listen", &server.addr]);
    assert_eq!(code(&again), 1);
    let port = server.addr.rsplit_once(':').expect("a port").1;
    assert!(
        text(&again.stderr).contains(&format!("port {port} is in use")),
        "{again:?}"
    );
}

#[test]
fn a_client_waits_for_a_server_that_is_not_there_yet() {
    let place = Place::new();
    let file = place.file("f", b"abc");
    // A port that was free a moment ago; the fetch tries it until the server has it.
    let probe = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let addr = probe.local_addr().expect("bound").to_string();
    drop(probe);
    let early = place
        .command(&["fetch", &addr, "--retry", "30s"])
        .spawn()
        .expect("the program starts");
    let server = place
        .command(&["serve", &file, "--listen", &addr, "--one-off"])
        .spawn()
        .expect("starts");
    assert_eq!(code(&early.wait_with_output().expect("ends")), 0);
    assert_eq!(code(&server.wait_with_output().expect("ends")), 0);
}

#[cfg(unix)]
#[test]
fn the_first_ctrl_c_ends_cleanly() {
    let place = Place::new();
    let file = place.file("f", &vec![1; 3_000_000]);
    let stop = |server: &Server| {
        let sent = Command::new("kill")
            .args(["-INT", &server.child.id().to_string()])
            .status();
        assert!(sent.expect("kill is there").success());
    };
    let idle = place.serve(&[&file]);
    stop(&idle);
    assert_eq!(code(&idle.end()), 0, "idle, and nothing was earned");

    // Slow enough that it cannot end by itself, and waited for until it has begun.
    let busy = place.serve(&[&file, "--rate", "1mbit", "--clients", "1"]);
    let client = place
        .command(&["fetch", &busy.addr])
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let received = place.path().join("received");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let begun = || {
        let mut parts = std::fs::read_dir(&received).into_iter().flatten().flatten();
        parts.any(|part| part.metadata().is_ok_and(|part| part.len() > 0))
    };
    while !begun() {
        assert!(
            std::time::Instant::now() < deadline,
            "the transfer does not begin"
        );
        std::thread::yield_now();
    }
    stop(&busy);
    let served = busy.end();
    assert_eq!(code(&served), 130, "{served:?}");
    assert!(
        text(&served.stdout).contains("whole and verified  0 of 1"),
        "{served:?}"
    );
    let fetched = client.wait_with_output().expect("ends");
    assert_eq!(code(&fetched), 4, "{fetched:?}");
    assert!(!received.join("f").exists(), "only a part is left");
}
