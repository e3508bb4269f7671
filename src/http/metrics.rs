//! The same figures for Prometheus, in its text format 0.0.4: results from the ledger, progress
//! and muster from the lobby's views.

use std::fmt::Display;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use crate::http::Face;
use crate::http::connection::Reply;
use crate::server::lobby::Lobby;
use crate::transfer::Outcome;
use crate::units::total_saturating;

/// Metrics being written.
#[derive(Default)]
struct Metrics {
    text: String,
}

impl Metrics {
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            // Controls never stand in our labels; these three are what the format escapes.
            let text = crate::text::escape(text)
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.sample(name, &[], value);
    }
}

impl Face {
    pub(super) fn metrics(&self, lobby: &Lobby) -> Reply {
        let mut metrics = Metrics::default();
        let (views, totals) = (lobby.views(), lobby.history().totals());
        metrics.one(
            "gatecast_sessions_ended_total",
            "counter",
            "Sessions that have ended.",
            totals.sessions,
        );
        metrics.begin(
            "gatecast_transfers_total",
            "counter",
            "Transfers in the session log, by outcome.",
        );
        for (outcome, count) in Outcome::ALL.iter().zip(totals.outcomes) {
            let labels = [("outcome", outcome.word())];
            metrics.sample("gatecast_transfers_total", &labels, count);
        }
        metrics.one(
            "gatecast_transfers_proven_total",
            "counter",
            "Transfers whose copy is proven by its digest.",
            totals.proven,
        );
        metrics.one(
            "gatecast_session_bytes_total",
            "counter",
            "Payload bytes sent in ended transfers.",
            totals.bytes_server,
        );
        metrics.one(
            "gatecast_download_bytes_total",
            "counter",
            "Payload bytes sent outside of sessions.",
            self.counts.bytes_at_once.load(Ordering::Relaxed),
        );
        metrics.begin(
            "gatecast_requests_total",
            "counter",
            "HTTP answers, by the first digit of their status.",
        );
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"]
            .iter()
            .zip(&self.counts.requests)
        {
            let count = count.load(Ordering::Relaxed);
            metrics.sample("gatecast_requests_total", &[("status", class)], count);
        }
        metrics.one(
            "gatecast_http_connections",
            "gauge",
            "HTTP connections that are open.",
            self.counts.connections.load(Ordering::Relaxed),
        );
        metrics.one(
            "gatecast_subscribers",
            "gauge",
            "Subscribers of the events.",
            self.counts.subscribers.load(Ordering::Relaxed),
        );
        metrics.one(
            "gatecast_sessions_open",
            "gauge",
            "Sessions that have not ended.",
            views.len(),
        );
        type Count = fn(&crate::server::gate::GateView) -> u64;
        let of_sessions: [(&str, &str, Count); 4] = [
            ("gatecast_seats_wanted", "Seats of an open session.", |v| {
                v.clients.into()
            }),
            (
                "gatecast_seats_taken",
                "Clients in the seats of an open session.",
                |v| v.seats.len() as u64,
            ),
            ("gatecast_seats_ready", "Clients that are ready.", |v| {
                v.seats.iter().filter(|seat| seat.ready).count() as u64
            }),
            (
                "gatecast_moved_bytes",
                "Payload bytes that an open session has moved.",
                |v| total_saturating(v.seats.iter().map(|seat| seat.moved)),
            ),
        ];
        for (name, help, count) in of_sessions {
            metrics.begin(name, "gauge", help);
            for view in &views {
                let session = view.session.to_string();
                let labels = [
                    ("session", &*session),
                    ("via", view.via.word()),
                    ("file", &*view.file),
                ];
                metrics.sample(name, &labels, count(view));
            }
        }
        if let Some(record) = lobby.history().ended().last() {
            let session = record.session.to_string();
            let labels = [("session", &*session), ("via", record.via.word())];
            let global = record.global();
            let last = [
                (
                    "gatecast_last_session_seconds",
                    "Release to the last byte.",
                    global.seconds.map(|s| s.as_secs_f64()),
                ),
                (
                    "gatecast_last_session_rate_mbit",
                    "Global rate, Mbit/s.",
                    global.rate_mbit,
                ),
            ];
            for (name, help, value) in last {
                metrics.begin(name, "gauge", help);
                // A figure that is missing has no sample.
                if let Some(value) = value {
                    metrics.sample(name, &labels, value);
                }
            }
        }
        Reply::new(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics.text,
        )
    }
}
