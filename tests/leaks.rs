//! A session leaves no thread and no descriptor behind, whatever happens in it. This test is a
//! binary of its own because it counts the threads and descriptors of its process.

#[allow(dead_code, reason = "this file uses a part of it")]
#[path = "it/common/mod.rs"]
mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{Server, bytes_per_second, entries, until, whole, within};

#[test]
fn sessions_leave_no_threads_or_descriptors() {
    if !common::have("/proc", std::path::Path::new("/proc/self/task").is_dir()) {
        return;
    }
    within(Duration::from_secs(100), || {
        let server = Server::new(2_000_017, |settings| {
            settings.rate = bytes_per_second(100_000_000);
        });
        // After this, all is open that the process opens once and keeps (random numbers, time
        // zones).
        trouble(&server);
        let before = quiet();
        for _ in 0..3 {
            trouble(&server);
        }
        until("no more descriptors than before", || quiet() <= before);
        server.stop();
        until("no thread but this test's", || {
            !threads().iter().any(|name| {
                is_of_a_session(name) || ["listener", "logger"].contains(&name.as_str())
            })
        });
    });
}

/// One session that succeeds, and one for each kind of trouble.
fn trouble(server: &Server) {
    let clients = server.fetch("all", |order| order.clients = 25);
    whole(clients.join().expect("no panic"), server);
    let record = server.record();
    assert_eq!(record.proven(), 25);
    let seats: BTreeSet<_> = record.transfers.iter().map(|t| t.seat.0).collect();
    assert_eq!(seats, (1..=25).collect());

    // Some clients leave at the gate, some in mid-file. One sends another protocol, and one
    // nothing.
    let silent = server.peer();
    let mut stranger = server.peer();
    stranger.send("SSH-2.0-x\r\n");
    let at_gate = [1, 2].map(|n| server.waiting(9, &format!("gate{n}")));
    let mut in_file = [1, 2].map(|n| server.waiting(9, &format!("file{n}")));
    let rest = server.fetch("rest", |order| {
        order.clients = 5;
        order.group = Some(9);
    });
    server.until_ready(9);
    drop(at_gate);
    until("some to be seen leaving, or the release", || {
        let views = server.running().lobby().views();
        views.iter().all(|v| v.released.is_some()) || server.seats().0 < 9
    });
    server.running().lobby().release_now();
    for peer in &mut in_file {
        peer.read_past_wait();
        peer.read_payload(1000);
    }
    drop(in_file);
    whole(rest.join().expect("no panic"), server);
    drop((silent, stranger));
    server.record();

    // A muster that ends without its clients.
    let lonely = server.waiting(2, "lonely");
    drop(lonely);
    assert_eq!(server.record().released_at, None);
}

/// How many descriptors are open once no thread of a session is left.
fn quiet() -> usize {
    until("every thread of the sessions to end", || {
        !threads().iter().any(|name| is_of_a_session(name))
    });
    entries("/proc/self/fd".as_ref()).len()
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = entries("/proc/self/task".as_ref());
    let name = |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).ok();
    let names = tasks.iter().filter_map(name);
    names.map(|name| name.trim().to_owned()).collect()
}

fn is_of_a_session(name: &str) -> bool {
    ["session-", "conn-", "client-"].iter().any(|prefix| name.starts_with(prefix))
}
