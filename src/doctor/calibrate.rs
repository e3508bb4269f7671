//! What this machine's clock, threads, sockets, digest and disk cost, and how far that puts the
//! figures of a session off.
//!
//! Small sessions run between threads over loopback. There each moment is known twice: as an end of
//! a session takes it, and as it was at the other end of a connection that has no length.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::Barrier,
    thread,
    time::Duration,
};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::{
        clock,
        datagrams::{BatchSocket, DatagramBatch},
    },
    units::Moment,
};

/// What was measured of one thing, its name ending in the unit.
pub type Samples = (&'static str, Vec<f64>);

/// What the parts of this machine cost, and how far figures of a session are off: said minus true.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Of the parts.
    pub costs: Vec<Samples>,
    /// Of the figures, microseconds.
    pub errors: Vec<Samples>,
}

/// How many small sessions there are: 95 of 100 are 190 of them.
pub const ROUNDS: usize = 200;

/// The opening write and the blocks after it, as a session has them, bytes.
const FIRST: usize = 1024;
const BLOCK: usize = 16 * 1024;
const BLOCKS: usize = 8;

/// Between two blocks: the client has slept when the last one comes.
const PAUSE: Duration = Duration::from_micros(500);

/// Before the release: every thread sleeps.
const REST: Duration = Duration::from_millis(2);

/// Longest wait for a byte on loopback.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is hashed, and what is written and made safe on disk, bytes.
const PIECE: usize = 1 << 20;

/// The moments of one seat, microseconds: its server's thread woke, wrote the first block, began the
/// last one, and read the client's word; the client read the first, read the last, and began its word.
type Sent = [u64; 4];
type Received = [u64; 3];

/// Measures: sessions of `clients`, files in `folder`.
///
/// # Errors
/// Loopback or the disk failed.
pub fn measure(clients: u16, folder: &Path) -> Result<Calibration> {
    let failed = Error::io("calibrate", "this machine");
    let all = (|| {
        let (released, seats) = sessions(clients, folder)?;
        let delays = delays()?;
        let mut costs = vec![clock_reads(), clock_steps()];
        let each = |figure: fn(&Sent, &Received) -> f64| -> Vec<f64> {
            let moments = |(sent, got): &(Vec<Sent>, Vec<Received>)| {
                sent.iter().zip(got).map(|(sent, got)| figure(sent, got)).collect::<Vec<_>>()
            };
            seats.iter().flat_map(moments).collect()
        };
        let woke = |seat: &(Vec<Sent>, _)| {
            seat.0
                .iter()
                .zip(&released)
                .map(|(sent, from)| apart(sent[0], *from))
                .collect::<Vec<_>>()
        };
        costs.push(("wake_us", seats.iter().flat_map(woke).collect()));
        costs.push(("send_us", each(|sent, _| apart(sent[1], sent[0]))));
        costs.push(("send_and_receive_us", each(|sent, got| apart(got[0], sent[0]))));
        costs.extend([digests(), disk(folder)?]);
        let mut errors = vec![
            ("seconds_client_us", each(|s, got| apart(got[1], s[2]) - apart(got[0], s[0]))),
            ("seconds_server_us", server_errors(&released, &seats)),
        ];
        if clients > 1 {
            errors.push(("skew_us", skews(&seats, |sent, _| sent[1])));
            errors.push(("skew_client_us", skews(&seats, |_, got| got[0])));
        }
        errors.push(("delay_us", delays));
        Ok(Calibration { costs, errors })
    })();
    all.map_err(failed)
}

/// `later` minus `earlier`, which may be the other way round.
#[allow(clippy::cast_precision_loss, reason = "exact for three hundred years")]
fn apart(later: u64, earlier: u64) -> f64 {
    later as f64 - earlier as f64
}

fn now() -> u64 {
    clock::now().0
}

type Seats = Vec<(Vec<Sent>, Vec<Received>)>;

/// Runs the sessions: when each was released, and the moments of its seats.
fn sessions(clients: u16, folder: &Path) -> io::Result<(Vec<u64>, Seats)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ends = (0..clients).map(|seat| {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        for end in [&server, &client] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(PATIENCE))?;
            end.set_write_timeout(Some(PATIENCE))?;
        }
        Ok((server, client, File::create(folder.join(format!("seat-{seat}")))?))
    });
    let ends = ends.collect::<io::Result<Vec<_>>>()?;
    let barrier = Barrier::new(ends.len() + 1);
    thread::scope(|scope| {
        let start = |(server, client, file)| {
            let rounds = move || (0..ROUNDS).map(|_| receive(&client, &file)).collect();
            let receiving = scope.spawn::<_, io::Result<Vec<Received>>>(rounds);
            (scope.spawn(|| send_all(server, &barrier)), receiving)
        };
        let threads: Vec<_> = ends.into_iter().map(start).collect();
        let release = |_| {
            barrier.wait();
            thread::sleep(REST);
            let released = now();
            barrier.wait();
            released
        };
        let released = (0..ROUNDS).map(release).collect();
        let ended = "it does not panic";
        let seats = threads.into_iter().map(|(sending, receiving)| {
            Ok((sending.join().expect(ended)?, receiving.join().expect(ended)?))
        });
        Ok((released, seats.collect::<io::Result<_>>()?))
    })
}

/// A seat's thread at the server. It comes to every release, even when its connection failed.
fn send_all(server: TcpStream, barrier: &Barrier) -> io::Result<Vec<Sent>> {
    let mut all = Ok(Vec::new());
    for _ in 0..ROUNDS {
        barrier.wait();
        barrier.wait();
        let woke = now();
        if let Ok(rounds) = &mut all {
            match send(&server, woke) {
                Ok(sent) => rounds.push(sent),
                Err(error) => all = Err(error),
            }
        }
    }
    all
}

fn send(mut server: &TcpStream, woke: u64) -> io::Result<Sent> {
    let block = [7; BLOCK];
    server.write_all(&block[..FIRST])?;
    let (wrote, mut last) = (now(), 0);
    for _ in 0..BLOCKS {
        thread::sleep(PAUSE);
        last = now();
        server.write_all(&block)?;
    }
    server.read_exact(&mut [0])?;
    Ok([woke, wrote, last, now()])
}

fn receive(mut client: &TcpStream, mut file: &File) -> io::Result<Received> {
    let mut buffer = [0; 4 * BLOCK];
    let (mut first, mut got) = (None, 0);
    loop {
        let len = client.read(&mut buffer)?;
        let at = now();
        let first = *first.get_or_insert(at);
        got += len;
        if got == FIRST + BLOCKS * BLOCK {
            let word = now();
            client.write_all(&[1])?;
            return Ok([first, at, word]);
        }
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all(&buffer[..len])?;
    }
}

/// A server dates a session from its release; the first byte leaves when the first seat has woken.
fn server_errors(released: &[u64], seats: &Seats) -> Vec<f64> {
    let errors = released.iter().enumerate().flat_map(|(round, from)| {
        let left = seats.iter().map(|(sent, _)| sent[round][0]).min().unwrap_or(*from);
        seats
            .iter()
            .map(move |(sent, got)| apart(left, *from) + apart(sent[round][3], got[round][2]))
    });
    errors.collect()
}

/// Of the moments that `said` are: how far they are apart, minus how far the writes were.
fn skews(seats: &Seats, said: fn(&Sent, &Received) -> u64) -> Vec<f64> {
    let spread = |round: usize, of: fn(&Sent, &Received) -> u64| {
        let moments = || seats.iter().map(|(sent, got)| of(&sent[round], &got[round]));
        apart(moments().max().unwrap_or(0), moments().min().unwrap_or(0))
    };
    (0..ROUNDS).map(|round| spread(round, said) - spread(round, |sent, _| sent[0])).collect()
}

/// From before a datagram is sent until it came, as the receiver knows it.
fn delays() -> io::Result<Vec<f64>> {
    let receiver = BatchSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None)
        .map_err(io::Error::other)?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut batch = DatagramBatch::new(1);
    let one = |_| {
        thread::sleep(PAUSE);
        let Moment(sent) = clock::now();
        sender.send_to(&[7; FIRST], receiver.local_addr())?;
        batch.clear();
        receiver.receive(&mut batch, PATIENCE)?;
        let came = batch.iter().next().ok_or(io::ErrorKind::TimedOut)?;
        Ok(apart(came.at.0, sent))
    };
    (0..ROUNDS).map(one).collect()
}

fn clock_reads() -> Samples {
    const READS: u32 = 10_000;
    let batch = |_| {
        let begun = now();
        (0..READS).for_each(|_| {
            std::hint::black_box(now());
        });
        apart(now(), begun) * 1e3 / f64::from(READS)
    };
    ("clock_read_ns", (0..ROUNDS).map(batch).collect())
}

fn clock_steps() -> Samples {
    let step = |_| {
        let (begun, mut next) = (now(), now());
        while next == begun {
            next = now();
        }
        apart(next, begun)
    };
    ("clock_step_us", (0..ROUNDS).map(step).collect())
}

fn digests() -> Samples {
    let piece = vec![7; PIECE];
    let one = |_| {
        let begun = now();
        std::hint::black_box(Digest::of(&piece));
        apart(now(), begun) / 1e3
    };
    ("digest_of_1_MiB_ms", (0..ROUNDS / 4).map(one).collect())
}

fn disk(folder: &Path) -> io::Result<Samples> {
    let (piece, mut file) = (vec![7; PIECE], File::create(folder.join("disk"))?);
    let one = |_| {
        let begun = now();
        file.write_all(&piece)?;
        file.sync_all()?;
        Ok(apart(now(), begun) / 1e3)
    };
    let times = (0..ROUNDS / 4).map(one).collect::<io::Result<_>>()?;
    Ok(("write_and_sync_of_1_MiB_ms", times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_of_a_session_has_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let two = measure(2, folder.path()).expect("loopback");
        let names: Vec<_> = two.errors.iter().map(|(name, _)| *name).collect();
        let all =
            ["seconds_client_us", "seconds_server_us", "skew_us", "skew_client_us", "delay_us"];
        assert_eq!(names, all);
        for (name, values) in two.costs.iter().chain(&two.errors) {
            assert!(values.len() >= ROUNDS / 4, "{name}: {}", values.len());
        }
        for (name, values) in &two.costs {
            assert!(values.iter().all(|value| *value >= 0.0), "{name}");
        }
        let one = measure(1, folder.path()).expect("loopback");
        assert_eq!(one.errors.len(), 3, "a session of one has no skew");
    }

    #[test]
    fn errors_are_what_is_said_minus_what_was() {
        let seats: Seats = vec![
            // The first seat woke 10 us after the release and said so 4 us later.
            (vec![[110, 114, 1000, 2030]; ROUNDS], vec![[130, 1040, 2000]; ROUNDS]),
            (vec![[112, 126, 1000, 2090]; ROUNDS], vec![[131, 1010, 2010]; ROUNDS]),
        ];
        assert_eq!(server_errors(&[100; ROUNDS], &seats)[..2], [40.0, 90.0]);
        // 12 us apart as written, 2 us as it was; the clients read 1 us apart.
        assert_eq!(skews(&seats, |sent, _| sent[1])[0], 10.0);
        assert_eq!(skews(&seats, |_, got| got[0])[0], -1.0);
    }
}
