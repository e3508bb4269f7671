//! The program in processes of its own, which can be killed, stopped and starved.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gatecast::internals::{digest::Digest, report, server::sample, transfer::Record};
use tempfile::TempDir;

use crate::common::{PATIENCE, entries, sha1_of, until};

/// The program, as Cargo has built it for this test.
pub(crate) const GATECAST: &str = env!("CARGO_BIN_EXE_gatecast");

/// `gatecast` with these arguments, to be started in `folder`.
pub(crate) fn gatecast(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(GATECAST);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env_remove("GATECAST_LOG");
    command
}

/// Runs `gatecast` in `folder` to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    gatecast(folder, arguments).output().expect("the program starts")
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// What a program wrote to standard output and to standard error.
pub(crate) fn output_text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Sends a signal by its name. Returns whether the process was there.
pub(crate) fn signal(process: u32, name: &str) -> bool {
    let kill = format!("kill -{name} {process}");
    let sent = Command::new("sh").args(["-c", &kill]).status();
    sent.expect("sh").success()
}

/// The lines that come out of a pipe, collected by a thread.
#[derive(Debug)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                collected.lock().expect("no panic").push(line);
            }
        });
        Self { lines, reader }
    }

    fn get(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }
}

/// A running program, `gatecast` mostly; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Program {
    /// Starts `command`, which may be `gatecast` or what runs it in the same process.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// The same, with a standard input for `type_line`.
    pub(crate) fn interactive(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::piped())
    }

    fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("GATECAST_LOG")
            .spawn()
            .expect("the program starts");
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    /// `gatecast serve` in `folder`, on a port that the system chooses; with its address.
    pub(crate) fn serve(folder: &Path, arguments: &[&str]) -> (Self, String) {
        Self::serve_by(&mut Command::new(GATECAST), folder, "127.0.0.1:0", arguments)
    }

    /// The same, started by `command` and on `listen`.
    pub(crate) fn serve_by(
        command: &mut Command,
        folder: &Path,
        listen: &str,
        arguments: &[&str],
    ) -> (Self, String) {
        let command = command.args(["serve", "--listen", listen]).args(arguments);
        let mut server = Self::start(command.current_dir(folder));
        let mut addr = None;
        until("the server to listen", || {
            let said = server.stderr();
            let mut lines = said.lines();
            addr = lines.find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()));
            let ended = server.child.try_wait().expect("ours");
            assert!(addr.is_some() || ended.is_none(), "{ended:?}: {said}");
            addr.is_some()
        });
        (server, addr.expect("it listens"))
    }

    /// `gatecast fetch`, its copy in `out` below `folder`.
    pub(crate) fn fetch(folder: &Path, addr: &str, out: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(GATECAST);
        command.args(["fetch", addr, "--out", out, "--name", out]).args(arguments);
        Self::start(command.current_dir(folder))
    }

    /// What it has written to standard error.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.get().join("\n")
    }

    /// The lines that it has written to standard output.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.get()
    }

    /// Gives a line to an interactive program.
    pub(crate) fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("interactive");
        writeln!(stdin, "{line}").expect("it reads");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        assert!(signal(self.pid(), name), "kill -{name}");
    }

    /// Sends SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("ours");
        self.child.wait().expect("ours");
    }

    /// The exit code, once it has ended by itself.
    pub(crate) fn code(&mut self) -> i32 {
        let code = self.code_within(PATIENCE);
        code.unwrap_or_else(|| panic!("a signal ended it: {}", self.stderr()))
    }

    /// The exit code, once it has ended by itself within `limit`; `None` when a signal ended it.
    pub(crate) fn code_within(&mut self, limit: Duration) -> Option<i32> {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                break status;
            }
            assert!(begun.elapsed() < limit, "it does not end: {}", self.stderr());
            thread::sleep(Duration::from_millis(2));
        };
        // Its last lines may still be in the pipes. A process that it left behind keeps them open,
        // so this is not waited for without end.
        let ended = Instant::now();
        while !(self.stderr.reader.is_finished() && self.stdout.reader.is_finished())
            && ended.elapsed() < Duration::from_secs(1)
        {
            thread::sleep(Duration::from_millis(1));
        }
        status.code()
    }

    /// How many of something the process has: `task` or `fd`.
    pub(crate) fn count(&self, what: &str) -> usize {
        entries(format!("/proc/{}/{what}", self.pid()).as_ref()).len()
    }

    /// Processor time used so far in user and in system mode, in hundredths of a second.
    pub(crate) fn ticks(&self) -> [u64; 2] {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("alive");
        // The fields after the name, which stands in parentheses: utime and stime are 14 and 15.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        [11, 12].map(|n: usize| fields[n].parse::<u64>().expect("a number"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The size of the part in `folder`; `None` while there is none.
pub(crate) fn part(folder: &Path) -> Option<u64> {
    crate::common::parts(folder).first().copied()
}

/// The records of all logs below `folder`.
pub(crate) fn records(folder: &Path) -> Vec<Record> {
    let logs: Vec<PathBuf> = entries(&folder.join("logs"));
    report::read_logs(&logs).expect("logs that read back")
}

/// The records, once the logs hold `rows` rows.
pub(crate) fn records_of(folder: &Path, rows: usize) -> Vec<Record> {
    until(&format!("{rows} rows in the log within {PATIENCE:?}"), || {
        records(folder).iter().map(|r| r.transfers.len()).sum::<usize>() >= rows
    });
    records(folder)
}

/// The program, some of whose system `calls` fail as `fault` says. strace writes what it did to
/// `told`.
pub(crate) fn strace(calls: &str, fault: &str, told: &Path) -> Command {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{fault}"));
    let mut command = Command::new("strace");
    // -D: the process that is started is the program itself, and strace runs beside it.
    command.args(["-D", "-f", "-qq", "-e", &trace, "-e", &inject, "-o"]);
    command.arg(told).arg(GATECAST);
    command
}

/// Runs `command` with `input` on its standard input.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// A folder with `f.bin`, so many pseudo-random bytes, and its SHA-1.
pub(crate) fn folder_with_file(bytes: u64) -> (TempDir, Digest) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("f.bin");
    sample::make(&file, bytes).expect("room");
    let sha1 = sha1_of(&file);
    (folder, sha1)
}

/// Asserts that `out` holds the whole file and nothing else.
#[track_caller]
pub(crate) fn whole(folder: &Path, out: &str, sha1: Digest) {
    let there = entries(&folder.join(out));
    assert_eq!(there, [folder.join(out).join("f.bin")]);
    assert_eq!(sha1_of(&there[0]), sha1);
}
