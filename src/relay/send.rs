//! What is sent to one viewer, and what became of it: taken, refused by a full queue, or answered
//! that nobody is there.

use std::io;
use std::sync::atomic::Ordering;

use crate::net::datagrams::send_batch::SegmentRun;
use crate::net::datagrams::send_batch::SendBatch;
use crate::relay::viewer::Viewer;

/// What became of a batch on its way to one viewer.
#[derive(Debug, Default)]
pub(super) struct SendCounts {
    pub(super) sent: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    pub(super) refused: bool,
}

impl SendCounts {
    /// Sends by `send` and counts `datagrams` of `bytes` by what came of it. Returns the error
    /// that is no full queue and no refusal.
    pub(super) fn attempt(
        &mut self,
        datagrams: u64,
        bytes: usize,
        mut send: impl FnMut() -> io::Result<()>,
    ) -> Option<io::Error> {
        let mut result = send();
        // An error of an earlier datagram; this one has not been tried.
        if result.as_ref().is_err_and(is_refusal) {
            self.refused = true;
            result = send();
        }
        match result {
            Ok(()) => {
                self.sent += datagrams;
                self.bytes += bytes as u64;
                None
            }
            Err(error) => {
                self.dropped += datagrams;
                self.refused |= is_refusal(&error);
                Some(error)
            }
        }
    }
}

/// Sends `run` with one call, or, where the viewer's way takes no segmented sends, one by one.
pub(super) fn send(
    viewer: &Viewer,
    parcel: &SendBatch<'_>,
    run: &SegmentRun,
    tally: &mut SendCounts,
) {
    let many = run.datagrams.len();
    if many == 1 || viewer.hot.segmented.load(Ordering::Relaxed) {
        let failed = tally.attempt(many as u64, run.bytes, || {
            parcel.send(&viewer.hot.socket, run)
        });
        match failed {
            Some(error) if many > 1 && !is_full(&error) && !is_refusal(&error) => {
                log::info!("viewer {}: one by one from now on: {error}", viewer.number);
                viewer.hot.segmented.store(false, Ordering::Relaxed);
                tally.dropped -= many as u64;
            }
            Some(error) if !is_full(&error) => {
                return log::debug!("viewer {}: {error}", viewer.number);
            }
            _ => return,
        }
    }
    for single in parcel.singles(run) {
        tally.attempt(1, single.bytes, || parcel.send(&viewer.hot.socket, &single));
    }
}

/// The viewer's own queue, or the link's, has no room.
fn is_full(error: &io::Error) -> bool {
    // ENOBUFS has no kind; it is 105 on Linux and 55 on the BSDs.
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(105 | 55))
}

/// The viewer's host, or a router before it, says that nothing arrives there.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_refusal_costs_no_datagram() {
        let refused = || Err(io::ErrorKind::ConnectionRefused.into());
        let mut answers = vec![Ok(()), refused()];
        let mut tally = SendCounts::default();
        assert!(
            tally
                .attempt(3, 30, || answers.pop().expect("asked twice"))
                .is_none()
        );
        assert_eq!((tally.sent, tally.dropped, tally.refused), (3, 0, true));
        assert!(tally.attempt(2, 20, refused).is_some());
        assert_eq!((tally.sent, tally.bytes, tally.dropped), (3, 30, 2));
    }
}
