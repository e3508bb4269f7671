//! What this machine's clock, threads, sockets, digest and disk cost, and how far that puts the
//! figures of a session off.
//!
//! Small sessions run between threads over loopback. There each moment is known twice: as an end of
//! a session takes it, and as it was at the other end of a connection that has no length.

use std::{
    fs::File,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    digest::Digest,
    net::{
        arrival, clock, copy,
        copy::{Copying, Method},
        datagrams::{BatchSocket, DatagramBatch},
        storage::FileStorage,
    },
};

/// What was measured of one thing, the unit at the end of its name.
pub type Samples = (&'static str, Vec<f64>);

/// How many small sessions there are: seven seconds of what else the machine does are in them.
pub const ROUNDS: usize = 500;

/// The opening write and the blocks after it, bytes.
const FIRST: usize = 1024;
const BLOCK: usize = 4096;
const BLOCKS: usize = 64;
const BYTES: u64 = (FIRST + BLOCKS * BLOCK) as u64;

/// Between two blocks. Linux makes half as much again of it, so that they come as over a link of 200
/// Mbit/s: the client waits for each, and writes to its file in between.
const PAUSE: Duration = Duration::from_micros(100);

/// Before the release: every thread sleeps.
const REST: Duration = Duration::from_millis(2);

/// Longest wait for a byte on loopback.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is hashed, and what is written and made safe on disk, bytes.
const MIB: usize = 1 << 20;

/// One seat of one session, microseconds.
#[derive(Clone, Copy, Debug)]
struct Moments {
    released: u64,
    /// Its thread left the barrier, and begins the first write.
    woke: u64,
    wrote: u64,
    /// The last block begins to be written.
    last: u64,
    /// The client's word came.
    end: u64,
    /// The client's first block came, its last one came, and it begins its word.
    client: [u64; 3],
}

/// Of sessions of `clients`, 2 or more, with files in `folder`: what the parts of this machine cost, and how far
/// figures are off, said minus true.
///
/// # Errors
/// Loopback or the disk failed.
pub fn measure(clients: u16, folder: &Path) -> io::Result<[Vec<Samples>; 2]> {
    let seats = sessions(clients, folder)?;
    let each = |of: fn(&Moments) -> f64| seats.iter().flatten().map(of).collect();
    let rounds = |of: fn(&[Moments]) -> f64| {
        let round = |n: usize| seats.iter().map(|seat| seat[n]).collect::<Vec<_>>();
        (0..ROUNDS).map(|n| of(&round(n))).collect::<Vec<_>>()
    };
    let (piece, mut file) = (vec![7; MIB], File::create(folder.join("disk"))?);
    let costs = vec![
        ("clock_read_us", timed(1000, || Ok(now()))?.iter().map(|us| us / 1e3).collect()),
        ("wake_us", each(|m| apart(m.woke, m.released))),
        ("send_us", each(|m| apart(m.wrote, m.woke))),
        ("send_and_receive_us", each(|m| apart(m.client[0], m.woke))),
        ("digest_of_1_MiB_us", timed(1, || Ok(Digest::of(&piece)))?),
        (
            "write_1_MiB_and_sync_us",
            timed(1, || file.write_all(&piece).and_then(|()| file.sync_all()))?,
        ),
    ];
    let errors = vec![
        ("seconds_client_us", each(|m| apart(m.client[1], m.last) - apart(m.client[0], m.woke))),
        ("seconds_server_us", rounds(server_error)),
        ("skew_us", rounds(|all| spread(all, |m| m.wrote) - spread(all, |m| m.woke))),
        ("skew_client_us", rounds(|all| spread(all, |m| m.client[0]) - spread(all, |m| m.woke))),
        ("delay_us", delays()?),
    ];
    Ok([costs, errors])
}

fn now() -> u64 {
    clock::now().0
}

/// `later` minus `earlier`, which may be the other way round.
fn apart(later: u64, earlier: u64) -> f64 {
    later as f64 - earlier as f64
}

fn spread(all: &[Moments], of: fn(&Moments) -> u64) -> f64 {
    let moments = || all.iter().map(of);
    moments().max().zip(moments().min()).map_or(0.0, |(last, first)| apart(last, first))
}

/// The server's time of the slowest seat: from the release and not from when the first block came, to
/// the word as it came and not as it was sent.
fn server_error(all: &[Moments]) -> f64 {
    let first = all.iter().min_by_key(|m| m.client[0]);
    let last = all.iter().max_by_key(|m| m.end);
    let error =
        |(a, b): (&Moments, &Moments)| apart(a.client[0], a.released) + apart(b.end, b.client[2]);
    first.zip(last).map_or(0.0, error)
}

/// Runs the sessions; for each seat its moments in each of them.
fn sessions(clients: u16, folder: &Path) -> io::Result<Vec<Vec<Moments>>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let pair = |seat| {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        for end in [&server, &client] {
            end.set_nodelay(true)?;
            arrival::stamp(end);
            end.set_read_timeout(Some(PATIENCE))?;
            end.set_write_timeout(Some(PATIENCE))?;
        }
        Ok((server, client, File::create(folder.join(format!("seat-{seat}")))?.into()))
    };
    let pairs = (0..clients).map(pair).collect::<io::Result<Vec<_>>>()?;
    let (barrier, released) = (&Barrier::new(pairs.len() + 1), &AtomicU64::new(0));
    thread::scope(|scope| {
        let start = |(server, client, file)| {
            let mut rounds = 0..ROUNDS as u64;
            scope
                .spawn(move || rounds.try_for_each(|round| receive(&client, &file, round * BYTES)));
            // One whose connection failed comes to every release all the same.
            scope.spawn(move || {
                let each = (0..ROUNDS).map(|_| send(&server, barrier, released));
                each.collect::<Vec<_>>().into_iter().collect()
            })
        };
        let seats: Vec<_> = pairs.into_iter().map(start).collect();
        for _ in 0..ROUNDS {
            barrier.wait();
            thread::sleep(REST);
            released.store(now(), Ordering::Release);
            barrier.wait();
            barrier.wait();
        }
        seats.into_iter().map(|seat| seat.join().expect("it does not panic")).collect()
    })
}

/// A seat's thread at the server.
fn send(mut server: &TcpStream, barrier: &Barrier, released: &AtomicU64) -> io::Result<Moments> {
    barrier.wait();
    barrier.wait();
    let woke = now();
    let opened = server.write_all(&[7; FIRST]);
    let wrote = now();
    // The fair start: no body flows before every seat is open.
    barrier.wait();
    opened?;
    let mut last = wrote;
    for _ in 0..BLOCKS {
        thread::sleep(PAUSE);
        last = now();
        server.write_all(&[7; BLOCK])?;
    }
    let mut word = [[0; 8]; 3];
    let end = read_all(server, word.as_flattened_mut())?;
    let released = released.load(Ordering::Acquire);
    Ok(Moments { released, woke, wrote, last, end, client: word.map(u64::from_ne_bytes) })
}

/// A client, which writes the bytes from `at` on as a copy is written; its word is its moments.
fn receive(mut client: &TcpStream, file: &FileStorage, at: u64) -> io::Result<()> {
    let mut block = [0; FIRST];
    let first = read_all(client, &mut block)?;
    let (method, moved) = (Method::Auto.resolved().map_err(io::Error::other)?, AtomicU64::new(0));
    let copying = Copying::new(method, PATIENCE, &moved);
    let times = copy::receive(client, file, at..at + BYTES, &block, copying)?;
    let word = [first, times.last.0, now()].map(u64::to_ne_bytes);
    client.write_all(word.as_flattened())
}

/// Fills `buffer` and says when the last of it came, as a session does.
fn read_all(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<u64> {
    let (mut len, mut last) = (0, 0);
    while len < buffer.len() {
        let (read, came) = arrival::read(stream, &mut buffer[len..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (len, last) = (len + read, came.0);
    }
    Ok(last)
}

/// From before a datagram is sent until it came, as the receiver knows it.
fn delays() -> io::Result<Vec<f64>> {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let receiver = BatchSocket::bind(here, None).map_err(io::Error::other)?;
    let (sender, mut batch) = (UdpSocket::bind(here)?, DatagramBatch::new(1));
    let one = |_| {
        thread::sleep(PAUSE);
        let sent = now();
        sender.send_to(&[7; FIRST], receiver.local_addr())?;
        batch.clear();
        receiver.receive(&mut batch, PATIENCE)?;
        let came = batch.iter().next().ok_or(io::ErrorKind::TimedOut)?;
        Ok(apart(came.at.0, sent))
    };
    (0..ROUNDS).map(one).collect()
}

/// How long `times` runs of `work` take, microseconds, again and again.
fn timed<T>(times: u32, mut work: impl FnMut() -> io::Result<T>) -> io::Result<Vec<f64>> {
    let once = |_| {
        let begun = now();
        (0..times).try_for_each(|_| work().map(|done| drop(std::hint::black_box(done))))?;
        Ok(apart(now(), begun))
    };
    (0..ROUNDS / 4).map(once).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_a_session_has_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let [costs, errors] = measure(2, folder.path()).expect("loopback");
        let names: Vec<_> = errors.iter().map(|(name, _)| *name).collect();
        let all =
            ["seconds_client_us", "seconds_server_us", "skew_us", "skew_client_us", "delay_us"];
        assert_eq!(names, all);
        for (name, values) in costs.iter().chain(&errors) {
            assert!(values.len() >= ROUNDS / 4, "{name}: {}", values.len());
        }
        for (name, values) in &costs {
            assert!(values.iter().all(|value| *value >= 0.0), "{name}");
        }
    }

    #[test]
    fn errors_are_what_is_said_minus_what_was() {
        let seat = |woke, end, word| Moments {
            released: 100,
            woke,
            wrote: woke + 4,
            last: 1000,
            end,
            client: [130, 1040, word],
        };
        // It came 30 us after the release, and the slowest one's word came 30 us after it was sent.
        assert_eq!(server_error(&[seat(110, 2030, 2000), seat(112, 2020, 2019)]), 60.0);
        assert_eq!(spread(&[seat(110, 0, 0), seat(117, 0, 0)], |m| m.wrote), 7.0);
    }
}
