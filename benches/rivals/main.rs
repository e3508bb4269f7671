//! Ours beside what else there is, alternated on one machine in one run, as ratios of medians.
//!
//! `cargo bench --bench rivals [-- --runs K] [nginx] [iperf3] [lab] [verified] [reno]`. What is
//! not installed is reported as skipped. `reno` repeats `nginx` with the system's congestion
//! control set to reno, where this user may set it, and puts it back.

#[path = "../ground/mod.rs"]
mod ground;
mod ours;
mod theirs;
mod verified;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use gatecast::internals::{
    net::{copy, copy::Method},
    server::sample,
};

use crate::{
    ground::{wire, wire::Wire},
    ours::{Build, Ours},
};

/// What the issue asks for: 25 clients x 100 MB.
const CLIENTS: u16 = 25;
const BYTES: u64 = 100_000_000;

/// Everything that a part needs.
struct Ground {
    work: tempfile::TempDir,
    file: PathBuf,
    runs: usize,
}

/// What takes turns, with its times in seconds, one for each run.
struct Turn<'a> {
    name: String,
    run: Box<dyn FnMut() -> Vec<f64> + 'a>,
    took: Vec<Vec<f64>>,
}

/// One comparison.
type Part = fn(&Ground);

/// Where Linux keeps the congestion control of sockets that ask for none.
const DEFAULT_CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

fn main() {
    if !ground::is_bench() {
        return println!("nothing is compared but by cargo bench");
    }
    ground::stamp();
    let work = ground::scratch("rivals");
    let file = work.path().join("100MB.bin");
    sample::make(&file, BYTES).expect("room for the sample");
    ground::touch(work.path(), u64::from(CLIENTS) * BYTES);
    let ground = Ground { work, file, runs: ground::runs(7) };
    let parts: [(&str, Part); 4] =
        [("nginx", nginx), ("iperf3", iperf3), ("lab", lab), ("verified", verified::verified)];
    for (name, part) in parts {
        if ground::chosen(name) {
            part(&ground);
        }
    }
    if ground::named("reno") {
        reno(&ground);
    }
}

/// Ours against nginx with sendfile and 25 curl, both into files in memory.
fn nginx(ground: &Ground) {
    println!(
        "\nnginx (2 workers, sendfile) and {CLIENTS} curl, {} runs each, congestion control {}",
        ground.runs,
        ground::congestion()
    );
    let Some(nginx) = theirs::Nginx::start(&ground.file) else {
        return println!("skipped: nginx or curl is not installed, or does not start");
    };
    let auto = Ours::start(&Build::this(), &ground.file, "auto");
    let buffered = Ours::start(&Build::this(), &ground.file, "buffered");
    let plain = Build::with("cli").map(|build| Ours::start(&build, &ground.file, "buffered"));
    let mut turns = vec![Turn::new("nginx + curl", || nginx.fetch(ground.work.path(), CLIENTS))];
    for (name, ours) in [
        ("ours", Some(&auto)),
        ("ours, --copy buffered", Some(&buffered)),
        ("ours, built without sockopt", plain.as_ref()),
    ] {
        match ours {
            Some(ours) => turns.push(Turn::new(name, || {
                let times = ours.fetch(ground.work.path());
                vec![times.last_byte, times.whole]
            })),
            None => println!("{name}: skipped, it does not build here"),
        }
    }
    for (name, query) in [("ours, curl at the gate", "?gate"), ("ours, curl at once", "")] {
        let curls = || auto.curls(&ground.file, query, ground.work.path());
        turns.push(Turn::new(name, curls));
    }
    alternate(&mut turns, ground.runs);
    print(&turns, &["last byte s", "of the first", "process s"]);
}

/// Our copies against iperf3, memory to memory.
fn iperf3(ground: &Ground) {
    println!("\niperf3 -P {CLIENTS}, {} runs each, memory to memory", ground.runs);
    if !theirs::installed("iperf3") {
        return println!("skipped: iperf3 is not installed");
    }
    // The same unit for both: seconds for the work, at the rate that was reached.
    let work = f64::from(CLIENTS) * BYTES as f64;
    let ours = |how: (Method, usize)| {
        let wire = Wire { clients: usize::from(CLIENTS), send: how, receive: how, into: None };
        vec![wire.run(&ground.file).as_secs_f64()]
    };
    let mut turns = vec![
        Turn::new("iperf3", || vec![work / theirs::iperf3_bytes_per_second(CLIENTS)]),
        Turn::new("iperf3 --zerocopy", || {
            vec![work / theirs::iperf3_zerocopy_bytes_per_second(CLIENTS)]
        }),
        Turn::new("ours, auto", || ours(wire::usual())),
        Turn::new("ours, buffered", || ours((Method::Buffered, copy::COPY_BUF))),
    ];
    alternate(&mut turns, ground.runs);
    print(&turns, &["2.5 GB in s", "of the first"]);
}

/// Ours against the lab's own kind of program, digests on both sides included.
fn lab(ground: &Ground) {
    let runs = ground.runs.div_ceil(2);
    println!("\na Python pair in the lab's manner, {runs} runs each, until every digest is known");
    if !theirs::installed("python3") {
        return println!("skipped: python3 is not installed");
    }
    let smol = Ours::start(&Build::this(), &ground.file, "auto");
    let fast =
        Build::with("cli,sockopt,fast-sha1").map(|build| Ours::start(&build, &ground.file, "auto"));
    let mut turns = vec![Turn::new("the lab's pair", || {
        vec![theirs::lab_pair(&ground.file, ground.work.path(), CLIENTS)]
    })];
    let name = format!("ours, {}", gatecast::internals::digest::ENGINE);
    turns.push(Turn::new(&name, || vec![smol.fetch(ground.work.path()).whole]));
    if let Some(fast) = &fast {
        turns.push(Turn::new("ours, fast-sha1", || vec![fast.fetch(ground.work.path()).whole]));
    }
    alternate(&mut turns, runs);
    print(&turns, &["process s", "of the first"]);
}

/// The first part once more with reno.
fn reno(ground: &Ground) {
    let usual = ground::congestion();
    if fs::write(DEFAULT_CONGESTION, "reno").is_err() {
        return println!("\nreno: skipped, this user may not set it");
    }
    let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| nginx(ground)));
    fs::write(DEFAULT_CONGESTION, &usual).expect("it could be set a moment ago");
    if let Err(panic) = measured {
        std::panic::resume_unwind(panic);
    }
}

impl<'a> Turn<'a> {
    fn new(name: &str, run: impl FnMut() -> Vec<f64> + 'a) -> Self {
        Self { name: name.to_owned(), run: Box::new(run), took: Vec::new() }
    }

    /// The times of one column.
    fn column(&self, which: usize) -> Vec<f64> {
        self.took.iter().filter_map(|times| times.get(which).copied()).collect()
    }
}

/// Runs each once to warm up, then all in a new order each time.
fn alternate(turns: &mut [Turn<'_>], runs: usize) {
    let mut dice = ground::Dice::new();
    for turn in turns.iter_mut() {
        (turn.run)();
    }
    for _ in 0..runs {
        let mut order: Vec<usize> = (0..turns.len()).collect();
        dice.shuffle(&mut order);
        for which in order {
            let took = (turns[which].run)();
            turns[which].took.push(took);
        }
    }
}

/// A row for each; `titles` are the first column, its ratio to the first row's, and the others.
fn print(turns: &[Turn<'_>], titles: &[&str]) {
    let [first, ratio, others @ ..] = titles else {
        unreachable!("two titles at least");
    };
    print!("{:<28}  {first:>26}  {ratio:>12}", "");
    others.iter().for_each(|title| print!("  {title:>26}"));
    println!();
    let base = ground::median(&turns[0].column(0));
    for turn in turns {
        let own = ground::median(&turn.column(0));
        let ratio = own.zip(base).map(|(own, base)| own / base);
        print!(
            "{:<28}  {:>26}  {:>12}",
            turn.name,
            ground::spread(&turn.column(0), 3),
            ground::shown(ratio, 3)
        );
        for (which, _) in (1..).zip(others) {
            print!("  {:>26}", ground::spread(&turn.column(which), 3));
        }
        println!();
    }
}

/// The time that `work` takes, and what it returns.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let made = work();
    (begun.elapsed().as_secs_f64(), made)
}

/// Removes what clients wrote, between two measurements.
fn clear(folder: &Path) {
    fs::remove_dir_all(folder).expect("made by the clients");
}
