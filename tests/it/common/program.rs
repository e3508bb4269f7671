//! The program in processes of its own, which can be killed, stopped and starved.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use gatecast::internals::report;
use gatecast::internals::transfer::Record;

use crate::common::{PATIENCE, entries, until};

/// The program, as Cargo has built it for this test.
pub(crate) const GATECAST: &str = env!("CARGO_BIN_EXE_gatecast");

/// A running `gatecast`; killed when it is dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
    /// What it has said on standard error.
    said: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// Starts `command`, which may be `gatecast` or what runs it in the same process.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env_remove("GATECAST_LOG")
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("piped");
        let said = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&said);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let line = line.expect("text");
                hearing.lock().expect("no panic").push(line);
            }
        });
        Self { child, said }
    }

    /// `gatecast serve` in `folder`, on a port that the system chooses; with its address.
    pub(crate) fn serve(folder: &Path, arguments: &[&str]) -> (Self, String) {
        Self::serve_by(
            &mut Command::new(GATECAST),
            folder,
            "127.0.0.1:0",
            arguments,
        )
    }

    /// The same, started by `command` and on `listen`.
    pub(crate) fn serve_by(
        command: &mut Command,
        folder: &Path,
        listen: &str,
        arguments: &[&str],
    ) -> (Self, String) {
        let command = command.args(["serve", "--listen", listen]).args(arguments);
        let server = Self::start(command.current_dir(folder));
        let addr = || {
            let said = server.said();
            let addr = said
                .lines()
                .find_map(|line| line.strip_prefix("listening on "));
            addr.map(str::to_owned)
        };
        until("the server to listen", || addr().is_some());
        let addr = addr().expect("it listens");
        (server, addr)
    }

    /// `gatecast fetch`, its copy in `out` below `folder`.
    pub(crate) fn fetch(folder: &Path, addr: &str, out: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(GATECAST);
        command
            .args(["fetch", addr, "--out", out, "--name", out])
            .args(arguments);
        Self::start(command.current_dir(folder))
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic").join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status();
        assert!(sent.expect("sh").success(), "kill -{name}");
    }

    /// SIGKILL, and the body taken away.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("ours");
        self.child.wait().expect("ours");
    }

    /// The exit code, once it has ended by itself.
    pub(crate) fn code(&mut self) -> i32 {
        let mut status = None;
        until("the program to end", || {
            status = self.child.try_wait().expect("ours");
            status.is_some()
        });
        let status = status.expect("it has ended");
        // Its last words may still be on the way.
        thread::sleep(std::time::Duration::from_millis(20));
        status
            .code()
            .unwrap_or_else(|| panic!("{status}: {}", self.said()))
    }

    /// How many of something the process has: `task` or `fd`.
    pub(crate) fn count(&self, what: &str) -> usize {
        entries(format!("/proc/{}/{what}", self.pid()).as_ref()).len()
    }

    /// Processor time used so far, in hundredths of a second.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("alive");
        // The fields after the name, which stands in parentheses: utime and stime are 14 and 15.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        [11, 12]
            .iter()
            .map(|&n| fields[n].parse::<u64>().expect("a number"))
            .sum()
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

/// The records once the log holds `rows` rows; a line is whole or not there.
pub(crate) fn records_of(folder: &Path, rows: usize) -> Vec<Record> {
    until(
        &format!("{rows} rows in the log within {PATIENCE:?}"),
        || {
            records(folder)
                .iter()
                .map(|r| r.transfers.len())
                .sum::<usize>()
                >= rows
        },
    );
    records(folder)
}
