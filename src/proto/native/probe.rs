//! What both ends say of the measurement before a release (`--via auto`).
//!
//! The server says PROBE with the group of the train, then bursts: a line with a number of bytes, and
//! so many. A burst of none is the last one; the client then listens to the group and says HEARD for
//! each step. The server's PROBED ends it; the client answers PROBED with all that it heard.

use std::net::SocketAddr;

use crate::{
    proto::line::{DecodeError, Fields, LineWriter},
    session::Via,
    transfer::auto::{AUTO_WAYS, HeardStep},
};

/// Most steps of a train.
pub const STEPS_MAX: u16 = 32;

/// Most bytes of a burst.
pub const BURST_MAX: u32 = 16 << 10;

/// The mark of a train's datagrams, the step, the datagram's number in it, and how many it has.
pub const TRAIN_HEAD: usize = 8 + 2 + 4 + 4;

/// A measurement begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupProbe {
    /// The group of the train; `None` where there is none.
    pub group: Option<SocketAddr>,
    /// What every datagram of the train begins with.
    pub random: u64,
}

/// The head of one datagram of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainHead {
    /// As in [`GroupProbe`].
    pub random: u64,
    /// The step.
    pub step: u16,
    /// The datagram's number in its step, from 0.
    pub number: u32,
    /// How many the step has.
    pub of: u32,
}

impl TrainHead {
    /// Writes it to the beginning of a datagram.
    pub fn encode(&self, datagram: &mut [u8]) {
        let fields = [
            &self.random.to_be_bytes()[..],
            &self.step.to_be_bytes(),
            &self.number.to_be_bytes(),
            &self.of.to_be_bytes(),
        ];
        datagram[..TRAIN_HEAD].copy_from_slice(&fields.concat());
    }

    /// Reads it; `None` for what is no datagram of the train that `random` marks.
    pub fn decode(datagram: &[u8], random: u64) -> Option<Self> {
        let (mark, rest) = datagram.split_first_chunk()?;
        let (step, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let head = Self {
            random: u64::from_be_bytes(*mark),
            step: u16::from_be_bytes(*step),
            number: u32::from_be_bytes(*number),
            of: u32::from_be_bytes(*rest.first_chunk()?),
        };
        let is_ours = head.random == random && head.step < STEPS_MAX && head.number < head.of;
        is_ours.then_some(head)
    }
}

pub(super) fn encode_probe(probe: &GroupProbe) -> LineWriter {
    LineWriter::new("PROBE")
        .maybe("group", probe.group)
        .field("random", format_args!("{:016x}", probe.random))
}

pub(super) fn probe(fields: &Fields<'_>) -> Result<GroupProbe, DecodeError> {
    let random = fields.parsed("random", |text| u64::from_str_radix(text, 16))?;
    Ok(GroupProbe { group: fields.group()?, random })
}

pub(super) fn burst(fields: &Fields<'_>) -> Result<u32, DecodeError> {
    let bytes = fields.number("bytes")?;
    if bytes > BURST_MAX {
        return Err(DecodeError(format!("a burst of {bytes} bytes")));
    }
    Ok(bytes)
}

pub(super) fn encode_heard(heard: &HeardStep) -> LineWriter {
    LineWriter::new("HEARD")
        .field("step", heard.step)
        .field("datagrams", heard.datagrams)
        .field("span_us", heard.span_us)
        .field("tail", heard.tail)
        .field("tail_us", heard.tail_us)
}

pub(super) fn heard(fields: &Fields<'_>) -> Result<HeardStep, DecodeError> {
    let step = fields.number("step")?;
    if step >= STEPS_MAX {
        return Err(DecodeError(format!("step {step} of a train")));
    }
    Ok(HeardStep {
        step,
        datagrams: fields.number("datagrams")?,
        span_us: fields.number("span_us")?,
        tail: fields.number("tail")?,
        tail_us: fields.number("tail_us")?,
    })
}

/// The ways that a client can use, as a field; `None` of one that says nothing of it.
pub(super) fn ways_field(ways: &[Via]) -> Option<String> {
    let words: Vec<_> = ways.iter().map(|via| via.word()).collect();
    (!words.is_empty()).then(|| words.join(","))
}

/// Those of the ways that may be chosen; a word that is not known is a later version's.
pub(super) fn ways(fields: &Fields<'_>) -> Vec<Via> {
    let text = fields.get("ways").unwrap_or_default();
    AUTO_WAYS.into_iter().filter(|via| text.split(',').any(|word| word == via.word())).collect()
}
