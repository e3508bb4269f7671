//! Ours beside what else there is, alternated on one machine in one run, as ratios of medians.
//!
//! `cargo bench` runs this alone: every part with few runs, in less than five minutes, and a table of
//! all at the end. `cargo bench -- --full` runs the parts with more, and then all other benches.
//! `cargo bench --bench rivals -- [--runs K] nginx|iperf3|lab|verified|ways|tree|reno...` runs parts.
//! A program that is not installed or fails is reported, and its figures are left out. `reno` repeats
//! `nginx` with the system's congestion control set to reno, where this user may set it, and puts it
//! back.

#[path = "../ground/mod.rs"]
mod ground;
mod ours;
mod theirs;
mod tree;
mod verified;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
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
    /// Nothing was asked for by its name: what takes long is left out.
    is_quick: bool,
}

/// A line of the table at the end.
struct Row {
    what: String,
    unit: &'static str,
    ours: Option<f64>,
    rival: String,
    theirs: Option<f64>,
}

/// What takes turns, with its times in seconds, one for each run.
struct Turn<'a> {
    name: String,
    run: Box<dyn FnMut() -> Vec<f64> + 'a>,
    took: Vec<Vec<f64>>,
}

/// One comparison.
type Part = fn(&Ground) -> Vec<Row>;

/// All other benches, the quick ones first.
const OTHERS: [&str; 7] = ["digest", "copy", "gate", "udp", "swarm", "relay", "attack"];

/// Where Linux keeps the congestion control of sockets that ask for none.
const DEFAULT_CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

fn main() {
    if !ground::is_bench() {
        return println!("nothing is compared but by cargo bench");
    }
    ground::stamp();
    let begun = Instant::now();
    let work = ground::scratch("rivals");
    let file = work.path().join("100MB.bin");
    sample::make(&file, BYTES).expect("room for the sample");
    ground::touch(work.path(), u64::from(CLIENTS) * BYTES);
    let is_full = std::env::args().any(|word| word == "--full");
    let parts: [(&str, Part); 6] = [
        ("nginx", nginx),
        ("iperf3", iperf3),
        ("lab", lab),
        ("verified", verified::verified),
        ("ways", ways),
        ("tree", tree::tree),
    ];
    let is_quick = !is_full && !parts.iter().any(|(name, _)| ground::named(name));
    let runs = ground::runs(if is_quick { 3 } else { 7 });
    let ground = Ground { work, file, runs, is_quick };
    let mut rows = Vec::new();
    for (name, part) in parts {
        if ground::chosen(name) {
            rows.extend(part(&ground));
        }
    }
    if ground::named("reno") {
        reno(&ground);
    }
    summarise(&rows);
    println!("took         {:.0} s, without the build", begun.elapsed().as_secs_f64());
    if is_full {
        OTHERS.iter().for_each(|bench| run_bench(bench));
    }
}

/// One table of all that was compared: medians, and ours over the rival's.
fn summarise(rows: &[Row]) {
    println!(
        "\n{:<50} {:>10}      {:<28} {:>10} {:>7}",
        "medians", "gatecast", "beside", "", "ratio"
    );
    for Row { what, unit, ours, rival, theirs } in rows {
        let ratio = ours.zip(*theirs).map(|(ours, theirs)| ours / theirs);
        println!(
            "{what:<50} {:>10} {unit:<4} {rival:<28} {:>10} {:>7}",
            ground::shown(*ours, 3),
            ground::shown(*theirs, 3),
            ground::shown(ratio, 3)
        );
    }
}

/// Runs another bench as it is run alone.
fn run_bench(name: &str) {
    println!("\n== cargo bench --bench {name}");
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let ended = Command::new(cargo)
        .args(["bench", "--quiet", "--bench", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    if !ended.is_ok_and(|status| status.success()) {
        println!("{name} failed");
    }
}

/// Ours against nginx with sendfile and 25 curl, both into files in memory.
fn nginx(ground: &Ground) -> Vec<Row> {
    println!(
        "\nnginx (2 workers, sendfile) and {CLIENTS} curl, {} runs each, congestion control {}",
        ground.runs,
        ground::congestion()
    );
    let nginx = theirs::Nginx::start(&ground.file);
    let auto = Ours::start(&Build::this(), &ground.file, "auto");
    let buffered = Ours::start(&Build::this(), &ground.file, "buffered");
    let plain = if ground.is_quick { None } else { Build::with("cli") };
    let plain = plain.map(|build| Ours::start(&build, &ground.file, "buffered"));
    let mut turns = Vec::new();
    match &nginx {
        Some(nginx) => {
            turns.push(Turn::new("nginx + curl", || nginx.fetch(ground.work.path(), CLIENTS)))
        }
        None => println!("nginx: skipped, it or curl is not installed, or does not start"),
    }
    for (name, ours) in [
        ("ours", Some(&auto)),
        ("ours, --copy buffered", Some(&buffered)),
        ("ours, built without sockopt", plain.as_ref()),
    ] {
        match ours {
            Some(ours) => turns.push(Turn::new(name, || {
                let times = ours.fetch(ground.work.path());
                vec![times.last_byte, times.whole, times.skew_ms]
            })),
            None if ground.is_quick => {}
            None => println!("{name}: skipped, it does not build here"),
        }
    }
    for (name, query) in [("ours, curl at the gate", "?gate"), ("ours, curl at once", "")] {
        let curls = || auto.curls(&ground.file, query, ground.work.path());
        if nginx.is_some() {
            turns.push(Turn::new(name, curls));
        }
    }
    alternate(&mut turns, ground.runs);
    print(&turns, &["last byte s", "of the first", "process s", "first bytes apart, ms"]);
    let row = |what: &str, ours, rival| {
        Row::of(format!("{CLIENTS} x 100 MB into files, {what}"), &turns, ours, rival)
    };
    let theirs = ("nginx + curl", 0);
    let skew = Row { unit: "ms", ..row("first bytes apart", ("ours", 2), ("-", 0)) };
    vec![
        row("last byte", ("ours", 0), theirs),
        row("last byte, buffered", ("ours, --copy buffered", 0), theirs),
        row("ours to curl", ("ours, curl at once", 0), theirs),
        skew,
    ]
}

/// Our own ways on loopback, beside TCP.
fn ways(ground: &Ground) -> Vec<Row> {
    const SMALL: u64 = 10_000_000;
    println!("\n{CLIENTS} x 10 MB by each way, {} runs each", ground.runs);
    let file = ground.work.path().join("10MB.bin");
    sample::make(&file, SMALL).expect("room for the sample");
    let servers = ["tcp", "udp", "multicast", "swarm", "chain"]
        .map(|via| (via, Ours::start_by(&Build::this(), &file, "auto", via)));
    let mut turns: Vec<_> = servers
        .iter()
        .map(|(via, ours)| Turn::new(via, || vec![ours.fetch(ground.work.path()).last_byte]))
        .collect();
    alternate(&mut turns, ground.runs);
    print(&turns, &["last byte s", "of the first"]);
    let row = |via| Row::of(format!("{CLIENTS} x 10 MB by {via}"), &turns, (via, 0), ("tcp", 0));
    ["udp", "multicast", "swarm", "chain"].map(row).into()
}

/// Our copies against iperf3, memory to memory.
fn iperf3(ground: &Ground) -> Vec<Row> {
    println!("\niperf3 -P {CLIENTS}, {} runs each, memory to memory", ground.runs);
    if !theirs::installed("iperf3") {
        println!("skipped: iperf3 is not installed");
        return Vec::new();
    }
    // The same unit for both: seconds for the work, at the rate that was reached.
    let work = f64::from(CLIENTS) * BYTES as f64;
    let ours = |how: (Method, usize)| {
        let wire = Wire { clients: usize::from(CLIENTS), send: how, receive: how, into: None };
        vec![wire.run(&ground.file).as_secs_f64()]
    };
    let theirs = |more: &[&str]| -> Vec<f64> {
        theirs::iperf3_bytes_per_second(CLIENTS, more).map(|rate| work / rate).into_iter().collect()
    };
    let mut turns = vec![
        Turn::new("iperf3", || theirs(&[])),
        Turn::new("iperf3 --zerocopy", || theirs(&["--zerocopy"])),
        Turn::new("ours, auto", || ours(wire::usual())),
        Turn::new("ours, buffered", || ours((Method::Buffered, copy::COPY_BUF))),
    ];
    alternate(&mut turns, ground.runs);
    print(&turns, &["2.5 GB in s", "of the first"]);
    let what = format!("{CLIENTS} streams of 100 MB, memory to memory");
    vec![Row::of(what, &turns, ("ours, auto", 0), ("iperf3 --zerocopy", 0))]
}

/// Ours against the lab's own kind of program, digests on both sides included.
fn lab(ground: &Ground) -> Vec<Row> {
    let runs = if ground.is_quick { 1 } else { ground.runs.div_ceil(2) };
    println!("\na Python pair in the lab's manner, {runs} runs each, until every digest is known");
    if !theirs::installed("python3") {
        println!("skipped: python3 is not installed");
        return Vec::new();
    }
    let ours = Ours::start(&Build::this(), &ground.file, "auto");
    let portable = Ours::start(&Build::this().portable(), &ground.file, "auto");
    let mut turns = vec![Turn::new("the lab's pair", || {
        theirs::lab_pair(&ground.file, ground.work.path(), CLIENTS).into_iter().collect()
    })];
    let name = format!("ours, {}", gatecast::internals::digest::engine());
    turns.push(Turn::new(&name, || vec![ours.fetch(ground.work.path()).whole]));
    turns.push(Turn::new("ours, sha1_smol", || vec![portable.fetch(ground.work.path()).whole]));
    alternate(&mut turns, runs);
    print(&turns, &["process s", "of the first"]);
    let what = format!("{CLIENTS} x 100 MB, proven, whole process");
    vec![Row::of(what, &turns, (&name, 0), ("the lab's pair", 0))]
}

impl Row {
    /// A row of two turns, each with one of its columns; `-` where there is no such turn.
    fn of(what: String, turns: &[Turn<'_>], ours: (&str, usize), rival: (&str, usize)) -> Self {
        let figure = |(name, column): (&str, usize)| {
            let turn = turns.iter().find(|turn| turn.name == name)?;
            ground::median(&turn.column(column))
        };
        let (ours, theirs) = (figure(ours), figure(rival));
        Self { what, unit: "s", ours, rival: rival.0.to_owned(), theirs }
    }
}

/// The first part once more with reno.
fn reno(ground: &Ground) {
    let usual = ground::congestion();
    if fs::write(DEFAULT_CONGESTION, "reno").is_err() {
        return println!("\nreno: skipped, this user may not set it");
    }
    let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(nginx(ground))));
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
