//! One viewer as the relay's threads share it: its state, and what it was sent.
//!
//! Its control thread and the hub change its state. Its counters have one writer, its input's
//! thread; over HTTP what was sent, and when, has the thread of its connection.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use time::OffsetDateTime;

use crate::{
    net::{clock, datagrams::kernel, lock},
    proto::{
        relay::{
            ViewerState,
            ladder::Ladder,
            log::ViewerEnd,
            reports::{ReceiverReport, SenderReport, whole_us},
        },
        stream::StreamCounts,
    },
    relay::{
        atomic_histogram::AtomicHistogram,
        chunk::{ChunkQueue, KEY_FRAME_LIMIT},
        entry::InputEntry,
    },
    units::Moment,
};

/// One viewer, from CONECTAR to its end.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) hot: HotCounters,
    pub(super) number: u64,
    pub(super) to: SocketAddr,
    /// Nothing for the group.
    control: Option<Arc<TcpStream>>,
    /// How much of what was sent to it the group got for it.
    pub(super) by_group: AtomicU64,
    /// Where what is sent to it waits, over HTTP.
    pub(super) queue: Option<ChunkQueue>,
    pub(super) at: OffsetDateTime,
    pub(super) joined: Moment,
    pub(super) native: AtomicBool,
    /// It was paused when the relay fell asleep.
    pub(super) paused_asleep: AtomicBool,
    /// Since when, and when last, its host said that nobody listens; 0 for never.
    pub(super) refused: [AtomicU64; 2],
    pub(super) ladder: ViewerLadder,
    /// What it told last, and how many datagrams had been sent and were not in it.
    pub(super) receiver_report: Mutex<Option<(ReceiverReport, Option<u64>)>>,
    /// Its program, where it says so.
    pub(super) name: OnceLock<String>,
    /// Why the source thread let it go.
    expelled: Mutex<Option<(ViewerEnd, String)>>,
}

/// What one viewer is to have.
#[derive(Debug)]
pub(super) struct ViewerLadder {
    state: Mutex<Ladder>,
    /// The input, and since when it is to have it.
    wanted: AtomicUsize,
    since: AtomicU64,
    /// How often it came to another input.
    pub(super) changes: AtomicU64,
}

/// How the viewer of a connection ended, and why where that needs words.
pub(super) type SessionOver = (ViewerEnd, Option<String>);

/// What the source thread touches of a viewer for every batch: one line of the processor's cache.
/// Among a hundred viewers these lines, not the code, are what a small batch costs beside the
/// system's own work.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct HotCounters {
    /// Nothing over HTTP.
    pub(super) socket: Option<UdpSocket>,
    /// A [`ViewerState`], of which 0 is the one to begin with.
    state: AtomicU8,
    /// Which input it gets.
    pub(super) input: AtomicU8,
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

impl Viewer {
    /// A viewer that is sent datagrams by `socket`, which is connected to it, or over HTTP what
    /// waits in `queue`.
    pub(super) fn new(
        number: u64,
        to: SocketAddr,
        (socket, queue): (Option<UdpSocket>, Option<ChunkQueue>),
        control: Option<&Arc<TcpStream>>,
    ) -> Self {
        let segmented = AtomicBool::new(socket.as_ref().is_some_and(kernel::can_segment));
        Self {
            hot: HotCounters {
                needs_tables: AtomicBool::new(socket.is_some()),
                socket,
                segmented,
                ..HotCounters::default()
            },
            number,
            to,
            control: control.cloned(),
            by_group: AtomicU64::new(0),
            queue,
            at: clock::wall(),
            joined: clock::now(),
            native: AtomicBool::new(false),
            paused_asleep: AtomicBool::new(false),
            refused: Default::default(),
            ladder: ViewerLadder::new(clock::now()),
            receiver_report: Mutex::default(),
            name: OnceLock::new(),
            expelled: Mutex::default(),
        }
    }

    /// Its state.
    pub(super) fn state(&self) -> ViewerState {
        decode_state(self.hot.state.load(Ordering::SeqCst))
    }

    /// Changes its state; returns the old one.
    pub(super) fn set_state(&self, state: ViewerState) -> ViewerState {
        decode_state(self.hot.state.swap(state as u8, Ordering::SeqCst))
    }

    /// Notes why the source thread lets it go.
    pub(super) fn expel(&self, end: ViewerEnd, reason: String) {
        *lock(&self.expelled) = Some((end, reason));
    }

    /// Why the source thread let it go, if it did.
    pub(super) fn expelled(&self) -> Option<(ViewerEnd, String)> {
        lock(&self.expelled).clone()
    }

    /// Wakes its control thread: its read ends.
    pub(super) fn wake(&self) {
        // A connection that is gone already needs no waking.
        let control = self.control.as_ref();
        let _ = control.map(|control| control.shutdown(std::net::Shutdown::Read));
    }

    /// Whether it waits for the input `number`, and for longer than for a whole picture.
    pub(super) fn waits_for(&self, number: usize) -> Option<bool> {
        let ladder = &self.ladder;
        let waits = self.input() != number
            && ladder.wanted.load(Ordering::SeqCst) == number
            && self.state() == ViewerState::Running;
        let since = Moment(ladder.since.load(Ordering::SeqCst));
        waits.then(|| clock::now().since(since) >= KEY_FRAME_LIMIT)
    }

    /// Gives it the input `number` by `entry`, if it waits for that.
    pub(super) fn comes_to(&self, number: usize, entry: &InputEntry) -> bool {
        let comes = self.waits_for(number).is_some_and(|is_late| is_late || entry.is_whole);
        if comes {
            self.set_input(number);
            self.hot.needs_tables.store(self.hot.socket.is_some(), Ordering::Relaxed);
        }
        comes
    }

    /// The input whose thread sends to it.
    pub(super) fn input(&self) -> usize {
        self.hot.input.load(Ordering::Relaxed).into()
    }

    /// Gives it the input `number`; while nothing is being sent.
    pub(super) fn set_input(&self, number: usize) {
        self.ladder.wanted.store(number, Ordering::SeqCst);
        // There are few.
        let old = self.hot.input.swap(number as u8, Ordering::Relaxed);
        self.ladder.changes.fetch_add(u64::from(usize::from(old) != number), Ordering::Relaxed);
    }

    /// Says which input it is to have, of those that are `alive`; in a round. Returns which it had the
    /// last time and has, and which it is to have where that is another than before.
    pub(super) fn choose_input(
        &self,
        now: Moment,
        alive: &[bool],
    ) -> (usize, usize, Option<usize>) {
        let (mut state, input) = (lock(&self.ladder.state), self.input());
        let before = state.input();
        let chosen = state.choose(now, input, self.lost(), alive);
        let is_new = self.ladder.wanted.load(Ordering::SeqCst) != chosen;
        if is_new {
            self.ladder.since.store(now.0, Ordering::SeqCst);
            self.ladder.wanted.store(chosen, Ordering::SeqCst);
        }
        (before, input, is_new.then_some(chosen))
    }

    /// What it has lost in all since it came, as far as that is known.
    fn lost(&self) -> Option<u64> {
        let [dropped, cc] = [&self.hot.dropped, &self.hot.cc].map(|n| n.load(Ordering::Relaxed));
        let told = lock(&self.receiver_report).map(|(report, _)| report.cc.saturating_sub(cc));
        told.or_else(|| self.queue.as_ref().map(|_| 0)).map(|lost| lost.saturating_add(dropped))
    }

    /// What was sent to it, of an input that was counted as `input`.
    pub(super) fn sender_report(&self, input: &StreamCounts) -> SenderReport {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let hot = &self.hot;
        // A late datagram takes its loss back, perhaps from a viewer that joined after the loss was
        // counted; the sum is below zero then.
        let rtp_lost = read(&hot.rtp_lost).cast_signed().max(0).cast_unsigned();
        SenderReport {
            sent: read(&hot.sent),
            bytes: read(&hot.bytes),
            dropped: read(&hot.dropped),
            paused: read(&hot.paused),
            cc: read(&hot.cc),
            rtp_lost: input.rtp.map(|_| rtp_lost),
            jitter_us: input.jitter_us.map(whole_us),
            delay: hot.delay.histogram().delay(hot.delay.longest_us()),
        }
    }
}

impl ViewerLadder {
    fn new(now: Moment) -> Self {
        Self {
            state: Mutex::new(Ladder::new(now)),
            wanted: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            changes: AtomicU64::new(0),
        }
    }
}

fn decode_state(code: u8) -> ViewerState {
    [ViewerState::Running, ViewerState::Paused, ViewerState::Grouped]
        .into_iter()
        .find(|&state| state as u8 == code)
        .unwrap_or_default()
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
