//! A live stream as it comes in datagrams: what it is made of, and what is missing in it.
//!
//! The relay monitors its source and every viewer of ours monitors what it receives, so the two
//! counts differ by what was lost between them. The monitor changes nothing: each datagram is sent
//! on as it came, whatever is found in it.
//!
//! Whether the stream is bare or in RTP is decided for the stream and not for a datagram: a piece of
//! a bare stream that begins in mid-packet may pass for RTP by chance. Two running must agree. (Two
//! pieces of a bare stream cannot: the first ends with a packet, so the second begins with one.)

use crate::{
    proto::{
        jitter::{Jitter, MediaClock},
        mpegts::{
            self, PACKET, PCR_HZ, PCR_WRAP, TsPacket,
            continuity::{Continuity, ContinuityCounts},
            framing::Framing,
            tables::{ElementaryStream, ProgramTables},
        },
        rtp::{self, RtpHeader, SequenceCounts, SequenceTracker},
    },
    units::Moment,
};

/// Counts what one stream brings and what is missing in it.
#[derive(Debug, Default)]
pub struct StreamMonitor {
    /// Of the datagrams themselves.
    counts: StreamCounts,
    form: StreamForm,
    /// The last datagram, where it passes for RTP and is not counted as that.
    candidate: Option<(Moment, RtpHeader)>,
    /// The last datagram was bare although the stream is in RTP.
    strayed: bool,
    framing: Framing,
    continuity: Continuity,
    tables: ProgramTables,
    rtp: Option<SequenceTracker>,
    jitter: Jitter,
    /// The PID whose clock the jitter is measured by.
    clock_pid: Option<u16>,
}

/// How a source packs its transport stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamForm {
    /// No two datagrams have agreed.
    #[default]
    Unknown,
    Bare,
    Rtp,
}

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamCounts {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that are not a piece of a transport stream.
    pub not_ts: u64,
    /// Continuity of the transport stream.
    pub ts: ContinuityCounts,
    /// Loss by sequence numbers; `None` until a datagram came in RTP.
    pub rtp: Option<SequenceCounts>,
    /// Inter-arrival jitter, microseconds; `None` where the source stamps nothing.
    pub jitter_us: Option<f64>,
}

/// Most packets in a datagram of ours: what fits into an Ethernet frame.
const PACKETS_MAX: usize = 7;

const RTP_CLOCK: MediaClock = MediaClock { hz: rtp::CLOCK_HZ as u64, wrap: 1 << 32 };

const PCR_CLOCK: MediaClock = MediaClock { hz: PCR_HZ, wrap: PCR_WRAP };

impl StreamMonitor {
    /// Counts `datagram`, which came at `at`.
    pub fn handle(&mut self, at: Moment, datagram: &[u8]) {
        self.handle_packets(at, datagram, |_| {});
    }

    /// The same, and gives `see` each packet of the transport stream that `datagram` completes.
    pub fn handle_packets(
        &mut self,
        at: Moment,
        datagram: &[u8],
        mut see: impl FnMut(&[u8; PACKET]),
    ) {
        self.counts.datagrams += 1;
        self.counts.bytes += datagram.len() as u64;
        let header = rtp_header(datagram);
        let passes_for_rtp = header.is_some();
        let header = self.settle_rtp(at, header);
        let in_rtp = header.is_some();
        let stream = header.map_or(datagram, |header| &datagram[header.payload]);
        let found = self.framing.handle(stream, |bytes| {
            see(bytes);
            let packet = TsPacket::new(bytes);
            self.continuity.handle(packet);
            self.tables.handle(packet);
            if !in_rtp
                && let Some(pcr) = packet.pcr()
                && *self.clock_pid.get_or_insert_with(|| packet.pid()) == packet.pid()
            {
                if packet.discontinuity() {
                    self.jitter.rejoin();
                } else {
                    self.jitter.handle(at, pcr, PCR_CLOCK);
                }
            }
        });
        self.counts.not_ts += u64::from(!found);
        if found && !passes_for_rtp {
            self.settle_bare();
        }
    }

    /// What `header`, which the present datagram seems to have, means for the form of the stream.
    /// Returns it where the datagram is to be read as RTP.
    fn settle_rtp(&mut self, at: Moment, header: Option<RtpHeader>) -> Option<RtpHeader> {
        let candidate = self.candidate.take();
        let header = header?;
        self.strayed = false;
        let before = candidate.filter(|(_, before)| before.is_followed_by(&header));
        if self.form != StreamForm::Rtp && before.is_none() {
            self.candidate = Some((at, header.clone()));
            return Some(header).filter(|_| self.form == StreamForm::Unknown);
        }
        self.form = StreamForm::Rtp;
        for (at, header) in before.iter().chain([&(at, header.clone())]) {
            self.rtp.get_or_insert_default().handle(header);
            self.jitter.handle(*at, u64::from(header.timestamp), RTP_CLOCK);
        }
        Some(header)
    }

    /// The present datagram is a piece of a bare stream.
    fn settle_bare(&mut self) {
        self.strayed = self.form == StreamForm::Rtp && !self.strayed;
        if !self.strayed {
            self.form = StreamForm::Bare;
        }
    }

    /// The next datagram does not follow the last one, and nothing is missing for it: the viewer
    /// paused, or nobody watched.
    pub fn rejoin(&mut self) {
        (self.form, self.candidate, self.strayed) = (StreamForm::Unknown, None, false);
        self.framing.rejoin();
        self.continuity.rejoin();
        self.jitter.rejoin();
        self.clock_pid = None;
        if let Some(rtp) = &mut self.rtp {
            rtp.rejoin();
        }
    }

    /// Forgets the tables: the stream that goes on may be another one.
    pub fn forget_tables(&mut self) {
        self.tables.clear();
    }

    /// The PIDs that carry pictures, as far as the tables have come.
    pub fn video(&self) -> &[u16] {
        self.tables.video()
    }

    /// What the stream holds, as far as the tables have come.
    pub fn streams(&self) -> impl Iterator<Item = ElementaryStream> {
        self.tables.streams()
    }

    /// What to send to a viewer that joins, before `next`: the tables, in the form of `next`.
    pub fn tables_before(&self, next: &[u8]) -> Vec<Vec<u8>> {
        let packets: Vec<[u8; PACKET]> = self.tables.packets().copied().collect();
        self.datagrams_before(next, packets.as_flattened(), 0)
    }

    /// The PIDs that were seen, each with its last counter.
    pub fn counters(&self) -> impl Iterator<Item = (u16, u8)> {
        self.continuity.counters()
    }

    /// `packets` in the form of `next`, of which and of the datagrams behind it they replace so many.
    pub fn datagrams_before(&self, next: &[u8], packets: &[u8], replaced: usize) -> Vec<Vec<u8>> {
        let datagrams = packets.chunks(PACKETS_MAX * PACKET);
        let header = rtp_header(next).filter(|_| self.form != StreamForm::Bare);
        let many = datagrams.len();
        let wrap = |(at, packets): (usize, &[u8])| {
            let back = u16::try_from((many - at).saturating_sub(replaced)).unwrap_or(u16::MAX);
            let mut datagram = Vec::new();
            if let Some(header) = &header {
                datagram.extend(header.encode_before(back));
            }
            datagram.extend(packets);
            datagram
        };
        datagrams.enumerate().map(wrap).collect()
    }

    /// What was seen so far.
    pub fn counts(&self) -> StreamCounts {
        StreamCounts {
            ts: self.continuity.counts(),
            rtp: self.rtp.as_ref().map(SequenceTracker::counts),
            jitter_us: self.jitter.us(),
            ..self.counts
        }
    }
}

/// The RTP header that `datagram` seems to have: there are whole packets behind it (RFC 2250, section
/// 2).
fn rtp_header(datagram: &[u8]) -> Option<RtpHeader> {
    let header = RtpHeader::decode(datagram)?;
    let is_whole = mpegts::packets(&datagram[header.payload.clone()]).is_some();
    is_whole.then_some(header)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mpegts::sample;

    /// Datagram `n` of a stream: seven packets of one PID, the first with a clock, 1 ms apart.
    fn datagram(n: u64) -> Vec<u8> {
        let counter = |k: u64| u8::try_from((7 * n + k) % 16).expect("under 16");
        let mut bytes = sample::adapted(0x100, counter(0), 0x10, 27_000 * n, true).to_vec();
        (1..7).for_each(|k| bytes.extend(sample::packet(0x100, counter(k), 1)));
        bytes
    }

    fn in_rtp(n: u64) -> Vec<u8> {
        let header = RtpHeader {
            sequence: u16::try_from(n).expect("few").wrapping_add(1),
            timestamp: u32::try_from(90 * n).expect("few"),
            ssrc: 1,
            payload: 0..0,
        };
        [header.encode_before(1).as_slice(), &datagram(n)].concat()
    }

    fn at(n: u64) -> Moment {
        Moment(1_000 * n)
    }

    #[test]
    fn whole_stream_has_no_loss_bare_and_in_rtp() {
        for make in [datagram, in_rtp] {
            let mut monitor = StreamMonitor::default();
            for n in 0..100 {
                let mut stream = Vec::new();
                monitor.handle_packets(at(n), &make(n), |packet| stream.extend_from_slice(packet));
                assert_eq!(stream, datagram(n));
            }
            let counts = monitor.counts();
            assert_eq!((counts.datagrams, counts.not_ts), (100, 0));
            assert_eq!((counts.ts.packets, counts.ts.errors), (700, 0));
            assert_eq!(counts.rtp.map_or(0, |rtp| rtp.lost), 0);
            assert!(counts.jitter_us.is_some_and(|us| us < 0.01), "{counts:?}");
        }
    }

    #[test]
    fn packets_split_over_two_datagrams_are_counted() {
        let stream: Vec<u8> = (0..50).flat_map(datagram).collect();
        let mut monitor = StreamMonitor::default();
        for (n, datagram) in (0..).zip(stream.chunks(1472)) {
            if n != 20 {
                monitor.handle(at(n), datagram);
            }
        }
        let counts = monitor.counts();
        assert_eq!((counts.not_ts, counts.ts.errors), (0, 1));
        assert_eq!(counts.ts.packets, 350 - 9, "the packets that the lost one touched");
    }

    #[test]
    fn loss_is_an_error_and_exact_in_rtp() {
        let mut monitor = StreamMonitor::default();
        for n in (0..50).filter(|n| ![7, 8, 20].contains(n)) {
            monitor.handle(at(n), &in_rtp(n));
        }
        let counts = monitor.counts();
        assert_eq!(counts.ts.errors, 2);
        assert_eq!(counts.rtp.map(|rtp| rtp.lost), Some(3));
    }

    #[test]
    fn pause_is_no_loss() {
        for make in [datagram, in_rtp] {
            let mut monitor = StreamMonitor::default();
            for n in 0..10 {
                monitor.handle(at(n), &make(n));
            }
            monitor.rejoin();
            for n in 1003..1020 {
                monitor.handle(at(n), &make(n));
            }
            let counts = monitor.counts();
            assert_eq!(counts.ts.errors, 0);
            assert_eq!(counts.rtp.map_or(0, |rtp| rtp.lost), 0);
            assert!(counts.jitter_us.is_some_and(|us| us < 0.01), "{counts:?}");
        }
    }

    #[test]
    fn tables_are_sent_in_the_form_of_the_stream() {
        let tables = [sample::pat(0, 0x1000), sample::pmt(0, 0x1000)].concat();
        let mut monitor = StreamMonitor::default();
        assert!(monitor.tables_before(&datagram(1)).is_empty());
        monitor.handle(at(0), &tables);
        assert_eq!(monitor.tables_before(&datagram(1)), vec![tables.clone()]);
        let next = in_rtp(5);
        assert_eq!(monitor.tables_before(&next), vec![tables.clone()], "the stream is bare");
        (3..5).for_each(|n| monitor.handle(at(n), &in_rtp(n)));
        let welcome = monitor.tables_before(&next);
        // A viewer that gets it and then the stream sees no gap.
        let mut viewer = StreamMonitor::default();
        assert_eq!(welcome.len(), 1);
        let mut seen = Vec::new();
        viewer.handle_packets(at(0), &welcome[0], |packet| seen.extend_from_slice(packet));
        assert_eq!(seen, tables);
        viewer.handle(at(0), &next);
        assert_eq!(viewer.counts().rtp, Some(SequenceCounts::default()));
        monitor.forget_tables();
        assert!(monitor.tables_before(&next).is_empty());
    }

    #[test]
    fn datagrams_without_stream_are_counted() {
        let mut monitor = StreamMonitor::default();
        let short = &datagram(0)[1..188];
        for strange in [&b""[..], b"hello", short, &[0x80; 65_507], &[0x47; 187]] {
            monitor.handle_packets(at(0), strange, |_| panic!("a packet in {strange:?}"));
        }
        assert_eq!(monitor.counts().not_ts, 5);
        assert_eq!(monitor.counts().ts, ContinuityCounts::default());
        assert_eq!(monitor.counts().rtp, None, "its first byte alone is not RTP");
    }

    /// A stream whose every packet ends with what passes for an RTP header: a plain one of 12 bytes
    /// in every second packet, one with a contributing source in the others.
    fn stream_of_headers(packets: u16) -> Vec<u8> {
        let packet = |n: u16| {
            let mut bytes = sample::packet(0x100, n.to_le_bytes()[0], n.to_le_bytes()[1]);
            let header = RtpHeader { sequence: n, timestamp: 90, ssrc: 7, payload: 0..0 };
            let (first, at) =
                if n.is_multiple_of(2) { (0x80, PACKET - 12) } else { (0x81, PACKET - 16) };
            bytes[at..at + 12].copy_from_slice(&header.encode_before(0));
            bytes[at] = first;
            bytes
        };
        (0..packets).flat_map(packet).collect()
    }

    #[test]
    fn bare_stream_of_any_shape_comes_out_byte_for_byte() {
        let whole = stream_of_headers(9_400);
        let mut alike = 0;
        for size in [188, 376, 576, 764, 952, 956, 1000, 1140, 1316, 1472, 4096, 65_507] {
            // Begun in mid-packet too, with a datagram that passes for RTP. Three whole packets are
            // the least by which such a beginning is found.
            let starts = [0, 100, PACKET - 16, PACKET - 12];
            for start in starts.into_iter().filter(|&start| start == 0 || size >= 4 * PACKET) {
                let mut monitor = StreamMonitor::default();
                let mut out = Vec::new();
                for (n, datagram) in (0..).zip(whole[start..].chunks(size)) {
                    alike += usize::from(rtp_header(datagram).is_some());
                    monitor.handle_packets(at(n), datagram, |packet| out.extend_from_slice(packet));
                }
                assert!(out == whole[start.next_multiple_of(PACKET)..], "{size} from {start}");
                let counts = monitor.counts();
                assert_eq!((counts.not_ts, counts.rtp), (0, None), "{size} from {start}");
            }
        }
        assert!(alike > 100, "only {alike} datagrams pass for RTP");
    }

    #[test]
    fn form_of_a_stream_changes_when_two_datagrams_agree() {
        let mut monitor = StreamMonitor::default();
        let mut n = 0;
        let mut send = |monitor: &mut StreamMonitor, make: fn(u64) -> Vec<u8>, count: u64| {
            for _ in 0..count {
                let mut stream = Vec::new();
                monitor.handle_packets(at(n), &make(n), |packet| stream.extend_from_slice(packet));
                assert_eq!(stream, datagram(n), "datagram {n}");
                n += 1;
            }
            (monitor.form, monitor.counts().rtp.is_some())
        };
        assert_eq!(send(&mut monitor, in_rtp, 1), (StreamForm::Unknown, false));
        assert_eq!(send(&mut monitor, datagram, 1), (StreamForm::Bare, false));
        assert_eq!(send(&mut monitor, in_rtp, 1), (StreamForm::Bare, false));
        assert_eq!(send(&mut monitor, datagram, 1), (StreamForm::Bare, false));
        assert_eq!(send(&mut monitor, in_rtp, 2), (StreamForm::Rtp, true));
        assert_eq!(send(&mut monitor, datagram, 1), (StreamForm::Rtp, true));
        assert_eq!(send(&mut monitor, in_rtp, 1), (StreamForm::Rtp, true));
        assert_eq!(send(&mut monitor, datagram, 2), (StreamForm::Bare, true));
        monitor.rejoin();
        assert_eq!(monitor.form, StreamForm::Unknown);
    }

    proptest! {
        #[test]
        fn any_datagram_is_handled(bytes in proptest::collection::vec(any::<u8>(), 0..400), n in 1_usize..8) {
            let mut packets = bytes.repeat(10);
            packets.resize(n * PACKET, 0);
            for packet in packets.chunks_mut(PACKET) {
                packet[0] = mpegts::SYNC;
            }
            let mut monitor = StreamMonitor::default();
            for datagram in [&bytes, &packets, &packets] {
                monitor.handle(at(0), datagram);
            }
            monitor.tables_before(&bytes);
        }
    }
}
