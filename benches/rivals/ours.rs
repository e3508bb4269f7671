//! Our program as a user runs it: a server process that stays, and a client process for each run.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{CLIENTS, clear, ground, theirs, timed};

/// A built program.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    program: PathBuf,
    /// Computes digests with `sha1_smol` on any processor.
    is_portable: bool,
}

/// A server of one file.
pub(crate) struct Ours {
    server: Child,
    addr: String,
    build: Build,
    copy: String,
    _logs: tempfile::TempDir,
}

/// What one release took, in seconds.
pub(crate) struct Times {
    /// Release to the last byte.
    pub(crate) last_byte: f64,
    /// Release to the last digest.
    pub(crate) verified: f64,
    /// The client process from its start to its end, digests, syncs and table included.
    pub(crate) whole: f64,
    /// Between the first bytes of the first and of the last client, milliseconds.
    pub(crate) skew_ms: f64,
}

impl Build {
    /// The program of this very build.
    pub(crate) fn this() -> Self {
        Self { program: PathBuf::from(env!("CARGO_BIN_EXE_gatecast")), is_portable: false }
    }

    /// The program with other features, built beside this one if it is not there yet.
    pub(crate) fn with(features: &str) -> Option<Self> {
        let target = Path::new(env!("CARGO_BIN_EXE_gatecast")).parent()?.parent()?.join("rivals");
        let built = target.join("release/gatecast");
        let kept = target.join(format!("gatecast-{}", features.replace(',', "-")));
        let status = Command::new(option_env!("CARGO").unwrap_or("cargo"))
            .args(["build", "--quiet", "--release", "--no-default-features"])
            .args(["--features", features, "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        // The next build replaces it, so it gets a name of its own.
        (status.ok()?.success() && fs::copy(built, &kept).is_ok())
            .then_some(Self { program: kept, is_portable: false })
    }

    /// The same with the digests of `sha1_smol`.
    pub(crate) fn portable(self) -> Self {
        Self { is_portable: true, ..self }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.is_portable.then_some(("GATECAST_SHA1", "sha1_smol")));
        command
    }
}

impl Ours {
    /// Serves `file`, which may be a folder to be sent as one, with the copy that `--copy` names.
    pub(crate) fn start(build: &Build, file: &Path, copy: &str) -> Self {
        Self::start_by(build, file, copy, "tcp")
    }

    /// The same by another way.
    pub(crate) fn start_by(build: &Build, file: &Path, copy: &str, via: &str) -> Self {
        let logs = ground::scratch("logs");
        let mut server = build
            .command()
            .args(["serve", "--listen", "127.0.0.1:0", "--copy", copy, "--via", via, "--json"])
            .args(["--clients", &CLIENTS.to_string(), "--log-dir"])
            .arg(logs.path())
            .args(file.is_dir().then_some("--tree"))
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let mut lines = BufReader::new(server.stderr.take().expect("piped")).lines();
        let addr = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
            .expect("the server says where it listens");
        // It must never block on its messages.
        std::thread::spawn(move || lines.for_each(drop));
        Self { server, addr, build: build.clone(), copy: copy.to_owned(), _logs: logs }
    }

    /// The file for each of 25 curl by HTTP: `query` is `?gate`, or nothing for no gate.
    pub(crate) fn curls(&self, file: &Path, query: &str, work: &Path) -> Vec<f64> {
        let name = file.file_name().and_then(OsStr::to_str).expect("UTF-8");
        let url = format!("http://{}/files/{name}{query}", self.addr);
        theirs::curls(&url, work, CLIENTS)
    }

    /// One release to one process of clients, into files below `work`.
    pub(crate) fn fetch(&self, work: &Path) -> Times {
        let out = work.join("ours");
        let mut command = self.build.command();
        command
            .args(["fetch", &self.addr, "--json", "--copy", &self.copy])
            .args(["--clients", &CLIENTS.to_string(), "--out"])
            .arg(&out);
        let (whole, output) = timed(|| command.output().expect("the program was built"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        clear(&out);
        let document: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("a document");
        assert_eq!(document["identities"], "hold");
        let after_release = |own: &str| {
            let results = document["results"].as_array().expect("rows");
            let seconds = results.iter().map(|row| {
                // A client counts from its own GO, which came with the first byte; who gets none from
                // the server has no such moment.
                row["first_server_us"].as_f64().unwrap_or(0.0) / 1e6
                    + row[own].as_f64().expect("a whole copy")
            });
            seconds.fold(0.0, f64::max)
        };
        Times {
            last_byte: document["global"]["seconds"].as_f64().expect("whole copies"),
            verified: after_release("seconds_verified"),
            whole,
            skew_ms: document["release"]["skew_client_us"].as_f64().unwrap_or(f64::NAN) / 1e3,
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // It has nothing to save; the session logs go with their folder.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
