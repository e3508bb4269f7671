//! The program as its users type it: outputs, documents and exit codes.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use gatecast::internals::digest::Digest;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{
    entries, have,
    http::get,
    installed, program,
    program::{Program, text},
    until,
};

/// The program in a folder of its own.
struct Place(TempDir);

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
        program::gatecast(self.path(), arguments)
    }

    fn gatecast(&self, arguments: &[&str]) -> Output {
        program::run(self.path(), arguments)
    }

    fn serve(&self, arguments: &[&str]) -> (Program, String) {
        Program::serve(self.path(), arguments)
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

#[test]
fn run_sends_file_to_every_client() {
    let place = Place::new();
    let output = place.gatecast(&["run", "--clients", "5", "--size", "1MB", "--keep", "kept"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let out = text(&output.stdout);
    assert!(out.contains("whole and verified  5 of 5"), "{out}");
    assert!(out.contains("figures are consistent"), "{out}");
    let mut names: Vec<_> = std::fs::read_dir(place.path().join("kept"))
        .expect("made")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["C1-1MB.bin", "C2-1MB.bin", "C3-1MB.bin", "C4-1MB.bin", "C5-1MB.bin"]);
}

#[test]
fn run_removes_its_files_without_keep() {
    let (place, temporary) = (Place::new(), Place::new());
    let output = place
        .command(&["run", "--clients", "2", "--size", "10kB"])
        .env("TMPDIR", temporary.path())
        .output()
        .expect("the program starts");
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(std::fs::read_dir(temporary.path()).expect("there").count(), 0);
    let left = entries(place.path());
    let names: Vec<_> = left.iter().filter_map(|path| path.file_name()).collect();
    assert_eq!(names, ["logs"], "and its log is where that of serve is");
    assert_eq!(entries(&place.path().join("logs")).len(), 1);
}

#[test]
fn json_document_of_run_adds_up() {
    let place = Place::new();
    let output =
        place.gatecast(&["run", "--clients", "3", "--size", "100kB", "--runs", "3", "--json"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["schema"], "gatecast.session/1");
    assert_eq!(document["identities"], "hold");
    assert_eq!(document["file"]["bytes"], 100_000);
    assert_eq!(document["global"]["bytes"], 300_000);
    assert_eq!(document["sessions"].as_array().expect("three runs").len(), 3);
    let results = document["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    for result in results {
        assert_eq!(result["outcome"], "complete");
        assert_eq!(result["verified"], true);
        assert_eq!(
            (&result["bytes_client"], &result["bytes_server"]),
            (&100_000.into(), &100_000.into())
        );
        assert_eq!(result["seconds_durable"], Value::Null, "run does not sync what it throws away");
        assert_eq!(result["lost"], Value::Null);
    }
    assert!(document["release"]["skew_client_us"].is_u64(), "one process has one clock");
}

#[test]
fn run_sends_empty_file() {
    let place = Place::new();
    let file = place.file("empty.bin", b"");
    let output = place.gatecast(&["run", &file, "--clients", "2", "--json", "--keep", "kept"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["release"]["skew_us"], Value::Null);
    assert_eq!(document["global"]["rate_mbit"], Value::Null);
    assert_eq!(std::fs::read(place.path().join("kept/C2-empty.bin")).expect("there"), b"");
}

#[test]
fn server_says_with_v_what_it_sends_in_no_session() {
    let place = Place::new();
    let file = place.file("f.bin", &[7; 5000]);
    let (server, addr) = place.serve(&[&file, "-v"]);
    let addr = addr.parse().expect("an address");
    assert_eq!(get(addr, "/files/f.bin").len(), 5000);
    until("the line", || {
        let told = |line: &str| {
            line.contains(": 5000 bytes of f.bin in 0.") && line.ends_with(" s, in no session")
        };
        server.stderr().lines().any(told)
    });
}

/// A legal name that looks like an option, a command, an escaped `..`, two words of a shell and a
/// quotation.
const AWKWARD: &str = "--rf $(id) %2e%2e; 'x'.txt";

#[test]
fn awkward_file_name_arrives_unchanged() {
    let place = Place::new();
    let content = b"This file should arrive under its name, and nothing should be started.\n";
    let file = place.file(AWKWARD, content);
    let (mut server, addr) = place.serve(&[&file, "--clients", "1", "--one-off"]);
    let listed = place.gatecast(&["list", &addr]);
    assert!(text(&listed.stdout).contains(AWKWARD), "{listed:?}");
    let target = "/files/--rf%20%24(id)%20%252e%252e%3B%20'x'.txt";
    assert_eq!(get(addr.parse().expect("an address"), target), content);
    let fetched = place.gatecast(&["fetch", &addr]);
    assert_eq!(code(&fetched), 0, "{fetched:?}");
    assert_eq!(server.code(), 0, "{}", server.stderr());
    let copy = place.path().join("received").join(AWKWARD);
    assert_eq!(std::fs::read(copy).expect("received"), content);
    let left = entries(place.path());
    let names: Vec<_> = left.iter().filter_map(|path| path.file_name()).collect();
    assert_eq!(names, [AWKWARD, "logs", "received"], "nothing else was made");
}

#[test]
fn report_repeats_table_of_server_from_its_log() {
    let place = Place::new();
    let file = place.file("lesson.txt", &[7; 50_000]);
    let (mut server, addr) = place.serve(&[&file, "--clients", "3", "--one-off"]);
    let listed = place.gatecast(&["list", &addr]);
    assert!(text(&listed.stdout).contains(&Digest::of(&[7; 50_000]).to_string()), "{listed:?}");
    let fetched = place.gatecast(&["fetch", &addr, "lesson.txt", "--clients", "3"]);
    assert_eq!(code(&fetched), 0, "{fetched:?}");
    assert_eq!(server.code(), 0, "{}", server.stderr());
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
    assert_eq!(std::fs::read_to_string(&log).expect("text").lines().count(), 1 + 3);

    let log = log.to_str().expect("UTF-8");
    let reported = place.gatecast(&["report", log]);
    assert_eq!(code(&reported), 0, "{reported:?}");
    let table = server.stdout().join("\n").trim_end().to_owned();
    assert_eq!(text(&reported.stdout).trim_end(), table, "the log holds what the server showed");
    let plots = ["--svg", "rates.svg", "--svg-loss", "losses.svg", "--svg-time", "times.svg"];
    let each = ["--svg-client", "clients.svg", "--svg-rate", "course.svg"];
    let csv = place.gatecast(&[&["report", log, "--csv"], &plots[..], &each].concat());
    assert_eq!(text(&csv.stdout).lines().count(), 1 + 3);
    let plot = |name| std::fs::read_to_string(place.path().join(name)).expect("written");
    assert!(plot("rates.svg").starts_with("<svg"));
    assert!(!plot("rates.svg").contains("no data"));
    let times = plot("times.svg");
    assert!(times.contains("slowest (tcp)") && times.contains("mean (tcp)"), "{times}");
    assert!(plot("losses.svg").contains("no data"), "tcp counts none");
    let (clients, course) = (plot("clients.svg"), plot("course.svg"));
    assert!(clients.contains("tcp to 3, ") && !clients.contains("no data"), "{clients}");
    assert!(course.contains("tcp to 3, ") && !course.contains("no data"), "{course}");
    let both = place.gatecast(&["report", log, "--unit", "both"]);
    let rates = text(&both.stdout).lines().find(|line| line.starts_with("global rate"));
    assert!(rates.is_some_and(|line| line.contains(" Mbit/s, ")), "{both:?}");
}

#[test]
fn log_says_how_far_each_client_was_when() {
    for via in ["tcp", "udp"] {
        let place = Place::new();
        // 4 MB at 32 Mbit/s take a second.
        let words = ["--clients", "2", "--size", "2MB", "--rate", "32mbit", "--via", via];
        let output = place.gatecast(&[&["run"], &words[..]].concat());
        assert_eq!(code(&output), 0, "{output:?}");
        let logs = entries(&place.path().join("logs"));
        let log = std::fs::read_to_string(&logs[0]).expect("text");
        let rows: Vec<Vec<&str>> = log.lines().map(|line| line.split(" | ").collect()).collect();
        let column = rows[0].iter().position(|name| *name == "samples").expect("a column");
        assert_eq!(rows.len(), 1 + 2, "{log}");
        for row in &rows[1..] {
            let pair = |sample: &str| {
                let (us, bytes) = sample.split_once(':').expect("a pair");
                [us, bytes].map(|number| number.parse::<u64>().expect("a number"))
            };
            let samples: Vec<_> = row[column].split(' ').map(pair).collect();
            assert!(samples.len() <= 32 && samples.is_sorted(), "{via}: {samples:?}");
            let half = samples.iter().filter(|[_, bytes]| (1..2_000_000).contains(bytes));
            assert!(half.count() > 0, "{via}: {samples:?}");
            // The words around the payload are a few hundred bytes.
            assert!(samples.iter().all(|[_, bytes]| *bytes < 2_100_000), "{via}: {samples:?}");
        }
        let log = logs[0].to_str().expect("UTF-8");
        let report = place.gatecast(&["report", log, "--svg-rate", "course.svg"]);
        assert_eq!(code(&report), 0, "{report:?}");
        let course = std::fs::read_to_string(place.path().join("course.svg")).expect("written");
        assert!(!course.contains("no data"), "{via}: {course}");
    }
}

#[test]
fn exit_code_tells_kind_of_failure() {
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

    let (mut server, addr) =
        place.serve(&[&file, "--clients", "2", "--max-wait", "300ms", "--one-off"]);
    assert_eq!(of(&["fetch", &addr]), 3);
    assert_eq!(server.code(), 3);

    let (mut server, addr) = place.serve(&[
        &file,
        "--clients",
        "2",
        "--quorum",
        "1",
        "--max-wait",
        "300ms",
        "--one-off",
    ]);
    assert_eq!(of(&["fetch", &addr]), 0, "its own copy is proven");
    assert_eq!(server.code(), 4, "one of two is missing");

    let (_server, addr) = place.serve(&[&file]);
    assert_eq!(of(&["fetch", &addr, "other", "--out", "none"]), 1, "not offered");
    assert_eq!(
        of(&["fetch", &addr, "--sha1", &"0".repeat(40), "--out", "none"]),
        1,
        "another file of that name"
    );
    assert!(!place.path().join("none").exists());
}

#[test]
fn error_message_names_value_and_port() {
    let place = Place::new();
    let output = place.gatecast(&["run", "--rate", "100MB"]);
    assert!(text(&output.stderr).contains("invalid rate '100MB'"), "{output:?}");
    let (_server, addr) = place.serve(&[&place.file("f", b"abc")]);
    let again = place.gatecast(&["serve", &place.file("g", b"abc"), "--listen", &addr]);
    assert_eq!(code(&again), 1);
    let port = addr.rsplit_once(':').expect("a port").1;
    assert!(text(&again.stderr).contains(&format!("port {port} is in use")), "{again:?}");
}

#[test]
fn client_waits_for_late_server() {
    let place = Place::new();
    let file = place.file("f", b"abc");
    // A port that was free a moment ago; the fetch tries it until the server has it.
    let probe = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let addr = probe.local_addr().expect("bound").to_string();
    drop(probe);
    let early =
        place.command(&["fetch", &addr, "--retry", "30s"]).spawn().expect("the program starts");
    let server =
        place.command(&["serve", &file, "--listen", &addr, "--one-off"]).spawn().expect("starts");
    assert_eq!(code(&early.wait_with_output().expect("ends")), 0);
    assert_eq!(code(&server.wait_with_output().expect("ends")), 0);
}

#[cfg(unix)]
#[test]
fn first_ctrl_c_ends_server_cleanly() {
    let place = Place::new();
    let file = place.file("f", &vec![1; 3_000_000]);
    let (mut idle, _) = place.serve(&[&file]);
    idle.signal("INT");
    assert_eq!(idle.code(), 0, "idle, and nothing was earned");

    // Slow enough that it cannot end by itself, and waited for until it has begun.
    let (mut busy, addr) = place.serve(&[&file, "--rate", "1mbit", "--clients", "1"]);
    let client = place.command(&["fetch", &addr]).stderr(Stdio::piped()).spawn().expect("starts");
    let received = place.path().join("received");
    let begun = || {
        let mut parts = std::fs::read_dir(&received).into_iter().flatten().flatten();
        parts.any(|part| part.metadata().is_ok_and(|part| part.len() > 0))
    };
    until("the transfer to begin", begun);
    busy.signal("INT");
    assert_eq!(busy.code(), 130, "{}", busy.stderr());
    let table = busy.stdout().join("\n");
    assert!(table.contains("whole and verified  0 of 1"), "{table}");
    let fetched = client.wait_with_output().expect("ends");
    assert_eq!(code(&fetched), 4, "{fetched:?}");
    assert!(!received.join("f").exists(), "only a part is left");
}

/// `serve` without a file on a terminal of its own.
#[cfg(target_os = "linux")]
fn serve_on_terminal(place: &Place, words: &[&str]) -> Option<Program> {
    if !have("python3", installed("python3")) {
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/terminal.py");
    let mut command = Command::new("python3");
    command.args([script, program::GATECAST, "serve", "--listen", "127.0.0.1:0"]);
    Some(Program::interactive(command.args(words).current_dir(place.path())))
}

#[cfg(target_os = "linux")]
#[test]
fn server_without_file_asks_for_it_and_for_clients() {
    let place = Place::new();
    place.file("f.bin", &[1; 1000]);
    let Some(mut terminal) = serve_on_terminal(&place, &["--one-off"]) else {
        return;
    };
    let appears = |terminal: &Program, what: &str| {
        until(what, || terminal.stdout().iter().any(|line| line.contains(what)));
    };
    appears(&terminal, "which file? 1 is 100MB.bin");
    terminal.type_line("line f.bin");
    appears(&terminal, "how many clients? Enter is as the options say");
    terminal.type_line("line 2");
    appears(&terminal, "waiting for 2 clients; Ctrl-C ends");
    // What is typed after that is Enter of the gate: nobody is ready, so nothing is released.
    let printed = terminal.stdout();
    let addr = printed.iter().find_map(|line| line.strip_prefix("listening on "));
    let addr = addr.expect("it listens").to_owned();
    let _first = Program::fetch(place.path(), &addr, "first", &[]);
    appears(&terminal, "1 of 2 clients ready");
    terminal.type_line("line");
    terminal.type_line("wait");
    appears(&terminal, "terminal kept");
    appears(&terminal, "whole and verified  1 of 2");
}

#[cfg(target_os = "linux")]
#[test]
fn server_that_is_told_no_file_says_so() {
    let place = Place::new();
    let Some(mut terminal) = serve_on_terminal(&place, &["--clients", "2"]) else {
        return;
    };
    until("the question", || terminal.stdout().iter().any(|line| line.contains("which file?")));
    terminal.type_line("key \u{4}");
    terminal.type_line("wait");
    until("its end", || {
        terminal.stdout().iter().any(|line| line.contains("ended 2 terminal kept"))
    });
    let said = terminal.stdout().join("\n");
    assert!(said.contains("no file was named: gatecast serve PATH"), "{said}");
    assert!(!said.contains("how many"), "the number is given: {said}");
}

#[cfg(target_os = "linux")]
#[test]
fn server_terminal_shows_bar_rate_and_time_left_while_it_sends() {
    if !have("python3", cfg!(feature = "sockopt") && installed("python3")) {
        return;
    }
    let place = Place::new();
    let file = place.file("f.bin", &vec![1; 2_000_000]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/terminal.py");
    let mut command = Command::new("python3");
    command.args([script, program::GATECAST, "serve", &file, "--listen", "127.0.0.1:0"]);
    command.args(["--rate", "4mbit", "--clients", "2", "--one-off"]).current_dir(place.path());
    let mut terminal = Program::interactive(&mut command);
    let appears = |terminal: &Program, what: &str, is_it: &dyn Fn(&str) -> bool| {
        until(what, || terminal.stdout().iter().any(|line| is_it(line)));
    };
    let mut addr = None;
    until("the server to listen", || {
        let printed = terminal.stdout();
        addr = printed.iter().find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()));
        addr.is_some()
    });
    let addr = addr.expect("it listens");
    let _first = Program::fetch(place.path(), &addr, "first", &[]);
    appears(&terminal, "the muster", &|line| line.contains("f.bin: 1 of 2 clients ready, "));
    let _second = Program::fetch(place.path(), &addr, "second", &[]);
    appears(&terminal, "bytes, rate and time left", &|line| {
        line.contains("f.bin: ")
            && line.contains("\u{2588}\u{2591}")
            && line.contains(" of 4 MB, ")
            && line.contains("bit/s, ")
            && line.contains(" s left, 0 of 2 seats done")
    });
    terminal.type_line("wait");
    appears(&terminal, "its end", &|line| line.contains("ended 0 terminal kept"));
    appears(&terminal, "the table", &|line| line.contains("whole and verified  2 of 2"));
}
