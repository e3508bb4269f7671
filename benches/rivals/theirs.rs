//! The rivals, each started as its own manual says, on ports and in folders of their own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{clear, ground, timed};

/// nginx as a process of ours.
pub(crate) struct Nginx {
    master: Child,
    url: String,
    _folder: tempfile::TempDir,
}

/// For how long a curl may wait, seconds: at our gate it would wait for ever for one that failed.
const CURL_LIMIT: &str = "60";

/// Whether `program` can be run here.
pub(crate) fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

impl Nginx {
    /// Serves the folder of `file`; `None` where nginx or curl is missing.
    pub(crate) fn start(file: &Path) -> Option<Self> {
        if !installed("nginx") || !installed("curl") {
            return None;
        }
        let folder = ground::scratch("nginx");
        let place = folder.path().display();
        let port = free_port();
        // Two workers for two cores; everything that nginx writes stays in its own folder.
        let user = if ground::said("id", &["-u"]) == "0" { "user root;" } else { "" };
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .collect();
        let root = file.parent()?.display();
        let config = format!(
            "{user}\ndaemon off;\nworker_processes 2;\npid {place}/pid;\nerror_log {place}/error;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ {paths} access_log off; sendfile on; tcp_nopush on;\n\
             server {{ listen 127.0.0.1:{port}; location / {{ root {root}; }} }} }}\n"
        );
        let path = folder.path().join("nginx.conf");
        fs::write(&path, config).expect("room for a page");
        let master = Command::new("nginx")
            .arg("-c")
            .arg(&path)
            .arg("-e")
            .arg(folder.path().join("error"))
            .stdin(Stdio::null())
            .spawn()
            .ok()?;
        let name = file.file_name()?.to_str()?;
        let nginx =
            Self { master, url: format!("http://127.0.0.1:{port}/{name}"), _folder: folder };
        answers(port).then_some(nginx)
    }

    /// The file for each of `clients` curl, as `curls` has it.
    pub(crate) fn fetch(&self, work: &Path, clients: u16) -> Vec<f64> {
        curls(&self.url, work, clients)
    }
}

/// One file for each of `clients` curl, all at once: the whole time, and curl's own longest; nothing
/// where one of them failed.
pub(crate) fn curls(url: &str, work: &Path, clients: u16) -> Vec<f64> {
    let out = work.join("theirs");
    fs::create_dir(&out).expect("room for a folder");
    let (whole, outputs) = timed(|| {
        let running: Vec<_> = (1..=clients)
            .map(|number| {
                Command::new("curl")
                    .args([
                        "-s",
                        "-f",
                        "-m",
                        CURL_LIMIT,
                        "-w",
                        "%{time_total} %{size_download}",
                        "-o",
                    ])
                    .arg(out.join(number.to_string()))
                    .arg(url)
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("curl was there a moment ago")
            })
            .collect();
        running
            .into_iter()
            .map(|one| one.wait_with_output().expect("a child of ours"))
            .collect::<Vec<_>>()
    });
    let mut longest: f64 = 0.0;
    for output in outputs {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let size_and_time =
            said.split_once(' ').map(|(time, size)| (size.trim().parse(), time.parse()));
        let Some((Ok(crate::BYTES), Ok(time))) = size_and_time else {
            eprintln!("a curl failed at {url}: {said}");
            clear(&out);
            return Vec::new();
        };
        longest = longest.max(time);
    }
    clear(&out);
    vec![whole, longest]
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers when it is asked to quit; killed, it would leave them.
        let pid = self.master.id().to_string();
        let asked = Command::new("kill").args(["-QUIT", &pid]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.master.kill();
        }
        let _ = self.master.wait();
    }
}

/// The goodput of `iperf3 -P clients` with `more`, bytes per second at the receiver; `None` where it
/// failed.
pub(crate) fn iperf3_bytes_per_second(clients: u16, more: &[&str]) -> Option<f64> {
    let port = free_port().to_string();
    let serve = || {
        let server = Command::new("iperf3")
            .args(["-s", "-1", "-B", "127.0.0.1", "-p", &port])
            .stdout(Stdio::null())
            .spawn();
        server.expect("iperf3 was there a moment ago")
    };
    let mut server = serve();
    let (clients, limit) = (clients.to_string(), Instant::now() + Duration::from_secs(5));
    // It takes a moment to listen, and a look at its port would be its one test.
    // With -J it may end with 0 where it failed.
    let rate = loop {
        let output = Command::new("iperf3")
            .args(["-c", "127.0.0.1", "-p", &port, "-P", &clients, "-t", "2", "-J"])
            .args(more)
            .output()
            .expect("iperf3 was there a moment ago");
        let document: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_default();
        let bits = document["end"]["sum_received"]["bits_per_second"].as_f64();
        if bits.is_some() {
            break bits;
        }
        if Instant::now() > limit {
            eprintln!("iperf3 failed: {}", document["error"]);
            break None;
        }
        thread::sleep(Duration::from_millis(20));
        // It ends also after a test that failed.
        if !matches!(server.try_wait(), Ok(None)) {
            server = serve();
        }
    };
    let _ = server.kill();
    let _ = server.wait();
    Some(rate? / 8.0)
}

/// The lab's pair on `file`: from the start of the clients to the last one's end, seconds; nothing
/// where one of them failed.
pub(crate) fn lab_pair(file: &Path, work: &Path, clients: u16) -> Option<f64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/lab_pair.py");
    let out = work.join("lab");
    fs::create_dir(&out).expect("room for a folder");
    let mut server = Command::new("python3")
        .args([script, "serve"])
        .arg(file)
        .arg(clients.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 was there a moment ago");
    let mut port = String::new();
    BufReader::new(server.stdout.as_mut().expect("piped"))
        .read_line(&mut port)
        .expect("the server's port");
    let (took, are_whole) = timed(|| {
        let running: Vec<_> = (1..=clients)
            .map(|number| {
                Command::new("python3")
                    .args([script, "fetch", port.trim()])
                    .arg(&out)
                    .arg(number.to_string())
                    .spawn()
                    .expect("python3 was there a moment ago")
            })
            .collect();
        let ended = running.into_iter().map(|mut one| one.wait().expect("a child of ours"));
        ended.collect::<Vec<_>>().iter().all(|status| status.success())
    });
    if !are_whole {
        let _ = server.kill();
    }
    let _ = server.wait();
    clear(&out);
    are_whole.then_some(took)
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Waits until somebody listens.
pub(crate) fn answers(port: u16) -> bool {
    let limit = Instant::now() + Duration::from_secs(10);
    while Instant::now() < limit {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}
