//! A folder of many small files to 25 clients, beside the same bytes as one file, rsync from a daemon
//! and tar through pipes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gatecast::internals::server::sample;

use crate::{
    CLIENTS, Ground, Row, Turn, alternate, clear, ground,
    ours::{Build, Ours},
    print, theirs, timed,
};

/// What the issue asks for: 10,000 files of 10 kB.
const FILES: usize = 10_000;
const FILE_BYTES: usize = 10_000;

/// An rsync daemon of ours, of one folder.
struct Rsync {
    daemon: Child,
    url: String,
    _config: tempfile::TempDir,
}

/// Prints what each takes.
pub(crate) fn tree(ground: &Ground) -> Vec<Row> {
    println!(
        "\n{FILES} files of {FILE_BYTES} bytes to {CLIENTS} clients, {} runs each",
        if ground.is_quick { 1 } else { ground.runs }
    );
    let (folder, file) = make(ground.work.path());
    let out = ground.work.path().join("copies");
    let as_one = Ours::start(&Build::this(), &file, "auto");
    let as_many = Ours::start(&Build::this(), &folder, "auto");
    let rsync = Rsync::start(&folder);
    let own = |ours: &Ours| {
        let times = ours.fetch(ground.work.path());
        vec![times.verified, times.last_byte, times.whole]
    };
    let mut turns = vec![
        Turn::new("ours, one file", || own(&as_one)),
        Turn::new("ours, the folder", || own(&as_many)),
    ];
    if let Some(rsync) = &rsync {
        turns.push(Turn::new("rsync -a, a daemon", || {
            let clients = (1..=CLIENTS).map(|seat| {
                let mut rsync_client = Command::new("rsync");
                rsync_client.arg("-a").arg(&rsync.url).arg(out.join(seat.to_string()));
                rsync_client
            });
            together(clients.collect(), &out)
        }));
    } else {
        println!("rsync: skipped, it is not installed or does not start");
    }
    turns.push(Turn::new("tar | tar, no network", || {
        let clients = (1..=CLIENTS).map(|seat| {
            let to = out.join(seat.to_string());
            let mut shell = Command::new("sh");
            let script = "mkdir -p \"$1\" && tar cf - . | tar xf - -C \"$1\"";
            shell.args(["-c", script, "sh"]).arg(to).current_dir(&folder);
            shell
        });
        together(clients.collect(), &out)
    }));
    let runs = if ground.is_quick { 1 } else { ground.runs };
    alternate(&mut turns, runs);
    print(&turns, &["verified s", "of the first", "last byte s", "process s"]);
    let what = "10,000 files of 10 kB to 25 clients, whole process".to_owned();
    vec![Row::of(what, &turns, ("ours, the folder", 2), ("rsync -a, a daemon", 0))]
}

/// The folder, and its bytes as one file.
fn make(work: &Path) -> (PathBuf, PathBuf) {
    let (folder, file) = (work.join("tree"), work.join("tree.bin"));
    sample::make(&file, (FILES * FILE_BYTES) as u64).expect("room for the sample");
    let bytes = fs::read(&file).expect("just made");
    for (number, bytes) in bytes.chunks(FILE_BYTES).enumerate() {
        let inside = folder.join(format!("{:02}", number % 100));
        fs::create_dir_all(&inside).expect("room");
        fs::write(inside.join(format!("{number:05}")), bytes).expect("room");
    }
    (folder, file)
}

/// Runs all at once; from the first start to the last end, seconds. Nothing where one of them failed.
fn together(commands: Vec<Command>, out: &Path) -> Vec<f64> {
    fs::create_dir_all(out).expect("room");
    let (took, ended) = timed(|| {
        let run = commands.into_iter().map(|mut command| command.spawn().expect("it is installed"));
        let running: Vec<Child> = run.collect();
        // All of them, also where one has failed: the folder is removed below.
        let ended = running.into_iter().map(|mut child| child.wait().expect("ours").success());
        ended.collect::<Vec<_>>().into_iter().all(|is_whole| is_whole)
    });
    clear(out);
    if ended { vec![took] } else { Vec::new() }
}

impl Rsync {
    fn start(folder: &Path) -> Option<Self> {
        if !theirs::installed("rsync") {
            return None;
        }
        let config = ground::scratch("rsync");
        let place = config.path().display();
        let port = theirs::free_port();
        let text = format!(
            "use chroot = no\nmax connections = 100\npid file = {place}/pid\nlock file = {place}/lock\n\
             log file = {place}/log\n[tree]\npath = {}\nread only = yes\n",
            folder.display()
        );
        fs::write(config.path().join("conf"), text).expect("room");
        let daemon = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--config={place}/conf"))
            .stdin(Stdio::null())
            .spawn()
            .ok()?;
        let url = format!("rsync://127.0.0.1:{port}/tree/");
        let rsync = Self { daemon, url, _config: config };
        theirs::answers(port).then_some(rsync)
    }
}

impl Drop for Rsync {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
