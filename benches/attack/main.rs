//! What ten honest clients get while thousands of hostile connections are open.
//!
//! `cargo bench --bench attack [-- --runs K] [--connections N] [--seed N] [--rate RATE|none]`. The
//! server, the honest clients and the attackers are processes. The honest clients fetch alone
//! (`quiet`), beside a program that only uses as much processor time as the attackers may
//! (`busy`), and beside the attackers (`attacked`), in turns. A control group of the kernel holds
//! the two to half a core; where this user cannot make one, they hold themselves to it.

mod attackers;
#[path = "../ground/mod.rs"]
mod ground;
mod half_core;

use std::{
    fs, io,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::server::sample;

use crate::half_core::HalfCore;

/// How many honest clients there are.
const CLIENTS: u16 = 10;

/// The word for a server without a rate: as fast as the processors copy.
const NO_RATE: &str = "none";

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(90);

/// The word that makes this program the attackers.
const ATTACK: &str = "attack-a-server";

/// The word that makes it the program that is only busy.
const SPIN: &str = "use-half-a-core";

/// What is attacked.
struct Server {
    child: Child,
    addr: String,
    logs: tempfile::TempDir,
}

/// A process that disturbs, and what it says.
struct Disturber {
    child: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

/// What the honest clients got.
struct Turn {
    word: &'static str,
    /// Their payload, megabytes a second, from the release to the last byte.
    rates: Vec<f64>,
    /// From the start of their process to its end, seconds.
    whole: Vec<f64>,
}

/// The sizes of one run of this program.
struct Attack {
    connections: usize,
    bytes: u64,
    seed: u64,
    rate: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [word, addr, connections, seed, group] if word == ATTACK => {
            let half = HalfCore::enter(group);
            return attackers::attack(
                addr.parse().expect("an address"),
                connections.parse().expect("a number"),
                seed.parse().expect("a number"),
                half,
            );
        }
        [word, group] if word == SPIN => return HalfCore::enter(group).spin(),
        _ => {}
    }
    if !ground::is_bench() {
        let (connections, rate) = (120, "1gbit".to_owned());
        return measure(&Attack { connections, bytes: 1_000_000, seed: 1, rate }, 1);
    }
    ground::stamp();
    let attack = Attack {
        connections: ground::option("--connections")
            .map_or(10_000, |n| n.parse().expect("a number")),
        bytes: 100_000_000,
        seed: ground::option("--seed").map_or(1, |n| n.parse().expect("a number")),
        rate: ground::option("--rate").unwrap_or_else(|| "1gbit".to_owned()),
    };
    measure(&attack, ground::runs(5));
}

fn measure(attack: &Attack, runs: usize) {
    let work = ground::scratch("attack");
    let file = work.path().join("sample.bin");
    sample::make(&file, attack.bytes).expect("room for the sample");
    ground::touch(work.path(), attack.bytes * u64::from(CLIENTS));
    let server = Server::start(&file, &attack.rate);
    let group = half_core::make();
    println!(
        "\n{CLIENTS} clients x {} bytes at {}, {} hostile connections, seed {}, {runs} rounds\n\
         half a core  {}",
        attack.bytes,
        attack.rate,
        attack.connections,
        attack.seed,
        group.as_ref().map_or("by their own pauses", |_| "by a control group")
    );
    let path = group.as_ref().map_or(PathBuf::new(), |group| group.path().to_owned());
    let mut turns =
        ["quiet", "busy", "attacked"].map(|word| Turn { word, rates: vec![], whole: vec![] });
    let mut dice = ground::Dice::new();
    let (mut told, mut threads) = (Vec::new(), 0);
    for round in 0..runs {
        let mut order = [0, 1, 2];
        dice.shuffle(&mut order);
        for which in order {
            let turn = &mut turns[which];
            let seed = attack.seed + round as u64;
            let disturber = match turn.word {
                "busy" => Some(Disturber::spin(&path)),
                "attacked" => Some(Disturber::attack(&server.addr, attack, seed, &path)),
                _ => None,
            };
            let (rate, whole) = server.fetch(work.path(), attack.bytes);
            turn.rates.push(rate);
            turn.whole.push(whole);
            threads = threads.max(server.status("Threads:").unwrap_or(0));
            if let Some(disturber) = disturber {
                let last = disturber.end();
                if turn.word == "attacked" {
                    told.push(last);
                }
                server.until_alone();
            }
        }
    }
    print(&turns, &told, threads, &server);
}

fn print(turns: &[Turn], told: &[String], threads: u64, server: &Server) {
    println!("{:<9} {:>28} {:>8} {:>26}", "", "MB/s, all together", "of quiet", "whole process, s");
    let quiet = ground::median(&turns[0].rates);
    for turn in turns {
        let ratio = ground::median(&turn.rates).zip(quiet).map(|(rate, quiet)| rate / quiet);
        println!(
            "{:<9} {:>28} {:>8} {:>26}",
            turn.word,
            ground::spread(&turn.rates, 1),
            ground::shown(ratio, 3),
            ground::spread(&turn.whole, 2)
        );
    }
    told.iter().for_each(|line| println!("attackers    {line}"));
    println!("threads      {threads} at most in the server");
    let peak = server.status("VmHWM:").map(|kib| kib as f64 / 1024.0);
    println!("memory       {} MiB at most in the server", ground::shown(peak, 1));
    server.check_log();
    println!("load         {}", ground::load());
}

impl Server {
    fn start(file: &Path, rate: &str) -> Self {
        let logs = ground::scratch("logs");
        let mut child = Command::new(env!("CARGO_BIN_EXE_gatecast"))
            .args(["serve", "--listen", "127.0.0.1:0", "--clients", &CLIENTS.to_string()])
            .args(["--json", "--log-dir"])
            .arg(logs.path())
            .args((rate != NO_RATE).then_some(["--rate", rate]).iter().flatten())
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let addr = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
            .expect("the server says where it listens");
        // It must never block on its messages.
        thread::spawn(move || lines.for_each(drop));
        Self { child, addr, logs }
    }

    /// One release to the honest clients: megabytes a second, and the seconds of their process.
    fn fetch(&self, work: &Path, bytes: u64) -> (f64, f64) {
        let out = work.join("copies");
        let begun = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_gatecast"))
            .args(["fetch", &self.addr, "--json", "--clients", &CLIENTS.to_string(), "--out"])
            .arg(&out)
            .output()
            .expect("the program was built");
        let whole = begun.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(&out).expect("made by the clients");
        let document: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("a document");
        let seconds = document["global"]["seconds"].as_f64().expect("whole copies");
        (f64::from(CLIENTS) * bytes as f64 / 1e6 / seconds, whole)
    }

    /// A number of the system's own file about the process.
    fn status(&self, key: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Waits until the server has no connection any more.
    fn until_alone(&self) {
        let begun = Instant::now();
        // Its sessions have a thread each until their time is over, connections have none.
        let names = || fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let busy = || {
            let tasks = names().into_iter().flatten().filter_map(Result::ok);
            let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
            tasks.filter_map(name).any(|name| name.starts_with("conn-"))
        };
        while busy() {
            assert!(begun.elapsed() < LIMIT, "connections stay open");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads the logs back with the program itself.
    fn check_log(&self) {
        let logs: Vec<PathBuf> = fs::read_dir(self.logs.path())
            .expect("the server's folder")
            .map(|entry| entry.expect("readable").path())
            .collect();
        let rows: usize = logs
            .iter()
            .map(|log| fs::read_to_string(log).expect("text").lines().skip(1).count())
            .sum();
        let begun = Instant::now();
        let report = Command::new(env!("CARGO_BIN_EXE_gatecast"))
            .args(["report", "--csv"])
            .args(&logs)
            .output()
            .expect("the program was built");
        print!("{}", String::from_utf8_lossy(&report.stderr));
        println!(
            "log          {rows} rows in {} files; report reads {} of them in {:.2} s",
            logs.len(),
            String::from_utf8_lossy(&report.stdout).lines().skip(1).count(),
            begun.elapsed().as_secs_f64()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to save; the session logs go with their folder.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Disturber {
    fn start(words: &[&str], group: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program is a file"))
            .args(words)
            .arg(group)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process for the disturbance");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn spin(group: &Path) -> Self {
        Self::start(&[SPIN], group)
    }

    /// Returns when all connections are open.
    fn attack(addr: &str, attack: &Attack, seed: u64, group: &Path) -> Self {
        let (connections, seed) = (attack.connections.to_string(), seed.to_string());
        let mut attackers = Self::start(&[ATTACK, addr, &connections, &seed], group);
        let begun = Instant::now();
        let all = |line: io::Result<String>| {
            assert!(begun.elapsed() < LIMIT, "the connections do not open");
            line.expect("text").starts_with(attackers::ALL_OPEN)
        };
        assert!(attackers.lines.any(all), "the attackers have ended");
        attackers
    }

    /// Ends it, and returns the last that it said.
    fn end(mut self) -> String {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
        self.lines.by_ref().map_while(Result::ok).last().unwrap_or_default()
    }
}

impl Drop for Disturber {
    fn drop(&mut self) {
        // A round that fails leaves no attackers behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
