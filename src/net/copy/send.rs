//! A file's bytes to a connection.

use std::{io, io::Write, ops::Range, time::Duration};

use crate::{
    net::{
        clock,
        copy::{CALL_MAX, Copying, Method, SendView, Stop, lap, peer, read_at},
        primitives::{
            TcpStream,
            atomic::{AtomicU64, Ordering},
        },
        storage::{FileStorage, Stretch},
        tcp_info,
    },
    units::Moment,
};

/// So many looks at the queue of the own link are kept, one after each call.
const QUEUE_LOOKS: usize = 32;

/// Sends `range` of `file`; returns when the last byte is in the socket's buffer.
///
/// The socket's write timeout is set to the stall limit. The file's own offset is neither used
/// nor moved, so that any number of threads may send from one open file.
///
/// # Errors
/// Why it ended early; `copying.moved` says how far it came.
pub fn send(
    file: &FileStorage,
    range: Range<u64>,
    mut stream: &TcpStream,
    copying: Copying<'_>,
) -> Result<SendView, Stop> {
    stream.set_write_timeout(Some(copying.stall)).map_err(Stop::Peer)?;
    let (mut begun, mut paced) = (clock::now(), Duration::ZERO);
    let (mut queues, mut looks) = ([0; QUEUE_LOOKS], 0);
    let mut at = range.start;
    let mut buffer = Vec::new();
    let mut by_kernel = copying.method == Method::Sendfile;
    while at < range.end {
        copying.may_go_on()?;
        let mut want = range.end - at;
        if let Some(pacer) = copying.pacer {
            let mut asked = clock::now();
            want = pacer.grant(want);
            // The wait for the own rate is not the peer's.
            let wait = lap(&mut asked);
            begun = begun.after(wait);
            paced += wait;
        }
        if by_kernel {
            let part = file.stretch(at).map_err(Stop::Disk)?;
            match sendfile(&part, want.min(part.len).min(CALL_MAX as u64), stream)? {
                Some(moved) => {
                    copying.moved.fetch_add(moved, Ordering::Relaxed);
                    at += moved;
                }
                None => by_kernel = false,
            }
        }
        if !by_kernel {
            buffer.resize(copying.buffer.max(1), 0_u8);
            let len = usize::try_from(want).unwrap_or(usize::MAX).min(buffer.len());
            let read = read_at(file, &mut buffer[..len], at)?;
            at += read as u64;
            let limit = begun.after(copying.rising_allowance(at - range.start));
            write_counted(&mut stream, &buffer[..read], limit, copying.moved)?;
        }
        if clock::now().since(begun) > copying.rising_allowance(at - range.start) {
            return Err(Stop::Stalled);
        }
        if let Some(queued) = tcp_info::queued(stream) {
            queues[looks % QUEUE_LOOKS] = queued;
            looks += 1;
        }
    }
    let seen = &mut queues[..looks.min(QUEUE_LOOKS)];
    seen.sort_unstable();
    Ok(SendView { paced, queued: seen.get(seen.len() / 2).copied() })
}

/// Writes all of `bytes` by `deadline`, however little the peer takes at a time; for lines and
/// first blocks.
///
/// # Errors
/// As [`send`].
pub fn send_all(mut stream: &TcpStream, bytes: &[u8], deadline: Moment) -> Result<(), Stop> {
    let left = clock::left(deadline).ok_or(Stop::Stalled)?;
    stream.set_write_timeout(Some(left)).map_err(Stop::Peer)?;
    write_counted(&mut stream, bytes, deadline, &AtomicU64::new(0))
}

/// `write_all` that tells a full buffer's timeout from a closed connection, does not go on for ever
/// with a peer that takes a byte now and then, and counts what was written before it failed.
fn write_counted(
    stream: &mut &TcpStream,
    mut bytes: &[u8],
    deadline: Moment,
    moved: &AtomicU64,
) -> Result<(), Stop> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(Stop::Peer(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                bytes = &bytes[written..];
                moved.fetch_add(written as u64, Ordering::Relaxed);
                if !bytes.is_empty() && clock::left(deadline).is_none() {
                    return Err(Stop::Stalled);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(peer(error)),
        }
    }
    Ok(())
}

/// How many bytes were sent; `None` where the file's system cannot.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn sendfile(part: &Stretch, want: u64, stream: &TcpStream) -> Result<Option<u64>, Stop> {
    let want = usize::try_from(want).unwrap_or(CALL_MAX).min(CALL_MAX);
    let mut offset = i64::try_from(part.at).map_err(|_| Stop::Short)?;
    loop {
        match nix::sys::sendfile::sendfile(stream, &*part.file, Some(&mut offset), want) {
            Ok(0) => return Err(Stop::Short),
            Ok(sent) => return Ok(Some(sent as u64)),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) if super::is_refused(errno) => return Ok(None),
            Err(nix::errno::Errno::EIO) => return Err(Stop::Disk(nix::errno::Errno::EIO.into())),
            Err(errno) => return Err(peer(errno.into())),
        }
    }
}

#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
fn sendfile(_: &Stretch, _: u64, _: &TcpStream) -> Result<Option<u64>, Stop> {
    unreachable!("Method::resolved chooses sendfile only where the build has it")
}
