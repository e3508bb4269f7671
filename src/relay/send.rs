//! What is sent to one viewer, and what became of it: accepted by the system, dropped by a full
//! queue, or refused because nobody listens.

use std::{io, net::UdpSocket, sync::atomic::Ordering};

use crate::{
    net::datagrams::{
        is_refusal,
        send_batch::{SegmentRun, SendBatch},
    },
    relay::viewer::Viewer,
};

/// What became of a batch on its way to one viewer.
#[derive(Debug, Default)]
pub(super) struct SendCounts {
    pub(super) sent: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    pub(super) refused: bool,
}

impl SendCounts {
    /// Calls `send` and counts `datagrams` of `bytes` by its result. Returns its error.
    pub(super) fn attempt(
        &mut self,
        datagrams: u64,
        bytes: usize,
        mut send: impl FnMut() -> io::Result<()>,
    ) -> Option<io::Error> {
        let mut result = send();
        // The error is an earlier datagram's, and this one has not been tried.
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
    (viewer, socket): (&Viewer, &UdpSocket),
    batch: &SendBatch<'_>,
    run: &SegmentRun,
    counts: &mut SendCounts,
) {
    let many = run.datagrams.len();
    if many == 1 || viewer.hot.segmented.load(Ordering::Relaxed) {
        match counts.attempt(many as u64, run.bytes, || batch.send(socket, run)) {
            Some(error) if many > 1 && !is_full(&error) && !is_refusal(&error) => {
                log::info!("viewer {}: one by one from now on: {error}", viewer.number);
                viewer.hot.segmented.store(false, Ordering::Relaxed);
                counts.dropped -= many as u64;
            }
            Some(error) if !is_full(&error) => {
                return log::debug!("viewer {}: {error}", viewer.number);
            }
            _ => return,
        }
    }
    for single in batch.singles(run) {
        counts.attempt(1, single.bytes, || batch.send(socket, &single));
    }
}

/// The viewer's own queue, or the link's, has no room.
fn is_full(error: &io::Error) -> bool {
    // ENOBUFS has no kind; it is 105 on Linux and 55 on the BSDs.
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(105 | 55))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_refusal_costs_no_datagram() {
        let refused = || Err(io::ErrorKind::ConnectionRefused.into());
        let mut answers = vec![Ok(()), refused()];
        let mut counts = SendCounts::default();
        assert!(counts.attempt(3, 30, || answers.pop().expect("asked twice")).is_none());
        assert_eq!((counts.sent, counts.dropped, counts.refused), (3, 0, true));
        assert!(counts.attempt(2, 20, refused).is_some());
        assert_eq!((counts.sent, counts.bytes, counts.dropped), (3, 30, 2));
    }
}
