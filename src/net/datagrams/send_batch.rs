//! A batch on its way out: as few sends as the system allows, to any number of addresses.

use std::{
    borrow::Cow,
    io::{self, IoSlice},
    net::{SocketAddr, UdpSocket},
    ops::Range,
};

use crate::{
    error::{Error, Result},
    net::datagrams::{BATCHED, DatagramBatch, kernel},
};

/// A batch made ready to be sent, to any number of addresses.
#[derive(Debug)]
pub struct SendBatch<'a> {
    slices: Vec<IoSlice<'a>>,
    runs: Vec<SegmentRun>,
}

/// Datagrams that one call can send: all of one size, the last perhaps shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRun {
    /// Which datagrams of the batch.
    pub datagrams: Range<usize>,
    /// Their bytes.
    pub bytes: usize,
    segment: u16,
}

/// Most segments of one send; Linux since 4.18 has allowed so many.
const SEGMENTS_MAX: usize = 64;

/// Most bytes of one segmented send, with room for headers below the 65,535 of an IP packet.
const SEGMENTED_MAX: usize = 65_000;

impl<'a> SendBatch<'a> {
    /// The datagrams of `batch`, and how few calls send them.
    pub fn of(batch: &'a DatagramBatch) -> Self {
        let slices: Vec<IoSlice<'a>> = batch.iter().map(|d| IoSlice::new(d.bytes)).collect();
        let mut runs: Vec<SegmentRun> = Vec::new();
        for (at, slice) in slices.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if BATCHED && run.accepts(slice.len()) => {
                    run.datagrams.end = at + 1;
                    run.bytes += slice.len();
                }
                _ => runs.push(SegmentRun {
                    datagrams: at..at + 1,
                    bytes: slice.len(),
                    // Anything that UDP carries is less.
                    segment: u16::try_from(slice.len()).unwrap_or(u16::MAX),
                }),
            }
        }
        Self { slices, runs }
    }

    /// The fewest sends.
    pub fn runs(&self) -> &[SegmentRun] {
        &self.runs
    }

    /// The same without the datagrams before `first`.
    pub fn runs_from(&self, first: usize) -> impl Iterator<Item = Cow<'_, SegmentRun>> {
        let runs = self.runs.iter().filter(move |run| run.datagrams.end > first);
        runs.map(move |run| {
            if run.datagrams.start >= first {
                return Cow::Borrowed(run);
            }
            let datagrams = first..run.datagrams.end;
            let bytes = self.slices[datagrams.clone()].iter().map(|slice| slice.len()).sum();
            Cow::Owned(SegmentRun { datagrams, bytes, segment: run.segment })
        })
    }

    /// The datagrams of `run`, each a send of its own.
    pub fn singles(&self, run: &SegmentRun) -> impl Iterator<Item = SegmentRun> {
        run.datagrams.clone().map(|at| SegmentRun {
            datagrams: at..at + 1,
            bytes: self.slices[at].len(),
            segment: run.segment,
        })
    }

    /// Sends `run` to the address that the socket is connected to.
    ///
    /// # Errors
    /// The system's. `WouldBlock` says that the socket's queue is full.
    pub fn send(&self, socket: &UdpSocket, run: &SegmentRun) -> io::Result<()> {
        let slices = &self.slices[run.datagrams.clone()];
        match slices {
            [one] => socket.send(one).map(drop),
            many => kernel::send_segmented(socket, many, run.segment, None),
        }
    }
}

impl SegmentRun {
    /// Whether a datagram of `len` bytes can be the next one.
    fn accepts(&self, len: usize) -> bool {
        let segment = usize::from(self.segment);
        // A shorter one ends the run: only the last may be.
        let even = self.bytes == segment * self.datagrams.len();
        even && (1..=segment).contains(&len)
            && self.datagrams.len() < SEGMENTS_MAX
            && self.bytes + len <= SEGMENTED_MAX
    }
}

/// A socket to send to `to`, at the address of `from` and a port of its own. It never waits, learns
/// what the way there refuses (RFC 1122, 4.1.3.3), and keeps next to nothing of what it receives.
///
/// # Errors
/// The system's, with the address.
pub fn connected_socket(mut from: SocketAddr, to: SocketAddr) -> Result<UdpSocket> {
    from.set_port(0);
    let open = || {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket: UdpSocket = open().map_err(Error::io("send datagrams to", to))?;
    // So that what the local queue drops is an error here and not counted as sent.
    if !kernel::report_refusals(&socket) {
        log::debug!("{to}: this system does not tell which datagrams its own queue refuses");
    }
    // Nothing of use is ever received here.
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    if let Err(error) = socket2::SockRef::from(&socket).set_recv_buffer_size(0) {
        log::debug!("{to}: {error}");
    }
    Ok(socket)
}
