//! What a seat's thread does while its client is sent to: it reads the client's reports and passes
//! them on to the sending thread.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use crate::{
    net::{clock, copy},
    proto::udp::control::{Listen, Report, window},
    server::{
        gate::SeatConnection,
        transport::{NativeJob, TransferFailure},
    },
    transfer::Outcome,
    transport::{
        cut,
        udp::{
            seat_counters::SeatCounters,
            send_loop::{Destination, SendCommand},
            transport::UdpSession,
        },
    },
    units::Moment,
};

/// How often a seat's thread checks whether the sending thread gave its client up.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// How long the sending thread may take to remove a client.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Most reports of one client that are passed on in [`REPORTS_IN`]: twice as many as a receiver
/// with the smallest buffer sends when loopback fills it.
const REPORTS_MAX: u32 = 512;

/// See [`REPORTS_MAX`].
const REPORTS_IN: Duration = Duration::from_millis(100);

impl UdpSession {
    /// Has the client sent to, and passes on its reports until it sends something else.
    pub(super) fn serve_seat(
        &self,
        seat: &SeatConnection,
        listen: Listen,
        job: &mut NativeJob<'_, '_>,
    ) -> Result<(), TransferFailure> {
        let counters = self.counters(seat.id);
        let bytes = job.range.end - job.range.start;
        let first = job.range.start / self.layout.block_len as u64;
        let Some((outlet, _)) = self.outlet(seat) else {
            return Err(cut("the connection was lost at GO"));
        };
        let destination = Destination {
            seat: seat.id,
            outlet,
            to: (job.lines.peer.ip(), listen.port).into(),
            blocks: u32::try_from(first).unwrap_or(u32::MAX)..self.layout.count(),
            window: window(listen.buffer, self.terms.datagram),
            counters: Arc::clone(&counters),
            admitted: seat.release().admitted,
        };
        if !self.send_command(seat, SendCommand::Join(destination)) {
            return Err(cut("the sending thread is gone"));
        }
        // Time that the session's own rate takes is not the client's.
        let all = bytes.saturating_mul(seat.release().admitted as u64);
        let paced = self.rate.map_or(Duration::ZERO, |rate| rate.time_for(all));
        let deadline = copy::deadline(bytes, seat.session.stall).after(paced);
        let end = self.forward_reports(seat, &counters, deadline, job);
        // Nothing is counted any more once the answer is here.
        let (left, gone) = crossbeam_channel::bounded(0);
        if self.send_command(seat, SendCommand::Leave(seat.id, left)) {
            let _ = gone.recv_timeout(LEAVE_LIMIT);
        }
        end
    }

    /// Passes on what a client reports until it sends another line, which is its reply. A client
    /// that gets a little further again and again has until `deadline`, as over TCP.
    fn forward_reports(
        &self,
        seat: &SeatConnection,
        counters: &SeatCounters,
        deadline: Moment,
        job: &mut NativeJob<'_, '_>,
    ) -> Result<(), TransferFailure> {
        let (mut reports, mut counted_from) = (0, clock::now());
        loop {
            let sent = counters.payload.load(Ordering::Relaxed);
            seat.moved.store(sent, Ordering::Relaxed);
            if let Some(failure) = counters.failure.get() {
                return Err(failure.clone());
            }
            if clock::left(deadline).is_none() {
                let reason = "received less than 1024 bytes a second";
                return Err(TransferFailure::new(Outcome::TimedOut, reason));
            }
            let Some(line) = job.next_line(POLL_EVERY)? else {
                continue;
            };
            if !Report::is_one(&line) {
                // A client that has everything before all was sent is not to be believed.
                job.end_with(line, counters.payload.load(Ordering::Relaxed));
                return Ok(());
            }
            let report = Report::decode(&line, self.layout.count());
            let report = report.map_err(|error| cut(error.to_string()))?;
            counters.record_loss(&report);
            // A client that reports without end is read no faster than this. Its own connection
            // fills up, and no other client's reports wait.
            reports += 1;
            if reports >= REPORTS_MAX {
                thread::sleep(REPORTS_IN.saturating_sub(clock::now().since(counted_from)));
                (reports, counted_from) = (0, clock::now());
            }
            self.send_command(seat, SendCommand::Report(seat.id, report));
        }
    }
}
