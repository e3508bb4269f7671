//! The session document, `gatecast.session/1`: what `--json` prints.
//!
//! Names and units of its fields are a contract: fields may join, none changes. Unknown is
//! `null`. Text from outside is as the peer sent it, and safe on a terminal all the same: what
//! would move a cursor or turn text is written as a JSON escape, which a parser undoes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde::Serializer;
use time::format_description::well_known::Rfc3339;

use crate::report::median_session;
use crate::text::escape;
use crate::transfer::Counts;
use crate::transfer::Record;
use crate::transfer::Transfer;
use crate::units::micros;

/// The schema's name and version, the value of `schema`.
pub const SCHEMA: &str = "gatecast.session/1";

/// A session as a document. Its fields are those of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct SessionDocument {
    schema: &'static str,
    session: String,
    via: &'static str,
    file: FilePart,
    clients: u16,
    sender: Option<String>,
    release: ReleasePart,
    results: Vec<ResultPart>,
    global: GlobalPart,
    identities: Identities,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<Self>,
}

#[derive(Clone, Debug, Serialize)]
struct FilePart {
    name: String,
    bytes: u64,
    sha1: String,
}

#[derive(Clone, Debug, Serialize)]
struct ReleasePart {
    at: Option<String>,
    wake_skew_us: Option<u64>,
    skew_us: Option<u64>,
    skew_client_us: Option<u64>,
}

// Over 15 fields because it is one object of a documented schema, a key each.
#[derive(Clone, Debug, Serialize)]
struct ResultPart {
    seat: u16,
    name: String,
    client: Option<SocketAddr>,
    server: Option<SocketAddr>,
    outcome: &'static str,
    reason: Option<String>,
    verified: Option<bool>,
    bytes_client: Option<u64>,
    bytes_server: Option<u64>,
    bytes_resumed: u64,
    seconds_client: Option<f64>,
    seconds_server: Option<f64>,
    seconds_verified: Option<f64>,
    seconds_durable: Option<f64>,
    rate_client_mbit: Option<f64>,
    rate_server_mbit: Option<f64>,
    woke_us: Option<u64>,
    first_server_us: Option<u64>,
    #[serde(flatten)]
    counts: CountsPart,
}

/// Every counter under its name.
#[derive(Clone, Debug)]
struct CountsPart(Counts);

impl Serialize for CountsPart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Counts::NAMES.into_iter().zip(self.0.values()))
    }
}

#[derive(Clone, Debug, Serialize)]
struct GlobalPart {
    bytes: Option<u64>,
    seconds: Option<f64>,
    rate_mbit: Option<f64>,
    seconds_verified: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum Identities {
    Hold(&'static str),
    Broken(Vec<String>),
}

impl SessionDocument {
    /// The document of one session.
    pub fn new(record: &Record) -> Self {
        let global = record.global();
        let broken = record.broken_identities();
        Self {
            schema: SCHEMA,
            session: record.session.to_string(),
            via: record.via.word(),
            file: FilePart {
                name: record.file.name.as_str().to_owned(),
                bytes: record.file.bytes,
                sha1: record.file.sha1.to_string(),
            },
            clients: record.clients,
            sender: record.sender.clone(),
            release: ReleasePart {
                at: record.released_at.and_then(|at| at.format(&Rfc3339).ok()),
                wake_skew_us: record.wake_skew_us(),
                skew_us: record.skew_us(),
                skew_client_us: record.skew_client_us(),
            },
            results: record.transfers.iter().map(ResultPart::new).collect(),
            global: GlobalPart {
                bytes: global.bytes,
                seconds: global.seconds.map(seconds),
                rate_mbit: global.rate_mbit.map(rounded),
                seconds_verified: global.seconds_verified.map(seconds),
            },
            identities: if broken.is_empty() {
                Identities::Hold("hold")
            } else {
                Identities::Broken(broken)
            },
            sessions: Vec::new(),
        }
    }

    /// The document of several sessions: that of the median one, and all of them in `sessions`.
    /// One session alone has no `sessions`; of none there is no document.
    pub fn of(records: &[Record]) -> Option<Self> {
        let mut document = Self::new(median_session(records)?);
        if records.len() > 1 {
            document.sessions = records.iter().map(Self::new).collect();
        }
        Some(document)
    }

    /// The document on lines of its own, indented, without a last line end.
    pub fn to_text(&self) -> String {
        safe(&serde_json::to_string_pretty(self).expect(SERIALIZES))
    }

    /// The document as one line, without its end.
    pub fn to_line(&self) -> String {
        safe(&serde_json::to_string(self).expect(SERIALIZES))
    }
}

/// Why serialising cannot fail: no maps but of names, no foreign `Serialize`, no writer but memory.
const SERIALIZES: &str = "a document is strings, numbers and lists";

impl ResultPart {
    fn new(transfer: &Transfer) -> Self {
        Self {
            seat: transfer.seat.0,
            name: transfer.name.clone(),
            client: transfer.client,
            server: transfer.server,
            outcome: transfer.outcome.word(),
            reason: transfer.reason.clone(),
            verified: transfer.verified,
            bytes_client: transfer.bytes_client,
            bytes_server: transfer.bytes_server,
            bytes_resumed: transfer.bytes_resumed,
            seconds_client: transfer.seconds_client.map(seconds),
            seconds_server: transfer.seconds_server.map(seconds),
            seconds_verified: transfer.seconds_verified.map(seconds),
            seconds_durable: transfer.seconds_durable.map(seconds),
            rate_client_mbit: transfer.rate_client_mbit().map(rounded),
            rate_server_mbit: transfer.rate_server_mbit().map(rounded),
            woke_us: transfer.woke.map(micros),
            first_server_us: transfer.first_server.map(micros),
            counts: CountsPart(transfer.counts),
        }
    }
}

/// Whole microseconds as seconds: the nearest number, so that it prints with six decimals.
#[allow(clippy::cast_precision_loss)]
fn seconds(span: Duration) -> f64 {
    micros(span) as f64 / 1e6
}

/// A rate to the bit per second; more digits would only look like knowledge.
fn rounded(rate_mbit: f64) -> f64 {
    (rate_mbit * 1e6).round() / 1e6
}

/// `json` with what `text::escape` holds for unsafe as JSON escapes. Such characters stand in
/// strings only, and all of them below U+10000, so one `\u` escape is enough.
pub(super) fn safe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    let mut buffer = [0; 4];
    for ch in json.chars() {
        // Below DEL, JSON's own escapes have done it; its line ends and blanks are to stay.
        if ch >= '\u{7f}' && escape(ch.encode_utf8(&mut buffer)).starts_with('\\') {
            let _ = write!(safe, "\\u{:04x}", u32::from(ch));
        } else {
            safe.push(ch);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::sample;

    #[test]
    fn the_document_has_the_names_of_the_contract() {
        let document = SessionDocument::new(&sample::session(1, 1, 80));
        insta::assert_snapshot!(document.to_text(), @r#"
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
              "delay_max_us": null
            }
          ],
          "global": {
            "bytes": 1000000,
            "seconds": 0.08112,
            "rate_mbit": 98.619329,
            "seconds_verified": 0.084
          },
          "identities": "hold"
        }
        "#);
    }

    #[test]
    fn unknown_is_null_and_text_comes_back_as_it_was_sent() {
        let record = sample::troubled();
        let line = SessionDocument::of(std::slice::from_ref(&record))
            .expect("one")
            .to_line();
        assert!(
            !line.contains(['\n', '\u{1b}', '\u{202e}', '\u{9b}']),
            "{line}"
        );
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
    fn several_sessions_are_the_median_one_and_all_of_them() {
        let mut records = vec![
            sample::session(1, 2, 90),
            sample::session(2, 2, 70),
            sample::session(3, 2, 80),
        ];
        records[1].transfers[0].bytes_client = Some(1);
        let text = SessionDocument::of(&records).expect("three").to_text();
        let document: Value = serde_json::from_str(&text).expect("JSON");
        // The second does not add up, so it counts as the slowest.
        assert_eq!(document["session"], "0000000000000001");
        assert_eq!(document["identities"], "hold");
        let sessions = document["sessions"].as_array().expect("a list");
        assert_eq!(sessions.len(), 3);
        assert_eq!(sessions[1]["schema"], SCHEMA);
        assert_eq!(sessions[1]["identities"].as_array().map(Vec::len), Some(1));
        assert!(SessionDocument::of(&[]).is_none());
    }
}
