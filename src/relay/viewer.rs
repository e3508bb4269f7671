//! One viewer as the relay's threads share it: where it stands, and what it was sent.
//!
//! Its control thread and the hub change where it stands; its counters have one writer, the source
//! thread.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use time::OffsetDateTime;

use crate::net::clock;
use crate::proto::stream::StreamCounts;
use crate::proto::relay::ViewerState;
use crate::proto::relay::log::ViewerEnd;
use crate::proto::relay::reports::ReceiverReport;
use crate::proto::relay::reports::SenderReport;
use crate::proto::relay::reports::whole_us;
use crate::relay::atomic_histogram::AtomicHistogram;
use crate::relay::snapshot::Delay;
use crate::units::Moment;

/// One viewer, from CONECTAR to its end.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) hot: HotCounters,
    pub(super) number: u64,
    pub(super) to: SocketAddr,
    pub(super) control: Arc<TcpStream>,
    pub(super) at: OffsetDateTime,
    pub(super) joined: Moment,
    pub(super) native: AtomicBool,
    /// It paused when the relay fell asleep.
    pub(super) paused_in_sleep: AtomicBool,
    /// Since when, and when last, its host said that nobody listens; 0 for never.
    pub(super) refused_since: AtomicU64,
    pub(super) refused_last: AtomicU64,
    pub(super) receiver_report: Mutex<Option<ReceiverReport>>,
    /// Why the source thread let it go.
    expelled: Mutex<Option<(ViewerEnd, String)>>,
}

/// What the source thread touches of a viewer for every batch: one line of the processor's cache.
/// Among a hundred viewers these lines, not the code, are what a small batch costs beside the
/// system's own work.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct HotCounters {
    pub(super) socket: UdpSocket,
    state: AtomicU8,
    /// It has not been sent the tables.
    pub(super) needs_tables: AtomicBool,
    /// Its way takes segmented sends, as far as is known.
    pub(super) segmented: AtomicBool,
    pub(super) sent: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) paused: AtomicU64,
    pub(super) cc: AtomicU64,
    pub(super) rtp_lost: AtomicU64,
    pub(super) delay: AtomicHistogram,
}

const OUT: u8 = 0;
const RUNNING: u8 = 1;
const PAUSED: u8 = 2;

impl Viewer {
    pub(super) fn new(
        number: u64,
        to: SocketAddr,
        socket: UdpSocket,
        control: &Arc<TcpStream>,
    ) -> Self {
        Self {
            hot: HotCounters {
                socket,
                state: AtomicU8::new(OUT),
                needs_tables: AtomicBool::new(true),
                segmented: AtomicBool::new(true),
                sent: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                paused: AtomicU64::new(0),
                cc: AtomicU64::new(0),
                rtp_lost: AtomicU64::new(0),
                delay: AtomicHistogram::new(),
            },
            number,
            to,
            control: Arc::clone(control),
            at: clock::wall(),
            joined: clock::now(),
            native: AtomicBool::new(false),
            paused_in_sleep: AtomicBool::new(false),
            refused_since: AtomicU64::new(0),
            refused_last: AtomicU64::new(0),
            receiver_report: Mutex::default(),
            expelled: Mutex::default(),
        }
    }

    /// Where it stands.
    pub(super) fn state(&self) -> ViewerState {
        of_code(self.hot.state.load(Ordering::SeqCst))
    }

    /// Changes where it stands; returns where it stood.
    pub(super) fn set_state(&self, standing: ViewerState) -> ViewerState {
        let code = match standing {
            ViewerState::Unconnected => OUT,
            ViewerState::Running => RUNNING,
            ViewerState::Paused => PAUSED,
        };
        of_code(self.hot.state.swap(code, Ordering::SeqCst))
    }

    /// Notes why the source thread lets it go.
    pub(super) fn expel(&self, end: ViewerEnd, reason: String) {
        let mut expelled = self.expelled.lock().unwrap_or_else(PoisonError::into_inner);
        *expelled = Some((end, reason));
    }

    /// Why the source thread let it go, if it did.
    pub(super) fn expelled(&self) -> Option<(ViewerEnd, String)> {
        self.expelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What it received, as it last told.
    pub(super) fn receiver_report(&self) -> Option<ReceiverReport> {
        *self
            .receiver_report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes its control thread look up: its read ends.
    pub(super) fn wake(&self) {
        // One that is gone already needs no waking.
        let _ = self.control.shutdown(std::net::Shutdown::Read);
    }

    /// What was sent to it, from an input that is like `input`.
    pub(super) fn sender_report(&self, input: &StreamCounts) -> SenderReport {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let delay = &self.hot.delay;
        let delay = Delay::of(&delay.histogram(), delay.longest_us());
        // A datagram that came late after all takes its loss back, perhaps in another's time.
        let rtp_lost = read(&self.hot.rtp_lost)
            .cast_signed()
            .max(0)
            .cast_unsigned();
        SenderReport {
            sent: read(&self.hot.sent),
            bytes: read(&self.hot.bytes),
            dropped: read(&self.hot.dropped),
            paused: read(&self.hot.paused),
            cc: read(&self.hot.cc),
            rtp_lost: input.rtp.map(|_| rtp_lost),
            jitter_us: input.jitter_us.map(whole_us),
            p50_us: delay.p50_us,
            p99_us: delay.p99_us,
            worst_us: delay.worst_us,
        }
    }
}

fn of_code(code: u8) -> ViewerState {
    match code {
        RUNNING => ViewerState::Running,
        PAUSED => ViewerState::Paused,
        _ => ViewerState::Unconnected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_a_batch_touches_of_a_viewer_is_one_cache_line() {
        assert_eq!(size_of::<HotCounters>(), 64);
    }
}
