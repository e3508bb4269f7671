//! Other people's swarms, measured the same way: aria2, and libtorrent that unchokes everybody.
//!
//! They have no gate. Seeder, tracker and clients get the same torrent as our own swarm has; a
//! client's time is from the start of all clients to its last piece, as it says itself, with the
//! start of its program in it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::SystemTime;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::proto::bt::layout::Layout;
use crate::proto::bt::metainfo;
use crate::proto::bt::metainfo::Metainfo;
use crate::testbed::star::host::Host;
use crate::testbed::star::tool;
use crate::testbed::study::bound::Bound;
use crate::testbed::study::contender::Carrier;
use crate::testbed::study::contender::Contender;
use crate::testbed::study::contender::Observed;
use crate::testbed::study::contender::RunSpec;
use crate::testbed::study::contender::SeatReport;
use crate::testbed::study::process_group::ProcessGroup;
use crate::text::FileName;
use crate::transport::swarm::store;

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

/// Python as a program, and whether it has libtorrent.
fn python(words: &[&str]) -> bool {
    let path = tool::find("python3").unwrap_or_else(|| "python3".into());
    let said = Command::new(path).args(words).output();
    said.is_ok_and(|said| said.status.success())
}

impl TorrentClient {
    /// The program of this name in tables.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Aria2, Self::Libtorrent]
            .into_iter()
            .find(|foreign| foreign.name() == name)
    }

    /// A peer on `host` with its files in `folder`.
    fn peer(self, host: &Host, torrent: &Path, folder: &Path) -> Command {
        let mut command;
        match self {
            Self::Libtorrent => {
                command = Command::new(tool::find("python3").unwrap_or_else(|| "python3".into()));
                command.arg(torrent.with_file_name("torrent_peer.py"));
                command.arg("peer").arg(torrent).arg(folder);
                command.arg(host.address.to_string()).arg(PORT.to_string());
            }
            Self::Aria2 => {
                command = Command::new(tool::find("aria2c").unwrap_or_else(|| "aria2c".into()));
                command.args(["--quiet", "--no-conf", "--file-allocation=none"]);
                command.args(["--enable-dht=false", "--enable-dht6=false"]);
                command.args(["--enable-peer-exchange=false", "--bt-enable-lpd=false"]);
                command.args(["--check-integrity=true", "--seed-ratio=0.0"]);
                command.arg(format!("--listen-port={PORT}"));
                let hook = torrent.with_file_name("done.sh");
                command.arg(format!("--on-bt-download-complete={}", hook.display()));
                command.arg(format!("--dir={}", folder.display()));
                command.arg(torrent);
            }
        }
        command
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

    fn carrier(&self) -> Carrier {
        Carrier::Tcp
    }

    fn check(&self) -> Result<()> {
        let missing = |what: &str| Err(Error::refused("the study", format!("{what} is missing")));
        match self {
            _ if tool::find("python3").is_none() => missing("the program `python3`"),
            Self::Aria2 if tool::find("aria2c").is_none() => missing("the program `aria2c`"),
            Self::Libtorrent if !python(&["-c", "import libtorrent"]) => {
                missing("python's module libtorrent (pip install libtorrent)")
            }
            _ => Ok(()),
        }
    }

    fn run(&self, job: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed> {
        let deadline = clock::now().after(job.limit);
        let mut group = ProcessGroup::new(job.folder);
        let torrent = prepare(job)?;
        let script = torrent.with_file_name("torrent_peer.py");
        let python = || Command::new(tool::find("python3").unwrap_or_else(|| "python3".into()));
        let mut track = python();
        track.arg(&script).arg("tracker");
        track.arg(job.server.address.to_string());
        track.arg(TRACKER.to_string());
        let tracker = group.start("tracker", job.server, &mut track, false)?;
        let ready = clock::now().after(SEEDER);
        let up = group.wait(ready, stop, |_| job.server.listens(TRACKER))?;
        let source = job.file.parent().unwrap_or(job.folder);
        // aria2 may begin a control file beside what it seeds, so both get a folder of their own.
        let seeding = folder(job, "seed")?;
        let name = job.file.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(source.join(name), seeding.join(name))
            .map_err(Error::io("show the file to the seeder", seeding.display()))?;
        let mut command = self.peer(job.server, &torrent, &seeding);
        let seeder = group.start("seeder", job.server, &mut command, false)?;
        let up = up && group.wait(ready, stop, |_| job.server.listens(PORT))?;
        // It says so once it has looked through its file; aria2 does not, so both get a moment.
        let settled = clock::now().after(Duration::from_secs(2));
        group.wait(settled, stop, |_| Ok(false))?;
        if !up || group.ended(seeder).is_some() {
            let why = group.last_error_line(seeder);
            return Err(Error::refused(self.name(), format!("no seeder: {why}")));
        }
        let mut places = Vec::new();
        let mut folders = Vec::new();
        for number in 1..=job.clients.len() {
            folders.push(folder(job, &format!("h{number}"))?);
        }
        let released = SystemTime::now();
        for ((number, host), folder) in (1..).zip(job.clients).zip(&folders) {
            let mut command = self.peer(host, &torrent, folder);
            places.push(group.start(&format!("h{number}"), host, &mut command, false)?);
        }
        let ended = group.wait(deadline, stop, |_| {
            Ok(folders.iter().all(|folder| folder.join("done").exists()))
        })?;
        let mut observed = Observed::default();
        if !ended {
            let limit = job.limit.as_secs();
            observed
                .trouble
                .push(format!("it did not end within {limit} s"));
        }
        for &place in places.iter().chain([&seeder, &tracker]) {
            group.stop(place)?;
        }
        for (host, folder) in (1..).zip(&folders) {
            let seat = seat(
                host,
                &folder.join(name),
                &folder.join("done"),
                job,
                released,
            );
            if seat.verified != Some(true) {
                observed
                    .trouble
                    .push(format!("client {host}: {}", seat.outcome));
            }
            observed.seats.push(seat);
        }
        observed.makespan_s = observed.seconds().reduce(f64::max);
        observed.cpu_server_s = group.ended(seeder).map(|end| end.cpu_s);
        let cpu = places.iter().map(|&place| Some(group.ended(place)?.cpu_s));
        observed.cpu_clients_s = cpu.sum();
        observed.sender = Some(self.name().to_owned());
        Ok(observed)
    }
}

/// Writes the torrent and the scripts into the run's folder.
fn prepare(job: &RunSpec<'_>) -> Result<std::path::PathBuf> {
    let at = job.folder.display();
    let name = job.file.file_name().and_then(|name| name.to_str());
    let name = FileName::new(name.unwrap_or_default())
        .map_err(|error| Error::refused(job.file.display(), error.to_string()))?;
    let file = std::fs::File::open(job.file).map_err(Error::io("read", job.file.display()))?;
    let layout = Layout::new(job.bytes, metainfo::piece_bytes(job.bytes));
    let pieces = store::digests(&file, layout, name.as_str())?;
    let torrent = Metainfo::new(name, job.bytes, layout.piece, pieces)
        .map_err(|error| Error::refused("the study", error.to_string()))?;
    let announce = format!("http://{}:{TRACKER}/announce", job.server.address);
    let path = job.folder.join("file.torrent");
    let hook = "#!/bin/sh\ndate +%s.%N >\"$(dirname \"$3\")/done\"\n";
    std::fs::write(&path, torrent.encode(Some(&announce), None))
        .and_then(|()| std::fs::write(job.folder.join("torrent_peer.py"), SCRIPT))
        .and_then(|()| std::fs::write(job.folder.join("done.sh"), hook))
        .and_then(|()| {
            use std::os::unix::fs::PermissionsExt;
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(job.folder.join("done.sh"), executable)
        })
        .map_err(Error::io("prepare the run", at))?;
    Ok(path)
}

fn folder(job: &RunSpec<'_>, name: &str) -> Result<std::path::PathBuf> {
    let path = job.folder.join(name);
    std::fs::create_dir_all(&path).map_err(Error::io("make a folder", path.display()))?;
    Ok(path)
}

/// What one client got, by our own digest of its copy.
fn seat(
    host: usize,
    copy: &Path,
    done: &Path,
    job: &RunSpec<'_>,
    released: SystemTime,
) -> SeatReport {
    let at = std::fs::read_to_string(done).ok();
    let at: Option<f64> = at.and_then(|text| text.trim().parse().ok());
    let released = released.duration_since(SystemTime::UNIX_EPOCH).ok();
    let seconds = at
        .zip(released)
        .map(|(at, released)| at - released.as_secs_f64());
    let digest = std::fs::File::open(copy).and_then(Digest::of_reader).ok();
    let outcome = match (seconds.is_some(), digest == Some(job.sha1)) {
        (true, true) => "complete",
        (true, false) => "corrupt",
        (false, _) => "cut",
    };
    SeatReport {
        host,
        outcome: outcome.to_owned(),
        verified: Some(outcome == "complete"),
        seconds,
        seconds_verified: None,
        bytes: copy.metadata().ok().map(|about| about.len()),
        bytes_from_server: None,
        bytes_from_peers: None,
    }
}
