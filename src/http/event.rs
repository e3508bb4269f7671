//! Events: what the page, `GET /events` and `--events` on the command line show, one JSON
//! document each, `gatecast.event/1`. `event.schema.json` beside this file is their schema.
//!
//! - `state`: everything about the sessions that have not ended, and which ones have
//! - `session`: a session has ended; its document
//! - `swarm`: which peer had which chunk first, and how much each got from whom; its document
//! - `clients`: the clients of a `fetch`, as that process sees them
//!
//! Each state is complete: a subscriber that misses some of them needs only the next one.

use std::sync::Arc;

use time::format_description::well_known::Rfc3339;

use crate::{
    client::ClientView,
    net::clock,
    proto::json::Json,
    server::{
        gate::{GateView, SeatEnd},
        lobby::Lobby,
        transport::{MAP_MAX, SeatDetail},
    },
    transfer::{Outcome, Record, Transfer},
};

/// The schema's name and version.
pub const SCHEMA: &str = "gatecast.event/1";

/// The state of a server's sessions.
pub(super) fn state(id: u64, views: &[GateView], ended: &[Arc<Record>], lobby: &Lobby) -> String {
    Json::object(|json| {
        begin(json, "state");
        json.count("id", Some(id));
        json.maybe_text("at", clock::wall().format(&Rfc3339).ok());
        json.member("server", |json| {
            let settings = &lobby.settings;
            json.count("clients", settings.clients.map(u64::from));
            json.maybe_text("via", settings.via.map(|via| via.word()));
            json.maybe_text("address", lobby.address().map(|addr| addr.to_string()));
            json.maybe_text("file", settings.file.as_ref().map(|file| file.as_str()));
        });
        json.each("sessions", views, session);
        json.list("ended", |json| {
            ended.iter().for_each(|record| json.item_text(&record.session.to_string()));
        });
    })
}

fn session(json: &mut Json, view: &GateView) {
    json.text("session", view.session.to_string());
    json.text("via", view.via.word());
    json.member("file", |json| {
        json.text("name", &view.file);
        json.count("bytes", Some(view.bytes));
    });
    json.count("clients", Some(view.clients.into()));
    json.text("phase", phase(view));
    json.number("seconds_left", view.left.map(|left| rounded(left.as_secs_f64())));
    json.number("seconds_moving", view.released.map(|span| rounded(span.as_secs_f64())));
    json.each("seats", &view.seats, |json, seat| {
        json.count("seat", Some(seat.seat.0.into()));
        json.text("name", &seat.name);
        json.text("client", seat.peer.to_string());
        json.text("kind", seat.kind.word());
        json.truth("ready", seat.ready);
        json.count("bytes", Some(seat.moved));
        json.count("bytes_resumed", Some(seat.resumed));
        json.truth("finished", seat.end.is_some());
        end(json, seat.end.as_ref());
        detail(json, &seat.detail);
    });
    json.each("missing", &view.missing, |json, (seat, name)| {
        json.count("seat", Some(seat.0.into()));
        json.text("name", name);
    });
}

/// What a session does: `muster`, `moving`, or `ending` where its muster failed.
fn phase(view: &GateView) -> &'static str {
    match (view.left, view.released) {
        (Some(_), _) => "muster",
        (None, Some(_)) => "moving",
        (None, None) => "ending",
    }
}

/// How a seat ended, with the names of a session document; all `null` before.
fn end(json: &mut Json, end: Option<&SeatEnd>) {
    json.maybe_text("outcome", end.map(|end| end.outcome.word()));
    json.maybe_text("reason", end.and_then(|end| end.reason.as_ref()));
    json.maybe("verified", end.and_then(|end| end.verified));
}

fn detail(json: &mut Json, detail: &SeatDetail) {
    json.count("lost", detail.lost);
    if !detail.map.is_empty() {
        json.list("map", |json| {
            detail.map.iter().take(MAP_MAX).for_each(|percent| json.item_raw(percent.min(&100)));
        });
    }
}

/// What is told when a session has ended: a `session`, whose document is a `gatecast.session/1`;
/// and of a server with swarms a `swarm`, a `gatecast.swarm/1`.
pub fn ended_with(event: &str, document: &str) -> String {
    Json::object(|json| {
        begin(json, event);
        json.raw("document", document);
    })
}

/// The clients of one process.
pub fn clients(views: &[ClientView]) -> String {
    Json::object(|json| {
        begin(json, "clients");
        json.maybe_text("at", clock::wall().format(&Rfc3339).ok());
        json.each("clients", (1..).zip(views), |json, (number, view)| {
            json.count("client", Some(number));
            json.text("stage", view.stage.word());
            json.count("bytes", Some(view.moved));
            json.count("bytes_total", Some(view.bytes).filter(|&bytes| bytes > 0));
            json.count("ready", view.muster.map(|(ready, _)| ready.into()));
            json.count("clients", view.muster.map(|(_, clients)| clients.into()));
        });
    })
}

/// The ended sessions that are kept, newest last, in short.
pub(super) fn ended(records: &[Arc<Record>]) -> String {
    Json::object(|json| {
        json.text("schema", "gatecast.sessions/1");
        json.each("sessions", records, |json, record| {
            json.text("session", record.session.to_string());
            json.text("via", record.via.word());
            json.text("file", record.file.name.as_str());
            json.count("bytes", Some(record.file.bytes));
            json.count("clients", Some(record.clients.into()));
            let complete = |row: &&Transfer| row.outcome == Outcome::Complete;
            json.raw("complete", record.transfers.iter().filter(complete).count());
            json.raw("proven", record.proven());
            let released = record.released_at.and_then(|at| at.format(&Rfc3339).ok());
            json.maybe_text("released_at", released);
        });
    })
}

fn begin(json: &mut Json, event: &str) {
    json.text("schema", SCHEMA);
    json.text("event", event);
}

/// Rounds to the millisecond: a state may be a second old when it is read.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}
