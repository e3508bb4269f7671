//! The session document, `gatecast.session/1`: what `--json` prints.
//!
//! Names and units of its fields are a contract: fields may join, none changes. Unknown is
//! `null`. Text from outside is as the peer sent it, and safe on a terminal all the same: what
//! would move a cursor or turn text is written as a JSON escape, which a parser undoes.

use std::time::Duration;

use time::format_description::well_known::Rfc3339;

use crate::{
    proto::json::{self, Json},
    report::{
        auto, median_session,
        why::{Cause, explain},
    },
    session::Via,
    transfer::{AutoChoice, Counts, Evidence, Record, Transfer, auto::AutoFigures, samples},
    units::micros,
};

/// The schema's name and version, the value of `schema`.
pub const SCHEMA: &str = "gatecast.session/1";

/// The document of one session, on one line without its end. `environment` is the JSON of the machine
/// that says it, where that is the one that was there.
pub fn session(record: &Record, environment: Option<&str>) -> String {
    Json::object(|json| {
        members(json, record);
        json.maybe("environment", environment);
    })
}

/// The document of several sessions, over several lines with their ends: that of the median one,
/// with all of them in `sessions` where there are several. `None` without a session.
pub fn sessions(records: &[Record], environment: Option<&str>) -> Option<String> {
    let median = median_session(records)?;
    let document = Json::object(|json| {
        members(json, median);
        json.maybe("environment", environment);
        if records.len() > 1 {
            json.each("sessions", records, members);
        }
    });
    Some(json::indented(&document))
}

fn members(json: &mut Json, record: &Record) {
    json.text("schema", SCHEMA);
    json.text("session", record.session.to_string());
    json.text("via", record.via.word());
    json.member("file", |json| {
        json.text("name", record.file.name.as_str());
        json.raw("bytes", record.file.bytes);
        json.text("sha1", record.file.sha1.to_string());
    });
    json.raw("clients", record.clients);
    json.maybe_text("sender", record.sender.as_ref());
    json.truth("key", record.key);
    json.maybe_member("auto", record.auto.as_ref(), |json, choice| {
        auto_choice(json, record, choice);
    });
    json.member("release", |json| {
        let at = record.released_at.and_then(|at| at.format(&Rfc3339).ok());
        json.maybe_text("at", at);
        json.count("wake_skew_us", record.wake_skew_us());
        json.count("skew_us", record.skew_us());
        json.count("skew_client_us", record.skew_client_us());
    });
    let explanation = explain(record);
    let seats = record.transfers.iter().zip(&explanation.seats);
    json.each("results", seats, |json, (transfer, cause)| {
        result(json, transfer);
        json.maybe_member("why", cause.as_ref(), why);
    });
    json.maybe_text("advice", explanation.advice.as_ref());
    let global = record.global();
    json.member("global", |json| {
        json.count("bytes", global.bytes);
        seconds(json, "seconds", global.seconds);
        rate(json, "rate_mbit", global.rate_mbit);
        seconds(json, "seconds_verified", global.seconds_verified);
    });
    let broken = record.broken_identities();
    if broken.is_empty() {
        json.text("identities", "hold");
    } else {
        json.list("identities", |json| {
            broken.iter().for_each(|sentence| json.item_text(sentence));
        });
    }
    json.maybe_text("machine", record.machine.as_ref());
}

fn result(json: &mut Json, transfer: &Transfer) {
    json.raw("seat", transfer.seat.0);
    json.text("name", &transfer.name);
    json.maybe_text("client", transfer.client.map(|at| at.to_string()));
    json.maybe_text("server", transfer.server.map(|at| at.to_string()));
    json.text("outcome", transfer.outcome.word());
    json.maybe_text("reason", transfer.reason.as_ref());
    json.maybe("verified", transfer.verified);
    json.count("bytes_client", transfer.bytes_client);
    json.count("bytes_server", transfer.bytes_server);
    json.raw("bytes_resumed", transfer.bytes_resumed);
    seconds(json, "seconds_client", transfer.seconds_client);
    seconds(json, "seconds_server", transfer.seconds_server);
    seconds(json, "seconds_verified", transfer.seconds_verified);
    seconds(json, "seconds_durable", transfer.seconds_durable);
    rate(json, "rate_client_mbit", transfer.rate_client_mbit());
    rate(json, "rate_server_mbit", transfer.rate_server_mbit());
    json.count("woke_us", transfer.woke.map(micros));
    json.count("first_server_us", transfer.first_server.map(micros));
    for (name, count) in Counts::NAMES.into_iter().zip(transfer.counts.values()) {
        json.count(name, count);
    }
    json.member("evidence", |json| {
        for (name, figure) in Evidence::NAMES.into_iter().zip(transfer.evidence.values()) {
            json.count(name, figure);
        }
    });
    json.maybe_text("samples", samples::text(&transfer.samples));
}

/// How the way was chosen, and what came of it.
fn auto_choice(json: &mut Json, record: &Record, choice: &AutoChoice) {
    let AutoFigures { server_up, least_down, group_rate, group_lost, measured_us, .. } =
        choice.figures;
    json.member("measured", |json| {
        json.count("server_up_bit_s", server_up);
        json.count("least_down_bit_s", least_down);
        json.count("group_bit_s", group_rate);
        json.count("group_lost_permille", group_lost);
        seconds(json, "seconds", measured_us.map(Duration::from_micros));
    });
    json.member("predicted_s", |json| {
        for via in [Via::Tcp, Via::Swarm, Via::Multicast] {
            json.number(via.word(), auto::expected(choice, via));
        }
    });
    json.text("chosen", record.via.word());
    json.text("why", &choice.why);
    seconds(json, "took_s", record.global().seconds);
}

/// Why a seat was slow.
fn why(json: &mut Json, cause: &Cause) {
    json.text("cause", cause.kind.word());
    json.number("share", Some((cause.share * 1e4).round() / 1e4));
    json.text("sentence", &cause.sentence);
}

/// Whole microseconds as seconds: the nearest number, so that it prints with six decimals.
fn seconds(json: &mut Json, name: &str, span: Option<Duration>) {
    json.number(name, span.map(|span| micros(span) as f64 / 1e6));
}

/// A rate to the bit per second; more digits would only look like knowledge.
fn rate(json: &mut Json, name: &str, mbit: Option<f64>) {
    json.number(name, mbit.map(|mbit| (mbit * 1e6).round() / 1e6));
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::sample;

    #[test]
    fn document_has_the_names_of_the_contract() {
        let document = sessions(&[sample::session(1, 1, 80)], Some(r#"{"cores":2}"#)).expect("one");
        insta::assert_snapshot!(document, @r#"
        {
          "schema": "gatecast.session/1",
          "session": "0000000000000001",
          "via": "tcp",
          "file": {
            "name": "1MB.bin",
            "bytes": 1000000,
            "sha1": "3c5b492776742690efb6a0f1fd8508693400e2cc"
          },
          "clients": 1,
          "sender": null,
          "key": false,
          "auto": null,
          "release": {
            "at": "2026-09-21T14:13:21Z",
            "wake_skew_us": null,
            "skew_us": null,
            "skew_client_us": null
          },
          "results": [
            {
              "seat": 1,
              "name": "C1",
              "client": "10.0.0.4:50001",
              "server": "10.0.0.1:8080",
              "outcome": "complete",
              "reason": null,
              "verified": true,
              "bytes_client": 1000000,
              "bytes_server": 1000000,
              "bytes_resumed": 0,
              "seconds_client": 0.081,
              "seconds_server": 0.08112,
              "seconds_verified": 0.084,
              "seconds_durable": null,
              "rate_client_mbit": 98.765432,
              "rate_server_mbit": 98.619329,
              "woke_us": 10,
              "first_server_us": 20,
              "lost": null,
              "duplicate": null,
              "reordered": null,
              "jitter_us": null,
              "retransmitted": null,
              "bytes_from_server": null,
              "bytes_from_peers": null,
              "offered": null,
              "local_drop": null,
              "network_lost": null,
              "host_rx_drop": null,
              "delivered": null,
              "unique": null,
              "corrupt": null,
              "foreign": null,
              "late": null,
              "unheard": null,
              "reorder_extent": null,
              "loss_burst": null,
              "jitter_p50_us": null,
              "jitter_p95_us": null,
              "jitter_p99_us": null,
              "delay_us": null,
              "delay_max_us": null,
              "evidence": {
                "read_us": null,
                "write_us": null,
                "hash_us": null,
                "sync_us": null,
                "cpu_us": null,
                "cpu_wait_us": null,
                "busy_us": null,
                "rwnd_limited_us": null,
                "sndbuf_limited_us": null,
                "segments": null,
                "segments_again": null,
                "min_rtt_us": null,
                "rtt_us": null,
                "delivery_rate": null,
                "queued_bytes": null,
                "paced_us": null,
                "server_link_us": null,
                "buffer_full_us": null,
                "repair_us": null,
                "rate_cuts": null,
                "client_link_us": null,
                "buffer_bytes": null
              },
              "samples": null,
              "why": null
            }
          ],
          "advice": null,
          "global": {
            "bytes": 1000000,
            "seconds": 0.08112,
            "rate_mbit": 98.619329,
            "seconds_verified": 0.084
          },
          "identities": "hold",
          "machine": null,
          "environment": {
            "cores": 2
          }
        }
        "#);
    }

    #[test]
    fn unknown_is_null_and_text_is_as_it_was_sent() {
        let record = sample::troubled();
        let line = session(&record, None);
        assert!(!line.contains(['\n', '\u{1b}', '\u{202e}', '\u{9b}']), "{line}");
        let document: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(document.get("sessions"), None);
        let results = &document["results"];
        assert_eq!(results[1]["name"], "\u{202e}evil");
        assert_eq!(results[1]["reason"], "connection reset | by\u{1b}[2J peer");
        assert_eq!(results[1]["outcome"], "cut");
        assert_eq!(results[1]["seconds_server"], Value::Null);
        assert_eq!(results[2]["verified"], Value::Null);
        assert_eq!(results[2]["bytes_client"], Value::Null);
        assert_eq!(document["identities"], "hold");
    }

    #[test]
    fn several_sessions_are_the_median_one_and_a_list() {
        let mut records =
            vec![sample::session(1, 2, 90), sample::session(2, 2, 70), sample::session(3, 2, 80)];
        records[1].transfers[0].bytes_client = Some(1);
        let text = sessions(&records, None).expect("three");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        // The second does not add up, so it counts as the slowest.
        assert_eq!(document["session"], "0000000000000001");
        assert_eq!(document["identities"], "hold");
        let all = document["sessions"].as_array().expect("a list");
        assert_eq!(all.len(), 3);
        assert_eq!(all[1]["schema"], SCHEMA);
        assert_eq!(all[1]["identities"].as_array().map(Vec::len), Some(1));
        assert!(sessions(&[], None).is_none());
    }
}
