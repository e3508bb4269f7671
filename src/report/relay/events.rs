//! A relay and its viewers as JSON, a line each second: `gatecast.relay/1`, `gatecast.watch/1`,
//! and `gatecast.visits/1` for a log.
//!
//! Names and units of the fields are a contract, written down in `live.schema.json` beside this:
//! fields may join, none changes. Counts are since
//! the beginning, in datagrams where no unit is named; unknown is `null`.

use std::net::SocketAddr;

use serde::Serialize;
use time::format_description::well_known::Rfc3339;

use crate::proto::stream::StreamCounts;
use crate::proto::relay::ViewerState;
use crate::proto::relay::log::ViewerRecord;
use crate::proto::relay::reports::ReceiverReport;
use crate::proto::relay::reports::SenderReport;
use crate::relay::snapshot::RelaySnapshot;
use crate::relay::snapshot::ViewerSnapshot;
use crate::relay::watch::WatchSnapshot;
use crate::units::micros;

/// How a relay stands, in one line.
#[derive(Clone, Debug, Serialize)]
pub struct RelayEvent {
    schema: &'static str,
    relay: String,
    seconds: f64,
    awake: bool,
    input: StreamPart,
    foreign: u64,
    stale: u64,
    dropped: Option<u64>,
    batches: u64,
    delay_p50_us: Option<u64>,
    delay_p99_us: Option<u64>,
    delay_worst_us: Option<u64>,
    viewers: Vec<ViewerPart>,
}

/// How one viewer of ours stands, in one line.
#[derive(Clone, Debug, Serialize)]
pub struct WatchEvent {
    schema: &'static str,
    at: SocketAddr,
    seconds: f64,
    standing: &'static str,
    received: StreamPart,
    host_drop: Option<u64>,
    network_lost: Option<u64>,
    foreign: u64,
    unplayed: u64,
    recorded_bytes: u64,
    unrecorded: u64,
    sent: Option<SentPart>,
}

/// The visits of relay logs, as one document.
#[derive(Clone, Debug, Serialize)]
pub struct ViewersDocument {
    schema: &'static str,
    visits: Vec<ViewerRecordPart>,
}

#[derive(Clone, Debug, Serialize)]
struct StreamPart {
    datagrams: u64,
    bytes: u64,
    not_ts: u64,
    cc_errors: u64,
    cc_lost_at_least: u64,
    transport_errors: u64,
    rtp_lost: Option<u64>,
    rtp_duplicate: Option<u64>,
    rtp_reordered: Option<u64>,
    jitter_us: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
struct ViewerPart {
    // No `network_lost`: sent and received are not of one instant while the stream runs.
    viewer: u64,
    to: SocketAddr,
    standing: &'static str,
    native: bool,
    seconds: f64,
    sent: SentPart,
    received: Option<ReceivedPart>,
}

#[derive(Clone, Debug, Serialize)]
struct SentPart {
    datagrams: u64,
    bytes: u64,
    dropped: u64,
    paused: u64,
    source_cc_errors: u64,
    source_rtp_lost: Option<u64>,
    source_jitter_us: Option<u64>,
    delay_p50_us: Option<u64>,
    delay_p99_us: Option<u64>,
    delay_worst_us: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
struct ReceivedPart {
    datagrams: u64,
    bytes: u64,
    cc_errors: u64,
    rtp_lost: Option<u64>,
    jitter_us: Option<u64>,
    host_drop: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
struct ViewerRecordPart {
    relay: String,
    viewer: u64,
    at: Option<String>,
    to: SocketAddr,
    watched_us: u64,
    sent: SentPart,
    received: Option<ReceivedPart>,
    network_lost: Option<u64>,
    end: String,
    reason: Option<String>,
}

/// Why serialising cannot fail: no maps, no foreign `Serialize`, no writer but memory.
const SERIALIZES: &str = "an event is strings, numbers and lists";

impl RelayEvent {
    /// `snapshot` as an event.
    pub fn new(snapshot: &RelaySnapshot) -> Self {
        Self {
            schema: "gatecast.relay/1",
            relay: snapshot.relay.to_string(),
            seconds: snapshot.up.as_secs_f64(),
            awake: snapshot.awake,
            input: StreamPart::new(&snapshot.input),
            foreign: snapshot.foreign,
            stale: snapshot.stale,
            dropped: snapshot.dropped,
            batches: snapshot.batches,
            delay_p50_us: snapshot.delay.p50_us,
            delay_p99_us: snapshot.delay.p99_us,
            delay_worst_us: snapshot.delay.worst_us,
            viewers: snapshot.viewers.iter().map(ViewerPart::new).collect(),
        }
    }

    /// The event as one line, without its end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect(SERIALIZES)
    }
}

impl WatchEvent {
    /// `view` as an event.
    pub fn new(view: &WatchSnapshot) -> Self {
        let receipt = ReceiverReport::of(&view.received, view.host_drop);
        Self {
            schema: "gatecast.watch/1",
            at: view.at,
            seconds: view.watched.as_secs_f64(),
            standing: word(view.state),
            received: StreamPart::new(&view.received),
            host_drop: view.host_drop,
            network_lost: view.sent.and_then(|sent| sent.network_lost(Some(&receipt))),
            foreign: view.foreign,
            unplayed: view.unplayed,
            recorded_bytes: view.recorded,
            unrecorded: view.unrecorded,
            sent: view.sent.as_ref().map(SentPart::new),
        }
    }

    /// The event as one line, without its end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect(SERIALIZES)
    }
}

impl ViewersDocument {
    /// `visits` as a document.
    pub fn new(visits: &[ViewerRecord]) -> Self {
        Self {
            schema: "gatecast.visits/1",
            visits: visits.iter().map(ViewerRecordPart::new).collect(),
        }
    }

    /// The document over several lines, its end included.
    pub fn to_text(&self) -> String {
        crate::report::json::safe(&serde_json::to_string_pretty(self).expect(SERIALIZES)) + "\n"
    }
}

impl StreamPart {
    fn new(counts: &StreamCounts) -> Self {
        Self {
            datagrams: counts.datagrams,
            bytes: counts.bytes,
            not_ts: counts.not_ts,
            cc_errors: counts.ts.errors,
            cc_lost_at_least: counts.ts.lost,
            transport_errors: counts.ts.damaged,
            rtp_lost: counts.rtp.map(|rtp| rtp.lost),
            rtp_duplicate: counts.rtp.map(|rtp| rtp.duplicate),
            rtp_reordered: counts.rtp.map(|rtp| rtp.reordered),
            jitter_us: counts.jitter_us,
        }
    }
}

impl ViewerPart {
    fn new(view: &ViewerSnapshot) -> Self {
        Self {
            viewer: view.viewer,
            to: view.to,
            standing: word(view.state),
            native: view.native,
            seconds: view.watched.as_secs_f64(),
            sent: SentPart::new(&view.sent),
            received: view.received.as_ref().map(ReceivedPart::new),
        }
    }
}

impl SentPart {
    fn new(sent: &SenderReport) -> Self {
        Self {
            datagrams: sent.sent,
            bytes: sent.bytes,
            dropped: sent.dropped,
            paused: sent.paused,
            source_cc_errors: sent.cc,
            source_rtp_lost: sent.rtp_lost,
            source_jitter_us: sent.jitter_us,
            delay_p50_us: sent.p50_us,
            delay_p99_us: sent.p99_us,
            delay_worst_us: sent.worst_us,
        }
    }
}

impl ReceivedPart {
    fn new(received: &ReceiverReport) -> Self {
        Self {
            datagrams: received.datagrams,
            bytes: received.bytes,
            cc_errors: received.cc,
            rtp_lost: received.rtp_lost,
            jitter_us: received.jitter_us,
            host_drop: received.host_drop,
        }
    }
}

impl ViewerRecordPart {
    fn new(visit: &ViewerRecord) -> Self {
        Self {
            relay: visit.relay.to_string(),
            viewer: visit.viewer,
            at: visit.at.format(&Rfc3339).ok(),
            to: visit.to,
            watched_us: micros(visit.watched),
            sent: SentPart::new(&visit.sent),
            received: visit.received.as_ref().map(ReceivedPart::new),
            network_lost: visit.sent.network_lost(visit.received.as_ref()),
            end: visit.end.to_string(),
            reason: visit.reason.clone(),
        }
    }
}

fn word(standing: ViewerState) -> &'static str {
    match standing {
        ViewerState::Unconnected => "out",
        ViewerState::Running => "running",
        ViewerState::Paused => "paused",
    }
}
