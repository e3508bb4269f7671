//! When a sender asks, by an END, what is missing.

use std::{ops::Range, time::Duration};

use crate::{proto::udp::Transmit, units::Moment};

/// The ENDs of one stream: the current round, and when the next END is due.
#[derive(Clone, Debug, Default)]
pub(super) struct EndTimer {
    /// The round that the last END named; 0 before the first.
    pub(super) round: u32,
    /// The datagrams that were numbered when the round began.
    pub(super) pkt: u32,
    /// The same when the last END was sent.
    pub(super) asked_pkt: u32,
    /// When the next END may be sent.
    pub(super) due: Moment,
    /// How long after an END the next one is due. It grows from END to END.
    pub(super) pause: Duration,
    pauses: Range<Duration>,
}

impl EndTimer {
    /// `pauses` are the first and the longest pause between two ENDs.
    pub(super) fn new(pauses: Range<Duration>, now: Moment) -> Self {
        Self { round: 0, pkt: 0, asked_pkt: 0, due: now, pause: pauses.start, pauses }
    }

    /// The next pause is the first again.
    pub(super) fn reset_pause(&mut self) {
        self.pause = self.pauses.start;
    }

    /// Begins a round, when `pkt` datagrams were numbered.
    pub(super) fn next_round(&mut self, pkt: u32) {
        self.round = self.round.wrapping_add(1).max(1);
        self.pkt = pkt;
    }

    /// The END of this round, sent now.
    pub(super) fn transmit(&mut self, pkts: u32, upto: u32, now: Moment) -> Transmit {
        self.due = now.after(self.pause);
        self.asked_pkt = pkts;
        self.pause = (self.pause * 3 / 2).min(self.pauses.end);
        Transmit::End { pkts, upto, round: self.round }
    }
}
