//! `gatecast push` through OpenSSH: a daemon for each host on loopback, with keys, configuration and
//! home of its own in a temporary folder.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use gatecast::internals::{digest::Digest, testbed::star::rootless};
use serde_json::Value;

use crate::common::{
    entries, have, installed,
    program::{GATECAST, Program, folder_with_file, output_text, part, run, text, whole},
    schema,
    turn::in_turn,
    until, within,
};

const SSHD: &str = "/usr/sbin/sshd";

/// Hosts that ssh reaches, and what is pushed to them.
struct Room {
    folder: tempfile::TempDir,
    sha1: Digest,
    daemons: Vec<Child>,
}

/// Whether a process is `gatecast`, by the name of its program.
fn is_client(process: &Path) -> bool {
    fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "gatecast")
}

/// A port on which nobody listens now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

fn keygen(path: &Path) {
    let mut made = Command::new("ssh-keygen");
    made.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    assert!(made.status().expect("ssh-keygen").success());
}

impl Room {
    /// Hosts `pc0`, `pc1` and so on, and a file of so many bytes. On each host that `has` it,
    /// `gatecast` is in the PATH. `None` where there is no OpenSSH.
    fn new(bytes: u64, has: &[bool]) -> Option<Self> {
        let there = Path::new(SSHD).is_file() && installed("ssh") && installed("ssh-keygen");
        if !have("sshd and ssh", there) {
            return None;
        }
        // sshd wants this folder, which a system's own sshd has made.
        if rootless::is_root() {
            let _ = fs::create_dir("/run/sshd");
        }
        let (folder, sha1) = folder_with_file(bytes);
        let at = folder.path();
        keygen(&at.join("host_key"));
        keygen(&at.join("user_key"));
        fs::copy(at.join("user_key.pub"), at.join("authorized")).expect("room");
        fs::create_dir(at.join("bin")).expect("room");
        symlink(GATECAST, at.join("bin/gatecast")).expect("room");
        let mut room = Self { folder, sha1, daemons: Vec::new() };
        let mut config = format!(
            "Host *\n IdentityFile {0}/user_key\n IdentitiesOnly yes\n UserKnownHostsFile {0}/known\n \
             StrictHostKeyChecking accept-new\n",
            room.at("")
        );
        for (number, has) in has.iter().enumerate() {
            let port = room.start_daemon(number, *has);
            config += &format!("Host pc{number}\n HostName 127.0.0.1\n Port {port}\n");
        }
        config += &format!("Host gone\n HostName 127.0.0.1\n Port {}\n", free_port());
        fs::write(room.folder.path().join("config"), config).expect("room");
        Some(room)
    }

    /// A path in the room's folder.
    fn at(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("text").trim_end_matches('/').to_owned()
    }

    fn host(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("pc{number}"))
    }

    /// Starts the daemon of a host, and returns its port.
    fn start_daemon(&mut self, number: usize, has: bool) -> u16 {
        let (home, folder) = (self.host(number), self.at(""));
        fs::create_dir_all(home.join("tmp")).expect("room");
        let bin = if has { format!("{folder}/bin:") } else { String::new() };
        let settings = format!(
            "HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\n\
             UsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n\
             SetEnv PATH={bin}/usr/bin:/bin TMPDIR={home}/tmp\n\
             ForceCommand cd {home} && eval \"$SSH_ORIGINAL_COMMAND\"\n",
            home = home.display()
        );
        let config = home.join("sshd_config");
        fs::write(&config, settings).expect("room");
        // Another program may take the port before the daemon does.
        for _ in 0..10 {
            let port = free_port();
            let mut daemon = Command::new(SSHD)
                .args(["-D", "-e", "-o", "ListenAddress=127.0.0.1", "-p", &port.to_string(), "-f"])
                .arg(&config)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(home.join("sshd.log")).expect("room"))
                .spawn()
                .expect("sshd starts");
            let mut is_up = false;
            until("sshd to listen", || {
                is_up = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
                is_up || daemon.try_wait().expect("ours").is_some()
            });
            if is_up && daemon.try_wait().expect("ours").is_none() {
                self.daemons.push(daemon);
                return port;
            }
        }
        panic!("no sshd: {}", fs::read_to_string(home.join("sshd.log")).unwrap_or_default());
    }

    /// The words of a push to `hosts`, a line each.
    fn words(&self, hosts: &str, more: &[&str]) -> Vec<String> {
        fs::write(self.at("hosts"), hosts).expect("room");
        let ssh = format!("ssh -F {}", self.at("config"));
        let words = ["push", "f.bin", "--hosts", "hosts", "--ssh", &ssh, "--out", "copies"];
        let words =
            words.iter().chain(["--address", "127.0.0.1", "--listen", "127.0.0.1:0"].iter());
        words.chain(more).map(|&word| word.to_owned()).collect()
    }

    /// A push to its end: its exit code, and what it printed.
    fn push(&self, hosts: &str, more: &[&str]) -> (i32, String) {
        self.push_path("f.bin", hosts, more)
    }

    fn push_path(&self, path: &str, hosts: &str, more: &[&str]) -> (i32, String) {
        let mut words = self.words(hosts, more);
        path.clone_into(&mut words[1]);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = run(self.folder.path(), &words);
        (output.status.code().expect("no signal"), output_text(&output))
    }

    #[track_caller]
    fn assert_whole(&self, number: usize) {
        whole(&self.host(number), "copies", self.sha1);
    }

    /// Every process whose folder is that of a host.
    fn far_processes(&self) -> Vec<PathBuf> {
        let at = self.folder.path().join("pc");
        let at = at.to_str().expect("text");
        let is_far = |process: &PathBuf| {
            let folder = fs::read_link(process.join("cwd")).unwrap_or_default();
            folder.to_string_lossy().starts_with(at)
        };
        entries(Path::new("/proc")).into_iter().filter(is_far).collect()
    }

    /// Waits until nothing runs on any host and no program was left there.
    fn until_far_ends_are_gone(&self) {
        until("the far ends to be gone", || self.far_processes().is_empty());
        for number in 0..self.daemons.len() {
            let left = entries(&self.host(number).join("tmp"));
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// As `within`, beside no test that needs the processors for itself.
fn in_room(bytes: u64, has: &'static [bool], body: impl FnOnce(Room) + Send + 'static) {
    in_turn("push", Duration::from_secs(120), move || {
        if let Some(room) = Room::new(bytes, has) {
            body(room);
        }
    });
}

#[test]
fn push_proves_a_copy_on_each_host_with_a_key() {
    in_room(300_000, &[true, true, true], |room| {
        fs::write(room.at("key"), "sixteen bytes and more").expect("room");
        fs::set_permissions(room.at("key"), fs::Permissions::from_mode(0o600)).expect("ours");
        let hosts = "pc0 # the first\npc1\n\npc2\n";
        let (code, said) = room.push(hosts, &["--key", "key"]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("3 of 3 copies proven\n"), "{said}");
        (0..3).for_each(|number| room.assert_whole(number));
        // The server chose the name, the user the folder.
        let (code, said) = room.push("pc0", &[]);
        assert_eq!(code, 0, "the same copy counts: {said}");
        fs::write(room.host(0).join("copies/f.bin"), "another").expect("room");
        let (code, said) = room.push("pc0", &[]);
        assert_ne!(code, 0, "{said}");
        assert!(said.contains("--overwrite"), "{said}");
        let (code, said) = room.push("pc0", &["--overwrite"]);
        assert_eq!(code, 0, "{said}");
        room.assert_whole(0);
        room.until_far_ends_are_gone();
    });
}

#[test]
fn pushed_folder_stands_whole_on_each_host() {
    in_room(10, &[true, true], |room| {
        fs::create_dir_all(room.at("tree/sub")).expect("room");
        fs::write(room.at("tree/sub/a"), "a file").expect("room");
        let (code, said) = room.push_path("tree", "pc0\npc1\n", &[]);
        assert_eq!(code, 0, "{said}");
        for number in 0..2 {
            let copy = fs::read(room.host(number).join("copies/tree/sub/a"));
            assert_eq!(copy.expect("there"), b"a file");
        }
        room.until_far_ends_are_gone();
    });
}

#[test]
fn unreachable_host_is_named_and_the_others_are_served() {
    in_room(300_000, &[true, true], |room| {
        let hosts = "pc0\ngone\npc1\n-oProxyCommand=touch${IFS}pwned\n$(touch${IFS}pwned)'\"\n";
        let (code, said) = room.push(hosts, &[]);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("2 of 5 copies proven (exit 4)"), "{said}");
        assert!(said.contains("gatecast: gone: ssh: connect to host 127.0.0.1 port"), "{said}");
        assert!(said.contains("gatecast: -oProxyCommand=touch${IFS}pwned: "), "{said}");
        (0..2).for_each(|number| room.assert_whole(number));
        let pwned = |folder: &Path| entries(folder).iter().any(|path| path.ends_with("pwned"));
        assert!(!pwned(room.folder.path()) && !pwned(&room.host(0)) && !pwned(&room.host(1)));
        let (code, said) = room.push("gone", &[]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("0 of 1 copies proven (exit 1): no client came"), "{said}");
    });
}

#[test]
fn program_comes_along_only_when_asked_and_is_removed() {
    in_room(300_000, &[true, false], |room| {
        let hosts = "pc0\npc1\n";
        let (code, said) = room.push(hosts, &[]);
        assert_eq!(code, 4, "{said}");
        let says = "gatecast: pc1: there is no gatecast in the PATH; --copy-binary brings it\n";
        assert!(said.contains(says), "{said}");
        room.assert_whole(0);
        let (code, said) = room.push(hosts, &["--copy-binary"]);
        assert_eq!(code, 0, "{said}");
        room.assert_whole(1);
        room.until_far_ends_are_gone();
    });
}

#[test]
fn nothing_runs_at_either_end_after_ctrl_c_or_a_kill() {
    in_room(4_000_000, &[true, false], |room| {
        for signal in ["INT", "KILL"] {
            let more = ["--copy-binary", "--rate", "1mbit", "--resume"];
            let words = room.words("pc0\npc1\n", &more);
            let mut command = Command::new(GATECAST);
            let mut push = Program::start(command.args(words).current_dir(room.folder.path()));
            let has_begun =
                |number| part(&room.host(number).join("copies")).is_some_and(|len| len > 0);
            // Parts of the round before are there from the beginning.
            let far = || room.far_processes().iter().filter(|process| is_client(process)).count();
            until("both hosts to receive", || far() == 2 && has_begun(0) && has_begun(1));
            push.signal(signal);
            let code = push.code_within(Duration::from_secs(20));
            assert_eq!(code, (signal == "INT").then_some(130), "{}", push.stderr());
            if signal == "INT" {
                let shown = push.stdout().join("\n");
                assert!(shown.contains("0 of 2 copies proven (exit 130)"), "{shown}");
            }
            room.until_far_ends_are_gone();
        }
    });
}

#[test]
fn study_in_a_room_pushes_each_cell_and_leaves_nothing() {
    in_room(1000, &[true, true, true], |room| {
        fs::write(room.at("hosts"), "pc0\npc1\npc2\n").expect("room");
        let ssh = format!("ssh -F {}", room.at("config"));
        let study = |more: &[&str]| {
            let words =
                ["study", "--room", "hosts", "--ssh", &ssh, "--size", "300KB", "--runs", "2"];
            let output = run(room.folder.path(), &[&words[..], more].concat());
            (output.status.code().expect("no signal"), output_text(&output))
        };
        let results = || -> Value {
            let text = fs::read_to_string(room.at("study/results.json")).expect("written");
            let document = serde_json::from_str(&text).expect("JSON");
            schema::check(&document, schema::STUDY);
            document
        };
        let (code, said) = study(&["--clients", "1,3", "--via", "tcp,swarm"]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("file of 300 kB, room hosts\n"), "{said}");
        room.until_far_ends_are_gone();
        for number in 0..3 {
            let home: Vec<_> = entries(&room.host(number));
            let left: Vec<_> =
                home.iter().filter(|path| path.is_dir() && !path.ends_with("tmp")).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let document = results();
        let rows = document["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 4, "{said}");
        for row in rows {
            for unknown in ["rate_nominal_mbit", "bound_s", "bound_nominal_s", "efficiency"] {
                assert!(row[unknown].is_null(), "{row}");
            }
            assert_eq!((&row["verified"], &row["runs"]), (&true.into(), &2.into()), "{said}");
            assert!(row["makespan_s"]["median"].as_f64().is_some_and(|s| s > 0.0), "{row}");
        }
        let seats = &document["measurements"][2]["observed"]["seats"];
        let mut hosts: Vec<_> =
            seats.as_array().into_iter().flatten().map(|s| &s["host"]).collect();
        hosts.sort_by_key(|host| host.as_u64());
        assert_eq!(hosts, [1, 2, 3], "{document}");
        let plots = ["makespan", "completion", "efficiency", "traffic"];
        let is_there = |name| Path::new(&room.at("study")).join(format!("{name}.svg")).exists();
        assert_eq!(plots.map(is_there), [true, true, false, false], "{said}");
        assert!(Path::new(&room.at("study/report.html")).exists());

        let (code, said) = study(&["--clients", "1,3", "--via", "tcp,swarm"]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("going on: 8 runs are there already"), "{said}");
        fs::write(room.at("hosts"), "pc0\ngone\n").expect("room");
        let (code, said) = study(&["--clients", "2", "--fresh"]);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("FAILED: gone: ssh: connect to host 127.0.0.1"), "{said}");
        assert_eq!(results()["rows"][0]["failed"], 2);
        room.until_far_ends_are_gone();
    });
}

#[test]
fn study_in_a_room_refuses_what_only_a_star_has() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().expect("room");
        fs::write(folder.path().join("hosts"), "pc0\n").expect("room");
        for (more, says) in [
            (&["--room", "hosts", "--rate", "10mbit"][..], "--rate"),
            (&["--room", "hosts", "--loss", "1%"], "--loss"),
            (&["--room", "hosts", "--delay", "1ms"], "--delay"),
            (&["--room", "hosts", "--preset", "peers"], "--preset"),
            (&["--room", "hosts", "--hosts-from", "hosts"], "--hosts-from"),
            (&["--room", "hosts", "--clients", "2"], "hosts has 1 hosts; the study takes 2"),
            (&["--room", "hosts", "--clients", "1", "--via", "nginx"], "--via 'nginx' in a room"),
            (&["--ssh", "ssh"], "--room"),
            (&["--copy-binary"], "--room"),
        ] {
            let output = run(folder.path(), &[&["study"], more].concat());
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{more:?}: {said}");
            assert!(said.contains(says), "{more:?}: {said}");
        }
    });
}

#[test]
fn push_without_a_host_or_an_ssh_says_so() {
    within(Duration::from_secs(60), || {
        let (folder, _) = folder_with_file(1000);
        let push = |hosts: &str, ssh: &str| {
            fs::write(folder.path().join("hosts"), hosts).expect("room");
            let output = run(folder.path(), &["push", "f.bin", "--hosts", "hosts", "--ssh", ssh]);
            (output.status.code(), text(&output.stderr).to_owned())
        };
        let (code, said) = push("# nobody\n", "ssh");
        assert_eq!(code, Some(2));
        assert!(said.contains("hosts: it names nobody"), "{said}");
        let (code, said) = push("pc0\n", "no-such-ssh -F x");
        assert_eq!(code, Some(1));
        assert!(said.contains("no-such-ssh -F x for pc0"), "{said}");
    });
}
