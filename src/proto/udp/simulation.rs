//! All machines over a simulated link in virtual time: loss, duplicates, reordering and delay
//! from a seed, and a table of what each way needs.

use std::{fmt::Write, time::Duration};

use proptest::prelude::*;

use crate::proto::udp::{
    group_sender::LAG,
    simulation::world::{Link, SLOT, World},
};

mod anything;
mod world;

fn link(loss: f64, seed: u64) -> Link {
    Link {
        loss,
        loss_of_the_first: loss,
        duplicate: 0.0,
        jitter: (0.0, Duration::ZERO),
        delay: Duration::from_micros(300),
        queue: Duration::ZERO,
        line_loss: 0.0,
        seed,
    }
}

/// Time over the least possible, and datagrams sent over blocks.
fn ratio(group: bool, clients: u16, blocks: u32, link: Link) -> (f64, f64) {
    let run = World::new(group, clients, blocks, link).run();
    assert_eq!(run.whole, usize::from(clients), "{link:?}");
    let streams = if group { 1 } else { u64::from(clients) };
    let least = (u64::from(blocks) * streams * SLOT) as f64 / 1e6;
    let sent = run.datagrams as f64 / (u64::from(blocks) * streams) as f64;
    (run.seconds / least, sent)
}

#[test]
fn the_table_of_loss_clients_and_size() {
    let mut table = String::from("way        clients  blocks  loss  time/bound  sent/blocks\n");
    for (group, way) in [(false, "udp"), (true, "multicast")] {
        for clients in [1, 4, 13] {
            for blocks in [300, 3000] {
                for percent in [0, 1, 5, 20] {
                    let link = link(f64::from(percent) / 100.0, 1);
                    let (time, sent) = ratio(group, clients, blocks, link);
                    let _ = writeln!(
                        table,
                        "{way:9}  {clients:7}  {blocks:6}  {percent:3}%  {time:10.3}  {sent:11.3}"
                    );
                }
            }
        }
    }
    insta::assert_snapshot!(table, @r#"
    way        clients  blocks  loss  time/bound  sent/blocks
    udp              1     300    0%       1.017        1.003
    udp              1     300    1%       1.044        1.013
    udp              1     300    5%       1.088        1.057
    udp              1     300   20%       1.587        1.263
    udp              1    3000    0%       1.002        1.000
    udp              1    3000    1%       1.010        1.009
    udp              1    3000    5%       1.057        1.054
    udp              1    3000   20%       1.287        1.249
    udp              4     300    0%       1.003        1.000
    udp              4     300    1%       1.016        1.014
    udp              4     300    5%       1.062        1.057
    udp              4     300   20%       1.437        1.286
    udp              4    3000    0%       1.000        1.000
    udp              4    3000    1%       1.012        1.011
    udp              4    3000    5%       1.062        1.052
    udp              4    3000   20%       1.267        1.256
    udp             13     300    0%       1.001        1.001
    udp             13     300    1%       1.013        1.011
    udp             13     300    5%       1.055        1.053
    udp             13     300   20%       1.280        1.254
    udp             13    3000    0%       1.000        1.000
    udp             13    3000    1%       1.011        1.011
    udp             13    3000    5%       1.052        1.051
    udp             13    3000   20%       1.255        1.251
    multicast        1     300    0%       1.020        1.007
    multicast        1     300    1%       1.027        1.013
    multicast        1     300    5%       1.097        1.060
    multicast        1     300   20%       1.370        1.267
    multicast        1    3000    0%       1.002        1.001
    multicast        1    3000    1%       1.013        1.010
    multicast        1    3000    5%       1.058        1.055
    multicast        1    3000   20%       1.278        1.250
    multicast        4     300    0%       1.020        1.007
    multicast        4     300    1%       1.077        1.027
    multicast        4     300    5%       1.124        1.077
    multicast        4     300   20%       1.663        1.333
    multicast        4    3000    0%       1.002        1.001
    multicast        4    3000    1%       1.018        1.013
    multicast        4    3000    5%       1.071        1.058
    multicast        4    3000   20%       1.321        1.268
    multicast       13     300    0%       1.020        1.007
    multicast       13     300    1%       1.128        1.027
    multicast       13     300    5%       1.253        1.100
    multicast       13     300   20%       2.313        1.377
    multicast       13    3000    0%       1.002        1.001
    multicast       13    3000    1%       1.031        1.016
    multicast       13    3000    5%       1.108        1.061
    multicast       13    3000   20%       1.406        1.286
    "#);
}

#[test]
fn client_with_heavy_loss_is_repaired_alone_after_the_group() {
    let mut link = link(0.01, 3);
    let control = World::new(true, 13, 3000, link).run();
    link.loss_of_the_first = 0.4;
    let run = World::new(true, 13, 3000, link).run();
    assert_eq!((control.asides, run.asides), (0, 1));
    assert_eq!(run.whole, 13);
    let (last, rest) = run.done.split_last().expect("thirteen");
    assert_eq!(last.0, 1, "it is done after the others");
    let others = rest.last().expect("twelve").1;
    assert!(others < control.seconds * 1.1, "{others} s beside {} s without it", control.seconds);
}

#[test]
fn group_of_25_survives_heavy_loss_a_late_join_and_a_kill() {
    let blocks = 20_000;
    let mut link = link(0.005, 11);
    let control = World::new(true, 25, blocks, link).run();
    link.loss_of_the_first = 0.3;
    let mut world = World::new(true, 25, blocks, link);
    world.late(2, 1_000_000);
    world.dies(3, 1_200_000);
    let run = world.run();
    assert_eq!((control.whole, run.whole), (25, 24));
    let (others, last) = run.done.split_at(22);
    let mut last: Vec<u16> = last.iter().map(|&(n, _)| n).collect();
    last.sort_unstable();
    assert_eq!(last, [1, 2], "they are done after the others");
    // Who is killed is waited for twice: until it lags, and for its first answer.
    let limit = control.seconds * 1.1 + 2.0 * LAG.as_secs_f64();
    assert!(others[21].1 < limit, "{others:?} beside {}", control.seconds);
    // The two are passed over together; each alone would take a third of the file and half of it.
    let more = run.datagrams - control.datagrams;
    assert!(more < u64::from(blocks) * 3 / 4, "{more} of {blocks}");
}

#[test]
fn group_repair_costs_less_than_repair_of_each_client() {
    let link = link(0.05, 5);
    let group = World::new(true, 13, 3000, link).run();
    let each = World::new(false, 13, 3000, link).run();
    assert!(group.datagrams * 10 < each.datagrams, "{group:?} {each:?}");
}

#[test]
fn lost_answer_holds_the_group_for_a_moment_only() {
    let seconds = |line_loss, seed| {
        World::new(true, 13, 1000, Link { line_loss, ..link(0.05, seed) }).run().seconds
    };
    let held: f64 = (0..20).map(|seed| seconds(0.05, seed) - seconds(0.0, seed)).sum();
    assert!(held / 20.0 < 0.02, "{held} s in 20 runs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_client_gets_the_file_whatever_the_link_does(
        group: bool,
        clients in 1_u16..6,
        blocks in 1_u32..200,
        loss in 0.0..0.5_f64,
        loss_of_the_first in proptest::option::of(0.0..0.7_f64),
        duplicate in 0.0..0.3_f64,
        chance in 0.0..1.0_f64,
        extra_ms in 0_u64..40,
        delay_ms in 0_u64..30,
        seed: u64,
    ) {
        let link = Link {
            loss,
            loss_of_the_first: loss_of_the_first.unwrap_or(loss),
            duplicate,
            jitter: (chance, Duration::from_millis(extra_ms)),
            delay: Duration::from_millis(delay_ms),
            queue: Duration::ZERO,
            line_loss: 0.0,
            seed,
        };
        let run = World::new(group, clients, blocks, link).run();
        prop_assert_eq!(run.whole, usize::from(clients));
    }
}
