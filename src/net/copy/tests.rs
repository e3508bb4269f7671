use std::{
    io::{Read, Seek, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use super::*;
use crate::{net::storage::FileStorage, units::Rate};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    (near, listener.accept().expect("connected").0)
}

fn file(bytes: &[u8]) -> FileStorage {
    let mut file = tempfile::tempfile().expect("a temporary folder");
    file.write_all(bytes).expect("room");
    file.into()
}

fn content(file: &FileStorage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = &**file.file().expect("one file");
    file.rewind().expect("seekable");
    file.read_to_end(&mut bytes).expect("readable");
    bytes
}

fn methods() -> Vec<Method> {
    [Method::Buffered, Method::Sendfile].into_iter().filter(|m| m.resolved().is_ok()).collect()
}

fn copying(method: Method, moved: &AtomicU64) -> Copying<'_> {
    let stall = Duration::from_secs(20);
    Copying { method, buffer: 1000, stall, slowest: SLOWEST, pacer: None, moved, stopped: None }
}

#[test]
fn every_pair_of_methods_gives_the_same_bytes() {
    let data: Vec<u8> =
        (0..3_000_017_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for sending in methods() {
        for receiving in methods() {
            let (near, far) = pair();
            let source = file(&data);
            // The part before 100 is there already, as in a resumed transfer.
            let target = file(&data[..100]);
            let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
            thread::scope(|scope| {
                scope.spawn(|| {
                    let range = 107..data.len() as u64;
                    send(&source, range, &near, copying(sending, &sent)).expect("a whole transfer");
                });
                let range = 100..data.len() as u64;
                receive(&far, &target, range, &data[100..107], copying(receiving, &received))
                    .expect("a whole transfer");
            });
            assert!(content(&target) == data, "{sending:?} to {receiving:?}");
            assert_eq!(sent.into_inner(), data.len() as u64 - 107);
            assert_eq!(received.into_inner(), data.len() as u64 - 100);
        }
    }
}

#[test]
fn many_threads_send_from_one_open_file() {
    let data: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
    let source = Arc::new(file(&data));
    for method in methods() {
        let streams: Vec<_> = (0..8)
            .map(|_| {
                let (near, mut far) = pair();
                let source = Arc::clone(&source);
                let len = data.len() as u64;
                let sender = thread::spawn(move || {
                    send(&source, 0..len, &near, copying(method, &AtomicU64::new(0)))
                        .expect("sent");
                });
                let receiver = thread::spawn(move || {
                    let mut got = Vec::new();
                    far.read_to_end(&mut got).expect("received");
                    got
                });
                (sender, receiver)
            })
            .collect();
        for (sender, receiver) in streams {
            sender.join().expect("no panic");
            assert!(receiver.join().expect("no panic") == data, "{method:?}");
        }
    }
}

#[test]
fn a_truncated_source_is_short_and_never_padded() {
    for method in methods() {
        let (near, mut far) = pair();
        let moved = AtomicU64::new(0);
        let stop = send(&file(&[7; 5000]), 0..9000, &near, copying(method, &moved));
        assert!(matches!(stop, Err(Stop::Short)), "{stop:?}");
        assert_eq!(moved.into_inner(), 5000);
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).expect("received");
        assert_eq!(got, [7; 5000]);
    }
}

#[test]
fn an_early_end_says_how_much_came() {
    for method in methods() {
        let (mut near, far) = pair();
        near.write_all(&[1; 3000]).expect("room");
        drop(near);
        let target = file(b"");
        let moved = AtomicU64::new(0);
        let stop = receive(&far, &target, 0..9000, &[], copying(method, &moved));
        let Err(Stop::Peer(error)) = stop else { panic!("{stop:?}") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(moved.into_inner(), 3000);
        assert_eq!(content(&target), [1; 3000]);
    }
}

#[test]
fn a_peer_that_does_not_read_is_a_stall_and_not_a_hang() {
    for method in methods() {
        let (near, _far) = pair();
        let moved = AtomicU64::new(0);
        let source = file(&vec![0; 32 << 20]);
        let copying = Copying { stall: Duration::from_millis(100), ..copying(method, &moved) };
        assert!(matches!(send(&source, 0..32 << 20, &near, copying), Err(Stop::Stalled)));
    }
}

#[test]
fn slow_peer_cannot_hold_a_line_beyond_its_deadline() {
    let (near, mut far) = pair();
    let (bytes, limit) = (vec![0; 32 << 20], Duration::from_millis(300));
    let enough = Arc::new(AtomicBool::new(false));
    let stop_reading = Arc::clone(&enough);
    let reading = thread::spawn(move || {
        let mut some = [0; 4096];
        while !enough.load(Ordering::Relaxed) && far.read(&mut some).is_ok_and(|read| read > 0) {
            thread::sleep(Duration::from_millis(5));
        }
    });
    let begun = clock::now();
    let stop = send_all(&near, &bytes, begun.after(limit));
    stop_reading.store(true, Ordering::Relaxed);
    assert!(matches!(stop, Err(Stop::Stalled)), "{stop:?}");
    // One call may begin just before the deadline and lasts as long as the whole at most.
    let took = clock::now().since(begun);
    assert!((limit..limit * 4).contains(&took), "{took:?}");
    near.shutdown(std::net::Shutdown::Both).expect("connected");
    reading.join().expect("no panic");
}

#[test]
fn a_peer_that_does_not_send_is_a_stall() {
    for method in methods() {
        let (_near, far) = pair();
        let moved = AtomicU64::new(0);
        let copying = Copying { stall: Duration::from_millis(50), ..copying(method, &moved) };
        let stop = receive(&far, &file(b""), 0..10, &[], copying);
        assert!(matches!(stop, Err(Stop::Stalled)), "{stop:?}");
    }
}

/// The other seats of a session may have taken the schedule for longer than one peer may take.
#[test]
fn wait_for_the_own_rate_is_not_the_peers() {
    for method in methods() {
        let pacer = Pacer::new(Rate(8000));
        // The next stretch begins 1.3 s from now; a peer that has moved nothing has 1.1 s.
        pacer.charge(1300);
        let (near, mut far) = pair();
        let moved = AtomicU64::new(0);
        let stall = Duration::from_millis(100);
        let copying = Copying { stall, pacer: Some(&pacer), ..copying(method, &moved) };
        send(&file(&[7; 100]), 0..100, &near, copying).expect("the peer has taken no time");
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).expect("received");
        assert_eq!(got, [7; 100]);
    }
}

/// No such file can be sent by `sendfile`.
#[test]
#[cfg(target_os = "linux")]
fn source_that_the_kernel_cannot_send_is_read() {
    let path = "/proc/self/cmdline";
    let bytes = std::fs::read(path).expect("Linux has it");
    let (near, mut far) = pair();
    let moved = AtomicU64::new(0);
    let copying = copying(Method::default().resolved().expect("one"), &moved);
    let source = std::fs::File::open(path).expect("ours").into();
    send(&source, 1..bytes.len() as u64, &near, copying).expect("the buffered way");
    drop(near);
    let mut got = Vec::new();
    far.read_to_end(&mut got).expect("received");
    assert_eq!(got, bytes[1..]);
    assert_eq!(moved.into_inner(), got.len() as u64);
}

/// No file that is opened for appending can be written by `splice`.
#[test]
#[cfg(target_os = "linux")]
fn target_that_the_kernel_cannot_fill_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("f");
    let target = std::fs::OpenOptions::new().append(true).create_new(true).open(&path);
    let data: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut near, far) = pair();
    let moved = AtomicU64::new(0);
    let copying = copying(Method::default().resolved().expect("one"), &moved);
    thread::scope(|scope| {
        scope.spawn(|| near.write_all(&data).expect("it reads"));
        let range = 0..data.len() as u64;
        receive(&far, &target.expect("room").into(), range, &[], copying)
            .expect("the buffered way");
    });
    assert!(std::fs::read(&path).expect("there") == data);
    assert_eq!(moved.into_inner(), data.len() as u64);
}

#[test]
fn a_full_disk_is_the_disk_s_error() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        return;
    };
    let (mut near, far) = pair();
    near.write_all(&[1; 3000]).expect("room");
    let moved = AtomicU64::new(0);
    let stop = receive(&far, &full.into(), 0..3000, &[], copying(Method::Buffered, &moved));
    assert!(matches!(stop, Err(Stop::Disk(_))), "{stop:?}");
}

#[test]
fn slow_reader_has_less_time_the_more_it_holds() {
    let stall = Duration::from_secs(30);
    let moved = AtomicU64::new(0);
    let copying = Copying { stall, ..copying(Method::Buffered, &moved) };
    let hours = |bytes: u64| copying.rising_allowance(bytes).as_secs_f64() / 3600.0;
    assert!((3.0..3.1).contains(&hours(100_000_000)), "{}", hours(100_000_000));
    assert!((20.0..21.0).contains(&hours(4_700_000_000)), "{}", hours(4_700_000_000));
    // For the first 20 minutes 1 KiB/s is enough.
    for bytes in [0, 1, 100_000, 1_200_000] {
        assert_eq!(copying.rising_allowance(bytes), copying.allowance(bytes), "{bytes}");
    }
    // 1000 clients that share 100 Mbit/s need 8000 s for 100 MB each.
    assert!(copying.rising_allowance(100_000_000) > Duration::from_secs(8000));
    assert!(copying.rising_allowance(u64::MAX) > Duration::from_secs(1_000_000_000));
}

#[test]
fn own_rate_below_the_slowest_is_not_the_peers_fault() {
    let (near, mut far) = pair();
    let source = file(&[7; 2000]);
    let pacer = Pacer::new(Rate(2400));
    let moved = AtomicU64::new(0);
    let copying = Copying {
        pacer: Some(&pacer),
        stall: Duration::from_millis(500),
        ..copying(Method::Buffered, &moved)
    };
    send(&source, 0..2000, &near, copying).expect("as slowly as we want it");
    drop(near);
    let mut got = Vec::new();
    far.read_to_end(&mut got).expect("received");
    assert_eq!(got, [7; 2000]);
}

#[test]
fn what_came_with_its_word_counts_until_it_is_written() {
    let times = |last| CopyTimes { last: Moment(last), ..CopyTimes::default() };
    let began = clock::now();
    assert_eq!(times(began.0 + 9).end(began, began), Moment(began.0 + 9));
    assert_eq!(times(0).end(began, Moment(began.0 + 5)), Moment(began.0 + 5), "all in the first");
    let now = times(0).end(began, began);
    assert!(began <= now && now <= clock::now());
}
