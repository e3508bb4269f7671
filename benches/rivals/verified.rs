//! How far verified speed is from what the machine allows.
//!
//! The bound is (CPU seconds of the transfer alone + bytes / hash speed of one core) / cores: no
//! core idle, nothing done twice. Each of its terms is measured in turn with what it bounds.

use std::{fs, hint::black_box};

use gatecast::internals::digest::{self, HASH_BUF, Hasher};

use crate::{
    BYTES, CLIENTS, Ground, Row, Turn, alternate, ground,
    ground::{wire, wire::Wire},
    ours::{Build, Ours},
    timed,
};

/// Prints the bound, and this build's and the other engine's distance to it.
pub(crate) fn verified(ground: &Ground) -> Vec<Row> {
    println!("\nrelease to the last digest, {CLIENTS} x {BYTES} bytes, {} runs each", ground.runs);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get()) as f64;
    let data = fs::read(&ground.file).expect("the sample");
    let this = Ours::start(&Build::this(), &ground.file, "auto");
    let other = Ours::start(&Build::this().portable(), &ground.file, "auto");
    let engine = digest::engine();
    let mut turns = vec![
        Turn::new(&format!("ours, {engine}"), || {
            let times = this.fetch(ground.work.path());
            vec![times.verified, times.last_byte]
        }),
        Turn::new("the transfer alone", || {
            let wire = Wire {
                clients: usize::from(CLIENTS),
                send: wire::usual(),
                receive: wire::usual(),
                into: Some(ground.work.path()),
            };
            let before = cpu_seconds();
            let took = wire.run(&ground.file).as_secs_f64();
            vec![took, cpu_seconds() - before]
        }),
        Turn::new("hashing on one core", || {
            let (took, _) = timed(|| {
                let mut hasher = Hasher::default();
                data.chunks(HASH_BUF).for_each(|block| hasher.update(block));
                black_box(hasher.finish())
            });
            vec![took * f64::from(CLIENTS), took]
        }),
    ];
    turns.push(Turn::new("ours, sha1_smol", || {
        let times = other.fetch(ground.work.path());
        vec![times.verified, times.last_byte]
    }));
    alternate(&mut turns, ground.runs);
    let figure = |turn: usize, column: usize| {
        ground::median(&turns[turn].column(column)).expect("one run at least")
    };
    let (verified, transfer, hashing) = (figure(0, 0), figure(1, 1), figure(2, 0));
    let bound = (transfer + hashing) / cores;
    println!("CPU of the transfer alone    {transfer:.3} s");
    println!(
        "hashing on one core          {hashing:.3} s, {:.0} MB/s ({engine})",
        BYTES as f64 / figure(2, 1) / 1e6
    );
    println!("bound                        {bound:.3} s = their sum / {cores} cores");
    println!(
        "ours, {engine:<22} {} s, {:.3} of the bound, last byte {}",
        ground::spread(&turns[0].column(0), 3),
        verified / bound,
        ground::spread(&turns[0].column(1), 3)
    );
    println!(
        "{:<28} {} s, {:.3} times as long",
        turns[3].name,
        ground::spread(&turns[3].column(0), 3),
        figure(3, 0) / verified
    );
    vec![Row {
        what: format!("{CLIENTS} x 100 MB, until every copy is proven"),
        unit: "s",
        ours: Some(verified),
        rival: "the bound: CPU and hashing".to_owned(),
        theirs: Some(bound),
    }]
}

/// The processor time that this process has had, seconds.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may hold blanks; utime and stime are the 14th and 15th fields.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: f64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    // A tick is 10 ms on every Linux.
    ticks / 100.0
}
