//! Studies with real programs on real stars: their results, what survives a kill, and that nothing
//! is left.
//!
//! They need root, `ip`, `tc`, `nft` and `ethtool`, and are skipped without them.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use gatecast::internals::testbed::star::{namespace, star_id::StarId, tool};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{
    have, installed,
    program::{GATECAST, output_text, signal},
    schema,
    star::turn_with_stars,
    until, within,
};

/// No test here takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// The options that a test does not give itself. They are small and quick, with a wide tolerance
/// for the links, because other tests run at the same time.
const USUAL: [(&str, &str); 4] =
    [("--rate", "50mbit"), ("--size", "1MB"), ("--runs", "2"), ("--tolerance", "60%")];

struct StudyFolder(TempDir);

impl StudyFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(GATECAST);
        command.args(["study", "--out"]).arg(self.0.path());
        for (option, value) in USUAL {
            if !more.contains(&option) {
                command.args([option, value]);
            }
        }
        command.args(more).stdin(Stdio::null());
        command
    }

    fn study(&self, more: &[&str]) -> Output {
        self.command(more).output().expect("the program starts")
    }

    fn begin(&self, more: &[&str]) -> Child {
        self.command(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap_or_default()
    }

    fn results(&self) -> Value {
        let document = serde_json::from_str(&self.read("results.json")).expect("a document");
        schema::check(&document, schema::STUDY);
        document
    }

    fn runs(&self) -> usize {
        serde_json::from_str::<Value>(&self.read("results.json"))
            .ok()
            .and_then(|document| Some(document["measurements"].as_array()?.len()))
            .unwrap_or(0)
    }
}

/// Namespaces and working folders of a process.
fn left_by(process: u32) -> Vec<String> {
    let mut left: Vec<String> = namespace::names()
        .into_iter()
        .filter(|name| StarId::of_namespace(name).is_some_and(|(id, _)| id.process == process))
        .collect();
    for root in [Path::new("/dev/shm"), &std::env::temp_dir()] {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        left.extend(
            names.filter(|name| name.parse::<StarId>().is_ok_and(|id| id.process == process)),
        );
    }
    left
}

/// The processes of a study's run whose command line holds `word`.
fn programs_of(study: u32, word: &str) -> Vec<u32> {
    let folder = format!("/gatecast-{study}-");
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| {
            let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&folder) && line.contains(word)
        })
        .collect()
}

#[test]
fn study_leaves_the_captures_of_each_run() {
    let Some(_turn) = turn_with_stars("study") else {
        return;
    };
    if !have("dumpcap", tool::find("dumpcap").is_some()) {
        return;
    }
    let folder = StudyFolder::new();
    let captures = tempfile::tempdir().expect("a folder");
    let at = captures.path().display().to_string();
    let grid = ["--clients", "1,2", "--via", "tcp", "--runs", "1"];
    let output = folder.study(&[&grid[..], &["--capture", &at]].concat());
    assert!(output.status.success(), "{}", output_text(&output));
    for clients in 1..=2 {
        let run = captures.path().join(format!("tcp-{clients}-1000000B-50000000bps-0ppm-1"));
        let mut files: Vec<_> = fs::read_dir(&run)
            .expect("a folder")
            .map(|file| file.expect("a file").path())
            .collect();
        files.sort();
        assert_eq!(files.len(), clients + 1);
        assert!(files[0].ends_with("h0-server.pcapng"), "{files:?}");
        for file in files {
            let capture = fs::read(file).expect("a capture");
            assert!(capture.windows(16).any(|window| window == b"GATECAST/1 JOIN "));
        }
    }
}

#[test]
fn impossible_grid_is_a_usage_error() {
    for (arguments, says) in [
        (&["--clients", "0"][..], "0 clients"),
        (&["--clients", "10000"], "10000 clients"),
        (&["--clients", "x"], "invalid clients 'x': expected"),
        (&["--via", "pigeon"], "'pigeon'"),
        (&["--via", "tcp,tcp"], "twice"),
        (&["--rate", "0"], "invalid rate '0'"),
        (&["--rate", "fast"], "invalid rate 'fast'"),
        (&["--loss", "2"], "invalid loss '2'"),
        (&["--size", "0B"], "at least 1 byte"),
        (&["--runs", "0"], "empty"),
        (&["--preset", "moon"], "invalid value 'moon'"),
    ] {
        let output = Command::new(GATECAST)
            .arg("study")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", output_text(&output));
        assert!(output_text(&output).contains(says), "{arguments:?}: {}", output_text(&output));
    }
}

/// Tables, plots and a page.
#[test]
fn study_writes_results_and_resumes() {
    let Some(_turn) = turn_with_stars("study") else {
        return;
    };
    within(LIMIT, || {
        let place = StudyFolder::new();
        let output = place.study(&["--clients", "1,3"]);
        assert!(output.status.success(), "{}", output_text(&output));
        let document = place.results();
        assert_eq!(document["schema"], "gatecast.study/1");
        let environment = &document["environment"];
        assert_eq!(environment["offloads"], "off");
        assert_eq!(environment["mtu"], 1500);
        assert!(environment["congestion"].is_string() && environment["kernel"].is_string());
        assert!(document["calibration"][0]["tcp_alone_mbit"].is_f64());
        let rows = document["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 2);
        for (row, clients) in rows.iter().zip([1, 3]) {
            assert_eq!(row["via"], "tcp");
            assert_eq!((&row["clients"], &row["runs"]), (&clients.into(), &2.into()));
            assert_eq!(row["verified"], true);
            let makespan = row["makespan_s"]["median"].as_f64().expect("measured");
            let bound = row["bound_s"].as_f64().expect("computed");
            // Five per cent less is possible: the shaper lets its burst through at once.
            assert!(makespan > 0.95 * f64::from(clients) * 0.16, "{row}");
            assert!(
                (row["efficiency"].as_f64().expect("computed") - bound / makespan).abs() < 1e-9
            );
            // Each copy left the server once, with headers.
            let sent = row["server_sent_bytes"].as_f64().expect("counted");
            let payload = 1e6 * f64::from(clients);
            assert!((1.04 * payload..1.2 * payload).contains(&sent), "{row}");
            assert!(row["cpu_server_s"].as_f64().is_some_and(|seconds| seconds > 0.0));
            assert!(row["from_peers_bytes"].is_null(), "unknown is null");
        }
        assert_eq!(place.read("results.csv").lines().count(), 3);
        let page = place.read("report.html");
        for name in ["makespan", "mean", "efficiency", "traffic", "completion"] {
            let plot = place.read(&format!("{name}.svg"));
            assert!(plot.starts_with("<svg") && plot.contains("clients"), "{name}");
            assert!(page.contains(plot.trim()), "{name} is in the page");
        }
        assert!(!page.contains("<script") && !page.contains("src="));

        let output = place.study(&["--clients", "1,3"]);
        assert!(
            output_text(&output).contains("going on: 4 runs are there already"),
            "{}",
            output_text(&output)
        );
        assert_eq!(place.results()["measurements"], document["measurements"]);
        let output = place.study(&["--clients", "1,2"]);
        assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
        assert!(output_text(&output).contains("of another study"), "{}", output_text(&output));
        // More runs of the same cells are the same study.
        let output = place.study(&["--clients", "1,3", "--runs", "3"]);
        assert!(output.status.success(), "{}", output_text(&output));
        assert_eq!(place.runs(), 6);

        let from = place.0.path().join("results.json");
        let output = Command::new(GATECAST)
            .args(["plan", "--size", "1GB", "--clients", "2000000", "--from"])
            .arg(from)
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", output_text(&output));
        assert!(output_text(&output).contains("fastest"), "{}", output_text(&output));
    });
}

#[test]
fn study_measures_nginx_as_contender() {
    let Some(_turn) = turn_with_stars("study") else {
        return;
    };
    if !have("nginx and curl", tool::find("nginx").is_some() && installed("curl")) {
        return;
    }
    within(LIMIT, || {
        let place = StudyFolder::new();
        let output = place.study(&["--clients", "2", "--via", "nginx,tcp", "--preset", "router"]);
        assert!(output.status.success(), "{}", output_text(&output));
        let document = place.results();
        assert_eq!(document["rows"][0]["via"], "nginx");
        assert_eq!(document["rows"][0]["verified"], true);
        assert_eq!(document["environment"]["middle"], "router");
        let order: Vec<&Value> = document["measurements"]
            .as_array()
            .expect("runs")
            .iter()
            .map(|run| &run["cell"]["way"])
            .collect();
        assert_eq!(order, ["nginx", "tcp", "tcp", "nginx"]);
    });
}

#[test]
fn dead_host_fails_its_run_and_study_goes_on() {
    let Some(_turn) = turn_with_stars("study") else {
        return;
    };
    within(LIMIT, || {
        let place = StudyFolder::new();
        // It takes some seconds, so that the client can be killed in time.
        let mut study = place.begin(&["--clients", "2", "--size", "10MB"]);
        let process = study.id();
        let grown = |name: &str| {
            let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
            entries
                .filter(|entry| {
                    let name = entry.file_name();
                    name.to_str()
                        .is_some_and(|name| name.starts_with(&format!("gatecast-{process}-")))
                })
                .flat_map(|entry| fs::read_dir(entry.path().join("run").join(name)))
                .flatten()
                .flatten()
                .any(|file| file.metadata().is_ok_and(|about| about.len() > 100_000))
        };
        until("bytes at h1", || grown("h1"));
        for client in programs_of(process, "fetch") {
            let line = fs::read(format!("/proc/{client}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains("\0h1\0") {
                signal(client, "KILL");
            }
        }
        let status = study.wait().expect("ends");
        assert_eq!(status.code(), Some(4), "{}", place.read("results.json"));
        let document = place.results();
        let row = &document["rows"][0];
        assert_eq!((&row["runs"], &row["failed"]), (&2.into(), &1.into()));
        assert_eq!(row["verified"], false);
        assert!(row["makespan_s"]["median"].is_f64(), "of the run that was whole");
        let trouble = document["measurements"][0]["observed"]["trouble"].to_string();
        assert!(trouble.contains("client 1"), "{trouble}");
        assert!(place.read("report.html").contains("Failed runs"));
        assert_eq!(left_by(process), [""; 0]);
    });
}

#[test]
fn failed_server_start_is_a_failed_row() {
    let Some(_turn) = turn_with_stars("study") else {
        return;
    };
    within(LIMIT, || {
        let place = StudyFolder::new();
        let output = place.study(&["--clients", "1", "--congestion", "no-such-one"]);
        assert_eq!(output.status.code(), Some(4), "{}", output_text(&output));
        assert!(output_text(&output).contains("it did not start"), "{}", output_text(&output));
        assert!(output_text(&output).contains("no-such-one"), "{}", output_text(&output));
        assert_eq!(place.results()["rows"][0]["efficiency"], Value::Null);
    });
}

#[test]
fn killed_study_is_removed_by_star_down_and_resumes() {
    let Some(_turn) = turn_with_stars("study") else {
        return;
    };
    within(LIMIT, || {
        let place = StudyFolder::new();
        let arguments = ["--clients", "2", "--size", "10MB"];
        let mut study = place.begin(&arguments);
        let process = study.id();
        until("the second run", || place.runs() == 1 && programs_of(process, "fetch").len() == 2);
        signal(process, "KILL");
        study.wait().expect("dead");
        assert!(!left_by(process).is_empty());
        let down = Command::new(GATECAST).args(["star", "down"]).output().expect("it starts");
        assert!(down.status.success(), "{}", output_text(&down));
        // Another test's `star down` may have been there first.
        until("nothing left", || left_by(process).is_empty());
        assert_eq!(programs_of(process, ""), [0; 0]);
        let output = place.study(&arguments);
        assert!(output.status.success(), "{}", output_text(&output));
        assert!(output_text(&output).contains("going on: 1 runs"), "{}", output_text(&output));
        assert_eq!(place.runs(), 2);
    });
}

#[test]
fn ctrl_c_ends_study_and_keeps_only_its_results() {
    let Some(_turn) = turn_with_stars("study") else {
        return;
    };
    within(LIMIT, || {
        for twice in [false, true] {
            let place = StudyFolder::new();
            let mut study = place.begin(&["--clients", "2", "--size", "10MB"]);
            let process = study.id();
            until("the second run", || {
                place.runs() == 1 && programs_of(process, "fetch").len() == 2
            });
            signal(process, "INT");
            if twice {
                // What comes within 100 ms is the same Ctrl-C.
                thread::sleep(Duration::from_millis(150));
                signal(process, "INT");
            }
            assert_eq!(study.wait().expect("ends").code(), Some(130));
            assert_eq!(left_by(process), [""; 0]);
            assert_eq!(programs_of(process, ""), [0; 0]);
            assert_eq!(place.results()["rows"][0]["runs"], 1);
        }
        // While the links are measured.
        let place = StudyFolder::new();
        let mut study = place.begin(&["--clients", "2"]);
        let process = study.id();
        until("a star", || left_by(process).len() > 3);
        signal(process, "INT");
        assert_eq!(study.wait().expect("ends").code(), Some(130));
        assert_eq!(left_by(process), [""; 0]);
    });
}

#[test]
fn two_studies_run_at_once() {
    let Some(_turn) = turn_with_stars("study") else {
        return;
    };
    within(LIMIT, || {
        let (one, other) = (StudyFolder::new(), StudyFolder::new());
        let arguments = ["--clients", "1,2"];
        let (mut first, mut second) = (one.begin(&arguments), other.begin(&arguments));
        for (study, place) in [(&mut first, &one), (&mut second, &other)] {
            assert!(study.wait().expect("ends").success(), "{}", place.read("results.json"));
            assert_eq!(place.runs(), 4);
            assert_eq!(left_by(study.id()), [""; 0]);
        }
    });
}
