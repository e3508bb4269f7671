//! Other people's swarms, measured the same way: aria2, and libtorrent that unchokes everybody.
//!
//! They have no gate. Seeder, tracker and clients get the same torrent as our own swarm has; a
//! client's time is from the start of all clients to its last piece, as it says itself, with the
//! start of its program in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use crate::{
    error::{Error, Result},
    net::clock,
    testbed::{
        star::{host::Host, tool},
        study::{
            bound::Bound,
            contender::{Contender, Observed, RunSpec},
            process_group::ProcessGroup,
        },
    },
    text::FileName,
    transport::swarm::store,
};

/// A program that speaks BitTorrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TorrentClient {
    /// aria2c.
    Aria2,
    /// python-libtorrent.
    Libtorrent,
}

/// The tracker's port, and every peer's.
const TRACKER: u16 = 6969;
const PORT: u16 = 6881;

/// The tracker, and a peer of libtorrent.
const SCRIPT: &str = include_str!("torrent_peer.py");

/// How long a seeder gets to look through its file and announce itself.
const SEEDER: Duration = Duration::from_secs(20);

impl TorrentClient {
    /// A peer on `host` with its files in `folder`.
    fn peer(self, host: &Host, torrent: &Path, folder: &Path) -> Command {
        match self {
            Self::Libtorrent => {
                let mut command = tool::command("python3");
                command.arg(torrent.with_file_name("torrent_peer.py"));
                command.arg("peer").arg(torrent).arg(folder);
                command.arg(host.address.to_string()).arg(PORT.to_string());
                command
            }
            Self::Aria2 => {
                let mut command = tool::command("aria2c");
                command.args(["--quiet", "--no-conf", "--file-allocation=none"]);
                command.args(["--enable-dht=false", "--enable-dht6=false"]);
                command.args(["--enable-peer-exchange=false", "--bt-enable-lpd=false"]);
                command.args(["--check-integrity=true", "--seed-ratio=0.0"]);
                command.arg(format!("--listen-port={PORT}"));
                let hook = torrent.with_file_name("done.sh");
                command.arg(format!("--on-bt-download-complete={}", hook.display()));
                command.arg(format!("--dir={}", folder.display()));
                command.arg(torrent);
                command
            }
        }
    }

    /// Starts tracker and seeder on the server's host, and returns their places.
    fn start_seeder(
        self,
        spec: &RunSpec<'_>,
        torrent: &Path,
        group: &mut ProcessGroup<'_>,
    ) -> Result<(usize, usize)> {
        let limit = clock::now().after(SEEDER);
        let mut track = tool::command("python3");
        track.arg(torrent.with_file_name("torrent_peer.py")).arg("tracker");
        track.arg(spec.server.address.to_string()).arg(TRACKER.to_string());
        let tracker = group.start_server("tracker", spec.server, track, TRACKER, limit)?;
        // aria2 may begin a control file beside what it seeds, so the seeder has a folder of its own.
        let seeding = spec.make_folder("seed")?;
        let name = spec.file.file_name().unwrap_or_default();
        let source = spec.file.parent().unwrap_or(spec.folder);
        std::os::unix::fs::symlink(source.join(name), seeding.join(name))
            .map_err(Error::io("show the file to the seeder", seeding.display()))?;
        let peer = self.peer(spec.server, torrent, &seeding);
        let seeder = group.start_server("seeder", spec.server, peer, PORT, limit)?;
        // libtorrent listens once it has looked through its file; aria2 listens before.
        let settled = clock::now().after(Duration::from_secs(2));
        if group.wait_for_all(&[seeder], settled)? {
            let why = group.last_error_line(seeder);
            return Err(Error::refused(self.name(), format!("no seeder: {why}")));
        }
        Ok((tracker, seeder))
    }
}

impl Contender for TorrentClient {
    fn name(&self) -> &str {
        match self {
            Self::Aria2 => "aria2",
            Self::Libtorrent => "libtorrent",
        }
    }

    fn bound(&self) -> Bound {
        Bound::Swarm
    }

    fn check(&self) -> Result<()> {
        tool::require("the study", "python3", "python3")?;
        match self {
            Self::Aria2 => tool::require("the study", "aria2c", "aria2").map(|_| ()),
            Self::Libtorrent => {
                let said = tool::command("python3").args(["-c", "import libtorrent"]).output();
                let why = "python's module libtorrent is missing (pip install libtorrent)";
                let is_there = said.is_ok_and(|said| said.status.success());
                is_there.then_some(()).ok_or_else(|| Error::refused("the study", why))
            }
        }
    }

    fn run(&self, spec: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed> {
        let deadline = spec.deadline();
        let mut group = ProcessGroup::new(spec.folder, stop);
        let torrent = prepare(spec)?;
        let (tracker, seeder) = self.start_seeder(spec, &torrent, &mut group)?;
        let folders: Vec<PathBuf> = (1..=spec.clients.len())
            .map(|number| spec.make_folder(&format!("h{number}")))
            .collect::<Result<_>>()?;
        let mut clients = Vec::new();
        let released = SystemTime::now();
        for ((number, host), folder) in (1..).zip(spec.clients).zip(&folders) {
            let peer = self.peer(host, &torrent, folder);
            clients.push(group.start(&format!("h{number}"), host, peer, false)?);
        }
        let mut observed = Observed::default();
        let is_done = |folder: &PathBuf| folder.join("done").exists();
        if !group.wait(deadline, |_| Ok(folders.iter().all(is_done)))? {
            observed.trouble.push(spec.not_in_time());
        }
        for &place in clients.iter().chain([&seeder, &tracker]) {
            group.stop(place)?;
        }
        let name = spec.file.file_name().unwrap_or_default();
        for (host, folder) in (1..).zip(&folders) {
            let seconds = seconds_until_done(folder, released);
            observed.add_copy(spec, (host, &folder.join(name)), seconds, "");
        }
        observed.cpu_server_s = group.cpu_s(&[seeder]);
        observed.cpu_clients_s = group.cpu_s(&clients);
        observed.sender = Some(self.name().to_owned());
        Ok(observed)
    }
}

/// The time from the release until the client wrote its file `done`.
fn seconds_until_done(folder: &Path, released: SystemTime) -> Option<f64> {
    let done = fs::read_to_string(folder.join("done")).ok()?;
    let at: f64 = done.trim().parse().ok()?;
    let released = released.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(at - released.as_secs_f64())
}

/// Writes the torrent and the scripts into the run's folder.
fn prepare(spec: &RunSpec<'_>) -> Result<PathBuf> {
    let at = spec.folder.display();
    let name = spec.file.file_name().and_then(|name| name.to_str());
    let name = FileName::new(name.unwrap_or_default())
        .map_err(|error| Error::refused(spec.file.display(), error.to_string()))?;
    let file = fs::File::open(spec.file).map_err(Error::io("read", spec.file.display()))?;
    let torrent = store::make_metainfo(&file.into(), &name, spec.bytes)?;
    let announce = format!("http://{}:{TRACKER}/announce", spec.server.address);
    let path = spec.folder.join("file.torrent");
    let hook = "#!/bin/sh\ndate +%s.%N >\"$(dirname \"$3\")/done\"\n";
    fs::write(&path, torrent.encode(Some(&announce), None))
        .and_then(|()| fs::write(spec.folder.join("torrent_peer.py"), SCRIPT))
        .and_then(|()| fs::write(spec.folder.join("done.sh"), hook))
        .and_then(|()| {
            use std::os::unix::fs::PermissionsExt;
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(spec.folder.join("done.sh"), executable)
        })
        .map_err(Error::io("prepare the run", at))?;
    Ok(path)
}
