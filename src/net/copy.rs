//! Moves a file's bytes between a disk and a socket: the one place that does.
//!
//! Two ways each, behind one function each. Sending: a buffered loop of positioned reads and
//! writes on plain std, or `sendfile`. Receiving: a buffered loop, or `splice` through a pipe.
//! (`std::io::copy` is neither: from file to socket it is a loop of 8 KiB, because std refuses
//! `sendfile` there since its pull request 108283.) `benches/README.md` has the figures by which
//! [`Method::Auto`] chooses the kernel's way wherever the build has it.
//!
//! Over 450 lines because each of the kernel's ways is read beside the loop that it stands for.
//!
//! Nothing here logs or locks between two blocks, or allocates more than room for a stamp. A stall is
//! a block that makes no progress for the whole limit; a peer that dribbles is bounded by [`SLOWEST`].

use std::{
    io,
    io::{IoSlice, Write},
    ops::Range,
    str::FromStr,
    time::Duration,
};

use crate::{
    error::Error,
    net::{
        arrival, clock,
        pacing::Pacer,
        primitives::{
            TcpStream,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        storage::{FileStorage, Stretch},
        tcp_info,
    },
    units::{InvalidValue, Moment},
};

/// How bytes are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Method {
    /// The fastest that this build has.
    #[default]
    Auto,
    /// Positioned reads and writes through one buffer; always there.
    Buffered,
    /// The kernel's own: `sendfile` to send, `splice` to receive (Linux, feature `sockopt`).
    Sendfile,
}

/// What both copies need to know.
#[derive(Clone, Copy, Debug)]
pub struct Copying<'a> {
    /// How.
    pub method: Method,
    /// Size of the buffer of the buffered loop, bytes.
    pub buffer: usize,
    /// A block without progress for this long ends the copy.
    pub stall: Duration,
    /// The least average rate, bytes per second.
    pub slowest: u64,
    /// Holds the session's rate, where it has one.
    pub pacer: Option<&'a Pacer>,
    /// Counts the payload bytes as they move, for every face that shows progress.
    pub moved: &'a AtomicU64,
    /// Set when this side is to end: the copy ends after the block at hand.
    pub stopped: Option<&'a AtomicBool>,
}

/// Why a copy ended before its last byte.
#[derive(Debug)]
pub enum Stop {
    /// The connection failed or was closed.
    Peer(io::Error),
    /// No progress for the stall limit, or too little for the slowest rate allowed.
    Stalled,
    /// This side was told to end.
    Stopped,
    /// The file is shorter than it was.
    Short,
    /// The file cannot be read or written.
    Disk(io::Error),
}

impl From<Stop> for io::Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Peer(error) | Stop::Disk(error) => error,
            Stop::Stalled => io::ErrorKind::TimedOut.into(),
            Stop::Stopped => io::ErrorKind::ConnectionAborted.into(),
            Stop::Short => Self::new(io::ErrorKind::UnexpectedEof, "the file was truncated"),
        }
    }
}

/// What was seen of a copy while it was sent.
#[derive(Clone, Copy, Debug)]
pub struct SendView {
    /// The pacer held it back for so long.
    pub paced: Duration,
    /// So many bytes were in the queue of this machine's own link: the median of the last looks, since
    /// one burst of a machine that is busy is no full link.
    pub queued: Option<u64>,
}

/// Where the time of a copy that was received went.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyTimes {
    /// Waiting for the peer.
    pub read: Duration,
    /// Writing to the file.
    pub write: Duration,
    /// When the last bytes came.
    pub last: Moment,
}

/// Buffer of the buffered loop, bytes.
pub const COPY_BUF: usize = 64 * 1024;

/// The same above 256 seats, so that a thousand of them stay small.
pub const COPY_BUF_MANY: usize = 16 * 1024;

/// Most that one `sendfile` or `splice` call is asked to move, bytes: it returns, and progress
/// shows, at least this often.
const CALL_MAX: usize = 1 << 20;

/// So many looks at the queue of the own link are kept, one after each call.
const QUEUE_LOOKS: usize = 32;

/// The least average rate of a transfer, bytes per second, once its first stall limit is over:
/// with it every transfer has an absolute deadline. A sender does not count the time that it waits
/// for its own rate.
pub const SLOWEST: u64 = 1024;

impl Method {
    /// What this build really does when asked for `self`.
    ///
    /// # Errors
    /// [`Method::Sendfile`] in a build that has none.
    pub fn resolved(self) -> Result<Self, Error> {
        let has_sendfile = cfg!(all(target_os = "linux", feature = "sockopt"));
        match self {
            Self::Auto if has_sendfile => Ok(Self::Sendfile),
            Self::Auto => Ok(Self::Buffered),
            Self::Sendfile if !has_sendfile => {
                let why = "--copy sendfile needs Linux and a build with feature sockopt";
                Err(Error::refused("gatecast", why))
            }
            chosen => Ok(chosen),
        }
    }

    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Buffered => "buffered",
            Self::Sendfile => "sendfile",
        }
    }
}

impl FromStr for Method {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        [Self::Auto, Self::Buffered, Self::Sendfile]
            .into_iter()
            .find(|method| method.word() == text)
            .ok_or_else(|| InvalidValue::new("way to copy", text, "auto, buffered or sendfile"))
    }
}

/// Each time that so long has passed, the least rate that a reader must keep rises by itself once:
/// 100 MB may take 3 hours, and not 27. 1000 clients that share 100 Mbit/s need less.
const RISE: Duration = Duration::from_secs(600);

/// The least rate that one of `seats` may expect, bytes per second: they share a session's rate.
pub fn slowest_of(seats: u16) -> u64 {
    (SLOWEST / u64::from(seats.max(1))).max(1)
}

/// The absolute deadline of a transfer of `bytes` that begins now.
pub fn deadline(bytes: u64, stall: Duration) -> Moment {
    clock::now().after(stall).after(Duration::from_secs(bytes / SLOWEST))
}

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
        let (read, came) = match arrival::read(stream, &mut buffer[..len]) {
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

/// The time since `mark`, which is the present from then on.
fn lap(mark: &mut Moment) -> Duration {
    let before = std::mem::replace(mark, clock::now());
    mark.since(before)
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

/// Reads at least one byte of `file` at `at`, wherever its offset stands.
pub fn read_at(file: &FileStorage, buffer: &mut [u8], at: u64) -> Result<usize, Stop> {
    let Stretch { file, at, len } = file.stretch(at).map_err(stretch_stop)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
    let buffer = &mut buffer[..len];
    loop {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&*file, buffer, at);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&*file, buffer, at);
        match read {
            Ok(0) => return Err(Stop::Short),
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stop::Disk(error)),
        }
    }
}

/// Writes all of `bytes` at `at`.
///
/// # Errors
/// The disk failed.
pub fn write_at(file: &FileStorage, mut bytes: &[u8], mut at: u64) -> Result<(), Stop> {
    while !bytes.is_empty() {
        let part = file.stretch(at).map_err(Stop::Disk)?;
        let len = usize::try_from(part.len).unwrap_or(usize::MAX).min(bytes.len());
        #[cfg(unix)]
        let written = std::os::unix::fs::FileExt::write_at(&*part.file, &bytes[..len], part.at);
        #[cfg(windows)]
        let written =
            std::os::windows::fs::FileExt::seek_write(&*part.file, &bytes[..len], part.at);
        match written {
            Ok(0) => return Err(Stop::Disk(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stop::Disk(error)),
        }
    }
    Ok(())
}

/// Writes `parts` one after the other from `at` on: with one call where the system has it.
///
/// # Errors
/// The disk failed.
pub fn write_parts_at(file: &FileStorage, parts: &[IoSlice<'_>], mut at: u64) -> Result<(), Stop> {
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    {
        let want = parts.iter().map(|part| part.len()).sum();
        let stretch = file.stretch(at).map_err(Stop::Disk)?;
        if let Ok(offset) = i64::try_from(stretch.at)
            && want as u64 <= stretch.len
            && nix::sys::uio::pwritev(&*stretch.file, parts, offset) == Ok(want)
        {
            return Ok(());
        }
    }
    // Whatever stood in the way, a write at the same place says it.
    for part in parts {
        write_at(file, part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Behind the last byte of a folder there is none to read, as behind that of a file.
fn stretch_stop(error: io::Error) -> Stop {
    if error.kind() == io::ErrorKind::UnexpectedEof { Stop::Short } else { Stop::Disk(error) }
}

/// What a file system says that does not have the kernel's way.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn is_refused(errno: nix::errno::Errno) -> bool {
    use nix::errno::Errno;
    matches!(errno, Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP)
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
            Err(errno) if is_refused(errno) => return Ok(None),
            Err(nix::errno::Errno::EIO) => return Err(Stop::Disk(nix::errno::Errno::EIO.into())),
            Err(errno) => return Err(peer(errno.into())),
        }
    }
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
        let want = usize::try_from(range.end - at).unwrap_or(CALL_MAX).min(CALL_MAX);
        let mut piped = match nix::fcntl::splice(stream, None, &pipe_in, None, want, flags) {
            Ok(0) => return Err(Stop::Peer(io::ErrorKind::UnexpectedEof.into())),
            Ok(piped) => piped,
            Err(Errno::EINTR) => continue,
            Err(errno) if is_refused(errno) => return Ok(at),
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
                Err(errno) if is_refused(errno) => {
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
fn sendfile(_: &Stretch, _: u64, _: &TcpStream) -> Result<Option<u64>, Stop> {
    unreachable!("Method::resolved chooses sendfile only where the build has it")
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

impl<'a> Copying<'a> {
    /// As fast as it goes, until it ends.
    pub fn new(method: Method, stall: Duration, moved: &'a AtomicU64) -> Self {
        let (buffer, slowest) = (COPY_BUF, SLOWEST);
        Self { method, buffer, stall, slowest, pacer: None, moved, stopped: None }
    }

    /// Whether this side was told to end.
    fn may_go_on(&self) -> Result<(), Stop> {
        match self.stopped {
            Some(stopped) if stopped.load(Ordering::Relaxed) => Err(Stop::Stopped),
            _ => Ok(()),
        }
    }

    /// How long the first `moved` bytes of a transfer may take.
    fn allowance(&self, moved: u64) -> Duration {
        self.stall.saturating_add(Duration::from_secs(moved / self.slowest.max(1) + 1))
    }

    /// The same for a peer that is sent to, of whom more is wanted with time.
    fn rising_allowance(&self, moved: u64) -> Duration {
        // At slowest * t / RISE the first `moved` bytes take the root of 2 * moved * RISE / slowest.
        let seconds = moved / self.slowest.max(1);
        let risen = seconds.saturating_mul(2 * RISE.as_secs()).isqrt();
        self.allowance(moved).min(self.stall.saturating_add(Duration::from_secs(risen + 1)))
    }

    fn too_slow(&self, begun: Moment, moved: u64) -> Result<(), Stop> {
        let late = clock::now().since(begun) > self.allowance(moved);
        if late { Err(Stop::Stalled) } else { Ok(()) }
    }
}

fn peer(error: io::Error) -> Stop {
    if Error::is_timeout(&error) { Stop::Stalled } else { Stop::Peer(error) }
}

#[cfg(test)]
mod tests;
