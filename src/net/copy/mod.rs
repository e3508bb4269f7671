//! Moves a file's bytes between a disk and a socket: the one place that does.
//!
//! Two ways each, behind one function each. Sending: a buffered loop of positioned reads and
//! writes on plain std, or `sendfile`. Receiving: a buffered loop, or `splice` through a pipe.
//! (`std::io::copy` is neither: from file to socket it is a loop of 8 KiB, because std refuses
//! `sendfile` there since its pull request 108283.) `benches/README.md` has the figures by which
//! [`Method::Auto`] chooses the kernel's way wherever the build has it.
//!
//! - `send.rs`, `receive.rs`: the two copies, each with the kernel's way beside the loop that it
//!   stands for
//! - `positioned.rs`: reads and writes at a place of a file, wherever its offset stands
//!
//! Nothing here logs or locks between two blocks, or allocates more than room for a stamp. A stall is
//! a block that makes no progress for the whole limit; a peer that dribbles is bounded by [`SLOWEST`].

use std::{io, str::FromStr, time::Duration};

use crate::{
    error::Error,
    net::{
        clock,
        pacing::Pacer,
        primitives::atomic::{AtomicBool, AtomicU64, Ordering},
    },
    units::{InvalidValue, Moment},
};

mod positioned;
mod receive;
mod send;

pub use positioned::{read_at, write_at, write_parts_at};
pub use receive::receive;
pub use send::{send, send_all};

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

impl CopyTimes {
    /// When the last bytes came, where the first came at `first`. What came in one segment with the word
    /// that `began` it has no time of its own: it counts until now, when it is written.
    pub fn end(&self, began: Moment, first: Moment) -> Moment {
        let last = self.last.max(first);
        if last > began { last } else { clock::now() }
    }
}

/// Buffer of the buffered loop, bytes.
pub const COPY_BUF: usize = 64 * 1024;

/// The same above 256 seats, so that a thousand of them stay small.
pub const COPY_BUF_MANY: usize = 16 * 1024;

/// Most that one `sendfile` or `splice` call is asked to move, bytes: it returns, and progress
/// shows, at least this often.
const CALL_MAX: usize = 1 << 20;

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

/// The time since `mark`, which is the present from then on.
fn lap(mark: &mut Moment) -> Duration {
    let before = std::mem::replace(mark, clock::now());
    mark.since(before)
}

/// What a file system says that does not have the kernel's way.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn is_refused(errno: nix::errno::Errno) -> bool {
    use nix::errno::Errno;
    matches!(errno, Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP)
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
