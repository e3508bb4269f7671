use std::net::IpAddr;

use super::*;
use crate::net::datagrams::{
    batch::ReceivedSlot,
    send_batch::{SendBatch, connected_socket},
};

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn pair() -> (UdpSocket, BatchSocket) {
    let inbox = BatchSocket::bind(LOCAL, None).expect("a free port");
    let socket = connected_socket(LOCAL, inbox.local_addr()).expect("a free port");
    (socket, inbox)
}

/// Reads until `count` datagrams are in `batch`.
fn fill(inbox: &BatchSocket, batch: &mut DatagramBatch, count: usize) {
    let deadline = clock::now().after(Duration::from_secs(10));
    while batch.len() < count && clock::now() < deadline {
        inbox.receive(batch, Duration::from_millis(100)).expect("readable");
    }
    assert_eq!(batch.len(), count);
}

#[test]
fn datagrams_of_any_size_arrive_as_they_were_sent() {
    let sizes = [1, 0, 1316, 1316, 1316, 564, 1316, 188, 188, 40_000, 65_507, 3, 3];
    let (there, inbox) = pair();
    let mut sent = DatagramBatch::new(sizes.len());
    for (n, &size) in sizes.iter().enumerate() {
        there.send(&vec![n as u8; size]).expect("sent");
    }
    fill(&inbox, &mut sent, sizes.len());
    assert_eq!(sent.len(), sizes.len());
    assert!(sent.iter().all(|d| d.from == there.local_addr().expect("bound")));
    // And once more, as a parcel.
    let (there, inbox) = pair();
    let parcel = SendBatch::of(&sent);
    for run in parcel.runs() {
        parcel.send(&there, run).expect("sent");
    }
    let mut got = DatagramBatch::new(sizes.len() + 1);
    fill(&inbox, &mut got, sizes.len());
    assert!(got.iter().map(|d| d.bytes).eq(sent.iter().map(|d| d.bytes)));
}

#[test]
fn datagram_has_the_time_of_its_arrival() {
    if !BATCHED {
        return;
    }
    let (there, inbox) = pair();
    let mut batch = DatagramBatch::new(1);
    // Linux begins to stamp a moment after the first socket of the host asks for it.
    let deadline = clock::now().after(Duration::from_secs(10));
    loop {
        there.send(b"a letter").expect("sent");
        let sent = clock::now();
        std::thread::sleep(Duration::from_millis(50));
        batch.clear();
        fill(&inbox, &mut batch, 1);
        let at = batch.iter().next().expect("one").at;
        // Two clocks, read one after the other and in whole microseconds.
        if at <= sent.after(Duration::from_millis(10)) {
            return;
        }
        assert!(clock::now() < deadline, "it came when it was read");
    }
}

#[test]
fn run_ends_at_shorter_datagram_and_system_limits() {
    let of = |sizes: &[usize]| {
        let mut batch = DatagramBatch::new(sizes.len());
        for (slot, &len) in sizes.iter().enumerate() {
            batch.entries.push(ReceivedSlot { slot, len, at: Moment(0), from: LOCAL });
        }
        let parcel = SendBatch::of(&batch);
        let runs: Vec<usize> = parcel.runs().iter().map(|r| r.datagrams.len()).collect();
        assert_eq!(runs.iter().sum::<usize>(), sizes.len());
        assert_eq!(
            parcel.runs().iter().map(|run| run.bytes).sum::<usize>(),
            sizes.iter().sum::<usize>()
        );
        runs
    };
    if BATCHED {
        assert_eq!(of(&[1316, 1316, 564, 1316, 188, 188, 1316]), [3, 2, 1, 1]);
        assert_eq!(of(&[0, 0, 5]), [1, 1, 1]);
        assert_eq!(of(&[10; 100]), [64, 36]);
        assert_eq!(of(&[1316; 60]), [49, 11]);
        assert_eq!(of(&[65_507, 65_507]), [1, 1]);
    } else {
        assert_eq!(of(&[1316, 1316, 564]), [1, 1, 1]);
    }
}

#[test]
fn old_datagrams_are_discarded() {
    let (there, inbox) = pair();
    for _ in 0..50 {
        there.send(b"old").expect("sent");
    }
    let mut batch = DatagramBatch::new(8);
    let thrown = inbox.discard(&mut batch, clock::now()).expect("readable");
    assert_eq!((thrown, batch.len()), (50, 0));
    there.send(b"new").expect("sent");
    fill(&inbox, &mut batch, 1);
}

#[test]
fn old_datagrams_are_discarded_however_late() {
    let (there, inbox) = pair();
    let mut batch = DatagramBatch::new(8);
    // Linux begins to stamp a moment after the first socket of the host asks for it.
    let deadline = clock::now().after(Duration::from_secs(10));
    loop {
        for _ in 0..50 {
            there.send(b"old").expect("sent");
        }
        std::thread::sleep(Duration::from_millis(10));
        let moment = clock::now();
        // As on a host that has no time for us just then.
        std::thread::sleep(Duration::from_millis(120));
        there.send(b"new").expect("sent");
        let thrown = inbox.discard(&mut batch, moment).expect("readable");
        let kept: Vec<&[u8]> = batch.iter().map(|datagram| datagram.bytes).collect();
        if !BATCHED {
            // There is no way to know what is old: all that waits is thrown away.
            return assert_eq!((thrown, kept.len()), (51, 0));
        }
        if (thrown, &*kept) == (50, &[b"new"]) {
            return;
        }
        assert!(clock::now() < deadline, "{thrown} thrown away, kept {kept:?}");
        // Whatever it left is not the next turn's.
        while inbox.collect(&mut batch).expect("readable") > 0 {
            batch.clear();
        }
    }
}

#[test]
fn drops_of_a_full_queue_are_counted() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let socket = UdpSocket::bind(LOCAL).expect("a free port");
    assert_eq!(drops(&socket), Some(0));
    let there = connected_socket(LOCAL, socket.local_addr().expect("bound")).expect("a free port");
    for _ in 0..10_000 {
        there.send(&[0; 1000]).expect("sent");
    }
    let held = {
        socket.set_nonblocking(true).expect("a socket");
        std::iter::from_fn(|| socket.recv(&mut [0; 1000]).ok()).count() as u64
    };
    assert_eq!(drops(&socket), Some(10_000 - held));
}

#[test]
fn refusal_is_an_error_of_a_later_send() {
    let closed = UdpSocket::bind(LOCAL).expect("a free port");
    let addr = closed.local_addr().expect("bound");
    drop(closed);
    let there = connected_socket(LOCAL, addr).expect("a free port");
    let deadline = clock::now().after(Duration::from_secs(10));
    let refused = |result: io::Result<usize>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    while !refused(there.send(b"anybody?")) {
        assert!(clock::now() < deadline, "nobody refuses");
    }
}

#[test]
fn group_is_joined() {
    let group = SocketAddr::from(([239, 255, 77, 19], 0));
    let inbox = match BatchSocket::bind(group, Some(Ipv4Addr::LOCALHOST)) {
        Ok(inbox) => inbox,
        Err(error) => return eprintln!("passed by: no multicast here: {error}"),
    };
    let there = UdpSocket::bind(LOCAL).expect("a free port");
    // From an interface's own address, so that the system takes that interface.
    let to = SocketAddr::new(group.ip(), inbox.local_addr().port());
    if let Err(error) = there.send_to(b"all", to) {
        return eprintln!("passed by: no multicast here: {error}");
    }
    let mut batch = DatagramBatch::new(2);
    fill(&inbox, &mut batch, 1);
}
