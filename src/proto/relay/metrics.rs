//! A relay and its viewers as Prometheus text.

use crate::proto::{
    prometheus::MetricsText,
    relay::{
        ViewerState,
        status::{RelaySnapshot, ViewerSnapshot},
    },
};

/// Every metric: its name, its kind, its help.
pub const METRICS: &str = "\
gatecast_relay_awake gauge 1 while the relay reads its input, 0 while nobody watches.
gatecast_relay_input_datagrams_total counter Datagrams read.
gatecast_relay_input_bytes_total counter Bytes read.
gatecast_relay_input_cc_errors_total counter Continuity errors in what was read.
gatecast_relay_input_rtp_lost gauge Datagrams missing by RTP; a late one is missing no more.
gatecast_relay_input_dropped_total counter Datagrams that the system dropped unread.
gatecast_relay_input_foreign_total counter Datagrams of a second sender, which are not sent on.
gatecast_relay_input_jitter_seconds gauge Inter-arrival jitter.
gatecast_relay_delay_seconds gauge Time through the relay, to the viewers that are here.
gatecast_relay_subscribers gauge Subscribers of the events.
gatecast_relay_viewers gauge Viewers that are here.
gatecast_relay_viewer_running gauge 1 while the viewer is sent the stream, 0 while it is paused.
gatecast_relay_viewer_input gauge Which of several inputs the viewer gets, from 1.
gatecast_relay_viewer_input_changes_total counter Times that it came to another input.
gatecast_relay_viewer_sent_datagrams_total counter Datagrams sent.
gatecast_relay_viewer_sent_bytes_total counter Bytes sent.
gatecast_relay_viewer_dropped_total counter Datagrams for which the viewer had no room.
gatecast_relay_viewer_paused_total counter Datagrams that passed in pauses.
gatecast_relay_viewer_delay_seconds gauge Time through the relay.
gatecast_relay_viewer_received_datagrams_total counter Datagrams received, as it last told.
gatecast_relay_viewer_network_lost gauge Datagrams lost or on their way when it last told.
gatecast_relay_viewer_host_dropped_total counter Datagrams that its own system dropped.
gatecast_relay_viewer_cc_errors_total counter Continuity errors in what it received.
gatecast_relay_viewer_jitter_seconds gauge Inter-arrival jitter at the viewer.
";

/// The name of a metric, the quantile of it if it has any, and the value, if it is known.
type MetricValue<T> = (&'static str, Option<&'static str>, fn(&T) -> Option<f64>);

const RELAY: [MetricValue<RelaySnapshot>; 11] = [
    ("gatecast_relay_awake", None, |r| Some(u8::from(r.awake).into())),
    ("gatecast_relay_input_datagrams_total", None, |r| Some(r.input.datagrams as f64)),
    ("gatecast_relay_input_bytes_total", None, |r| Some(r.input.bytes as f64)),
    ("gatecast_relay_input_cc_errors_total", None, |r| Some(r.input.ts.errors as f64)),
    ("gatecast_relay_input_rtp_lost", None, |r| Some(r.input.rtp?.lost as f64)),
    ("gatecast_relay_input_dropped_total", None, |r| Some(r.dropped? as f64)),
    ("gatecast_relay_input_foreign_total", None, |r| Some(r.foreign as f64)),
    ("gatecast_relay_input_jitter_seconds", None, |r| Some(r.input.jitter_us? / 1e6)),
    ("gatecast_relay_delay_seconds", Some("0.5"), |r| seconds(r.delay.p50_us)),
    ("gatecast_relay_delay_seconds", Some("0.99"), |r| seconds(r.delay.p99_us)),
    ("gatecast_relay_viewers", None, |r| Some(r.viewers.len() as f64)),
];

const VIEWER: [MetricValue<ViewerSnapshot>; 14] = [
    ("gatecast_relay_viewer_running", None, |v| {
        Some(u8::from(matches!(v.state, ViewerState::Running | ViewerState::Grouped)).into())
    }),
    ("gatecast_relay_viewer_input", None, |v| Some(v.input?.0 as f64)),
    ("gatecast_relay_viewer_input_changes_total", None, |v| Some(v.input?.1 as f64)),
    ("gatecast_relay_viewer_sent_datagrams_total", None, |v| Some(v.sent.sent as f64)),
    ("gatecast_relay_viewer_sent_bytes_total", None, |v| Some(v.sent.bytes as f64)),
    ("gatecast_relay_viewer_dropped_total", None, |v| Some(v.sent.dropped as f64)),
    ("gatecast_relay_viewer_paused_total", None, |v| Some(v.sent.paused as f64)),
    ("gatecast_relay_viewer_delay_seconds", Some("0.5"), |v| seconds(v.sent.delay.p50_us)),
    ("gatecast_relay_viewer_delay_seconds", Some("0.99"), |v| seconds(v.sent.delay.p99_us)),
    ("gatecast_relay_viewer_received_datagrams_total", None, |v| {
        Some(v.received?.datagrams as f64)
    }),
    ("gatecast_relay_viewer_network_lost", None, |v| Some(v.network_lost_at_most? as f64)),
    ("gatecast_relay_viewer_host_dropped_total", None, |v| Some(v.received?.host_drop? as f64)),
    ("gatecast_relay_viewer_cc_errors_total", None, |v| Some(v.received?.cc as f64)),
    ("gatecast_relay_viewer_jitter_seconds", None, |v| seconds(v.received?.jitter_us)),
];

/// The metrics of a relay, of whose events there are `subscribers`. A figure that is not known has
/// no sample.
pub fn metrics(relay: &RelaySnapshot, subscribers: usize) -> String {
    let mut text = MetricsText::new(METRICS);
    write(&mut text, &RELAY, &[(relay, [])]);
    text.single("gatecast_relay_subscribers", subscribers);
    let names: Vec<[String; 3]> = (relay.viewers.iter())
        .map(|v| [v.viewer.to_string(), v.to.to_string(), v.name.clone().unwrap_or_default()])
        .collect();
    let labels = names.iter().map(|[viewer, to, name]| {
        [("viewer", viewer.as_str()), ("to", to.as_str()), ("name", name.as_str())]
    });
    let viewers: Vec<_> = relay.viewers.iter().zip(labels).collect();
    write(&mut text, &VIEWER, &viewers);
    text.finish()
}

fn write<T, const N: usize>(
    text: &mut MetricsText,
    figures: &[MetricValue<T>],
    of: &[(&T, [(&str, &str); N])],
) {
    let mut begun = "";
    for (name, quantile, value) in figures {
        if begun != *name {
            text.begin(name);
            begun = name;
        }
        for (item, labels) in of {
            let quantile = quantile.map(|quantile| ("quantile", quantile));
            let labels: Vec<_> = labels.iter().copied().chain(quantile).collect();
            value(item).iter().for_each(|value| text.sample(name, &labels, value));
        }
    }
}

fn seconds(us: Option<u64>) -> Option<f64> {
    Some(us? as f64 / 1e6)
}
