//! `fetch --via http` from nginx, and nginx's ranges beside ours.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use gatecast::internals::{digest::Digest, http, http::HttpConfig, server::sample, transport::tcp};

use crate::{
    common,
    common::{Server, have, http::get_with, program::run, sha1_of, until, within},
};

/// On Debian it is not in the PATH of ordinary users.
const NGINX: &str = "/usr/sbin/nginx";

/// An nginx of its own that serves one folder.
struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    fn start(folder: &Path, served: &Path) -> Self {
        // nginx cannot choose a free port itself. One that was free a moment ago is nearly always
        // free.
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let root = fs::metadata("/proc/self").is_ok_and(|me| {
            use std::os::unix::fs::MetadataExt;
            me.uid() == 0
        });
        let user = if root { "user root;" } else { "" };
        let conf = format!(
            "{user} worker_processes 2; daemon off; pid {0}/pid; error_log {0}/error.log;
            events {{ worker_connections 1024; }}
            http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {0}/ta; proxy_temp_path {0}/tb;
            fastcgi_temp_path {0}/tc; uwsgi_temp_path {0}/td; scgi_temp_path {0}/te;
            server {{ listen 127.0.0.1:{port} backlog=4096; root {1}; }} }}",
            folder.display(),
            served.display()
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, conf).expect("room");
        let child = Command::new(NGINX)
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&path)
            .arg("-e")
            .arg(folder.join("error.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        until("nginx", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master process ends its workers on SIGTERM, and not when it is killed.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn fetch(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, &[&["fetch"], arguments].concat())
}

fn place(bytes: u64) -> (tempfile::TempDir, PathBuf, Digest) {
    let folder = tempfile::tempdir().expect("a folder");
    let served = folder.path().join("served");
    fs::create_dir(&served).expect("room");
    let file = served.join("f.bin");
    sample::make(&file, bytes).expect("room");
    let sha1 = sha1_of(&file);
    (folder, served, sha1)
}

#[test]
fn copy_from_nginx_is_proven_only_with_a_known_digest() {
    if !have("nginx", Path::new(NGINX).exists()) {
        return;
    }
    within(Duration::from_secs(60), || {
        let (folder, served, right) = place(3_000_000);
        let nginx = Nginx::start(folder.path(), &served);
        let host = format!("127.0.0.1:{}", nginx.port);
        let path = folder.path();

        let output =
            fetch(path, &[&host, "f.bin", "--via", "http", "--out", "a", "--clients", "2"]);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("whole and unproven"), "{said}");
        assert!(!path.join("a/C1-f.bin").exists(), "an unproven copy has no final name");
        for seat in [1, 2] {
            assert_eq!(sha1_of(&path.join(format!("a/C{seat}-f.bin.unproven"))), right);
        }

        let known = right.to_string();
        let output =
            fetch(path, &[&host, "f.bin", "--via", "http", "--out", "b", "--sha1", &known]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(sha1_of(&path.join("b/f.bin")), right);

        let wrong = Digest::of(b"other").to_string();
        let url = format!("http://{host}/f.bin");
        let output = fetch(path, &[&url, "--out", "c", "--sha1", &wrong]);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert_eq!(common::entries(&path.join("c")), Vec::<PathBuf>::new());

        // It resumes what an interrupted fetch left, by Range and If-Range.
        fs::create_dir(path.join("d")).expect("room");
        let part = path.join("d").join(format!(".{}-1.part", right.short()));
        fs::write(&part, &fs::read(served.join("f.bin")).expect("there")[..1_234_567])
            .expect("room");
        let output = fetch(path, &[&url, "--out", "d", "--sha1", &known, "--resume", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(document["results"][0]["bytes_resumed"], 1_234_567);
        assert_eq!(document["results"][0]["bytes_client"], 3_000_000 - 1_234_567);
        assert_eq!(sha1_of(&path.join("d/f.bin")), right);

        let output = fetch(path, &[&host, "none.bin", "--via", "http", "--out", "e"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("404"), "{output:?}");
    });
}

/// One request for a range: status, Content-Range, body.
fn ranged(port: u16, path: &str, range: &str) -> (u16, Option<String>, Vec<u8>) {
    let server = ([127, 0, 0, 1], port).into();
    let (status, head, body) = get_with(server, path, &format!("Range: {range}\n"));
    let mut lines = head.lines();
    let content = lines.find_map(|line| line.strip_prefix("Content-Range: "));
    (status, content.map(str::to_owned), body)
}

#[test]
fn nginx_answers_ranges_as_we_do() {
    if !have("nginx", Path::new(NGINX).exists()) {
        return;
    }
    within(Duration::from_secs(60), || {
        let server = Server::with(
            1000,
            |_| {},
            |host| {
                http::serve(tcp::serve(host).expect("TCP"), HttpConfig::default()).expect("HTTP")
            },
        );
        let folder = tempfile::tempdir().expect("a folder");
        let nginx = Nginx::start(folder.path(), &server.folder.path().join("offered"));
        let mut random = 11_u64;
        let mut pick = |len: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % len
        };
        let (mut parts, mut refused, mut ignored) = (0, 0, 0);
        for _ in 0..600 {
            let mut number = || match pick(8) {
                0 => String::new(),
                1 => "18446744073709551616".to_owned(),
                2 => (999 + pick(3)).to_string(),
                3 => "x".to_owned(),
                _ => pick(1100).to_string(),
            };
            let mut range = format!("bytes={}-{}", number(), number());
            if pick(12) == 0 {
                range += &format!(",{}-", pick(1000));
            }
            let ours = ranged(server.addr.port(), "/files/f.bin", &range);
            let theirs = ranged(nginx.port, "/f.bin", &range);
            match (ours.0, theirs.0) {
                (206, 206) => {
                    parts += 1;
                    assert_eq!(ours, theirs, "{range}");
                }
                (416, 416) => {
                    refused += 1;
                    assert_eq!(ours.1, theirs.1, "{range}");
                }
                // A malformed range, or several: we ignore it (RFC 9110, section 14.2).
                (200, 200 | 206 | 416) => {
                    ignored += 1;
                    assert_eq!(ours.2.len(), 1000, "{range}");
                    assert!(theirs.0 != 206 || range.contains(','), "{range}");
                }
                // We take a number that does not fit into 64 bits as beyond the file; nginx, as
                // malformed.
                (206, 416) => assert!(range.contains("18446744073709551616"), "{range}"),
                (ours, theirs) => panic!("{range}: {ours} and {theirs}"),
            }
        }
        println!(
            "600 ranges: {parts} parts alike, {refused} refused alike, {ignored} ignored by us"
        );
        assert!(parts > 100 && refused > 30 && ignored > 50);
        server.stop();
    });
}
