//! What a relay and its viewers are doing at a moment: plain figures, for those that show them.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    proto::{
        histogram::Delay,
        mpegts::tables::ElementaryStream,
        relay::{
            ViewerState,
            reports::{ReceiverReport, SenderReport},
        },
        stream::StreamCounts,
    },
    session::SessionId,
};

/// A relay at a moment. Figures of one snapshot may be a batch of datagrams apart.
///
/// Its `Display` is a line about the input, once a datagram was sent on, and a line for each
/// viewer; each line ends with a line feed.
#[derive(Clone, Debug)]
pub struct RelaySnapshot {
    /// The number of this run of a relay, which is also in its log.
    pub relay: SessionId,
    /// How long it has run.
    pub up: Duration,
    /// Whether it reads its input: a relay without a running viewer does not.
    pub awake: bool,
    /// The input, as far as it was read.
    pub input: StreamCounts,
    /// The inputs below it, for viewers that cannot keep up.
    pub lower: Vec<StreamCounts>,
    /// Datagrams of a second sender, which are not sent on.
    pub foreign: u64,
    /// Datagrams that waited while nobody watched and were thrown away.
    pub stale: u64,
    /// Batches in which the input was read.
    pub batches: u64,
    /// Datagrams that the system dropped at the input while somebody watched; `None` where it does
    /// not tell.
    pub dropped: Option<u64>,
    /// What the stream holds, as far as its tables have come.
    pub streams: Vec<ElementaryStream>,
    /// The group that is sent to beside the viewers.
    pub group: Option<ViewerSnapshot>,
    /// The viewers, in the order in which they came.
    pub viewers: Vec<ViewerSnapshot>,
    /// Time through the relay, of every datagram to every viewer that is here.
    pub delay: Delay,
    /// The recording, where there is one.
    pub recording: Option<RecordSnapshot>,
}

/// A relay's recording at a moment.
#[derive(Clone, Debug, Default)]
pub struct RecordSnapshot {
    /// The list of its segments, which lie beside it.
    pub list: PathBuf,
    /// Segments that are in the list.
    pub segments: u64,
    /// Bytes of transport stream written.
    pub bytes: u64,
    /// Datagrams that the disk was too slow for.
    pub lost: u64,
    /// Why it ended before the relay did.
    pub failed: Option<String>,
}

/// One viewer of a relay at a moment.
#[derive(Clone, Debug)]
pub struct ViewerSnapshot {
    /// Its number, from 1.
    pub viewer: u64,
    /// Its program, where it says so.
    pub name: Option<String>,
    /// Where datagrams go.
    pub to: SocketAddr,
    /// Running, paused, or by the group.
    pub state: ViewerState,
    /// Which input it gets, from 1, and how often it came to another; `None` where there is one.
    pub input: Option<(u64, u64)>,
    /// Whether it reports what it receives.
    pub native: bool,
    /// How long it has been here.
    pub watched: Duration,
    /// What was sent to it.
    pub sent: SenderReport,
    /// What it received, as it last reported.
    pub received: Option<ReceiverReport>,
    /// Datagrams that were sent before that report and are not in it. What was on its way then is
    /// counted too.
    pub network_lost_at_most: Option<u64>,
}

/// The watching side at a moment.
#[derive(Clone, Debug)]
pub struct WatchSnapshot {
    /// Where datagrams are received.
    pub at: SocketAddr,
    /// Running, paused or by the group; unconnected once the relay has let us go.
    pub state: ViewerState,
    /// How long it has been watched, pauses included.
    pub watched: Duration,
    /// What was received.
    pub received: StreamCounts,
    /// Datagrams that this host dropped before they were read; `None` where it does not tell.
    pub host_drop: Option<u64>,
    /// What the relay sent, as it last reported; `None` where it does not.
    pub sent: Option<SenderReport>,
    /// Datagrams of other senders, which were thrown away.
    pub foreign: u64,
    /// Datagrams that the player did not take.
    pub unplayed: u64,
    /// Datagrams that the disk was too slow for.
    pub unrecorded: u64,
    /// Bytes of transport stream given to the recording.
    pub recorded: u64,
}

impl WatchSnapshot {
    /// What was received, as it is reported to the relay.
    pub fn receiver_report(&self) -> ReceiverReport {
        ReceiverReport::of(&self.received, self.host_drop)
    }
}

impl fmt::Display for RelaySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(p99) = self.delay.p99_us {
            let (datagrams, errors) = (self.input.datagrams, self.input.ts.errors);
            writeln!(f, "{datagrams} in, {errors} CC errors; p99 {p99} us")?;
        }
        for viewer in &self.viewers {
            let ViewerSnapshot { to, state, sent, .. } = viewer;
            let (sent, dropped) = (sent.sent, sent.dropped);
            writeln!(f, "  {to}: {state:?}, {sent} sent, {dropped} dropped")?;
        }
        Ok(())
    }
}
