//! The figures of `GET /metrics` in Prometheus's text format 0.0.4: results from the server's
//! history, progress and muster from the lobby's views.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    http::{feed::POLL_INTERVAL, state::HttpServer},
    net::shared_reply::stamp_of_now,
    proto::{
        http::response::HttpResponse,
        prometheus::{self, MetricsText},
    },
    server::{gate::GateView, lobby::Lobby},
    transfer::{Outcome, Record},
    units::total_saturating,
};

/// Every metric: its name, its kind, its help.
pub const METRICS: &str = include_str!("metrics.txt");

/// The name of a metric, and its value for an open session.
type SessionGauge = (&'static str, fn(&GateView) -> u64);

/// `/metrics`.
pub(super) fn get(server: &HttpServer, lobby: &Lobby) -> HttpResponse {
    let stamp = stamp_of_now(POLL_INTERVAL);
    let write = || Ok(metrics(server, lobby));
    server.replies.get("/metrics", prometheus::CONTENT_TYPE, stamp, write)
}

fn metrics(server: &HttpServer, lobby: &Lobby) -> String {
    let mut text = MetricsText::new(METRICS);
    let (views, totals) = (lobby.views(), lobby.history().totals());
    text.single("gatecast_sessions_ended_total", totals.sessions);
    text.begin("gatecast_transfers_total");
    for (outcome, count) in Outcome::ALL.iter().zip(totals.outcomes) {
        let labels = [("outcome", outcome.word())];
        text.sample("gatecast_transfers_total", &labels, count);
    }
    text.single("gatecast_transfers_proven_total", totals.proven);
    text.single("gatecast_session_bytes_total", totals.bytes_server);
    let counters = &server.counters;
    let download_bytes = server.downloads.bytes.load(Ordering::Relaxed);
    text.single("gatecast_download_bytes_total", download_bytes);
    text.begin("gatecast_requests_total");
    for (class, count) in (1..).zip(&counters.responses) {
        let labels = [("status", &*format!("{class}xx"))];
        let count = count.load(Ordering::Relaxed);
        text.sample("gatecast_requests_total", &labels, count);
    }
    let connections = Arc::strong_count(&counters.connections) - 1;
    text.single("gatecast_http_connections", connections);
    text.single("gatecast_subscribers", server.subscribers.count());
    text.single("gatecast_sessions_open", views.len());
    open_sessions(&mut text, &views);
    if let Some(record) = lobby.history().ended().last() {
        last_session(&mut text, record);
    }
    text.finish()
}

fn open_sessions(text: &mut MetricsText, views: &[GateView]) {
    let figures: [SessionGauge; 4] = [
        ("gatecast_seats_wanted", |view| view.clients.into()),
        ("gatecast_seats_taken", |view| view.seats.len() as u64),
        ("gatecast_seats_ready", |view| view.seats.iter().filter(|seat| seat.ready).count() as u64),
        ("gatecast_moved_bytes", |view| total_saturating(view.seats.iter().map(|seat| seat.moved))),
    ];
    for (name, value) in figures {
        text.begin(name);
        for view in views {
            let session = view.session.to_string();
            let labels = [("session", &*session), ("via", view.via.word()), ("file", &*view.file)];
            text.sample(name, &labels, value(view));
        }
    }
}

fn last_session(text: &mut MetricsText, record: &Record) {
    let session = record.session.to_string();
    let labels = [("session", &*session), ("via", record.via.word())];
    let global = record.global();
    let seconds = global.seconds.map(|span| span.as_secs_f64());
    for (name, value) in [
        ("gatecast_last_session_seconds", seconds),
        ("gatecast_last_session_rate_mbit", global.rate_mbit),
    ] {
        text.begin(name);
        // A figure that is missing has no sample.
        if let Some(value) = value {
            text.sample(name, &labels, value);
        }
    }
}
