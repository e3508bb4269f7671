//! One flow between two hosts, measured: TCP, UDP, or a question and its answer.
//!
//! Sockets are made inside the hosts' namespaces and used from threads of this process, so that
//! both ends read one clock and no program starts or stops inside the time that is measured.

use std::{
    io,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{clock, datagrams},
    proto::bt::bitfield::Bitfield,
    testbed::star::{check_stop, host::Host},
    units::{Moment, mbit_per_second, micros},
};

/// How long a flow runs.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// At its beginning, not measured: slow start, and the shaper's first burst.
    pub lead: Duration,
    /// Measured.
    pub span: Duration,
}

/// What came of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UdpFlow {
    /// Handed to the sender's kernel.
    pub sent: u64,
    /// Different ones that arrived.
    pub received: u64,
    /// Thrown away by the receiver's own full buffer, as its kernel counts.
    pub receiver_dropped: u64,
    /// Goodput: payload of full datagrams over time, Mbit/s; 0 where too few arrived.
    pub mbit: f64,
}

/// Payload of a full datagram: 1500 bytes less the headers of IPv4 and UDP.
pub const DATAGRAM: usize = 1472;

/// How long connecting, and waiting for bytes that do not come, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// After the last datagram was sent, how long one may still be on its way: a full queue drains in
/// 50 ms, at the least rate in 8 s.
const SILENCE: Duration = Duration::from_millis(400);

/// What the receiver's socket may hold, bytes as the kernel counts them: a busy host does not read
/// for a tenth of a second, and what a flow measures is the link.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Goodput of one TCP connection, Mbit/s of payload.
///
/// # Errors
/// No connection, it broke, or `stop` was set.
pub fn tcp(from: &Host, to: &Host, window: Window, stop: &AtomicBool) -> Result<f64> {
    let (mut sending, mut receiving) = connection(from, to)?;
    let at = || format!("{} to {}", from.address, to.address);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let block = vec![0; 64 * 1024];
            while sending.write_all(&block).is_ok() {
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let measured = received(&mut receiving, window, stop);
        done.store(true, Ordering::Relaxed);
        drop(receiving); // The sender's write fails, and its thread ends.
        measured.map_err(Error::io("measure TCP", at()))?.ok_or(Error::Interrupted)
    })
}

/// Reads for the window; `None` when `stop` was set.
fn received(stream: &mut TcpStream, window: Window, stop: &AtomicBool) -> io::Result<Option<f64>> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    let mut first: Option<(Moment, u64)> = None;
    let mut begun: Option<Moment> = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let now = clock::now();
        total += count as u64;
        let start = *begun.get_or_insert(now);
        match first {
            None if now.since(start) >= window.lead => first = Some((now, total)),
            Some((since, before)) if now.since(since) >= window.span => {
                return Ok(mbit_per_second(total - before, now.since(since)));
            }
            _ => {}
        }
    }
}

/// A connection between two hosts, each end in its own.
fn connection(from: &Host, to: &Host) -> Result<(TcpStream, TcpStream)> {
    let at = || format!("{} to {}", from.address, to.address);
    let failed = |doing| Error::io(doing, at());
    let listener =
        to.enter(|| TcpListener::bind((to.address, 0)))?.map_err(failed("listen on a host"))?;
    let address = listener.local_addr().map_err(failed("listen on a host"))?;
    let sending = from
        .enter(|| TcpStream::connect_timeout(&address, PATIENCE))?
        .map_err(failed("connect two hosts"))?;
    // It is connected, so it is waiting to be accepted.
    let (receiving, _) = listener.accept().map_err(failed("accept on a host"))?;
    for stream in [&sending, &receiving] {
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        set.map_err(failed("set up a connection"))?;
    }
    Ok((sending, receiving))
}

/// Round trips of one byte over an idle link, microseconds, sorted.
///
/// # Errors
/// No connection, or it broke.
pub fn round_trips(from: &Host, to: &Host, count: usize) -> Result<Vec<u64>> {
    let (mut asking, mut answering) = connection(from, to)?;
    let at = || format!("{} to {}", from.address, to.address);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            while answering.read_exact(&mut byte).is_ok() && answering.write_all(&byte).is_ok() {}
        });
        let mut trips = Vec::with_capacity(count);
        for _ in 0..count {
            let asked = clock::now();
            let mut byte = [0];
            asking
                .write_all(&byte)
                .and_then(|()| asking.read_exact(&mut byte))
                .map_err(Error::io("measure the round trip", at()))?;
            trips.push(micros(clock::now().since(asked)));
        }
        trips.sort_unstable();
        drop(asking);
        Ok(trips)
    })
}

/// Full datagrams back to back from one host to another: a blocking socket with the system's
/// buffer sends as fast as the link takes them. Ends with the window, or after `most` datagrams.
///
/// # Errors
/// No socket, nothing arrives, or `stop` was set.
pub fn udp(
    from: &Host,
    to: &Host,
    window: Window,
    most: u64,
    stop: &AtomicBool,
) -> Result<UdpFlow> {
    let failed = |doing| Error::io(doing, format!("{} to {}", from.address, to.address));
    let receiving = to
        .enter(|| UdpSocket::bind((to.address, 0)))?
        .map_err(failed("make a socket on a host"))?;
    datagrams::options::enlarge_receive_buffer(&receiving, RECEIVE_BUFFER);
    let address = receiving.local_addr().map_err(failed("make a socket on a host"))?;
    let sending = from
        .enter(|| UdpSocket::bind((from.address, 0)))?
        .and_then(|socket| socket.connect(address).map(|()| socket))
        .map_err(failed("make a socket on a host"))?;
    receiving.set_read_timeout(Some(SILENCE)).map_err(failed("set up a socket"))?;
    let ended = AtomicBool::new(false);
    let mut result = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = send(&sending, window, most, stop);
            ended.store(true, Ordering::Release);
            sent
        });
        let (received, mbit) = receive(&receiving, window, &ended);
        let sent = sender.join().expect("the sender does not panic");
        UdpFlow { sent, received, receiver_dropped: 0, mbit }
    });
    check_stop(stop)?;
    result.receiver_dropped = to.enter(|| datagrams::drops(&receiving))?.unwrap_or(0);
    Ok(result)
}

fn send(socket: &UdpSocket, window: Window, most: u64, stop: &AtomicBool) -> u64 {
    let deadline = clock::now().after(window.lead).after(window.span);
    let mut datagram = vec![0; DATAGRAM];
    let mut sent = 0;
    while sent < most && clock::left(deadline).is_some() && !stop.load(Ordering::Relaxed) {
        datagram[..8].copy_from_slice(&sent.to_be_bytes());
        match socket.send(&datagram) {
            Ok(_) => sent += 1,
            // A report on an earlier datagram, or the system's buffers: this one was not sent.
            Err(_) => thread::yield_now(),
        }
    }
    sent
}

/// Counts different datagrams until none has come for a while after the last was sent.
fn receive(socket: &UdpSocket, window: Window, ended: &AtomicBool) -> (u64, f64) {
    let mut buffer = vec![0; DATAGRAM + 1];
    let mut seen = Bitfield::new(NUMBERS_MAX);
    let mut received = 0;
    let mut begun: Option<Moment> = None;
    let mut first: Option<(Moment, u64)> = None;
    let mut last = None;
    loop {
        match socket.recv(&mut buffer) {
            Ok(DATAGRAM) => {}
            Ok(_) => continue, // Somebody else's.
            Err(_) if ended.load(Ordering::Acquire) => break,
            Err(_) => continue, // Only a lull.
        }
        let mut number = [0; 8];
        number.copy_from_slice(&buffer[..8]);
        if !note(&mut seen, u64::from_be_bytes(number)) {
            continue;
        }
        received += 1;
        let now = clock::now();
        let start = *begun.get_or_insert(now);
        match first {
            None if now.since(start) >= window.lead => first = Some((now, received)),
            _ => last = Some((now, received)),
        }
    }
    let mbit = first.zip(last).and_then(|((since, before), (until, after))| {
        mbit_per_second((after.max(before) - before) * DATAGRAM as u64, until.since(since))
    });
    (received, mbit.unwrap_or(0.0))
}

/// Most datagrams that one measurement numbers: 100 Gbit/s for a second.
const NUMBERS_MAX: u32 = 1 << 24;

/// Marks a number as seen; false when it was before, or cannot be one of ours.
fn note(seen: &mut Bitfield, number: u64) -> bool {
    u32::try_from(number).is_ok_and(|number| seen.set(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_datagram_counts_once() {
        let mut seen = Bitfield::new(NUMBERS_MAX);
        assert!(note(&mut seen, 0));
        assert!(note(&mut seen, 1000));
        assert!(!note(&mut seen, 1000));
        assert!(note(&mut seen, 63));
        assert!(note(&mut seen, u64::from(NUMBERS_MAX) - 1));
        assert!(!note(&mut seen, u64::from(NUMBERS_MAX)));
        assert!(!note(&mut seen, u64::MAX));
    }
}
