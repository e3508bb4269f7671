//! A relay and its viewers as JSON: a line each second, `gatecast.relay/1` and `gatecast.watch/1`,
//! and `gatecast.visits/1` for those that have left.
//!
//! Names and units of the fields are a contract, written down in `relay.schema.json` beside this:
//! fields may join, none changes. Counts are since the beginning, in datagrams where no unit is
//! named; unknown is `null`.

use time::format_description::well_known::Rfc3339;

use crate::{
    proto::{
        histogram::Delay,
        json::{self, Json},
        relay::{
            log::ViewerRecord,
            reports::{ReceiverReport, SenderReport},
            status::{RecordSnapshot, RelaySnapshot, ViewerSnapshot, WatchSnapshot},
        },
        stream::StreamCounts,
    },
    text::escape_path,
    units::micros,
};

/// A relay at a moment, in one line with its end.
pub fn relay_event(snapshot: &RelaySnapshot) -> String {
    Json::object(|json| {
        json.text("schema", "gatecast.relay/1");
        json.text("relay", snapshot.relay.to_string());
        json.number("seconds", Some(snapshot.up.as_secs_f64()));
        json.truth("awake", snapshot.awake);
        json.member("input", |json| stream(json, &snapshot.input));
        json.each("lower_inputs", &snapshot.lower, stream);
        json.raw("foreign", snapshot.foreign);
        json.raw("stale", snapshot.stale);
        json.count("dropped", snapshot.dropped);
        json.raw("batches", snapshot.batches);
        delay(json, &snapshot.delay);
        json.each("streams", &snapshot.streams, |json, stream| {
            json.raw("pid", stream.pid);
            json.raw("type", stream.kind);
        });
        json.maybe_member("group", snapshot.group.as_ref(), viewer);
        json.each("viewers", &snapshot.viewers, viewer);
        json.maybe_member("recording", snapshot.recording.as_ref(), recording);
    }) + "\n"
}

/// A viewer of ours at a moment, in one line with its end.
pub fn watch_event(view: &WatchSnapshot) -> String {
    let received = view.receiver_report();
    let network_lost = |sent: SenderReport| sent.network_lost(Some(&received));
    Json::object(|json| {
        json.text("schema", "gatecast.watch/1");
        json.text("at", view.at.to_string());
        json.number("seconds", Some(view.watched.as_secs_f64()));
        json.text("standing", view.state.to_string());
        json.member("received", |json| stream(json, &view.received));
        json.count("host_drop", view.host_drop);
        json.count("network_lost", view.sent.and_then(network_lost));
        json.raw("foreign", view.foreign);
        json.raw("unplayed", view.unplayed);
        json.raw("recorded_bytes", view.recorded);
        json.raw("unrecorded", view.unrecorded);
        json.maybe_member("sent", view.sent.as_ref(), sent);
    }) + "\n"
}

/// The viewers of relay logs, as one document over several lines.
pub fn viewers_document(records: &[ViewerRecord]) -> String {
    json::indented(&Json::object(|json| {
        json.text("schema", "gatecast.visits/1");
        json.each("visits", records, record);
    }))
}

fn stream(json: &mut Json, counts: &StreamCounts) {
    json.raw("datagrams", counts.datagrams);
    json.raw("bytes", counts.bytes);
    json.raw("not_ts", counts.not_ts);
    json.raw("cc_errors", counts.ts.errors);
    json.raw("cc_lost_at_least", counts.ts.lost);
    json.raw("transport_errors", counts.ts.damaged);
    json.count("rtp_lost", counts.rtp.map(|rtp| rtp.lost));
    json.count("rtp_duplicate", counts.rtp.map(|rtp| rtp.duplicate));
    json.count("rtp_reordered", counts.rtp.map(|rtp| rtp.reordered));
    json.number("jitter_us", counts.jitter_us);
}

fn recording(json: &mut Json, recording: &RecordSnapshot) {
    json.text("list", escape_path(&recording.list));
    json.raw("segments", recording.segments);
    json.raw("bytes", recording.bytes);
    json.raw("unrecorded", recording.lost);
    json.maybe_text("failed", recording.failed.as_deref());
}

// No `network_lost`: sent and received are not of one instant while the stream runs, and what is
// on its way is in no report.
fn viewer(json: &mut Json, view: &ViewerSnapshot) {
    json.raw("viewer", view.viewer);
    json.maybe_text("name", view.name.as_ref());
    json.text("to", view.to.to_string());
    json.text("standing", view.state.to_string());
    json.count("input", view.input.map(|(input, _)| input));
    json.count("input_changes", view.input.map(|(_, changes)| changes));
    json.truth("native", view.native);
    json.number("seconds", Some(view.watched.as_secs_f64()));
    json.member("sent", |json| sent(json, &view.sent));
    json.maybe_member("received", view.received.as_ref(), received);
    json.count("network_lost_at_most", view.network_lost_at_most);
}

fn record(json: &mut Json, record: &ViewerRecord) {
    json.text("relay", record.relay.to_string());
    json.raw("viewer", record.viewer);
    json.maybe_text("at", record.at.format(&Rfc3339).ok());
    json.text("to", record.to.to_string());
    json.raw("watched_us", micros(record.watched));
    json.member("sent", |json| sent(json, &record.sent));
    json.maybe_member("received", record.received.as_ref(), received);
    let network_lost = record.sent.network_lost(record.received.as_ref());
    json.count("network_lost", network_lost);
    json.text("end", record.end.to_string());
    json.maybe_text("reason", record.reason.as_deref());
}

fn sent(json: &mut Json, sent: &SenderReport) {
    json.raw("datagrams", sent.sent);
    json.raw("bytes", sent.bytes);
    json.raw("dropped", sent.dropped);
    json.raw("paused", sent.paused);
    json.raw("source_cc_errors", sent.cc);
    json.count("source_rtp_lost", sent.rtp_lost);
    json.count("source_jitter_us", sent.jitter_us);
    delay(json, &sent.delay);
}

fn delay(json: &mut Json, delay: &Delay) {
    json.count("delay_p50_us", delay.p50_us);
    json.count("delay_p99_us", delay.p99_us);
    json.count("delay_worst_us", delay.worst_us);
}

fn received(json: &mut Json, received: &ReceiverReport) {
    json.raw("datagrams", received.datagrams);
    json.raw("bytes", received.bytes);
    json.raw("cc_errors", received.cc);
    json.count("rtp_lost", received.rtp_lost);
    json.count("jitter_us", received.jitter_us);
    json.count("host_drop", received.host_drop);
}
