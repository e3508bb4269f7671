//! A client on another machine, started by the system's `ssh` and ended with it.

use std::{
    io::{self, BufRead, BufReader, PipeReader, Read, Write},
    net::IpAddr,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{self, clock, lock},
    proto::hosts::HostEntry,
    text::{ClientName, escape},
};

/// What the clients of one push are started with.
#[derive(Clone, Debug)]
pub(crate) struct FarConfig<'a> {
    /// The command that reaches a host, its words separated by blanks.
    pub(crate) ssh: &'a str,
    /// The server's address; that by which ssh came unless given.
    pub(crate) address: Option<&'a str>,
    /// The server's port.
    pub(crate) port: u16,
    /// Options of `gatecast fetch`.
    pub(crate) options: Vec<String>,
    /// Whether the copy goes into a folder that the far end removes.
    pub(crate) discard: bool,
    /// The key that the client reads from its standard input; empty for none.
    pub(crate) key: Arc<[u8]>,
    /// The program for hosts that lack it; empty for none.
    pub(crate) program: Arc<[u8]>,
}

/// A client on another machine. It is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct FarClient {
    /// What it calls itself.
    pub(crate) name: ClientName,
    ssh: Child,
    ended: Option<ExitStatus>,
    said: Arc<Mutex<String>>,
    talk: JoinHandle<()>,
}

/// How the far end asks for the program and for the key. Nothing is sent before, so that what
/// reads the one cannot take a part of the other.
const WANTS_PROGRAM: &str = "gatecast push: the program";
const WANTS_KEY: &str = "gatecast push: the key";

/// What the far end's shell runs: `$1` is the server's address, `$2` its port, `$3` and `$4` are the
/// bytes of the key and of the program, `$5` is not empty where no copy shall stay, and what follows is
/// for `gatecast fetch`. The key goes through a
/// FIFO, as only one process may read standard input at a time: first what takes the key, then what
/// waits for its end. Without a terminal no signal comes; that end says that the near end is gone.
const SCRIPT: &str = include_str!("far.sh");

/// Most bytes of a line of the far end that are kept: room for a sentence and a path.
const LINE_MAX: u64 = 1000;

/// How long what ssh said last is waited for once it has ended. A connection that ssh keeps for
/// others (`ControlPersist`) holds the pipe open.
const LAST_LINE: Duration = Duration::from_millis(500);

impl FarConfig<'_> {
    /// Starts a client on `host`.
    ///
    /// # Errors
    /// There is no such ssh, or the system refuses a process, a pipe or a thread. What happens to the
    /// client after that is in [`FarClient::why`].
    pub(crate) fn start(&self, host: &HostEntry) -> Result<FarClient> {
        let failed = |doing| Error::io(doing, format!("{} for {}", escape(self.ssh), host.name));
        let (output, pipe) = io::pipe().map_err(failed("make a pipe"))?;
        let mut ssh = self.command(host.name.as_str(), host.address);
        let second = pipe.try_clone().map_err(failed("make a pipe"))?;
        ssh.stdin(Stdio::piped()).stdout(pipe).stderr(second);
        let mut child = ssh.spawn().map_err(failed("start"))?;
        // It holds the pipe's other end.
        drop(ssh);
        let stdin = child.stdin.take();
        let said = Arc::new(Mutex::new(String::new()));
        let (heard, key, program) =
            (Arc::clone(&said), Arc::clone(&self.key), Arc::clone(&self.program));
        let talk = net::spawn("ssh", move || answer(output, stdin, (&key, &program), &heard))
            .map_err(failed("start the thread"))?;
        Ok(FarClient { name: host.name.clone(), ssh: child, ended: None, said, talk })
    }

    fn command(&self, name: &str, address: Option<IpAddr>) -> Command {
        let mut words = self.ssh.split_whitespace();
        let mut ssh = Command::new(words.next().unwrap_or("ssh"));
        // Ctrl-C on the terminal is for this program, which ends them in its own order.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut ssh, 0);
        ssh.args(words).args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
        if let Some(address) = address {
            ssh.args(["-o", &format!("HostName={address}")]);
        }
        ssh.args(["--", name]).arg(self.far_command(name));
        ssh
    }

    /// The line that the far end's login shell reads.
    fn far_command(&self, name: &str) -> String {
        let (port, key) = (self.port.to_string(), self.key.len().to_string());
        let program = self.program.len().to_string();
        let discard = if self.discard { "discard" } else { "" };
        let address = self.address.unwrap_or("");
        let fixed = [SCRIPT, "gatecast", address, &port, &key, &program, discard];
        let name = format!("--name={name}");
        let words =
            fixed.into_iter().chain(self.options.iter().map(String::as_str)).chain([&*name]);
        words.fold("exec sh -c".to_owned(), |line, word| line + " " + &quoted(word))
    }
}

/// `text` as one word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Gives the far end what it asks for, once, and keeps its last line, until it closes its output.
fn answer(
    output: PipeReader,
    mut stdin: Option<ChildStdin>,
    (key, program): (&[u8], &[u8]),
    said: &Mutex<String>,
) {
    let (mut key, mut program) = (Some(key), Some(program));
    let (mut output, mut line) = (BufReader::new(output), Vec::new());
    while (&mut output).take(LINE_MAX).read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        let text = String::from_utf8_lossy(&line);
        let wanted = match text.trim() {
            WANTS_PROGRAM => program.take(),
            WANTS_KEY => key.take(),
            text => {
                keep(text, &mut lock(said));
                None
            }
        };
        if let (Some(bytes), Some(stdin)) = (wanted, &mut stdin)
            && let Err(error) = stdin.write_all(bytes)
        {
            log::debug!("the far end ended before it had all: {error}");
        }
        line.clear();
    }
}

/// Keeps `line` as the last one. What `gatecast` calls an error is not replaced by a hint after it.
fn keep(line: &str, said: &mut String) {
    const ERROR: &str = "gatecast: ";
    if !line.is_empty() && (line.starts_with(ERROR) || !said.starts_with(ERROR)) {
        line.clone_into(said);
    }
}

impl FarClient {
    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.ended = self.ended.or_else(|| self.ssh.try_wait().ok().flatten());
        self.ended.is_none()
    }

    /// Why it has no copy: the last line that ssh or the client wrote.
    pub(crate) fn why(&self) -> String {
        let deadline = clock::now().after(LAST_LINE);
        while self.ended.is_some() && !self.talk.is_finished() && clock::left(deadline).is_some() {
            thread::sleep(Duration::from_millis(5));
        }
        let said = lock(&self.said);
        match (said.trim_start_matches("gatecast: "), self.ended) {
            ("", Some(status)) => format!("ssh ended with {status}"),
            ("", None) => "it was not ready in time".to_owned(),
            (said, _) => escape(said),
        }
    }
}

impl Drop for FarClient {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const HOSTILE: [&str; 9] = [
        "-oProxyCommand=touch x",
        "a b",
        "it's",
        "'; touch x; '",
        "$(touch x)`touch x`",
        "\"\\",
        "a\nb",
        "*",
        "--",
    ];

    fn config(options: &[&str]) -> FarConfig<'static> {
        FarConfig {
            ssh: "ssh -F file",
            address: None,
            port: 7,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            discard: false,
            key: Arc::from([0; 3]),
            program: Arc::from([]),
        }
    }

    #[test]
    fn hostile_words_stay_single_words_in_a_shell() {
        let line = HOSTILE
            .iter()
            .fold("printf '%s|'".to_owned(), |line, &word| line + " " + &quoted(word));
        let shown = Command::new("sh").args(["-c", &line]).output().expect("sh");
        let expected: String = HOSTILE.iter().map(|word| format!("{word}|")).collect();
        assert_eq!(String::from_utf8_lossy(&shown.stdout), expected);
    }

    #[test]
    fn hostile_host_name_is_one_word_after_all_options() {
        for name in HOSTILE {
            let ssh = config(&[]).command(name, None);
            let words: Vec<_> = ssh.get_args().map(|word| word.to_str().expect("text")).collect();
            assert_eq!(words[..2], ["-F", "file"]);
            let end = words.iter().position(|&word| word == "--").expect("an end of options");
            assert_eq!(words[end + 1], name);
            assert_eq!(words.len(), end + 3, "the far end's line is one word too");
        }
    }

    /// The far end's line, with a program that shows what it was called with.
    fn run_far_command(config: &FarConfig<'_>, name: &str, path: &str, key: &[u8]) -> String {
        let mut far = Command::new("/bin/sh");
        far.args(["-c", &config.far_command(name)]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut far = far
            .env("PATH", path)
            .env("SSH_CONNECTION", "fd00::1 50000 fd00::2 22")
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut stdin = far.stdin.take().expect("piped");
        stdin.write_all(key).expect("it reads");
        let mut said = String::new();
        far.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        far.wait().expect("it ends");
        said
    }

    #[test]
    fn far_end_gets_hostile_options_and_key_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("gatecast");
        let script = "#!/bin/sh\nprintf '%s|' \"$@\" >&2\ncat >&2\n";
        std::fs::write(&program, script).expect("room");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("ours");
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        for word in HOSTILE {
            let option = format!("--out={word}");
            let said = run_far_command(&config(&[&option]), word, &path, b"key and more");
            assert_eq!(said, format!("fetch|{option}|--name={word}|--|[fd00::1]:7|key"));
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 1);
        let said = run_far_command(&config(&[]), "a", "/usr/bin:/bin", b"");
        assert!(said.contains("--copy-binary brings it"), "{said}");
    }

    #[test]
    fn error_of_the_program_is_not_replaced_by_a_hint() {
        let mut said = String::new();
        for line in ["motd", "gatecast: no space", "what arrived is kept", ""] {
            keep(line, &mut said);
        }
        assert_eq!(said, "gatecast: no space");
        keep("gatecast: worse", &mut said);
        assert_eq!(said, "gatecast: worse");
    }
}
