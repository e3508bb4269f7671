//! One stream of 1316-byte datagrams to many viewers: the relay against the loops that it could
//! have been, alternated in one run.
//!
//! ```text
//! cargo bench --bench relay                  the first two tables
//! cargo bench --bench relay -- figures       loads that a relay must carry
//! cargo bench --bench relay -- figures 25    those of 25 viewers
//! cargo bench --bench relay -- limits        the highest rate without loss
//! cargo bench --bench relay -- limits 25     with 25 viewers
//! cargo bench --bench relay -- class         25 by UDP, 25 by HTTP and a group, at 60 Mbit/s
//! cargo bench --bench relay -- crowd         200 by HTTP at 8 Mbit/s, beside nginx
//! cargo bench --bench relay -- recording     what a recording costs
//! cargo bench --bench relay -- joins         how soon a player has a picture
//! cargo bench --bench relay --no-default-features      the relay on plain std
//! ```
//!
//! Source, relay and viewers share this machine. CPU is that of the relaying thread alone (all
//! threads, where there is one per viewer), by the scheduler's own count. The delay is from just
//! before the source's send to the arrival in the viewer's socket, by the kernel's stamp, so it is
//! measured alike for every way, and none of them measures itself. Lost is what a way lost; unread
//! is what arrived at a viewer's socket and found no room, because the viewers, who share two cores
//! with the rest, did not get to read.
//!
//! - `naive`: receive, then send to each from one socket; what the lab's relay does
//! - `batches`: receive all that is there, then one plain send per datagram and viewer
//! - `threads`: a reader, and a queue and a thread per viewer; what the lab's relay hoped for
//! - `relay`: ours, batches and one segmented send per viewer
//! - `relay 0 ms`, `relay 3 ms`: ours, `--gather` of so long
//! - `relay, 1 stopped`: ours, one of the viewers being a process under SIGSTOP

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use gatecast::internals::{
    net::{clock, datagrams::BatchSocket},
    proto::histogram::Histogram,
    relay::Relay,
};

use crate::{
    ends::{LOCAL, SIZE},
    way::{Relaying, Way},
};

mod ends;
#[path = "../ground/mod.rs"]
mod ground;
mod room;
mod way;

/// What one run was like.
struct Outcome {
    offered: u64,
    /// By the viewers that listen.
    wanted: u64,
    /// To all viewers.
    sent: u64,
    received: u64,
    /// Of those that are missing, what the viewers' own sockets had no room for; `None` where the
    /// system does not tell. The rest was lost on the way.
    unread: Option<u64>,
    cpu: Option<Duration>,
    took: Duration,
    delay: Histogram,
    worst_us: u64,
}

impl Outcome {
    fn lost(&self) -> u64 {
        self.wanted.saturating_sub(self.received)
    }

    /// Lost on the way, and lost by viewers that this machine is too small for.
    fn losses(&self) -> String {
        match self.unread {
            Some(unread) => format!("{}+{unread}", self.lost().saturating_sub(unread)),
            None => self.lost().to_string(),
        }
    }

    /// CPU per datagram and viewer, microseconds.
    fn cost_us(&self) -> Option<f64> {
        Some(1e6 * self.cpu?.as_secs_f64() / self.sent as f64)
    }

    fn share_of_core(&self) -> Option<f64> {
        Some(100.0 * self.cpu?.as_secs_f64() / self.took.as_secs_f64())
    }

    fn delay_ms(&self, per_mille: u64) -> Option<f64> {
        Some(self.delay.per_mille(per_mille)? as f64 / 1e3)
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == ends::VIEWER) {
        return ends::be_a_viewer(words[1].parse().expect("an address"));
    }
    if words.first().is_some_and(|word| word == room::RELAY) {
        return room::be_a_relay(&words[1..]);
    }
    if !ground::is_bench() {
        // `cargo test --benches`: that it runs at all.
        let outcome = measure(Way::Relay, 2, (500, BURSTS), Duration::from_millis(200));
        assert_eq!(outcome.lost(), 0, "a relay at rest loses nothing");
        return;
    }
    ground::stamp();
    println!(
        "relay        {SIZE}-byte datagrams, {} sends",
        if Relay::batched() { "batched" } else { "plain std" }
    );
    let rooms: [(&str, fn()); 4] = [
        ("class", room::class),
        ("crowd", room::crowd),
        ("recording", room::recording),
        ("joins", room::joins),
    ];
    let rooms: Vec<_> = rooms.into_iter().filter(|(name, _)| ground::named(name)).collect();
    if !rooms.is_empty() {
        return rooms.iter().for_each(|(_, measure)| measure());
    }
    // A number among the words takes only the loads of so many viewers.
    let only = words.iter().find_map(|word| word.parse::<usize>().ok());
    let (figured, limited) = (ground::named("figures"), ground::named("limits"));
    if figured || !limited {
        figures(only);
    }
    if limited || !figured {
        limits(only);
    }
}

/// The loads of the goals, each way in turn, three times.
fn figures(only: Option<usize>) {
    const RUN: Duration = Duration::from_secs(3);
    /// Datagrams come one by one, not a few together.
    const EVEN: &str = "60, even";
    let loads = [
        (1, 5_700, "60 Mbit/s"),
        (5, 5_700, "60 Mbit/s"),
        (25, 5_700, "60 Mbit/s"),
        (25, 5_700, EVEN),
        (25, 19_000, "200 Mbit/s"),
        (25, 40_000, "421 Mbit/s"),
        (100, 760, "8 Mbit/s"),
    ];
    println!(
        "\n{:<17}{:>8}{:>12}{:>30}{:>21}{:>23}{:>8}{:>25}{:>9}",
        "way",
        "viewers",
        "rate",
        "lost+unread",
        "cpu of a core, %",
        "us/datagram and viewer",
        "p50 ms",
        "p99 ms",
        "worst ms"
    );
    for (viewers, rate, name) in loads {
        if only.is_some_and(|only| only != viewers) {
            continue;
        }
        let mut ways =
            vec![Way::Naive, Way::Batches, Way::Relay, Way::Gather(3_000), Way::Gather(0)];
        match (viewers, rate) {
            (25, 5_700) if name != EVEN => ways.push(Way::Threads),
            (25, 19_000) => ways.push(Way::OneStopped),
            _ => {}
        }
        let mut runs: Vec<Vec<Outcome>> = ways.iter().map(|_| Vec::new()).collect();
        for _ in 0..ground::runs(3) {
            for (&way, runs) in ways.iter().zip(&mut runs) {
                let every = if name == EVEN { BURSTS / 5 } else { BURSTS };
                runs.push(measure(way, viewers, (rate, every), RUN));
            }
        }
        for (way, runs) in ways.iter().zip(&runs) {
            let of = |figure: fn(&Outcome) -> Option<f64>| {
                runs.iter().filter_map(figure).collect::<Vec<f64>>()
            };
            let lost: Vec<String> = runs.iter().map(Outcome::losses).collect();
            println!(
                "{:<17}{viewers:>8}{name:>12}{:>30}{:>21}{:>23}{:>8}{:>25}{:>9}",
                way.name(),
                lost.join(" "),
                ground::spread(&of(Outcome::share_of_core), 1),
                ground::spread(&of(Outcome::cost_us), 2),
                ground::shown(ground::median(&of(|run| run.delay_ms(500))), 2),
                ground::spread(&of(|run| run.delay_ms(990)), 2),
                ground::shown(ground::quantile(&of(|run| Some(run.worst_us as f64 / 1e3)), 1.0), 1),
            );
        }
    }
}

/// The highest rate at which nothing is lost, of two attempts at each step.
fn limits(only: Option<usize>) {
    const RUN: Duration = Duration::from_secs(2);
    const STEPS: [u64; 12] = [
        2_500, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 60_000, 80_000,
        100_000,
    ];
    println!(
        "\n{:<17}{:>8}{:>14}{:>14}{:>10}{:>10}{:>28}",
        "way", "viewers", "datagrams/s", "to viewers/s", "us/dgram", "p99 ms", "then lost+unread"
    );
    for viewers in [1, 5, 25, 100] {
        if only.is_some_and(|only| only != viewers) {
            continue;
        }
        // Each way's best rate so far, and what ended it.
        let mut best = [Way::Naive, Way::Relay].map(|way| (way, None, None::<String>));
        for rate in STEPS {
            for (way, best, over) in &mut best {
                if over.is_some() {
                    continue;
                }
                let mut run = measure(*way, viewers, (rate, BURSTS), RUN);
                if run.lost() > 0 {
                    run = measure(*way, viewers, (rate, BURSTS), RUN);
                }
                // A source that cannot keep its rate measures itself.
                let kept = run.offered as f64 >= 0.98 * rate as f64 * RUN.as_secs_f64();
                match (run.lost(), kept) {
                    (0, true) => *best = Some((rate, run)),
                    (0, false) => *over = Some("the source ends".to_owned()),
                    (_, _) => *over = Some(format!("{} at {rate}", run.losses())),
                }
            }
        }
        for (way, best, over) in best {
            let best = best.as_ref();
            println!(
                "{:<17}{viewers:>8}{:>14}{:>14}{:>10}{:>10}{:>28}",
                way.name(),
                ground::shown(best.map(|(rate, _)| *rate as f64), 0),
                ground::shown(best.map(|(rate, _)| (rate * viewers as u64) as f64), 0),
                ground::shown(best.and_then(|(_, run)| run.cost_us()), 2),
                ground::shown(best.and_then(|(_, run)| run.delay_ms(990)), 2),
                over.unwrap_or_else(|| "-".to_owned()),
            );
        }
    }
}

/// How long the source sleeps between two bursts; the system makes it some 50 us more.
const BURSTS: Duration = Duration::from_micros(500);

/// Sends `rate` datagrams a second, what is due `every` so often, through `way` to `viewers` viewers.
fn measure(way: Way, viewers: usize, (rate, every): (u64, Duration), run: Duration) -> Outcome {
    // A stopped one is one of them.
    let listening = viewers - usize::from(way == Way::OneStopped);
    let inboxes: Vec<BatchSocket> =
        (0..listening).map(|_| BatchSocket::bind(LOCAL, None).expect("a free port")).collect();
    let ports: Vec<u16> = inboxes.iter().map(|inbox| inbox.local_addr().port()).collect();
    let relaying = Relaying::start(way, &ports);
    let going = Arc::new(AtomicBool::new(true));
    let received = Arc::new(AtomicU64::new(0));
    let sinks = {
        let (going, received) = (Arc::clone(&going), Arc::clone(&received));
        thread::spawn(move || ends::sink(&inboxes, &going, &received))
    };
    let cpu_before = relaying.cpu();
    let begun = clock::now();
    let offered = ends::source(relaying.input(), (rate, every), run);
    let took = clock::now().since(begun);
    let wanted = offered * listening as u64;
    // What is still in a queue comes within the second, or never.
    let deadline = clock::now().after(Duration::from_secs(1));
    while received.load(Ordering::Relaxed) < wanted && clock::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let cpu = relaying.cpu().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    going.store(false, Ordering::Relaxed);
    let (delay, worst_us, unread) = sinks.join().expect("the sinks count");
    relaying.stop();
    Outcome {
        offered,
        wanted,
        sent: offered * viewers as u64,
        received: received.load(Ordering::Relaxed),
        unread,
        cpu,
        took,
        delay,
        worst_us,
    }
}
