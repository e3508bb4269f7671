//! What the tool says of its own errors, and the logs of clients.

use std::time::Duration;

use gatecast::internals::report;
use serde_json::Value;

use crate::common::{
    entries,
    program::{self, Program, output_text, run, text},
    schema, within,
};

#[test]
fn errors_stand_in_documents_and_beside_figures() {
    within(Duration::from_secs(120), || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let here = |words: &[&str]| {
            let mut command = program::gatecast(path, words);
            command.env("XDG_CACHE_HOME", path).output().expect("the program starts")
        };
        let session = || {
            let ended = here(&["run", "--clients", "2", "--size", "1MB", "--json"]);
            assert_eq!(ended.status.code(), Some(0), "{ended:?}");
            let document: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
            schema::check(&document, schema::SESSION);
            document["environment"].clone()
        };
        let before = session();
        assert!(before["version"].is_string() && before["errors"].is_null(), "{before}");
        let log = path.join("logs").read_dir().expect("logs").next().expect("one").expect("read");
        let log = log.path();
        let log = log.to_str().expect("UTF-8");
        let refused = here(&["report", log, "--errors"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(output_text(&refused).contains("'gatecast calibrate' does it"), "{refused:?}");

        let calibrated = here(&["calibrate", "--clients", "2", "--json"]);
        assert_eq!(calibrated.status.code(), Some(0), "{calibrated:?}");
        let document: Value = serde_json::from_slice(&calibrated.stdout).expect("JSON");
        assert_eq!(document["schema"], "gatecast.calibration/1");
        let after = session();
        assert_eq!(after["errors"], document["errors"]);
        for name in ["seconds_client_us", "seconds_server_us", "skew_us", "skew_client_us"] {
            assert!(after["errors"][name]["random"].as_f64() >= Some(0.0), "{after}");
        }
        let printed = here(&["report", log, "--errors"]);
        let printed = text(&printed.stdout);
        assert!(printed.contains("\nerrors              95 of 100 are off by less"), "{printed}");
        assert!(printed.contains('±') || printed.contains("under "), "{printed}");

        // Of another machine: only where it is named, and only if it is one.
        let mut other = document.clone();
        other["environment"]["kernel"] = "Plan 9".into();
        std::fs::write(path.join("gatecast/calibration.json"), other.to_string()).expect("room");
        assert!(session()["errors"].is_null());
        assert_eq!(here(&["report", log, "--errors"]).status.code(), Some(1));
        std::fs::write(path.join("other.json"), other.to_string()).expect("room");
        assert_eq!(here(&["report", log, "--errors=other.json"]).status.code(), Some(0));
        std::fs::write(path.join("none.json"), "{}").expect("room");
        let refused = here(&["report", log, "--errors=none.json"]);
        assert!(output_text(&refused).contains("this is not a calibration"), "{refused:?}");
    });
}

#[test]
fn log_of_clients_holds_their_own_rows() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("f.bin"), vec![7; 300_000]).expect("room");
        let (mut server, addr) =
            Program::serve(folder.path(), &["f.bin", "--clients", "3", "--one-off"]);
        let other = folder.path().join("other");
        std::fs::create_dir(&other).expect("room");
        std::thread::scope(|scope| {
            scope.spawn(|| run(&other, &["fetch", &addr, "--log-dir", "../client"]));
            let words = ["fetch", &addr, "--clients", "2", "--group", "3", "--log-dir", "client"];
            let fetched = run(folder.path(), &words);
            assert_eq!(fetched.status.code(), Some(0), "{fetched:?}");
        });
        assert_eq!(server.code(), 0, "{}", server.stderr());
        let of_server = program::records(folder.path()).remove(0);
        let logs = entries(&folder.path().join("client"));
        let read = |log| report::read_log(log).expect("a log that reads back").remove(0).transfers;
        let mut rows: Vec<_> = logs.iter().flat_map(|log| read(log)).collect();
        rows.sort_by_key(|row| row.seat);
        assert_eq!((logs.len(), rows.len(), of_server.transfers.len()), (2, 3, 3));
        for (own, known) in rows.iter().zip(&of_server.transfers) {
            assert_eq!((own.seat, own.seconds_client), (known.seat, known.seconds_client));
            assert!(own.is_proven());
        }
    });
}
