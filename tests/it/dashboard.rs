//! The dashboard for Grafana, held against the metrics that server and relay have.

use std::collections::BTreeSet;

use gatecast::internals::{http, proto::relay::metrics};
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../docs/grafana.json");

/// The queries of all panels, with the titles.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let panels = panels.filter(|panel| panel["type"] != "row");
    let mut queries = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        queries.extend(targets.iter().map(|target| {
            (title.to_owned(), target["expr"].as_str().expect("a query").to_owned())
        }));
    }
    queries
}

/// The metrics that a query names.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|ch: char| !ch.is_ascii_alphanumeric() && ch != '_');
    words.filter(|word| word.starts_with("gatecast_"))
}

fn known() -> BTreeSet<&'static str> {
    let lines = http::METRICS.lines().chain(metrics::METRICS.lines());
    lines.map(|line| line.split(' ').next().expect("a name")).collect()
}

#[test]
fn dashboard_asks_for_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let (queries, known) = (queries(&dashboard), known());
    for (title, query) in &queries {
        assert!(names(query).next().is_some(), "{title}: {query}");
        for name in names(query) {
            assert!(known.contains(name), "{title}: there is no {name}");
            // A counter says something only as a rate, and nothing else has one.
            let at = query.find(name).expect("it is in it");
            let is_rated = query[..at].ends_with("rate(") || query[..at].ends_with("increase(");
            assert_eq!(is_rated, name.ends_with("_total"), "{title}: {query}");
        }
    }
    let named: BTreeSet<&str> = queries.iter().flat_map(|(_, query)| names(query)).collect();
    let (relay, server): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|name| name.starts_with("gatecast_relay_"));
    assert!(relay.len() >= 10 && server.len() >= 8, "{relay:?} {server:?}");
}

#[test]
fn panels_of_the_dashboard_stand_side_by_side() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let place = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        let (x, y) = (place("x"), place("y"));
        for cell in (x..x + place("w")).flat_map(|x| (y..y + place("h")).map(move |y| (x, y))) {
            assert!(cell.0 < 24 && taken.insert(cell), "{}", panel["title"]);
        }
        assert!(ids.insert(panel["id"].as_u64()), "{}", panel["title"]);
    }
}
