//! The programs and rights that a star needs, and how a program is run.

use std::{
    fmt,
    fs::Metadata,
    io::{Read, Write},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    thread::ThreadId,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{clock, lock},
};

/// A program of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tool {
    /// Namespaces, links and addresses.
    Ip,
    /// Rates and delays.
    Tc,
    /// Loss.
    Nft,
    /// Offloads.
    Ethtool,
}

/// How long one program may take. A batch for 1000 hosts takes some seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// How often an ended program is looked for, at first and at most.
const POLL_FIRST: Duration = Duration::from_micros(300);
const POLL_LATER: Duration = Duration::from_millis(5);

/// Most of a program's complaints that are kept, bytes.
const STDERR_MAX: u64 = 4096;

/// The only thread that may run programs from now on; `None` until one is named. Locked while a
/// program runs.
static RESERVED_BY: Mutex<Option<ThreadId>> = Mutex::new(None);

/// Where programs for administrators stand when they are not in everybody's path.
const SYSTEM_PATHS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

impl Tool {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ip, Self::Tc, Self::Nft, Self::Ethtool];

    /// Its name, and the Debian package that has it.
    pub fn name_and_package(self) -> (&'static str, &'static str) {
        match self {
            Self::Ip => ("ip", "iproute2"),
            Self::Tc => ("tc", "iproute2"),
            Self::Nft => ("nft", "nftables"),
            Self::Ethtool => ("ethtool", "ethtool"),
        }
    }

    /// Where it is.
    ///
    /// # Errors
    /// It is nowhere; the error names the package.
    pub fn path(self) -> Result<PathBuf> {
        let (name, package) = self.name_and_package();
        require("the star", name, package)
    }
}

/// The file of a program that `by` needs.
///
/// # Errors
/// It is nowhere; the error names the Debian package that has it.
pub fn require(by: &str, program: &str, package: &str) -> Result<PathBuf> {
    find(program).ok_or_else(|| {
        let why = format!("the program `{program}` is missing; Debian has it in package {package}");
        Error::refused(by, why)
    })
}

/// A command of a program that was looked for before.
pub fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}

/// The file of a program, by the path and then where administrators' programs are.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_PATHS.iter().map(PathBuf::from));
    let is_program = |about: Metadata| about.is_file() && about.mode() & 0o111 != 0;
    folders.map(|folder| folder.join(name)).find(|file| file.metadata().is_ok_and(is_program))
}

/// Waits for the program that runs, and from then on lets only this thread run programs. The thread
/// removes a star and then ends the process; meanwhile no other thread may build on.
pub fn reserve() {
    *lock(&RESERVED_BY) = Some(thread::current().id());
}

/// Runs a program to its end, with `input`; its standard output, or where it failed the beginning of
/// its standard error.
///
/// # Errors
/// It is missing, could not be started, or did not end in time.
pub fn run(tool: Tool, words: &[&str], input: &str) -> Result<Result<String, String>> {
    let path = tool.path()?;
    let reserved_by = lock(&RESERVED_BY);
    if reserved_by.is_some_and(|thread| thread != thread::current().id()) {
        drop(reserved_by);
        // The process ends as soon as that thread is done; going on, this one might end it before.
        loop {
            thread::park();
        }
    }
    let at = format!("{} {}", path.display(), words.join(" "));
    let mut child = Command::new(&path)
        .args(words)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C on the terminal is for us: what is half built is removed in order.
        .process_group(0)
        .spawn()
        .map_err(Error::io("start a program", &at))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // A pipe holds 64 KiB. Each has a thread, so that the program never waits for us.
    thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
        let stdout = scope.spawn(move || stdout.map_or_else(String::new, read_all));
        let stderr = scope
            .spawn(move || stderr.map_or_else(String::new, |pipe| read_all(pipe.take(STDERR_MAX))));
        let status = wait(&mut child, &at)?;
        let said = if status.success() { Ok(stdout) } else { Err(stderr) };
        let text = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_default();
        Ok(said.map(text).map_err(text))
    })
}

/// Waits until the program has ended; one that takes too long is killed.
fn wait(child: &mut Child, at: &str) -> Result<ExitStatus> {
    let deadline = clock::now().after(LIMIT);
    let mut pause = POLL_FIRST;
    loop {
        let status = child.try_wait();
        if let Some(status) = status.map_err(Error::io("wait for a program", at))? {
            return Ok(status);
        }
        if clock::left(deadline).is_none() {
            let _ = child.kill();
            let _ = child.wait();
            let why = format!("it did not end within {} s", LIMIT.as_secs());
            return Err(Error::refused(format!("`{at}`"), why));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(POLL_LATER);
    }
}

fn read_all(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes); // What came before a failure is what there is.
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name_and_package().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_named_with_its_package() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
        assert!(find("").is_none(), "a folder is no program");
        assert_eq!(Tool::Nft.name_and_package(), ("nft", "nftables"));
    }
}
