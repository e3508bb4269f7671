//! HTTP with clients that other people wrote: curl, wget and aria2.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use gatecast::internals::{
    digest::Digest, http, http::HttpConfig, server::config::ServerConfig, transfer::Outcome,
    transport::tcp,
};

use crate::{
    common,
    common::{Server, bytes_per_second, have, installed, sha1_of, until, within},
};

fn server(bytes: u64, set: impl FnOnce(&mut ServerConfig)) -> Server {
    Server::with(bytes, set, |host| {
        http::serve(tcp::serve(host).expect("TCP"), HttpConfig::default()).expect("HTTP")
    })
}

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.addr)
}

fn curl(arguments: &[&str], folder: &Path) -> Child {
    Command::new("curl")
        .args(["-sSf", "--max-time", "60"])
        .args(arguments)
        .current_dir(folder)
        .env_remove("http_proxy")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl starts")
}

fn code_of(child: Child) -> (i32, String) {
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn curl_native_and_lab_clients_share_one_session() {
    let python = installed("python3");
    if !have("curl and python3", installed("curl") && python) {
        return;
    }
    within(Duration::from_secs(120), || {
        let server = server(20_000_000, |settings| settings.clients = Some(25));
        let folder = server.out("curl");
        fs::create_dir_all(&folder).expect("room");
        let gate = url(&server, "/files/f.bin?gate");
        let curls: Vec<Child> = (0..10)
            .map(|n| {
                let own = folder.join(n.to_string());
                fs::create_dir(&own).expect("room");
                curl(&["-O", &gate], &own)
            })
            .collect();
        let native: Vec<_> =
            (0..10).map(|n| server.fetch(&format!("n{n}"), |o| o.group = Some(25))).collect();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/lab_client.py");
        let (host, port) = (server.addr.ip().to_string(), server.addr.port().to_string());
        let labs: Vec<Child> = (0..5)
            .map(|_| {
                Command::new("python3")
                    .arg(&script)
                    .args([&host, &port, "-"])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("python3 starts")
            })
            .collect();
        for child in curls {
            let (code, said) = code_of(child);
            assert_eq!(code, 0, "{said}");
        }
        for n in 0..10 {
            assert_eq!(sha1_of(&folder.join(format!("{n}/f.bin"))), server.sha1, "curl {n}");
        }
        native.into_iter().for_each(|n| common::whole(n.join().expect("no panic"), &server));
        for lab in labs {
            let (code, said) = code_of(lab);
            assert_eq!(code, 0, "{said}");
        }
        let record = server.record();
        assert_eq!(record.transfers.len(), 25);
        assert!(record.transfers.iter().all(|t| t.outcome == Outcome::Complete), "{record:?}");
        assert_eq!(record.proven(), 15, "native and lab prove, curl cannot");
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        assert_eq!(record.transfers.iter().filter(|t| t.first_server.is_some()).count(), 25);
        println!("one session of 25: skew {} us", record.skew_us().expect("measured"));
        fs::remove_dir_all(&folder).expect("ours");
        server.stop();
    });
}

/// It is killed at 50 random places.
#[test]
fn copy_is_whole_when_killed_curl_continues() {
    if !have("curl", installed("curl")) {
        return;
    }
    within(Duration::from_secs(180), || {
        const BYTES: u64 = 2_000_000;
        let server = server(BYTES, |settings| settings.rate = bytes_per_second(40_000_000));
        let folder = server.out("curl");
        fs::create_dir_all(&folder).expect("room");
        let url = url(&server, "/files/f.bin");
        let mut random = 7_u64;
        let (mut kills, mut resumed) = (0, 0);
        for round in 0..50 {
            let copy = folder.join(format!("c{round}"));
            let name = copy.to_str().expect("UTF-8").to_owned();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let offset = (random >> 33) % BYTES;
            let mut first = curl(&["--no-buffer", "-o", &name, &url], &folder);
            until("curl came so far", || {
                fs::metadata(&copy).map_or(0, |m| m.len()) >= offset
                    || first.try_wait().expect("ours").is_some()
            });
            let _ = first.kill();
            first.wait().expect("ours");
            let held = fs::metadata(&copy).map_or(0, |m| m.len());
            if held < BYTES {
                kills += 1;
                resumed += held;
                let (code, said) = code_of(curl(&["-C", "-", "-o", &name, &url], &folder));
                assert_eq!(code, 0, "{said}");
            }
            assert_eq!(sha1_of(&copy), server.sha1, "round {round}, killed at {held}");
        }
        println!(
            "50 rounds, {kills} killed on the way, {} bytes kept on average",
            resumed / kills.max(1)
        );
        assert!(kills > 25, "{kills}");

        // When the file is another one at the second request, the copy is no mix of both.
        let copy = folder.join("changed");
        fs::write(&copy, vec![b'x'; 1000]).expect("room");
        let old = format!("If-Range: \"sha1-{}\"", Digest::of(b"old"));
        let (code, said) = code_of(curl(
            &["-C", "-", "-H", &old, "-o", copy.to_str().expect("UTF-8"), &url],
            &folder,
        ));
        assert_eq!(code, 33, "{said}");
        assert_eq!(fs::metadata(&copy).expect("there").len(), 1000, "nothing was put behind it");
        fs::remove_dir_all(&folder).expect("ours");
        server.stop();
    });
}

#[test]
fn curl_resumes_at_gate_and_reports_a_short_copy() {
    if !have("curl", installed("curl")) {
        return;
    }
    within(Duration::from_secs(60), || {
        let server = server(1_000_000, |settings| settings.rate = bytes_per_second(1_500_000));
        let folder = server.out("curl");
        fs::create_dir_all(&folder).expect("room");
        let copy = folder.join("f.bin");
        fs::write(&copy, &fs::read(server.source()).expect("there")[..400_000]).expect("room");
        let gate = url(&server, "/files/f.bin?gate=1");
        let (code, said) = code_of(curl(&["-C", "-", "-O", &gate], &folder));
        assert_eq!(code, 0, "{said}");
        assert_eq!(sha1_of(&copy), server.sha1);
        let record = server.record();
        let row = &record.transfers[0];
        assert_eq!((row.bytes_resumed, row.bytes_server), (400_000, Some(600_000)));
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        fs::remove_file(&copy).expect("ours");
        // Truncated after the head has gone out: curl sees it (18, a partial file).
        let client = curl(&["-O", &gate], &folder);
        until("bytes", || server.moved() > 50_000);
        let file = fs::File::options().write(true).open(server.source()).expect("there");
        file.set_len(200_000).expect("shorter");
        let (code, said) = code_of(client);
        assert_eq!(code, 18, "{said}");
        assert_eq!(server.record().transfers[0].outcome, Outcome::Cut);
        fs::remove_dir_all(&folder).expect("ours");
        server.stop();
    });
}

#[test]
fn wget_and_aria2_get_file_and_aria2_checks_digest() {
    let there = installed("wget") && installed("aria2c");
    if !have("wget and aria2c", there) {
        return;
    }
    within(Duration::from_secs(60), || {
        let server = server(3_000_000, |settings| settings.clients = Some(1));
        let folder = server.out("others");
        fs::create_dir_all(&folder).expect("room");
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program)
                .args(arguments)
                .current_dir(&folder)
                .env_remove("http_proxy")
                .output()
                .expect("it starts");
            let said = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8_lossy(&said).into_owned())
        };
        let (ok, said) = run("wget", &["-nv", "-O", "w", &url(&server, "/files/f.bin?gate")]);
        assert!(ok, "{said}");
        assert_eq!(sha1_of(&folder.join("w")), server.sha1);
        assert_eq!(server.record().transfers[0].outcome, Outcome::Complete);
        let (ok, said) = run(
            "aria2c",
            &[
                "--no-conf",
                "--console-log-level=info",
                "-x4",
                "-s4",
                "-k1M",
                "-o",
                "a",
                &url(&server, "/files/f.bin"),
            ],
        );
        assert!(ok, "{said}");
        assert_eq!(sha1_of(&folder.join("a")), server.sha1);
        let checked: Vec<&str> = said
            .lines()
            .filter(|line| {
                line.to_lowercase().contains("checksum") || line.contains("Verification")
            })
            .collect();
        println!("aria2: {checked:?}");
        assert!(
            checked.iter().any(|line| line.contains("good") || line.contains("succe")),
            "{said}"
        );
        fs::remove_dir_all(&folder).expect("ours");
        server.stop();
    });
}
