use super::*;
use crate::{
    session::Via,
    testbed::{
        star::layout,
        study::contender::{SeatResult, native::Native},
    },
    units::Rate,
};

fn cell(clients: u16) -> Cell {
    Cell { rate: 100_000_000, loss: 0, bytes: 10_000_000, clients, way: "tcp".to_owned() }
}

fn seat(host: usize, seconds: f64) -> SeatResult {
    SeatResult {
        host,
        outcome: "complete".to_owned(),
        verified: Some(true),
        seconds: Some(seconds),
        seconds_verified: Some(seconds + 0.1),
        bytes: Some(10_000_000),
        bytes_from_server: None,
        bytes_from_peers: None,
    }
}

fn run(clients: u16, repeat: u32, makespan: f64) -> StudyRun {
    let seats = (1..=usize::from(clients)).map(|host| {
        let share = host as f64 / f64::from(clients);
        seat(host, makespan * (0.8 + 0.2 * share))
    });
    StudyRun {
        cell: cell(clients),
        repeat,
        bound_s: Some(0.84 * f64::from(clients)),
        bound_nominal_s: Some(0.8 * f64::from(clients)),
        observed: Some(Observed {
            makespan_s: Some(makespan),
            verified_s: Some(makespan + 0.1),
            cpu_server_s: Some(0.1),
            cpu_clients_s: Some(0.2),
            seats: seats.collect(),
            ..Observed::default()
        }),
        failed: None,
        carried: (0..=clients).map(|_| LinkBytes { up: 7, down: 9 }).collect(),
        cpu_others_s: None,
        took_s: makespan + 1.0,
    }
}

/// A study of tcp with 1 and 4 clients, three runs each.
pub(crate) fn sample() -> Results {
    let grid = Grid {
        clients: vec![1, 4],
        ways: vec!["tcp".to_owned()],
        bytes: vec![10_000_000],
        rates: vec![100_000_000],
        losses: vec![0],
        runs: 3,
    };
    let mut results = Results::new(Environment::default(), grid, "sample links".to_owned());
    for (repeat, (four, one)) in (0..).zip([(3.55, 0.85), (3.65, 0.95), (3.6, 0.9)]) {
        results.add(run(4, repeat, four));
        results.add(run(1, repeat, one));
    }
    results
}

#[test]
fn rows_are_computed_from_runs() {
    let results = sample();
    let clients: Vec<u16> = results.rows.iter().map(|row| row.clients).collect();
    assert_eq!(clients, [1, 4]);
    let row = &results.rows[1];
    let middle = row.makespan_s.expect("measured");
    assert_eq!((middle.median, middle.low, middle.high), (3.6, 3.55, 3.65));
    assert_eq!(row.efficiency, Some(3.36 / 3.6));
    assert!((row.spread.expect("times") - 0.15).abs() < 1e-9);
    assert_eq!(row.clients_sent_bytes, Some(28.0));
    assert_eq!(row.from_peers_bytes, None, "tcp does not say, so nobody knows");
    assert!(row.verified && results.all_proven());
}

#[test]
fn failed_run_is_counted_without_its_figures() {
    let mut results = sample();
    let mut cut = run(4, 3, 0.5);
    let observed = cut.observed.as_mut().expect("observed");
    observed.seats[0].verified = Some(false);
    results.add(cut);
    let mut lost = run(4, 4, 0.0);
    lost.observed = None;
    lost.failed = Some("the server did not start".to_owned());
    assert_eq!(lost.trouble(), Some("the server did not start"));
    results.add(lost);
    let mut invalid = run(4, 5, 0.5);
    let observed = invalid.observed.as_mut().expect("observed");
    observed.trouble.push("INVALID".to_owned());
    results.add(invalid);
    let row = &results.rows[1];
    assert_eq!((row.runs, row.failed, row.verified), (6, 3, false));
    assert_eq!(row.makespan_s.map(|middle| middle.median), Some(3.6));
    assert!(!results.all_proven());
}

#[test]
fn document_is_read_back_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.json");
    let results = sample();
    results.write(&path).expect("written");
    assert_eq!(Results::read(&path).expect("read"), results);
    assert!(results.run(&cell(4), 2).is_some());
    assert!(results.run(&cell(4), 3).is_none());

    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, &text[..text.len() / 2]).expect("written");
    assert!(Results::read(&path).is_err());
    fs::write(&path, text.replace("gatecast.study/1", "gatecast.study/9")).expect("written");
    let error = Results::read(&path).expect_err("another").to_string();
    assert!(error.contains("gatecast.study/9"), "{error}");
    assert!(Results::read(folder.path()).is_err());
}

#[test]
fn bounds_are_of_the_links_that_were_measured() {
    let host = |number: u8, link: layout::LinkRates| Host {
        namespace: "/".into(),
        address: [10, 77, 0, number].into(),
        device: "eth0".to_owned(),
        link,
    };
    let link = |up: u64, down: u64| layout::LinkRates { up: Rate(up), down: Rate(down) };
    let hosts = [
        host(1, link(100_000_000, 100_000_000)),
        host(2, link(100_000_000, 100_000_000)),
        host(3, link(100_000_000, 10_000_000)),
    ];
    let measured = Calibration {
        tcp_alone_mbit: 94.0,
        tcp_expected_mbit: 100.0 * calibrate::TCP_SHARE,
        udp_alone_mbit: 97.2259,
        udp_expected_mbit: 97.2259,
        round_trip_us: 100,
        together_mbit: Vec::new(),
        together_expected_mbit: Vec::new(),
        loss_check: None,
    };
    let way = |via| Native { via, program: "gatecast".into(), congestion: None };
    let near = |got: (f64, f64), want: (f64, f64)| {
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-4;
        assert!(close(got.0, want.0) && close(got.1, want.1), "{got:?} {want:?}");
    };
    near(bounds(&way(Via::Tcp), &cell(1), &hosts, &measured), (80.0 / 94.0, 0.8));
    // The second client's downlink is the narrowest place.
    near(bounds(&way(Via::Tcp), &cell(2), &hosts, &measured), (80.0 / 9.4, 8.0));
    let udp = 0.8 / (1408.0 / 1474.0);
    near(bounds(&way(Via::Multicast), &cell(1), &hosts, &measured), (udp, 0.8));
    let lossy = Cell { loss: 100_000, ..cell(1) };
    near(bounds(&way(Via::Udp), &lossy, &hosts, &measured), (0.8 / (1448.0 / 1514.0) / 0.9, 0.8));
}

#[test]
fn study_fits_its_schema() {
    let mut results = sample();
    let mut failed = run(4, 3, 1.0);
    failed.observed = None;
    failed.failed = Some("nobody came".to_owned());
    results.add(failed);
    let document = serde_json::to_value(&results).expect("strings, numbers and lists");
    crate::report::schema::check(&document, crate::report::schema::STUDY).expect("fits");
}
