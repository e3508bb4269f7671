//! Checks every document that the program writes against its schema, and the programs that read
//! them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use gatecast::internals::proto::relay::log::HEADER;

use crate::{
    common,
    common::{
        PATIENCE, have,
        http::get,
        installed,
        program::{Program, feed, run, text},
        schema, within,
    },
};

/// The system's own Python, which has the system's packages.
const PYTHON: &str = "/usr/bin/python3";

/// Checks that each line is an event, and returns the kinds of the events.
fn events(lines: &str) -> Vec<String> {
    let kind = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        schema::check(&event, schema::EVENT);
        if let Some(document) = event.get("document").filter(|_| event["event"] == "session") {
            schema::check(document, schema::SESSION);
        }
        event["event"].as_str().expect("a kind").to_owned()
    };
    lines.lines().map(kind).collect()
}

fn session(document: &str) -> Value {
    let document: Value = serde_json::from_str(document).expect("JSON");
    schema::check(&document, schema::SESSION);
    document
}

#[test]
fn events_fit_their_schema() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("f.bin"), vec![7; 300_000]).expect("room");
        let (mut server, addr) = Program::serve(
            folder.path(),
            &["f.bin", "--clients", "3", "--events", "--one-off", "--rate", "2mbit"],
        );
        let mut stream = TcpStream::connect(&addr).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a setting");
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a server");
        let current: Value =
            serde_json::from_slice(&get(addr.parse().expect("an address"), "/sessions/current"))
                .expect("JSON");
        schema::check(&current, schema::EVENT);
        let fetched = run(
            folder.path(),
            &["fetch", &addr, "--clients", "3", "--events", "--name", "<b>\u{202e}"],
        );
        assert_eq!(fetched.status.code(), Some(0), "{fetched:?}");
        let kinds = events(text(&fetched.stdout));
        assert!(kinds.iter().filter(|kind| *kind == "clients").count() >= 3, "{kinds:?}");
        assert_eq!(kinds.last().map(String::as_str), Some("session"));
        assert_eq!(server.code(), 0, "{}", server.stderr());
        let kinds = events(&server.stdout().join("\n"));
        assert!(kinds.iter().filter(|kind| *kind == "state").count() >= 3, "{kinds:?}");
        assert_eq!(kinds.last().map(String::as_str), Some("session"));
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        let data: String = said
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|line| format!("{line}\n"))
            .collect();
        let kinds = events(&data);
        assert!(kinds.iter().filter(|kind| *kind == "state").count() >= 3, "{kinds:?}");
        println!("{} events over the stream", kinds.len());
    });
}

#[test]
fn swarm_event_lists_first_holder_of_each_chunk() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = ["run", "--via", "swarm", "--size", "2MB", "--clients", "3", "--events"];
        let output = run(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let lines = text(&output.stdout);
        let kinds = events(lines);
        assert_eq!(kinds[kinds.len() - 2..], ["swarm", "session"]);
        let line = lines.lines().rev().nth(1).expect("two at least");
        let event: Value = serde_json::from_str(line).expect("JSON");
        let swarm = &event["document"]["swarms"][0];
        let chunks = swarm["chunks"].as_array().expect("a table");
        // The smallest pieces are 16 KiB.
        assert_eq!(chunks.len(), 2_000_000_usize.div_ceil(16_384), "{swarm}");
        for chunk in chunks {
            assert!(chunk["first"].is_string(), "{chunk}");
            assert!(chunk["copies"].as_u64() >= Some(1), "{chunk}");
        }
    });
}

#[test]
fn documents_of_all_commands_fit_schemas_and_diff_reads_them() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        for (name, via, clients) in [("a", "tcp", "3"), ("b", "http", "3")] {
            let arguments = [
                "run",
                "--size",
                "2MB",
                "--clients",
                clients,
                "--via",
                via,
                "--runs",
                "2",
                "--json",
                "--log-dir",
                "logs",
            ];
            let output = run(path, &arguments);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let document = session(text(&output.stdout));
            assert_eq!(
                (&document["via"], document["sessions"].as_array().map(Vec::len)),
                (&via.into(), Some(2))
            );
            std::fs::write(path.join(format!("{name}.json")), output.stdout).expect("room");
        }
        let output =
            run(path, &["run", "--size", "1MB", "--clients", "2", "--via", "http", "--events"]);
        assert_eq!(events(text(&output.stdout)).last().map(String::as_str), Some("session"));
        let logs: Vec<String> = common::entries(&path.join("logs"))
            .iter()
            .map(|log| log.to_str().expect("UTF-8").to_owned())
            .collect();
        let mut arguments = vec!["report", "--json"];
        arguments.extend(logs.iter().map(String::as_str));
        session(text(&run(path, &arguments).stdout));

        let same = run(path, &["diff", "a.json", "a.json", "--threshold", "0%"]);
        assert_eq!(same.status.code(), Some(0), "{same:?}");
        let other = run(path, &["diff", "a.json", "b.json", "--threshold", "1000%"]);
        assert_eq!(other.status.code(), Some(1), "another way: {other:?}");
        assert!(text(&other.stdout).contains("differs  via"), "{other:?}");
        for arguments in [["diff", "a.json", "logs"], ["diff", "a.json", "none.json"]] {
            let output = run(path, &arguments);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
        }
        let usage = run(path, &["diff", "a.json", "b.json", "--threshold", "-5%"]);
        assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    });
}

#[test]
fn report_of_session_and_relay_logs_has_both_kinds() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let output = run(path, &["run", "--size", "1MB", "--clients", "2"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let visit = "00000000000000ab | 1 | 2026-11-21 | 20:03:34.987932 | 127.0.0.1:5000 | \
            1.000000 | 10 | 13160 | 0 | 0 | 0 | - | - | - | - | - | - | - | - | - | - | - | - | \
            left | -\n";
        std::fs::write(path.join("logs/relay.log"), format!("{HEADER}{visit}")).expect("room");
        let logs = common::entries(&path.join("logs"));
        let logs: Vec<&str> = logs.iter().map(|log| log.to_str().expect("UTF-8")).collect();
        assert_eq!(logs.len(), 2, "{logs:?}");
        let report = |words: &[&str]| {
            let output = run(path, &[&["report"], &logs[..], words].concat());
            assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
            let said = [output.stdout, output.stderr];
            said.map(|bytes| String::from_utf8(bytes).expect("text"))
        };
        let [tables, said] = report(&["--svg", "rates.svg"]);
        assert!(tables.contains("1MB.bin by tcp to 2 clients"), "{tables}");
        assert!(tables.contains("127.0.0.1:5000") && said.is_empty(), "{tables}{said}");
        assert!(path.join("rates.svg").exists());
        // A document is of one kind, and what is not in it is named.
        let [document, said] = report(&["--json"]);
        assert_eq!(session(&document)["clients"], 2);
        assert!(said.contains("logs/relay.log"), "{said}");
        let [rows, said] = report(&["--csv"]);
        assert_eq!(rows.lines().count(), 1 + 2, "{rows}");
        assert!(said.contains("logs/relay.log"), "{said}");
    });
}

#[test]
fn python_jsonschema_accepts_documents() {
    let asks = |code: &str| {
        let status = Command::new(PYTHON).args(["-c", code]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !have("python3 with jsonschema", asks("import jsonschema; jsonschema.Draft202012Validator"))
    {
        return;
    }
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        for (name, schema) in
            [("session", schema::SESSION), ("event", schema::EVENT), ("study", schema::STUDY)]
        {
            std::fs::write(path.join(format!("{name}.schema.json")), schema).expect("room");
        }
        let output = run(path, &["run", "--size", "1MB", "--clients", "2", "--json"]);
        std::fs::write(path.join("session.json"), output.stdout).expect("room");
        let output = run(path, &["run", "--size", "1MB", "--clients", "2", "--events"]);
        std::fs::write(path.join("event.lines"), output.stdout).expect("room");
        let code = "
import json
from jsonschema import Draft202012Validator as V
schemas = {n: json.load(open(n + '.schema.json')) for n in ('session', 'event', 'study')}
for s in schemas.values(): V.check_schema(s)
V(schemas['session']).validate(json.load(open('session.json')))
lines = open('event.lines').read().splitlines()
for line in lines: V(schemas['event']).validate(json.loads(line))
bent = json.load(open('session.json')); bent['clients'] = 0
assert list(V(schemas['session']).iter_errors(bent))
print(len(lines), 'events')";
        let output =
            Command::new(PYTHON).args(["-c", code]).current_dir(path).output().expect("it starts");
        assert!(output.status.success(), "{output:?}");
        println!("{}", text(&output.stdout));
    });
}

fn metrics_of(addr: &str) -> String {
    let metrics = get(addr.parse().expect("an address"), "/metrics");
    String::from_utf8(metrics).expect("text")
}

#[test]
fn prometheus_parser_reads_metrics() {
    let there = Command::new(PYTHON)
        .args(["-c", "import prometheus_client.parser"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !have("python3 with prometheus_client", there) {
        return;
    }
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().expect("a folder");
        let name = "a \"q\" | {x}.bin";
        std::fs::write(folder.path().join(name), vec![7; 1000]).expect("room");
        let (_server, addr) = Program::serve(folder.path(), &[name, "--clients", "2"]);
        assert_eq!(run(folder.path(), &["fetch", &addr, "--clients", "2"]).status.code(), Some(0));
        let mut waiting = TcpStream::connect(&addr).expect("a server");
        waiting.write_all(b"GET /files/a%20%22q%22%20%7c%20%7Bx%7D.bin?gate HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a server");
        let mut metrics = metrics_of(&addr);
        common::until("a seat in the metrics", || {
            metrics = metrics_of(&addr);
            metrics.contains("gatecast_seats_ready{")
                && metrics.contains("gatecast_sessions_ended_total 1")
        });
        let code = "
import sys
from prometheus_client.parser import text_string_to_metric_families as families
found = {s.name: s for f in families(sys.stdin.read()) for s in f.samples}
assert found['gatecast_transfers_proven_total'].value == 2, found
assert found['gatecast_session_bytes_total'].value == 2000, found
assert found['gatecast_seats_wanted'].value == 2, found
print(len(found), 'metrics;', found['gatecast_seats_wanted'].labels['file'])";
        let output = feed(Command::new(PYTHON).args(["-c", code]), metrics.as_bytes());
        assert!(output.status.success(), "{output:?}\n{metrics}");
        println!("{}", text(&output.stdout));
        if installed("promtool") {
            let mut tool = Command::new("promtool");
            let output = feed(tool.args(["check", "metrics"]), metrics.as_bytes());
            assert!(output.status.success(), "{output:?}");
        }
    });
}

#[test]
fn completions_and_manual_pages_name_every_subcommand() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(folder.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        for word in ["serve", "fetch", "diff", "--clients"] {
            let bare = word.trim_start_matches('-');
            assert!(text(&output.stdout).contains(bare), "{shell}: {word}");
        }
        if shell == "bash" && installed("bash") {
            let output = feed(Command::new("bash").arg("-n"), &output.stdout);
            assert!(output.status.success(), "{output:?}");
        }
    }
    assert_eq!(run(folder.path(), &["completions", "cmd"]).status.code(), Some(2));
    let page = run(folder.path(), &["man"]);
    assert!(
        text(&page.stdout).starts_with(".ie") || text(&page.stdout).contains(".TH gatecast 1"),
        "{page:?}"
    );
    assert_eq!(run(folder.path(), &["man", "--out", "man"]).status.code(), Some(0));
    let pages: Vec<String> = common::entries(&folder.path().join("man"))
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    for page in ["gatecast.1", "gatecast-serve.1", "gatecast-diff.1"] {
        assert!(pages.iter().any(|known| known == page), "{pages:?}");
    }
    let serve = std::fs::read_to_string(folder.path().join("man/gatecast-serve.1")).expect("text");
    for word in ["max\\-wait", "SIGUSR1", ".SH GATE", "multicast\\-group"] {
        assert!(serve.contains(word), "{word}: {serve}");
    }
}
