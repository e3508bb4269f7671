//! The programs of one run: started on their hosts, watched, paid for in CPU time, and never left
//! behind.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

use nix::{
    sys::{
        resource::{Usage, UsageWho, getrusage},
        signal::{Signal, kill},
        time::TimeValLike,
    },
    unistd::Pid,
};

use crate::{
    error::{Error, Result},
    net::{clock, text_file},
    testbed::star::{check_stop, host::Host},
    text::escape,
    units::Moment,
};

/// Programs that run together; those that still do end with it.
#[derive(Debug)]
pub struct ProcessGroup<'a> {
    folder: &'a Path,
    stop: &'a AtomicBool,
    processes: Vec<GroupProcess>,
}

/// One program.
#[derive(Debug)]
pub struct GroupProcess {
    name: String,
    child: Child,
    ended: Option<ProcessEnd>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnd {
    /// Its status.
    pub status: ExitStatus,
    /// CPU seconds that it and its own children used.
    pub cpu_s: f64,
}

/// How often ended programs are looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long a program that was asked to end may take.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Most of a program's output that is read, bytes.
const OUTPUT_MAX: u64 = 64 * 1024 * 1024;

impl<'a> ProcessGroup<'a> {
    /// An empty group; what its programs print goes to files in `folder`. Once `stop` is set it
    /// waits for nothing more.
    pub fn new(folder: &'a Path, stop: &'a AtomicBool) -> Self {
        Self { folder, stop, processes: Vec::new() }
    }

    /// Starts a program on `host`; `piped` leaves its standard input to the caller. Returns its
    /// place.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        &mut self,
        name: &str,
        host: &Host,
        mut command: Command,
        piped: bool,
    ) -> Result<usize> {
        use std::os::unix::process::CommandExt;
        let file = |end: &str| {
            let path = self.folder.join(format!("{name}.{end}"));
            File::create(&path).map_err(Error::io("make a file for output", path.display()))
        };
        command
            .stdin(if piped { Stdio::piped() } else { Stdio::null() })
            .stdout(file("out")?)
            .stderr(file("err")?)
            // Ctrl-C on the terminal is for the study; it ends them in its own order.
            .process_group(0);
        let (name, child) = (name.to_owned(), host.spawn(&mut command)?);
        self.processes.push(GroupProcess { name, child, ended: None });
        Ok(self.processes.len() - 1)
    }

    /// A program's standard input, once, when it was left to the caller.
    pub fn take_stdin(&mut self, place: usize) -> Option<std::process::ChildStdin> {
        self.processes[place].child.stdin.take()
    }

    /// How a program ended; `None` while it runs.
    pub fn ended(&self, place: usize) -> Option<ProcessEnd> {
        self.processes[place].ended
    }

    /// Looks for programs that have ended.
    fn reap(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if process.ended.is_some() {
                continue;
            }
            // What is reaped here is added to the sum of all children at this very moment.
            let before = cpu_s(UsageWho::RUSAGE_CHILDREN);
            let status = process.child.try_wait();
            if let Some(status) = status.map_err(Error::io("wait for a program", &process.name))? {
                let cpu_s = (cpu_s(UsageWho::RUSAGE_CHILDREN) - before).max(0.0);
                process.ended = Some(ProcessEnd { status, cpu_s });
            }
        }
        Ok(())
    }

    /// Waits until `done` says so, by the processes' places.
    ///
    /// # Errors
    /// `stop` was set; the group then ends when it is dropped.
    pub fn wait(
        &mut self,
        deadline: Moment,
        mut done: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<bool> {
        loop {
            self.reap()?;
            if done(self)? {
                return Ok(true);
            }
            check_stop(self.stop)?;
            if clock::left(deadline).is_none() {
                return Ok(false);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until every one of these programs has ended; false when the time is over.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_for_all(&mut self, places: &[usize], deadline: Moment) -> Result<bool> {
        self.wait(deadline, |group| Ok(places.iter().all(|&place| group.ended(place).is_some())))
    }

    /// Starts a server on `host` and waits until it listens on its TCP port. Returns its place.
    ///
    /// # Errors
    /// It does not listen before the deadline, or ended; the error has its last line.
    pub fn start_server(
        &mut self,
        name: &str,
        host: &Host,
        command: Command,
        port: u16,
        deadline: Moment,
    ) -> Result<usize> {
        let place = self.start(name, host, command, false)?;
        let is_over = |group: &Self| Ok(group.ended(place).is_some() || host.listens(port)?);
        let is_up = self.wait(deadline, is_over)?;
        if is_up && self.ended(place).is_none() {
            return Ok(place);
        }
        let why = format!("it did not start: {}", self.last_error_line(place));
        Err(Error::refused(format_args!("the program `{name}`"), why))
    }

    /// CPU seconds of these programs together; `None` while one of them runs.
    pub fn cpu_s(&self, places: &[usize]) -> Option<f64> {
        places.iter().map(|&place| Some(self.ended(place)?.cpu_s)).sum()
    }

    /// Asks a program to end, and after a while insists.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn stop(&mut self, place: usize) -> Result<()> {
        self.signal(place, Signal::SIGTERM);
        let deadline = clock::now().after(EXIT_TIMEOUT);
        while self.processes[place].ended.is_none() {
            self.reap()?;
            if clock::left(deadline).is_none() {
                self.signal(place, Signal::SIGKILL);
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn signal(&self, place: usize, signal: Signal) {
        let process = &self.processes[place];
        if process.ended.is_none() {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(process.child.id().cast_signed()), signal);
        }
    }

    /// What a program printed.
    ///
    /// # Errors
    /// The file cannot be read, or is too large.
    pub fn stdout(&self, place: usize) -> Result<String> {
        let path = self.folder.join(format!("{}.out", self.processes[place].name));
        text_file::read(&path, OUTPUT_MAX)
    }

    /// The last line of what a program complained of, escaped.
    pub fn last_error_line(&self, place: usize) -> String {
        let path = self.folder.join(format!("{}.err", self.processes[place].name));
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let last: String = last.unwrap_or("").chars().take(300).collect();
        escape(last.trim().trim_start_matches("gatecast: "))
    }
}

impl Drop for ProcessGroup<'_> {
    fn drop(&mut self) {
        for process in &mut self.processes {
            if process.ended.is_none() {
                // It may have ended by itself; either way it is reaped.
                let _ = process.child.kill();
                let _ = process.child.wait();
            }
        }
    }
}

/// CPU seconds, user and system, of this process itself, or of all children waited for so far.
fn cpu_s(who: UsageWho) -> f64 {
    let micros = |usage: Usage| (usage.user_time() + usage.system_time()).num_microseconds();
    getrusage(who).map_or(0.0, |usage| micros(usage) as f64 / 1e6)
}

/// CPU seconds of this process itself.
pub fn own_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_SELF)
}
