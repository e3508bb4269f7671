//! A seat's client while it is sent to: what it says is passed on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::error::Phase;
use crate::net::clock;
use crate::net::copy;
use crate::net::line_stream::LineStream;
use crate::proto::native::FromClient;
use crate::proto::udp::control::Listen;
use crate::proto::udp::control::Report;
use crate::proto::udp::control::window;
use crate::server::gate::SeatConnection;
use crate::server::transport::EarlyReply;
use crate::server::transport::TransferFailure;
use crate::transfer::Outcome;
use crate::transport::udp::pump::Joined;
use crate::transport::udp::pump::Word;
use crate::transport::udp::tally::Tally;
use crate::transport::udp::way::Stream;
use crate::units::Moment;

/// How often a seat's thread looks whether its client was given up.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the sending thread may take to let a client go.
const LET_GO: Duration = Duration::from_secs(2);

/// Most reports of one client that are heard in [`REPORTS_IN`]: a receiver with the smallest
/// buffer that loopback can fill says half as many.
const REPORTS_MAX: u32 = 512;

/// Why a client is given up that talks and is not done in the time of the slowest.
const TOO_SLOW: &str = "got less than 1024 bytes a second";

/// See [`REPORTS_MAX`].
const REPORTS_IN: Duration = Duration::from_millis(100);

impl Stream {
    /// Has the client sent to, and passes on what it says until it says something else.
    pub(super) fn attend(
        &self,
        seat: &SeatConnection,
        range: Range<u64>,
        listen: Listen,
        admitted: usize,
        lines: &mut LineStream<'_>,
        answer: &mut EarlyReply,
    ) -> Result<(), TransferFailure> {
        let tally = self.tally(seat.id());
        let first = u32::try_from(range.start / self.block_len as u64).unwrap_or(u32::MAX);
        let joined = Joined {
            seat: seat.id(),
            to: (lines.peer().ip(), listen.port).into(),
            blocks: first..self.blocks,
            window: window(listen.buffer, self.terms.datagram),
            tally: Arc::clone(&tally),
            admitted,
        };
        if !self.tell(seat, Word::Join(joined)) {
            return Err(TransferFailure::new(
                Outcome::Cut,
                "the sending thread is gone",
            ));
        }
        let deadline = copy::deadline(range.end - range.start, seat.session().stall);
        let end = self.listen(seat, &tally, deadline, lines, answer, &|word| {
            self.tell(seat, word)
        });
        // Nothing is counted any more once the answer is here.
        let (left, gone) = crossbeam_channel::bounded(0);
        if self.tell(seat, Word::Leave(seat.id(), left)) {
            let _ = gone.recv_timeout(LET_GO);
        }
        end
    }

    /// Passes on what a client reports until it says something else, which is its answer. One that
    /// gets a little further again and again has until `deadline`, as over TCP.
    fn listen(
        &self,
        seat: &SeatConnection,
        tally: &Tally,
        deadline: Moment,
        lines: &mut LineStream<'_>,
        answer: &mut EarlyReply,
        tell: &dyn Fn(Word) -> bool,
    ) -> Result<(), TransferFailure> {
        let (mut reports, mut counted_from) = (0, clock::now());
        loop {
            seat.moved()
                .store(tally.payload.load(Ordering::Relaxed), Ordering::Relaxed);
            if let Some(failure) = tally.failure.get() {
                break Err(failure.clone());
            }
            if clock::left(deadline).is_none() {
                break Err(TransferFailure::new(Outcome::TimedOut, TOO_SLOW));
            }
            match lines.read_line(clock::now().after(LOOK_EVERY), Phase::Transfer) {
                Ok(line) if Report::is_one(&line) => match Report::decode(&line, self.blocks) {
                    Ok(report) => {
                        tally.tell_lost(&report);
                        // One that talks without end is heard no faster than this; its own
                        // connection fills up, and nobody else's words wait.
                        reports += 1;
                        if reports >= REPORTS_MAX {
                            thread::sleep(
                                REPORTS_IN.saturating_sub(clock::now().since(counted_from)),
                            );
                            (reports, counted_from) = (0, clock::now());
                        }
                        tell(Word::Report(seat.id(), report));
                    }
                    Err(error) => break Err(TransferFailure::new(Outcome::Cut, error.to_string())),
                },
                Ok(line) if FromClient::decode(&line) == Ok(FromClient::Held) => {}
                Ok(line) => {
                    // One that has everything before everything was sent does not tell the truth.
                    answer.line = Some(line);
                    answer.heard_at = Some(lines.last_read_at());
                    answer.sent = tally.payload.load(Ordering::Relaxed);
                    break Ok(());
                }
                Err(Error::TimedOut { .. }) => {}
                Err(Error::Protocol { what, .. }) => {
                    break Err(TransferFailure::new(Outcome::Cut, what));
                }
                Err(error) => break Err(TransferFailure::new(Outcome::Cut, error.to_string())),
            }
        }
    }
}
