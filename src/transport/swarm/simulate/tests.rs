use super::*;

const LINK: f64 = 12.5e6;

fn plan(clients: usize, bytes: u64) -> SimulationConfig {
    SimulationConfig {
        bytes,
        server_up: LINK,
        clients: vec![(LINK, LINK); clients],
        links: 50,
        seed: 7,
    }
}

fn ratio(plan: &SimulationConfig) -> f64 {
    let outcome = run(plan).expect("it ends");
    outcome.makespan.as_secs_f64() / outcome.bound.as_secs_f64()
}

#[test]
fn bound_is_the_tightest_of_three() {
    let mut plan = plan(4, 25_000_000);
    assert_eq!(bound(&plan), Duration::from_secs(2));
    plan.clients[0].1 = LINK / 4.0;
    assert_eq!(bound(&plan), Duration::from_secs(8), "a slow downlink");
    plan.clients = vec![(0.0, LINK); 4];
    assert_eq!(bound(&plan), Duration::from_secs(8), "nobody gives");
}

#[test]
fn single_client_takes_as_long_as_its_link() {
    assert!(ratio(&plan(1, 25_000_000)) < 1.001);
}

#[test]
fn hundred_megabytes_take_little_more_than_the_bound() {
    for (clients, most) in [(2, 1.02), (8, 1.05), (13, 1.06), (50, 1.20)] {
        let ratio = ratio(&plan(clients, 100_000_000));
        assert!((1.0..most).contains(&ratio), "{clients}: {ratio}");
    }
}

#[test]
fn unequal_links_stay_within_a_quarter_of_the_bound() {
    let mut plan = plan(12, 100_000_000);
    plan.clients.iter_mut().step_by(2).for_each(|link| link.0 /= 4.0);
    let ratio = ratio(&plan);
    assert!((1.0..1.25).contains(&ratio), "{ratio}");
}

#[test]
fn server_sends_little_more_than_one_copy() {
    let outcome = run(&plan(13, 100_000_000)).expect("it ends");
    assert!(outcome.server_bytes < 110_000_000, "{}", outcome.server_bytes);
}

#[test]
fn equal_seeds_make_equal_runs() {
    assert_eq!(run(&plan(5, 5_000_000)), run(&plan(5, 5_000_000)));
    assert!(run(&plan(0, 5)).is_none() && run(&plan(5, 0)).is_none());
}
