//! When bytes came: by the kernel's stamp, and where there is none, when they were read. A thread
//! that is run late reads late; the stamp is of the moment at which the system took them in.
//!
//! A stamp is wall time (socket(7), `SO_TIMESTAMPNS`), so only its age is used.

use std::{io, net::TcpStream};

use crate::{net::socket, units::Moment};

/// As [`socket::read_until`], and when the last of what was read came.
///
/// # Errors
/// As [`socket::read_until`].
pub fn read_until(
    stream: &TcpStream,
    buffer: &mut [u8],
    deadline: Moment,
) -> io::Result<(usize, Moment)> {
    socket::by(stream, deadline, || read(stream, buffer))
}

#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(super) use kernel::{clocks, stamp_of};
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub use kernel::{read, stamp};

#[cfg(all(target_os = "linux", feature = "sockopt"))]
mod kernel {
    use std::{
        io,
        io::IoSliceMut,
        net::TcpStream,
        os::fd::{AsFd, AsRawFd},
        time::Duration,
    };

    use nix::{
        sys::{
            socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
            time::TimeSpec,
        },
        time::{ClockId, clock_gettime},
    };

    use crate::{
        net::{clock, tcp_info},
        units::{Moment, micros},
    };

    /// A stamp that is older tells that the wall clock was set, not that nobody read for so long.
    const AGE_MAX: Duration = Duration::from_secs(10);

    /// A read that is so late is one of a thread that was run late, or of bytes that came early and waited
    /// for others before them, which are then what came last.
    const LATE: Duration = Duration::from_micros(200);

    /// The two clocks at one time.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::net) struct Clocks {
        now: Moment,
        wall: Duration,
    }

    impl Clocks {
        /// When that came which has `stamp`.
        pub(in crate::net) fn came(self, stamp: Option<Duration>) -> Moment {
            let age = stamp.map_or(Duration::ZERO, |stamp| self.wall.saturating_sub(stamp));
            if age > AGE_MAX { self.now } else { Moment(self.now.0.saturating_sub(micros(age))) }
        }
    }

    /// Asks the kernel to stamp what comes to `socket`.
    pub fn stamp(socket: &impl AsFd) {
        if let Err(error) = setsockopt(socket, sockopt::ReceiveTimestampns, &true) {
            log::debug!("no timestamps from the kernel: {error}");
        }
    }

    /// Reads what has come into `buffer`, and says when the last of it came.
    ///
    /// # Errors
    /// The system's.
    pub fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Moment)> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut space = nix::cmsg_space!(TimeSpec);
        let none = MsgFlags::empty();
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), none)?;
        let stamp = message.cmsgs().ok().and_then(|mut found| found.find_map(|c| stamp_of(&c)));
        let clocks = clocks();
        let came = clocks.came(stamp);
        // The stamp is of the segment that was read last.
        let is_last = clocks.now.since(came) < LATE || tcp_info::came_in_order(stream);
        Ok((message.bytes, if is_last { came } else { clocks.now }))
    }

    /// The stamp, if the control message is one.
    pub(in crate::net) fn stamp_of(control: &ControlMessageOwned) -> Option<Duration> {
        match control {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(*stamp)),
            _ => None,
        }
    }

    /// The clocks, now.
    pub(in crate::net) fn clocks() -> Clocks {
        let wall = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
        Clocks { now: clock::now(), wall }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn stamp_is_an_age_and_not_a_date() {
            let second = Duration::from_secs(1);
            let clocks = Clocks { now: Moment(60_000_000), wall: 1000 * second };
            assert_eq!(clocks.came(Some(999 * second)), Moment(59_000_000));
            assert_eq!(clocks.came(Some(990 * second)), Moment(50_000_000), "the oldest");
            assert_eq!(clocks.came(None), clocks.now);
            // The wall clock was set: back, or on.
            assert_eq!(clocks.came(Some(1001 * second)), clocks.now);
            assert_eq!(clocks.came(Some(989 * second)), clocks.now);
        }
    }
}

/// There are no stamps here.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub fn stamp<T>(_: &T) {}

/// As above: bytes came when they are read.
///
/// # Errors
/// The system's.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Moment)> {
    let len = io::Read::read(&mut stream, buffer)?;
    Ok((len, crate::net::clock::now()))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener, thread, time::Duration};

    use super::*;
    use crate::net::clock;

    #[test]
    fn bytes_came_before_a_late_reader_was_run() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let mut far = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (near, _) = listener.accept().expect("connected");
        stamp(&near);
        let (late, deadline) =
            (Duration::from_millis(50), clock::now().after(Duration::from_secs(60)));
        let mut buffer = [0; 16];
        // The kernel begins to stamp a moment after it was asked first.
        loop {
            let sent = clock::now();
            far.write_all(b"late").expect("connected");
            thread::sleep(late);
            let (len, came) = read_until(&near, &mut buffer, deadline).expect("sent");
            assert_eq!(&buffer[..len], b"late");
            // The two clocks are not read at one time.
            assert!(came.0 + 5 >= sent.0, "{came:?} {sent:?}");
            if !cfg!(all(target_os = "linux", feature = "sockopt")) {
                assert!(came.since(sent) >= late, "no stamps here: it came when it was read");
                break;
            }
            if clock::now().since(came) >= late / 2 {
                break;
            }
            assert!(clock::left(deadline).is_some(), "no stamp came");
        }
        drop(far);
        assert_eq!(read_until(&near, &mut buffer, deadline).expect("closed").0, 0);
    }
}
