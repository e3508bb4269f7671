//! The lab's UDP protocol at its limits: a server that is stopped, and servers that mean harm.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use gatecast::internals::{text::FileName, transport::udp::lab_client::LabClient, units::Rate};

use super::start_lab;
use crate::common::{self, Server, until, within};

#[test]
fn lab_server_stops_while_its_transfers_wait() {
    // Far less than one datagram takes at this rate.
    within(Duration::from_secs(40), || {
        let server = Server::new(100_000, |settings| settings.rate = Some(Rate(80)));
        let lab = start_lab(&server, Ipv4Addr::LOCALHOST, Vec::new());
        let clients = [0; 3].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port"));
        let mut buffer = [0; 2000];
        for client in &clients {
            client.connect(lab.addr).expect("loopback");
            client.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
        }
        clients[0].send(b"!CONFIG : f.bin : 3").expect("sent");
        clients[0].recv(&mut buffer).expect("an answer");
        for client in &clients {
            client.send(b"TRANSFER").expect("sent");
        }
        // The first datagram of all is sent at once. Once the server answers again, all wait.
        assert!(clients.iter().any(|client| client.recv(&mut buffer).is_ok()));
        for _ in 0..10 {
            clients[2].send(b"LIST").expect("sent");
            until("an answer", || clients[2].recv(&mut buffer).is_ok_and(|len| len == 9));
        }
        drop(lab);
        let record = server.record();
        let reasons = record.transfers.iter().map(|t| t.reason.as_deref().unwrap_or_default());
        assert!(
            reasons.clone().all(|why| why.contains("ending")),
            "{:?}",
            reasons.collect::<Vec<_>>()
        );
        server.stop();
    });
}

#[test]
fn lab_client_follows_no_link() {
    within(Duration::from_secs(60), || {
        let server = Server::new(1000, |_| {});
        let lab = start_lab(&server, Ipv4Addr::LOCALHOST, Vec::new());
        let out = server.folder.path().join("lab");
        fs::create_dir(&out).expect("room");
        let victim = server.folder.path().join("victim");
        fs::write(&victim, b"precious").expect("room");
        std::os::unix::fs::symlink(&victim, out.join("C1-f.bin.unproven")).expect("room");
        fs::write(out.join("C2-f.bin.unproven"), b"an older copy").expect("room");
        let client = LabClient::open(lab.addr).expect("a port");
        client.configure("f.bin", 2).expect("offered");
        let name = FileName::new("f.bin").expect("plain");
        let ends = client.transfer(&name, 2, &out);
        let error = ends[0].as_ref().expect_err("a link is there").to_string();
        assert!(error.contains("C1-f.bin.unproven"), "{error}");
        assert_eq!(fs::read(&victim).expect("there"), b"precious");
        // What an earlier fetch left is replaced.
        assert_eq!(ends[1].as_ref().expect("whole").bytes, 1000);
        assert_eq!(common::sha1_of(&out.join("C2-f.bin.unproven")), server.sha1);
        drop(lab);
        server.stop();
    });
}

#[test]
fn lab_client_leaves_a_server_that_dribbles() {
    within(Duration::from_secs(60), || {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let addr = server.local_addr().expect("bound");
        let over = AtomicBool::new(false);
        let out = tempfile::tempdir().expect("room");
        let name = FileName::new("f.bin").expect("plain");
        let ends = thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 2000];
                let (_, client) = server.recv_from(&mut buffer).expect("TRANSFER");
                while !over.load(Ordering::Relaxed) {
                    server.send_to(b"x", client).expect("sent");
                    thread::sleep(Duration::from_millis(50));
                }
            });
            let client = LabClient::open(addr).expect("a port");
            let ends = client.transfer(&name, 1, out.path());
            over.store(true, Ordering::Relaxed);
            ends
        });
        let error = ends[0].as_ref().expect_err("it never ends").to_string();
        assert!(error.contains("1024 bytes a second"), "{error}");
        assert!(common::entries(out.path()).is_empty(), "nothing is left of it");
    });
}
