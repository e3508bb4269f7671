//! Copies that get no name of their own: a disk or a file written in place, and standard output.
//!
//! What is done to a real disk takes root and `losetup`, and is skipped without them.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use gatecast::internals::{
    client::{
        download::{Checked, Download, DownloadSpec, Proof},
        part::{ByteOrder, PartSpec},
    },
    digest::Digest,
    net::disk,
    testbed::star::rootless,
    text::FileName,
};
use nix::fcntl::OFlag;

use crate::common::{
    PATIENCE, entries, have, installed,
    program::{self, Program, output_text, text},
    until, within,
};

/// No multiple of any block.
const BYTES: u64 = 1_234_567;

/// How much more the disk has than the file; a disk has whole blocks.
const BEHIND: u64 = 558 * 4096 - BYTES;

/// Every way, and whether it has a digest.
const WAYS: [&str; 6] = ["tcp", "udp", "multicast", "swarm", "chain", "http"];

/// Runs a program, which must succeed; returns what it printed.
#[track_caller]
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", output_text(&output));
    text(&output.stdout).trim().to_owned()
}

/// A disk whose bytes are in a file.
struct LoopDisk {
    device: String,
    partition: bool,
    mounted: Option<PathBuf>,
    swap: bool,
}

impl LoopDisk {
    /// A disk of the file at `path`; `None` where there can be none.
    fn of(path: &Path) -> Option<Self> {
        let found = Command::new("losetup").args(["--find", "--show"]).arg(path).output();
        let found = found.ok().filter(|found| rootless::is_root() && found.status.success());
        if !have("root, losetup and loop devices", found.is_some()) {
            return None;
        }
        let device = text(&found?.stdout).trim().to_owned();
        Some(Self { device, partition: false, mounted: None, swap: false })
    }

    /// Mounts `device`, with a new file system, on `place`.
    fn mount(&mut self, device: &str, place: &Path) {
        tool("mkfs.ext4", &["-q", device]);
        fs::create_dir(place).expect("room");
        tool("mount", &[device, place.to_str().expect("UTF-8")]);
        self.mounted = Some(place.to_owned());
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let run = |program: &str, arguments: &[&str]| {
            let _ = Command::new(program).args(arguments).status();
        };
        if let Some(place) = &self.mounted {
            run("umount", &[place.to_str().expect("UTF-8")]);
        }
        if self.swap {
            run("swapoff", &[&self.device]);
        }
        if self.partition {
            run("delpart", &[&self.device, "1"]);
        }
        run("losetup", &["--detach", &self.device]);
    }
}

/// A folder with `f.bin`, and `disk.img`, which is larger and full of another byte.
fn place() -> (tempfile::TempDir, Vec<u8>) {
    let (folder, _) = program::folder_with_file(BYTES);
    let content = fs::read(folder.path().join("f.bin")).expect("there");
    fs::write(folder.path().join("disk.img"), old(BYTES + BEHIND)).expect("room");
    (folder, content)
}

fn old(bytes: u64) -> Vec<u8> {
    vec![0xA5; usize::try_from(bytes).expect("small")]
}

/// Whether a file in `folder` can be written in place.
fn reads_past_cache(folder: &Path) -> bool {
    let opened = disk::open(&folder.join("disk.img"));
    let reason = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
    assert!(opened.is_ok() || reason.contains("past the system's cache"), "{reason}");
    have("file system that reads past the cache", opened.is_ok())
}

/// Fetches from `addr` onto `disk`, named twice.
fn fetch_to(folder: &Path, addr: &str, disk: &str) -> Output {
    program::run(folder, &["fetch", addr, "--to", disk, "--yes-overwrite", disk])
}

#[track_caller]
fn expect(output: &Output, code: i32, message: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", output_text(output));
    assert!(output_text(output).contains(message), "{}", output_text(output));
}

/// Asserts that `disk` begins with `content` and is as it was behind it.
#[track_caller]
fn holds(disk: &Path, content: &[u8]) {
    let there = fs::read(disk).expect("readable");
    assert_eq!(there.len() as u64, BYTES + BEHIND, "its size is as it was");
    let (copy, behind) = there.split_at(content.len());
    assert!(copy == content, "it holds the file");
    assert!(behind.iter().all(|&byte| byte == 0xA5), "what is behind stays");
}

/// A server of a file by whose offer nothing else than `sends` comes.
fn stranger(offered: &[u8], sends: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let (bytes, sha1) = (offered.len(), Digest::of(offered));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 512]);
            let offer = format!(
                "OFFER file=f bytes={bytes} sha1={sha1} session=0000000000000001 seat=1 \
                 clients=1 via=tcp\nGO bytes={bytes}\n"
            );
            let _ = stream.write_all(&[offer.as_bytes(), sends].concat());
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    addr
}

// --- onto a disk ----------------------------------------------------------------------------------

#[test]
fn file_in_place_becomes_copy_by_every_way() {
    within(PATIENCE * 4, || {
        for way in WAYS {
            let (folder, content) = place();
            if !reads_past_cache(folder.path()) {
                return;
            }
            let disk = folder.path().join("disk.img");
            let before = fs::metadata(&disk).expect("there").ino();
            let (_server, addr) = Program::serve(folder.path(), &["f.bin", "--via", way]);
            let output = fetch_to(folder.path(), &addr, "disk.img");
            expect(&output, 0, "disk.img: whole and verified\n1 of 1 copies proven");
            holds(&disk, &content);
            assert_eq!(fs::metadata(&disk).expect("there").ino(), before, "it is the same file");
            let names = [folder.path().join("disk.img"), folder.path().join("f.bin")];
            let mut left = entries(folder.path());
            left.retain(|path| !path.ends_with("logs"));
            assert_eq!(left, names, "{way}: nothing else was made");
        }
    });
}

#[test]
fn disk_becomes_copy_and_keeps_what_is_behind() {
    within(PATIENCE * 4, || {
        for way in ["tcp", "multicast", "swarm"] {
            let (folder, content) = place();
            let Some(disk) = LoopDisk::of(&folder.path().join("disk.img")) else { return };
            let (_server, addr) = Program::serve(folder.path(), &["f.bin", "--via", way]);
            // As disks are named by what does not change: a link.
            std::os::unix::fs::symlink(&disk.device, folder.path().join("by-id")).expect("room");
            let output = fetch_to(folder.path(), &addr, "by-id");
            expect(&output, 0, "by-id: whole and verified\n1 of 1 copies proven");
            holds(disk.device.as_ref(), &content);
        }
    });
}

#[test]
fn disk_that_lost_a_byte_behind_the_cache_is_corrupt() {
    let (folder, content) = place();
    let backing = folder.path().join("disk.img");
    let Some(disk) = LoopDisk::of(&backing) else { return };
    for lost in [None, Some(1_000_000)] {
        let spec = DownloadSpec {
            part: PartSpec {
                folder: disk.device.as_ref(),
                name: &FileName::new("f.bin").expect("plain"),
                bytes: BYTES,
                identity: Digest::of(&content),
                client: 1,
                order: ByteOrder::Sequential,
                resume: false,
                replace: true,
                in_place: true,
            },
            proof: Proof::Sha1(Digest::of(&content)),
            clients: 1,
        };
        let download = Download::open(&spec, |_| Ok(())).expect("a free disk");
        let written = download.file().file().expect("no folder");
        written.write_all_at(&content, 0).expect("room");
        written.sync_all().expect("a disk");
        let Some(at) = lost else {
            assert!(matches!(download.verify(|_| Ok(())), Ok(Checked::Whole(_))));
            continue;
        };
        let file = OpenOptions::new().write(true).open(&backing).expect("there");
        file.write_all_at(&[!content[1_000_000]], at).expect("room");
        let mut cached = [0];
        File::open(&disk.device).expect("there").read_exact_at(&mut cached, at).expect("there");
        assert_eq!(cached[0], content[1_000_000], "the system's cache knows nothing of it");
        assert!(matches!(download.verify(|_| Ok(())), Ok(Checked::Corrupt { .. })));
    }
}

#[test]
fn disk_in_use_is_refused_and_one_set_free_is_not() {
    within(PATIENCE * 4, || {
        let (folder, content) = place();
        let image = folder.path().join("disk.img");
        // Large enough for a file system.
        fs::write(&image, old(16 << 20)).expect("room");
        let (_server, addr) = Program::serve(folder.path(), &["f.bin"]);
        let fetch = |disk: &str| fetch_to(folder.path(), &addr, disk);
        let Some(mut disk) = LoopDisk::of(&image) else { return };
        let device = disk.device.clone();
        let name = device.trim_start_matches("/dev/").to_owned();
        expect(&fetch("disk.img"), 1, &format!("it is the disk {name} at the same time"));

        let other = OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(&device);
        expect(&fetch(&device), 1, "it is in use elsewhere, as by a RAID");
        drop(other);
        assert!(fs::read(&image).expect("there").iter().all(|&byte| byte == 0xA5));

        if have("mkfs.ext4", installed("mkfs.ext4")) {
            let place = folder.path().join("mounted");
            disk.mount(&device, &place);
            expect(&fetch(&device), 1, &format!("{device} is mounted at {}", place.display()));
            tool("umount", &[place.to_str().expect("UTF-8")]);
            disk.mounted = None;
        }
        let has_tools = ["mkfs.ext4", "addpart", "delpart"].map(installed) == [true; 3];
        if have("mkfs.ext4, addpart and delpart", has_tools) {
            tool("addpart", &[&device, "1", "2048", "16384"]);
            disk.partition = true;
            let partition = format!("{device}p1");
            until("the partition", || Path::new(&partition).exists());
            disk.mount(&partition, &folder.path().join("part"));
            expect(&fetch(&device), 1, &format!("{name}p1 is mounted at "));
            tool("umount", &[folder.path().join("part").to_str().expect("UTF-8")]);
            disk.mounted = None;
            tool("delpart", &[&device, "1"]);
            disk.partition = false;
        }
        if have("mkswap", installed("mkswap")) {
            tool("mkswap", &[&device]);
            disk.swap = Command::new("swapon").arg(&device).status().is_ok_and(|end| end.success());
            if have("system that takes more swap", disk.swap) {
                expect(&fetch(&device), 1, &format!("{device} is swap"));
                tool("swapoff", &[&device]);
                disk.swap = false;
            }
        }
        expect(&fetch(&device), 0, "1 of 1 copies proven");
        assert!(fs::read(&device).expect("there").starts_with(&content));
    });
}

#[test]
fn disk_cannot_be_claimed_while_fetch_waits() {
    within(PATIENCE * 2, || {
        let (folder, _) = place();
        let Some(disk) = LoopDisk::of(&folder.path().join("disk.img")) else { return };
        let claim =
            || OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(&disk.device);
        claim().expect("free");
        let (server, addr) = Program::serve(folder.path(), &["f.bin", "--clients", "2"]);
        let words = ["fetch", &addr, "--to", &disk.device, "--yes-overwrite", &disk.device];
        let mut client = Program::start(&mut program::gatecast(folder.path(), &words));
        until("the client to be ready", || server.stderr().contains("1 of 2 clients ready"));
        assert_eq!(claim().expect_err("claimed").kind(), ErrorKind::ResourceBusy);
        client.signal("INT");
        assert_eq!(client.code(), 130, "{}", client.stderr());
        claim().expect("free again");
        assert!(fs::read(&disk.device).expect("there").iter().all(|&byte| byte == 0xA5));
    });
}

#[test]
fn disk_one_byte_too_small_is_refused_and_exact_one_is_not() {
    within(PATIENCE * 2, || {
        let (folder, content) = place();
        if !reads_past_cache(folder.path()) {
            return;
        }
        let disk = folder.path().join("disk.img");
        let (_server, addr) = Program::serve(folder.path(), &["f.bin"]);
        fs::write(&disk, old(BYTES - 1)).expect("room");
        let output = fetch_to(folder.path(), &addr, "disk.img");
        expect(&output, 1, "disk.img refused: it has 1234566 bytes, and the file has 1234567");
        assert!(fs::read(&disk).expect("there") == old(BYTES - 1), "nothing was written");
        fs::write(&disk, old(BYTES)).expect("room");
        expect(&fetch_to(folder.path(), &addr, "disk.img"), 0, "1 of 1 copies proven");
        assert!(fs::read(&disk).expect("there") == content);
    });
}

#[test]
fn failed_copy_on_a_disk_is_told_and_cuts_nothing_behind() {
    within(PATIENCE * 4, || {
        let told = "disk.img is not the file, and may be partly overwritten";
        for (way, option) in
            [("tcp", None), ("udp", None), ("multicast", None), ("tcp", Some("http"))]
        {
            let (folder, _) = place();
            if !reads_past_cache(folder.path()) {
                return;
            }
            let disk = folder.path().join("disk.img");
            let way = option.unwrap_or(way);
            let arguments = ["f.bin", "--via", way, "--rate", "4mbit"];
            let (mut server, addr) = Program::serve(folder.path(), &arguments);
            let mut words = vec!["fetch", &addr, "--to", "disk.img", "--yes-overwrite", "disk.img"];
            words.extend(option.map(|_| ["--via", "http"]).into_iter().flatten());
            let mut client = Program::start(&mut program::gatecast(folder.path(), &words));
            let begun = || fs::read(&disk).expect("there").first() != Some(&0xA5);
            until("the first bytes", begun);
            server.kill();
            assert_eq!(client.code(), 4, "{way}: {}", client.stderr());
            let said = client.stderr();
            assert!(said.contains(told), "{way}: {said}");
            assert!(!said.contains("--resume"), "{way}: {said}");
            let there = fs::read(&disk).expect("there");
            assert_eq!(there.len() as u64, BYTES + BEHIND, "{way}: it was not cut");
            let behind = &there[usize::try_from(BYTES).expect("small")..];
            assert!(behind.iter().all(|&byte| byte == 0xA5), "{way}");
        }
    });
}

#[test]
fn source_that_changes_meanwhile_cuts_nothing_of_a_disk() {
    within(PATIENCE * 2, || {
        let (folder, _) = place();
        if !reads_past_cache(folder.path()) {
            return;
        }
        let disk = folder.path().join("disk.img");
        let (_server, addr) = Program::serve(folder.path(), &["f.bin", "--rate", "4mbit"]);
        let words = ["fetch", &addr, "--to", "disk.img", "--yes-overwrite", "disk.img"];
        let mut client = Program::start(&mut program::gatecast(folder.path(), &words));
        until("the first bytes", || fs::read(&disk).expect("there").first() != Some(&0xA5));
        let source = OpenOptions::new().write(true).open(folder.path().join("f.bin"));
        source.and_then(|file| file.set_len(BYTES / 2)).expect("ours");
        assert_ne!(client.code(), 0);
        assert!(client.stderr().contains("is not the file"), "{}", client.stderr());
        assert_eq!(fs::metadata(&disk).expect("there").len(), BYTES + BEHIND);
    });
}

#[test]
fn wrong_bytes_on_a_disk_are_exit_5_and_unproven_are_refused() {
    within(PATIENCE * 2, || {
        let (folder, content) = place();
        if !reads_past_cache(folder.path()) {
            return;
        }
        let addr = stranger(b"0123456789", b"0123456788").to_string();
        let output = fetch_to(folder.path(), &addr, "disk.img");
        expect(&output, 5, "disk.img is not the file");
        fs::write(folder.path().join("disk.img"), old(BYTES + BEHIND)).expect("room");
        // A server that gives no digest.
        let plain = plain_http(content.clone());
        let url = format!("http://{plain}/f.bin");
        let output = fetch_to(folder.path(), &url, "disk.img");
        expect(&output, 1, "only a file that can be proven is written in place; --sha1 proves it");
        holds(&folder.path().join("disk.img"), &[]);
        let sha1 = Digest::of(&content).to_string();
        let words = ["fetch", &url, "--sha1", &sha1, "--to", "disk.img"];
        let words = [&words[..], &["--yes-overwrite", "disk.img"]].concat();
        expect(&program::run(folder.path(), &words), 0, "1 of 1 copies proven");
        holds(&folder.path().join("disk.img"), &content);
    });
}

/// Any HTTP server of one file, of which it gives no digest.
fn plain_http(content: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut first = [0; 4];
            let _ = stream.read_exact(&mut first);
            let _ = stream.read(&mut [0; 2048]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
            let body = if first == *b"HEAD" { &[][..] } else { &content };
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    addr
}

// --- to standard output ---------------------------------------------------------------------------

/// `gatecast fetch` to standard output, spooled in the folder `spool`, which is made.
fn fetch_out(folder: &Path, addr: &str, arguments: &[&str]) -> Command {
    fs::create_dir_all(folder.join("spool")).expect("room");
    let mut command = program::gatecast(folder, &["fetch", addr, "--out", "-"]);
    command.args(arguments).env("TMPDIR", folder.join("spool"));
    command
}

#[track_caller]
fn spool_is_empty(folder: &Path) {
    let left = entries(&folder.join("spool"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn proven_copy_goes_to_standard_output_by_every_way() {
    within(PATIENCE * 4, || {
        for way in WAYS {
            let (folder, content) = place();
            let (_server, addr) = Program::serve(folder.path(), &["f.bin", "--via", way]);
            let output = fetch_out(folder.path(), &addr, &[]).output().expect("it starts");
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{way}: {told}");
            assert!(output.stdout == content, "{way}: nothing but the file");
            for part in
                ["whole and verified  1 of 1", "goes to standard output", "1 of 1 copies proven"]
            {
                assert!(told.contains(part), "{way}: {told}");
            }
            spool_is_empty(folder.path());
        }
    });
}

#[test]
fn pipe_that_closes_is_exit_1() {
    within(PATIENCE * 2, || {
        let (folder, _) = place();
        let (_server, addr) = Program::serve(folder.path(), &["f.bin"]);
        let mut command = fetch_out(folder.path(), &addr, &[]);
        let mut client =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        // Smaller than the file, so that it waits for its reader.
        let mut first = [0; 1000];
        client.stdout.take().expect("piped").read_exact(&mut first).expect("the first bytes");
        let output = client.wait_with_output().expect("it ends");
        expect(&output, 1, "cannot write the file (standard output): Broken pipe");
        spool_is_empty(folder.path());
    });
}

#[test]
fn copy_that_is_not_proven_gives_nothing_to_a_pipe() {
    within(PATIENCE * 2, || {
        let (folder, content) = place();
        let wrong = stranger(b"0123456789", b"0123456788").to_string();
        let output = fetch_out(folder.path(), &wrong, &[]).output().expect("it starts");
        expect(&output, 5, "the copy is not the file");
        assert_eq!(text(&output.stdout), "");
        let url = format!("http://{}/f.bin", plain_http(content.clone()));
        let output = fetch_out(folder.path(), &url, &[]).output().expect("it starts");
        expect(&output, 4, "unproven");
        assert_eq!(text(&output.stdout), "");
        let sha1 = Digest::of(&content).to_string();
        let output =
            fetch_out(folder.path(), &url, &["--sha1", &sha1]).output().expect("it starts");
        expect(&output, 0, "1 of 1 copies proven");
        assert!(output.stdout == content);
        spool_is_empty(folder.path());
    });
}

#[test]
fn interrupted_pipe_leaves_no_spool() {
    within(PATIENCE * 2, || {
        let (folder, _) = place();
        let (_server, addr) = Program::serve(folder.path(), &["f.bin", "--rate", "4mbit"]);
        let mut client = Program::start(&mut fetch_out(folder.path(), &addr, &[]));
        let spool = folder.path().join("spool");
        until("a part", || entries(&spool).iter().any(|folder| program::part(folder) > Some(0)));
        client.signal("INT");
        assert_eq!(client.code(), 130, "{}", client.stderr());
        assert!(!client.stderr().contains("--resume"), "{}", client.stderr());
        assert_eq!(client.stdout(), [""; 0]);
        spool_is_empty(folder.path());
    });
}

#[test]
fn spool_without_room_is_refused_before_ready() {
    within(PATIENCE * 2, || {
        let (folder, content) = place();
        let spool = folder.path().join("spool");
        fs::create_dir(&spool).expect("room");
        let at = spool.to_str().expect("UTF-8");
        let mount = |size: &str| {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", size, "none", at]).status().is_ok_and(|s| s.success())
        };
        let (_server, addr) = Program::serve(folder.path(), &["f.bin"]);
        if !have("root that mounts", rootless::is_root() && mount("size=1m")) {
            return;
        }
        let small = fetch_out(folder.path(), &addr, &[]).output().expect("it starts");
        tool("mount", &["-o", "remount,size=3m", at]);
        let large = fetch_out(folder.path(), &addr, &[]).output().expect("it starts");
        tool("umount", &[at]);
        expect(&small, 1, "1 x 1234567 bytes are to come and ");
        assert_eq!(text(&small.stdout), "");
        expect(&large, 0, "1 of 1 copies proven");
        assert!(large.stdout == content);
    });
}

#[test]
fn compressed_image_goes_through_a_pipe_onto_a_file() {
    within(PATIENCE * 2, || {
        if !have("zstd", installed("zstd")) {
            return;
        }
        let (folder, content) = place();
        let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        tool("zstd", &["-q", &at("f.bin"), "-o", &at("f.zst")]);
        let (_server, addr) = Program::serve(folder.path(), &["f.zst"]);
        let line = format!(
            "set -o pipefail; {} fetch {addr} --out - | zstd -dc > {}",
            program::GATECAST,
            at("restored")
        );
        tool("bash", &["-c", &line]);
        assert!(fs::read(at("restored")).expect("there") == content);
    });
}
