//! A file in place of a source: its packets, sent to the relay's own input at the file's own clock.
//!
//! The clock is the program clock reference (ISO/IEC 13818-1, 2.4.2.2): what stands between two
//! references of one PID lasts as long as they are apart, spread evenly over its bytes. Where a
//! reference jumps, or none comes for long, the average so far counts. A repeated file begins with
//! packets that announce the jump of every counter and clock (2.4.3.5).

use std::{
    collections::HashMap,
    fs,
    fs::File,
    io::{self, BufReader, Read, Seek},
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{self, clock, plain_file},
    proto::mpegts::{PACKET, PCR_HZ, PID_NULL, TsPacket, framing::Framing, jump, pcr_step},
    relay::hub::Hub,
    text::escape_path,
    units::Moment,
};

/// A file that is sent as if it were live.
#[derive(Debug)]
pub(super) struct FileSource {
    at: String,
    file: BufReader<File>,
    repeats: bool,
    framing: Framing,
    clock: FileClock,
    /// Packets since the last reference.
    piece: Vec<u8>,
    /// The counter that stands before the first packet of each PID.
    counters: HashMap<u16, u8>,
    /// Bytes read since the file's beginning, and bytes of packets found in them.
    read: (u64, u64),
}

/// How long what was read lasts.
#[derive(Debug, Default)]
struct FileClock {
    now: Duration,
    /// The last reference of each PID, and when it was.
    references: HashMap<u16, (u64, Duration)>,
    /// Bytes between references, and the time that they lasted.
    average: (u64, Duration),
}

/// When it is whose turn, on this host's clock.
#[derive(Debug, Default)]
struct Schedule(Option<(Moment, Duration)>);

/// Takes a piece, when it begins in the file and how long it lasts; `false` to end.
type SendPiece<'a> = dyn FnMut(&[u8], Duration, Duration) -> bool + 'a;

/// Bytes of a datagram: seven packets, as every source sends them.
const DATAGRAM: usize = 7 * PACKET;

/// Most bytes without a clock reference that are held in memory; the standard has one every 100 ms.
const PIECE_MAX: usize = 16 << 20;

/// The least time of a byte: no file is sent faster than 1 Gbit/s.
const BYTE_NS: u64 = 8;

/// What is due within so long is sent at once.
const DOZE: Duration = Duration::from_millis(1);

/// How often one that sleeps looks whether somebody still watches.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A schedule that is later than this begins anew: nothing is caught up in a burst.
const LATE_MAX: Duration = Duration::from_millis(500);

const PLAY: &str = "play the file";

fn wrong(at: &str, why: &'static str) -> Error {
    Error::io(PLAY, at)(io::Error::new(io::ErrorKind::InvalidData, why))
}

impl FileClock {
    /// How long `bytes` last, behind which `reference` stands: a PID and its clock.
    fn advance(&mut self, bytes: usize, reference: Option<(u16, u64)>) -> Duration {
        let told = reference.and_then(|(pid, pcr)| {
            let (last, at) = *self.references.get(&pid)?;
            let ticks = pcr_step(last, pcr).filter(|ticks| *ticks > 0)?;
            Some(at + Duration::from_nanos(ticks * 1000 / (PCR_HZ / 1_000_000)))
        });
        let (before, time) = self.average;
        let lasts = match told {
            // Where several programs have clocks, one may be a little behind another.
            Some(at) => {
                let lasts = at.saturating_sub(self.now);
                let lasts = lasts.max(Duration::from_nanos(bytes as u64 * BYTE_NS));
                self.average = (before + bytes as u64, time + lasts);
                lasts
            }
            None => time.mul_f64(bytes as f64 / before.max(1) as f64),
        };
        self.now += lasts;
        if let Some((pid, pcr)) = reference {
            self.references.insert(pid, (pcr, told.unwrap_or(self.now)));
        }
        lasts
    }
}

impl Schedule {
    /// When what stands at `at` in the file is due, asked at `now`.
    fn due(&mut self, at: Duration, now: Moment) -> Moment {
        let (begun, from) = *self.0.get_or_insert((now, at));
        let due = begun.after(at.saturating_sub(from));
        if now.since(due) > LATE_MAX {
            self.0 = Some((now, at));
            return now;
        }
        due
    }

    /// Waits for the turn of what stands at `at`; `false` when the relay stops. While nobody
    /// watches, the file's clock stands still.
    fn wait(&mut self, hub: &Hub, at: Duration) -> bool {
        loop {
            if !hub.is_watched() {
                if !hub.wait_watched() {
                    return false;
                }
                self.0 = None;
            }
            match clock::left(self.due(at, clock::now())) {
                Some(left) if left >= DOZE => thread::sleep(left.min(LOOK_EVERY)),
                _ => return true,
            }
        }
    }
}

impl FileSource {
    /// Opens the file at `path` and finds its clock.
    ///
    /// # Errors
    /// It cannot be read, is no transport stream, or has no clock that runs.
    pub(super) fn open(path: &Path, repeats: bool) -> Result<Self> {
        let at = escape_path(path);
        let found = fs::canonicalize(path).and_then(|path| plain_file::open(&path));
        let file = found.map_err(Error::io(PLAY, &at))?;
        let file = file.ok_or_else(|| wrong(&at, "it is not a file"))?;
        let mut source = Self {
            at,
            file: BufReader::new(file),
            repeats,
            framing: Framing::default(),
            clock: FileClock::default(),
            piece: Vec::new(),
            counters: HashMap::new(),
            read: (0, 0),
        };
        let mut is_over = false;
        while !is_over && source.clock.average.1.is_zero() && source.read.0 < PIECE_MAX as u64 {
            is_over = !source.read_block(&mut |_, _, _| true)?;
        }
        let refused = |why| Err(wrong(&source.at, why));
        if source.read.1 * 2 <= source.read.0 {
            return refused(
                "it is no MPEG transport stream; ffmpeg -i FILE -c copy film.ts makes one",
            );
        }
        if source.clock.average.1.is_zero() {
            return refused("no clock (PCR) runs in its first 16 MiB, so it has no pace");
        }
        // What is before the first reference has the pace of what is behind it.
        source.clock = FileClock { average: source.clock.average, ..FileClock::default() };
        source.piece.clear();
        source.rewind()?;
        Ok(source)
    }

    fn rewind(&mut self) -> Result<()> {
        self.framing.rejoin();
        self.read = (0, 0);
        self.file.rewind().map_err(Error::io(PLAY, &self.at))
    }

    /// Reads some packets, and gives `send` each piece that they end, when it begins and how long it
    /// lasts. `false` at the end of the file, or where `send` says so.
    fn read_block(&mut self, send: &mut SendPiece<'_>) -> Result<bool> {
        let (mut block, mut packets) = (Vec::new(), Vec::new());
        let read = self.file.by_ref().take(DATAGRAM as u64).read_to_end(&mut block);
        self.read.0 += read.map_err(Error::io(PLAY, &self.at))? as u64;
        self.framing.handle(&block, |packet| packets.push(*packet));
        for bytes in &packets {
            let packet = TsPacket::new(bytes);
            let (pid, is_sound) = (packet.pid(), !packet.transport_error());
            let pcr = packet.pcr().filter(|_| is_sound);
            if (pcr.is_some() || self.piece.len() >= PIECE_MAX)
                && !self.end_piece(pcr.map(|pcr| (pid, pcr)), send)
            {
                return Ok(false);
            }
            if pid != PID_NULL && is_sound {
                let before = packet.counter().wrapping_sub(u8::from(packet.has_payload()));
                self.counters.entry(pid).or_insert(before & 0x0F);
            }
            self.piece.extend_from_slice(bytes);
            self.read.1 += PACKET as u64;
        }
        Ok(!block.is_empty())
    }

    fn end_piece(&mut self, reference: Option<(u16, u64)>, send: &mut SendPiece<'_>) -> bool {
        let (piece, begins) = (std::mem::take(&mut self.piece), self.clock.now);
        send(&piece, begins, self.clock.advance(piece.len(), reference))
    }

    /// Says of each PID that its counter and its clock jump, since the file begins again.
    fn announce_jump(&mut self) {
        self.clock.references.clear();
        for (pid, counter) in &self.counters {
            self.piece.extend(jump(*pid, *counter));
        }
    }

    /// Plays the file through `socket` while somebody watches, to its end or until the relay stops.
    ///
    /// # Errors
    /// It cannot be read any more.
    fn play(mut self, hub: &Hub, socket: &UdpSocket) -> Result<()> {
        let mut schedule = Schedule::default();
        let mut send = |piece: &[u8], begins, lasts: Duration| {
            let datagrams = piece.chunks(DATAGRAM);
            let part = lasts.div_f64(datagrams.len().max(1) as f64);
            let mut turns =
                (0_u32..).zip(datagrams).map(|(n, datagram)| (begins + part * n, datagram));
            turns.all(|(at, datagram)| {
                // What the relay's queue has no room for is counted there.
                schedule.wait(hub, at) && (socket.send(datagram).is_ok() || !hub.is_stopping())
            })
        };
        let mut has_told = false;
        loop {
            while self.read_block(&mut send)? {}
            if hub.is_stopping() || !self.end_piece(None, &mut send) {
                return Ok(());
            }
            let strange = self.read.0 - self.read.1;
            if strange > 0 && !std::mem::replace(&mut has_told, true) {
                log::warn!("{}: {strange} bytes are no whole packet and are not sent", self.at);
            }
            if self.read.1 == 0 {
                return Err(wrong(&self.at, "it has become empty"));
            }
            if !self.repeats {
                schedule.wait(hub, self.clock.now);
                return Ok(());
            }
            self.announce_jump();
            self.rewind()?;
        }
    }
}

/// Starts the thread that plays `source` to `input`, the relay's own.
///
/// # Errors
/// The system refuses a socket or a thread.
pub(super) fn start(
    hub: &Arc<Hub>,
    source: FileSource,
    input: SocketAddr,
) -> Result<JoinHandle<Result<()>>> {
    let (hub, at) = (Arc::clone(hub), source.at.clone());
    let started = UdpSocket::bind((input.ip(), 0)).and_then(|socket| {
        socket.connect(input)?;
        net::spawn("relay-file", move || source.play(&hub, &socket))
    });
    started.map_err(Error::io(PLAY, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mpegts::{PCR_WRAP, continuity::Continuity, sample};

    const MS: u64 = PCR_HZ / 1000;

    /// `count` pieces of four packets, 40 ms each, from `pcr` on.
    fn film(count: u64, pcr: u64) -> Vec<u8> {
        let mut counter = 0;
        let mut bytes = Vec::new();
        for n in 0..count {
            let mut next = || {
                counter = (counter + 1) % 16;
                counter
            };
            let clock = (pcr + n * 40 * MS) % PCR_WRAP;
            bytes.extend(sample::adapted(0x100, next(), 0x10, clock, true));
            (0..3).for_each(|_| bytes.extend(sample::packet(0x100, next(), 1)));
        }
        bytes
    }

    fn open(bytes: &[u8], repeats: bool) -> Result<FileSource> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("film.ts");
        fs::write(&path, bytes).expect("room");
        FileSource::open(&path, repeats)
    }

    /// All that one pass over the file would send, and how long it lasts.
    fn pass(source: &mut FileSource) -> (Vec<u8>, Duration) {
        let (mut all, mut end) = (Vec::new(), source.clock.now);
        let from = end;
        let mut see = |piece: &[u8], begins, lasts| {
            assert_eq!(begins, end, "one piece after the other");
            all.extend_from_slice(piece);
            end += lasts;
            true
        };
        while source.read_block(&mut see).expect("readable") {}
        assert!(source.end_piece(None, &mut see));
        (all, end - from)
    }

    fn millis(time: Duration) -> i64 {
        i64::try_from(time.as_millis()).expect("short")
    }

    #[test]
    fn file_lasts_as_long_as_its_clock_says() {
        // In the middle the clock begins again (2.4.2.2).
        for pcr in [0, 12_345, PCR_WRAP - 300 * MS] {
            let bytes = film(100, pcr);
            let (sent, lasts) = pass(&mut open(&bytes, false).expect("a clock"));
            assert!(sent == bytes, "nothing is changed");
            assert!((millis(lasts) - 4000).abs() <= 1, "{lasts:?} from {pcr}");
        }
    }

    #[test]
    fn clock_that_jumps_costs_no_time() {
        // Backwards, forwards by a day, to another PID, and to none.
        let mut other = film(50, 5);
        other.as_chunks_mut::<PACKET>().0.iter_mut().for_each(|packet| packet[2] = 0x77);
        let mut none = film(50, 0);
        none.as_chunks_mut::<PACKET>().0.iter_mut().for_each(|packet| packet[5] = 0);
        for second in [film(50, 1 << 40), film(50, 86_400_000 * MS), other, none] {
            let bytes = [film(50, 2 << 40), second].concat();
            let (sent, lasts) = pass(&mut open(&bytes, false).expect("a clock"));
            assert!(sent == bytes);
            assert!((millis(lasts) - 4000).abs() <= 80, "{lasts:?}");
        }
    }

    #[test]
    fn hostile_clock_is_bounded() {
        let mut clock = FileClock::default();
        clock.advance(0, Some((1, 5)));
        // A tick for a megabyte: 1 Gbit/s and no more. A clock that stands still has the average.
        assert_eq!(clock.advance(1 << 20, Some((1, 6))), Duration::from_nanos(8 << 20));
        assert_eq!(clock.advance(1 << 20, Some((1, 6))), Duration::from_nanos(8 << 20));
    }

    #[test]
    fn late_schedule_begins_anew_and_sends_no_burst() {
        let (mut schedule, second) = (Schedule::default(), Duration::from_secs(1));
        let at = |ms: u64| Moment(7_000_000 + ms * 1000);
        assert_eq!(schedule.due(second, at(0)), at(0), "the first is due at once");
        assert_eq!(schedule.due(second * 3, at(10)), at(2000));
        // A little late is caught up.
        assert_eq!(schedule.due(second * 3, at(2500)), at(2000));
        assert_eq!(schedule.due(second * 3, at(2501)), at(2501));
        assert_eq!(schedule.due(second * 4, at(2502)), at(3501));
    }

    #[test]
    fn repeated_file_announces_its_jump() {
        let bytes = film(60, 0);
        let mut source = open(&bytes, true).expect("a clock");
        let (first, _) = pass(&mut source);
        source.announce_jump();
        source.rewind().expect("readable");
        let (second, lasts) = pass(&mut source);
        assert!(second.ends_with(&bytes) && second.len() == bytes.len() + PACKET);
        assert!((millis(lasts) - 2400).abs() <= 80, "{lasts:?}");
        let mut continuity = Continuity::default();
        let all = [first, second].concat();
        all.as_chunks().0.iter().for_each(|packet| continuity.handle(TsPacket::new(packet)));
        assert_eq!(continuity.counts().errors, 0);
    }

    #[test]
    fn cut_or_damaged_file_is_sent_as_far_as_it_is_whole() {
        let bytes = film(100, 0);
        let mut source = open(&bytes[..bytes.len() - 100], false).expect("a clock");
        let (sent, _) = pass(&mut source);
        assert!(sent == bytes[..bytes.len() - PACKET]);
        assert_eq!(source.read.0 - source.read.1, 88);
        let damaged = [&bytes[..DATAGRAM * 20], &[0; 5000], &bytes[DATAGRAM * 20..]].concat();
        let (sent, _) = pass(&mut open(&damaged, false).expect("a clock"));
        assert!(
            sent.len() >= bytes.len() - DATAGRAM && sent.ends_with(&bytes[bytes.len() - 900..])
        );
    }

    proptest! {
        #[test]
        fn any_packets_are_sent_and_take_a_bounded_time(
            packets in proptest::collection::vec((0..3_u8, any::<u64>(), any::<[u8; 2]>()), 1..60)
        ) {
            let mut bytes = film(3, 0);
            for (pid, pcr, flags) in packets {
                let mut packet = sample::adapted(0x100, 0, 0x10, pcr % PCR_WRAP, true);
                packet[2] = pid;
                packet[3..5].copy_from_slice(&flags);
                bytes.extend(packet);
            }
            let (sent, lasts) = pass(&mut open(&bytes, true).expect("a clock"));
            prop_assert!(sent == bytes);
            // Each piece is at most two seconds, or what is average.
            prop_assert!(lasts < Duration::from_secs(60 * 10 * 2));
        }
    }

    #[test]
    fn file_without_stream_or_clock_is_refused() {
        let noise: Vec<u8> = (0..1_000_000_u64).map(|n| ((n * n) >> 7) as u8).collect();
        let mut blank = film(100, 0);
        blank.as_chunks_mut::<PACKET>().0.iter_mut().for_each(|packet| packet[5] = 0);
        let still = film(1, 0).repeat(100);
        // Packets of a disc have four bytes more.
        let wide: Vec<u8> =
            film(100, 0).chunks(PACKET).flat_map(|it| [&[0; 4], it].concat()).collect();
        let refusals = [
            (&b""[..], "no MPEG transport stream"),
            (b"a word", "no MPEG transport stream"),
            (&noise, "no MPEG transport stream"),
            (&wide, "no MPEG transport stream"),
            (&blank, "no clock (PCR) runs"),
            (&still, "no clock (PCR) runs"),
            (&film(1, 0), "no clock (PCR) runs"),
        ];
        for (bytes, why) in refusals {
            let error = open(bytes, false).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(open(&film(2, 0), false).is_ok());
        assert!(FileSource::open(Path::new("/"), false).is_err());
        assert!(FileSource::open(Path::new("/nowhere.ts"), false).is_err());
    }
}
