//! Tests that hold the documents that we write to their schema files (JSON Schema 2020-12).
//!
//! The schema files are documentation; nothing that reads a document checks it against them.

use serde_json::{Value, json};

use crate::{
    report::{json, sample},
    transfer::samples,
};

/// The schema of `gatecast.session/1`.
pub(crate) const SESSION: &str = include_str!("session.schema.json");

/// The schema of `gatecast.study/1`.
pub(crate) const STUDY: &str = include_str!("../testbed/study/study.schema.json");

/// A machine's stamp.
const ENVIRONMENT: &str = r#"{"version": "0.1.0", "commit": null, "kernel": "Linux 6.18",
    "processor": null, "cores": 2, "clock_source": "tsc",
    "errors": {"seconds_client_us": {"systematic": -1.5, "random": 90},
        "seconds_server_us": {"systematic": 1, "random": 90},
        "delay_us": {"systematic": 1, "random": 9}}}"#;

/// Checks `document` against `schema`, the text of a schema file. The error begins with the place.
pub(crate) fn check(document: &Value, schema: &str) -> Result<(), String> {
    let schema = serde_json::from_str(schema).expect("a schema is JSON");
    jsonschema::draft202012::validate(&schema, document)
        .map_err(|error| format!("{}: {error}", error.instance_path()))
}

fn session() -> Value {
    let text = json::session(&sample::session(1, 2, 80), None);
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn sample_sessions_fit_their_schema() {
    let mut sampled = sample::session(1, 3, 50);
    (1..=100).for_each(|at| samples::push(&mut sampled.transfers[0].samples, at * 9_999_999, at));
    for records in [
        vec![sampled],
        vec![sample::troubled()],
        vec![sample::session(1, 3, 50), sample::troubled(), sample::session(3, 200, 5)],
    ] {
        let text = json::sessions(&records, Some(ENVIRONMENT)).expect("a session");
        let document = serde_json::from_str(&text).expect("JSON");
        check(&document, SESSION).expect("fits");
    }
}

#[test]
fn bent_session_is_refused_with_its_place() {
    let bend = |pointer: &str, value: Value| {
        let mut document = session();
        *document.pointer_mut(pointer).expect(pointer) = value;
        check(&document, SESSION).expect_err(pointer)
    };
    for (pointer, value) in [
        ("/schema", json!("gatecast.session/2")),
        ("/session", json!("xyz")),
        ("/via", json!("pigeon")),
        ("/file/bytes", json!(-1)),
        ("/file/bytes", json!(1.5)),
        ("/clients", json!(10_001)),
        ("/results/1/seat", Value::Null),
        ("/results/0/outcome", json!("fine")),
        ("/results/0/samples", json!("1:2 3")),
        ("/results/0/samples", json!(vec!["1:2"; 33].join(" "))),
        ("/results/0", json!({})),
        ("/results", json!({})),
        ("/identities", json!("broken")),
        ("/global/seconds", json!("1")),
    ] {
        let error = bend(pointer, value);
        assert!(error.starts_with(&format!("{pointer}: ")), "{error}");
    }
    for name in ["global", "release", "identities", "sender"] {
        let mut document = session();
        document.as_object_mut().expect("an object").remove(name);
        assert!(check(&document, SESSION).is_err(), "{name}");
    }
    check(&json!([]), SESSION).expect_err("no object");
}

#[test]
fn study_fits_its_schema() {
    let row = json!({
        "via": "tcp", "clients": 4, "bytes": 1_000_000, "rate_nominal_mbit": 100.0, "loss": 0.01,
        "runs": 3, "makespan_s": {"median": 0.4, "low": 0.3, "high": 0.5}, "bound_s": 0.33,
        "bound_nominal_s": 0.32, "efficiency": 0.8, "verified": true
    });
    let study = |row: &Value| json!({"schema": "gatecast.study/1", "environment": {}, "calibration": [], "rows": [row]});
    check(&study(&row), STUDY).expect("fits");
    for (name, value) in [
        ("loss", json!(2)),
        ("clients", json!(0)),
        ("verified", Value::Null),
        ("makespan_s", json!({"median": 1})),
        ("makespan_s", json!(1)),
    ] {
        let mut bent = row.clone();
        bent[name] = value;
        check(&study(&bent), STUDY).expect_err(name);
    }
    let mut failed = row;
    failed["makespan_s"] = Value::Null;
    failed["efficiency"] = Value::Null;
    check(&study(&failed), STUDY).expect("a row of runs that failed");
}
