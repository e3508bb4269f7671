//! What every bench here stands on: a scratch folder in memory, memory that has been touched,
//! shuffled order, medians, and a stamp that says what machine and build the figures are of.

#![allow(dead_code, reason = "each bench is a crate of its own and uses a part")]

use std::{fs, fs::File, io::Write, path::Path, process::Command};

use tempfile::TempDir;

pub(crate) mod wire;

/// A folder in memory where the system has one; removed when dropped.
pub(crate) fn scratch(name: &str) -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .prefix(&format!("gatecast-{name}-"))
        .tempdir_in(parent)
        .expect("a folder for scratch files")
}

/// Writes and removes `bytes` in `folder`, so that no variant pays for the first touch of memory
/// that the system, or the host under it, had taken away.
pub(crate) fn touch(folder: &Path, bytes: u64) {
    let path = folder.join("touch");
    let block = vec![0_u8; 1 << 20];
    let mut file = File::create(&path).expect("room to touch");
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
        file.write_all(&block[..len]).expect("room to touch");
        left -= len as u64;
    }
    drop(file);
    fs::remove_file(path).expect("made above");
}

/// Random numbers for shuffling; the seed is fixed, so that two runs have one order.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The one sequence.
    pub(crate) fn new() -> Self {
        Self::of(0x6265_6e63_6865_7321)
    }

    /// The sequence of `seed`.
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Puts `items` in another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let pick = (self.0 >> 33) % (last as u64 + 1);
            items.swap(last, usize::try_from(pick).expect("less than a length"));
        }
    }
}

/// The median; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The nearest-rank quantile, 0 to 1; `None` of nothing.
pub(crate) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let rank = (share * sorted.len() as f64).ceil() as usize;
    Some(sorted[rank.saturating_sub(1).min(last)])
}

/// Text for a figure that may be missing.
pub(crate) fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// `median [low to high]`, scaled.
pub(crate) fn spread(values: &[f64], decimals: usize) -> String {
    format!(
        "{} [{} to {}]",
        shown(median(values), decimals),
        shown(quantile(values, 0.0), decimals),
        shown(quantile(values, 1.0), decimals)
    )
}

/// Whether this is `cargo bench`, and not `cargo test` that runs every target once.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|word| word == "--bench")
}

/// How many runs: `--runs K`.
pub(crate) fn runs(usual: usize) -> usize {
    option("--runs").map_or(usual, |text| text.parse().expect("--runs needs a whole number"))
}

/// The word after `name` on the command line.
pub(crate) fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

/// Whether the command line names this part of a bench, or names none and so asks for all.
pub(crate) fn chosen(name: &str) -> bool {
    let words = words();
    words.is_empty() || words.iter().any(|word| word == name)
}

/// Whether the command line names this part.
pub(crate) fn named(name: &str) -> bool {
    words().iter().any(|word| word == name)
}

/// The words on the command line that are no options.
fn words() -> Vec<String> {
    let mut arguments = std::env::args().skip(1);
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => drop(arguments.next()),
            flag if flag.starts_with("--") => {}
            _ => words.push(argument),
        }
    }
    words
}

/// Prints what machine, build and moment the figures are of.
pub(crate) fn stamp() {
    let first_line = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':'))
            .map_or_else(|| "-".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    println!(
        "machine      {} x {}, {} of memory",
        cores,
        first_line("/proc/cpuinfo", "model name"),
        first_line("/proc/meminfo", "MemTotal")
    );
    println!("kernel       {}", said("uname", &["-sr"]));
    println!("compiler     {}", said("rustc", &["--version"]));
    println!(
        "commit       {}{}",
        said("git", &["rev-parse", "--short=12", "HEAD"]),
        match said("git", &["status", "--porcelain", "--untracked-files=no"]).as_str() {
            "" | "-" => "",
            _ => " with changes",
        }
    );
    println!("digest       {}", gatecast::internals::digest::engine());
    println!("congestion   {}", congestion());
    println!("load         {} (compare only within one run unless it is below 1)", load());
}

/// The system's congestion control.
pub(crate) fn congestion() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or_else(|_| "-".to_owned(), |name| name.trim().to_owned())
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("-").to_owned()
}

/// What a program says on its standard output; `-` where it cannot be run.
pub(crate) fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "-".to_owned(),
    }
}
