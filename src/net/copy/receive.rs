//! A connection's bytes to a file.

use std::{io, ops::Range};

use crate::{
    net::{
        arrival, clock,
        copy::{COPY_BUF, CopyTimes, Copying, Method, Stop, lap, peer, write_at},
        primitives::{TcpStream, atomic::Ordering},
        storage::FileStorage,
    },
    units::Moment,
};

/// Receives exactly `range` into the same place of `file`, after `first`, which is the beginning
/// of the range and was read with the line before it.
///
/// # Errors
/// Why it ended early, [`Stop::Peer`] with `UnexpectedEof` when the stream just ended;
/// `copying.moved` says how many bytes are in the file.
pub fn receive(
    stream: &TcpStream,
    file: &FileStorage,
    range: Range<u64>,
    first: &[u8],
    copying: Copying<'_>,
) -> Result<CopyTimes, Stop> {
    stream.set_read_timeout(Some(copying.stall)).map_err(Stop::Peer)?;
    let (begun, mut times) = (clock::now(), CopyTimes::default());
    arrival::stamp(stream);
    write_at(file, first, range.start)?;
    let mut at = range.start + first.len() as u64;
    copying.moved.fetch_add(first.len() as u64, Ordering::Relaxed);
    if copying.method == Method::Sendfile {
        // Only what is read here has a stamp of when it came.
        let until = range.end.saturating_sub(COPY_BUF as u64);
        at = splice(stream, file, (at, range.start..until), &mut times, copying)?;
    }
    let mut mark = clock::now();
    let mut buffer = vec![0_u8; copying.buffer.max(1)];
    while at < range.end {
        copying.may_go_on()?;
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        let part = &mut buffer[..len];
        // Only of the last bytes it is asked when they came, and a stamp has its cost.
        let came = if left > len {
            io::Read::read(&mut &*stream, part).map(|read| (read, Moment::default()))
        } else {
            arrival::read(stream, part)
        };
        let (read, came) = match came {
            Ok((0, _)) => return Err(Stop::Peer(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(peer(error)),
        };
        times.read += lap(&mut mark);
        times.last = times.last.max(came);
        write_at(file, &buffer[..read], at)?;
        times.write += lap(&mut mark);
        at += read as u64;
        copying.moved.fetch_add(read as u64, Ordering::Relaxed);
        copying.too_slow(begun, at - range.start)?;
    }
    Ok(times)
}

/// Receives the rest of `range` from `at` on; returns how far it came before the file's system
/// refused.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn splice(
    stream: &TcpStream,
    file: &FileStorage,
    (mut at, range): (u64, Range<u64>),
    times: &mut CopyTimes,
    copying: Copying<'_>,
) -> Result<u64, Stop> {
    use nix::{
        errno::Errno,
        fcntl::{FcntlArg, SpliceFFlags},
    };

    /// What an unprivileged process may ask for (`/proc/sys/fs/pipe-max-size`), bytes.
    const PIPE: i32 = 1 << 20;

    if at >= range.end {
        return Ok(at);
    }
    let (mut pipe_out, pipe_in) = io::pipe().map_err(Stop::Disk)?;
    // A system that grants less has a smaller pipe, and the same bytes in more calls.
    let _ = nix::fcntl::fcntl(&pipe_in, FcntlArg::F_SETPIPE_SZ(PIPE));
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_MORE;
    let begun = clock::now();
    let mut mark = begun;
    while at < range.end {
        copying.may_go_on()?;
        let want = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(super::CALL_MAX);
        let mut piped = match nix::fcntl::splice(stream, None, &pipe_in, None, want, flags) {
            Ok(0) => return Err(Stop::Peer(io::ErrorKind::UnexpectedEof.into())),
            Ok(piped) => piped,
            Err(Errno::EINTR) => continue,
            Err(errno) if super::is_refused(errno) => return Ok(at),
            Err(errno) => return Err(peer(errno.into())),
        };
        times.read += lap(&mut mark);
        while piped > 0 {
            let part = file.stretch(at).map_err(Stop::Disk)?;
            let mut offset = i64::try_from(part.at).map_err(|_| Stop::Short)?;
            let want = usize::try_from(part.len).unwrap_or(piped).min(piped);
            match nix::fcntl::splice(&pipe_out, None, &*part.file, Some(&mut offset), want, flags) {
                Ok(0) => return Err(Stop::Disk(io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    piped -= written;
                    at += written as u64;
                    copying.moved.fetch_add(written as u64, Ordering::Relaxed);
                }
                Err(Errno::EINTR) => {}
                Err(errno) if super::is_refused(errno) => {
                    // What is in the pipe has left the connection already.
                    let mut bytes = vec![0; piped];
                    io::Read::read_exact(&mut pipe_out, &mut bytes).map_err(Stop::Disk)?;
                    write_at(file, &bytes, at)?;
                    copying.moved.fetch_add(piped as u64, Ordering::Relaxed);
                    return Ok(at + piped as u64);
                }
                Err(errno) => return Err(Stop::Disk(errno.into())),
            }
        }
        times.write += lap(&mut mark);
        copying.too_slow(begun, at - range.start)?;
    }
    Ok(at)
}

#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
fn splice(
    _: &TcpStream,
    _: &FileStorage,
    _: (u64, Range<u64>),
    _: &mut CopyTimes,
    _: Copying<'_>,
) -> Result<u64, Stop> {
    unreachable!("Method::resolved chooses sendfile only where the build has it")
}
