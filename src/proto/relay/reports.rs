//! What a viewer of ours received, and what the relay sent to it: the two reports by which a loss
//! is found where it happened.

use crate::proto::{
    histogram::Delay,
    line::{DecodeError, Fields, LineWriter},
    stream::StreamCounts,
};

/// What a viewer received, since it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverReport {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Continuity errors in them.
    pub cc: u64,
    /// Datagrams missing by RTP; `None` where there is no RTP.
    pub rtp_lost: Option<u64>,
    /// Inter-arrival jitter, microseconds; `None` where the source stamps nothing.
    pub jitter_us: Option<u64>,
    /// Datagrams that its own system dropped before it read them; `None` where that is unknown.
    pub host_drop: Option<u64>,
}

/// What was sent to a viewer, since it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderReport {
    /// Datagrams that the system took for sending.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that it did not take: the viewer's queue was full, or the viewer refused.
    pub dropped: u64,
    /// Datagrams that passed while the viewer paused.
    pub paused: u64,
    /// Continuity errors of the source in what was sent.
    pub cc: u64,
    /// Datagrams that the source had lost, by RTP; `None` where there is no RTP.
    pub rtp_lost: Option<u64>,
    /// Jitter at the relay's input, microseconds; `None` where the source stamps nothing.
    pub jitter_us: Option<u64>,
    /// Time through the relay.
    pub delay: Delay,
}

/// Datagrams that a viewer may have received before the relay has counted them: a round of the
/// relay, and as much again.
const IN_FLIGHT_MAX: u64 = 1024;

/// How often a network may deliver a datagram. No network does so more than twice.
const DUPLICATION_MAX: u64 = 2;

/// Most bytes of a datagram.
const DATAGRAM_MAX: u64 = 65_535;

impl ReceiverReport {
    /// What `counts` say, and the drops of the viewer's system.
    pub fn of(counts: &StreamCounts, host_drop: Option<u64>) -> Self {
        Self {
            datagrams: counts.datagrams,
            bytes: counts.bytes,
            cc: counts.ts.errors,
            rtp_lost: counts.rtp.map(|rtp| rtp.lost),
            jitter_us: counts.jitter_us.map(whole_us),
            host_drop,
        }
    }

    /// Reads the fields of an `ALIVE`; unknown ones are left alone.
    ///
    /// # Errors
    /// A count that is missing or is not a number.
    pub fn decode(fields: &Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            datagrams: fields.number("datagrams")?,
            bytes: fields.number("bytes")?,
            cc: fields.number("cc")?,
            rtp_lost: fields.optional_number("rtp_lost")?,
            jitter_us: fields.optional_number("jitter_us")?,
            host_drop: fields.optional_number("host_drop")?,
        })
    }

    /// The line.
    pub fn encode(&self) -> Vec<u8> {
        LineWriter::new("ALIVE")
            .field("datagrams", self.datagrams)
            .field("bytes", self.bytes)
            .field("cc", self.cc)
            .maybe("rtp_lost", self.rtp_lost)
            .maybe("jitter_us", self.jitter_us)
            .maybe("host_drop", self.host_drop)
            .finish()
    }
}

impl SenderReport {
    /// Reads the fields of an `OK`; unknown ones are left alone.
    ///
    /// # Errors
    /// A count that is missing or is not a number.
    pub fn decode(fields: &Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            sent: fields.number("sent")?,
            bytes: fields.number("bytes")?,
            dropped: fields.number("dropped")?,
            paused: fields.number("paused")?,
            cc: fields.number("cc")?,
            rtp_lost: fields.optional_number("rtp_lost")?,
            jitter_us: fields.optional_number("jitter_us")?,
            delay: Delay {
                p50_us: fields.optional_number("p50_us")?,
                p99_us: fields.optional_number("p99_us")?,
                worst_us: fields.optional_number("worst_us")?,
            },
        })
    }

    /// The line.
    pub fn encode(&self) -> Vec<u8> {
        LineWriter::new("OK")
            .field("sent", self.sent)
            .field("bytes", self.bytes)
            .field("dropped", self.dropped)
            .field("paused", self.paused)
            .field("cc", self.cc)
            .maybe("rtp_lost", self.rtp_lost)
            .maybe("jitter_us", self.jitter_us)
            .maybe("p50_us", self.delay.p50_us)
            .maybe("p99_us", self.delay.p99_us)
            .maybe("worst_us", self.delay.worst_us)
            .finish()
    }

    /// Whether `received` can be true of what was sent so far. A network may double datagrams, and
    /// some may have arrived that are not counted here yet. A false report would spoil every sum.
    pub fn allows(&self, received: &ReceiverReport) -> bool {
        let most = self.sent.saturating_mul(DUPLICATION_MAX).saturating_add(IN_FLIGHT_MAX);
        // A datagram's sequence number can be as far from the last one's as 16 bits go.
        let gaps = received.datagrams.saturating_mul(1 << 16);
        received.datagrams <= most
            && received.host_drop.is_none_or(|dropped| dropped <= most)
            && received.bytes <= received.datagrams.saturating_mul(DATAGRAM_MAX)
            && received.cc <= received.bytes
            && received.rtp_lost.is_none_or(|lost| lost <= gaps)
    }

    /// Datagrams that left the relay and did not reach the viewer's system: what was sent, less
    /// what the viewer read and what its system dropped. `None` where the viewer does not report,
    /// or reports more than was sent (the network doubled datagrams, or the report is false).
    pub fn network_lost(&self, received: Option<&ReceiverReport>) -> Option<u64> {
        let received = received?;
        self.sent.checked_sub(received.datagrams)?.checked_sub(received.host_drop?)
    }
}

/// A time in whole microseconds, of one that is never negative.
// A float to an integer saturates, so no value is wrong.
pub fn whole_us(us: f64) -> u64 {
    us.round() as u64
}
