//! The recording: the stream in segments on the disk, and a list of them (RFC 8216).
//!
//! A thread of its own writes what the source thread leaves in a queue that is bounded by its
//! bytes, so a slow disk costs the recording and nobody else. A segment begins with the tables and
//! a picture that needs no earlier one, where the source marks such pictures.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::{
    error::{Error, Result},
    net::{self, clock, files, lock, logfile},
    proto::{
        mpegts::{PACKET, PID_NULL, TsPacket, pcr_step},
        relay::status::RecordSnapshot,
    },
    relay::{
        atomic_histogram::bump,
        chunk::{ChunkQueue, KEY_FRAME_LIMIT, QueuedChunk, StreamChunk},
    },
    session::SessionId,
    text::ShownPath,
    units::Moment,
};

/// What is recorded, and what became of it.
#[derive(Debug)]
pub(super) struct Recording {
    queue: ChunkQueue,
    shown: Mutex<RecordSnapshot>,
    /// Datagrams for which there was no room, and since when there was none; 0 for not now.
    lost: AtomicU64,
    full_since: AtomicU64,
    /// What waits is the last.
    ending: AtomicBool,
    over: AtomicBool,
}

/// What the thread that writes owns.
struct SegmentWriter<'a> {
    recording: &'a Recording,
    list: (&'a Path, &'a File),
    cutter: SegmentCutter,
    segment: Option<(PathBuf, File)>,
    /// The present segment does not go on where the one before it ended.
    is_apart: bool,
    number: u32,
}

/// Where segments begin, by the times at which the stream came.
#[derive(Debug, Default)]
struct SegmentCutter {
    length: Duration,
    /// What the present segment lasts so far.
    elapsed: Duration,
    /// `elapsed` when the next segment became due.
    due: Option<Duration>,
    /// What came since then does not go on with what was before.
    is_apart: bool,
    last: Option<(Moment, u64)>,
    tables: Vec<u8>,
    clocks: HashMap<u16, u64>,
}

/// Most bytes that wait for the disk: eight seconds at 60 Mbit/s.
const WAITING_MAX: usize = 64 << 20;

/// How long the disk may take none of it.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// A pause of the source that is longer is no part of a segment's time.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a thread whose work can wait for so long looks whether it is to end.
pub(super) const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// How often is looked whether the last is on the disk.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

const WRITE: &str = "write the recording";

impl SegmentCutter {
    /// Where in `chunk` a segment begins, if one does.
    fn cut(&mut self, chunk: &StreamChunk) -> Option<usize> {
        let (first, last) = (*chunk.came.first()?, *chunk.came.last()?);
        let (before, number) = self.last.replace((last, chunk.number)).unwrap_or((first, 0));
        let pause = first.since(before);
        self.elapsed += last.since(first);
        self.elapsed += if pause <= PAUSE_MAX { pause } else { Duration::ZERO };
        let is_jump = self.is_jump(chunk) || chunk.number != number + 1;
        self.is_apart |= is_jump || pause > PAUSE_MAX;
        if self.is_apart || self.elapsed >= self.length {
            self.due.get_or_insert(self.elapsed);
        }
        // A source that marks no key frames is cut all the same, but not where there is only garbage.
        let is_late = self.elapsed - self.due? >= KEY_FRAME_LIMIT && !chunk.packets.is_empty();
        chunk.key_frame.or_else(|| is_late.then_some(0))
    }

    /// Whether a clock does not go on as it ran, the source says so of a counter, or there are other
    /// tables than before.
    fn is_jump(&mut self, chunk: &StreamChunk) -> bool {
        // Their counters run on.
        let is_content = |(n, _): &(usize, &u8)| n % PACKET != 3;
        let tables = chunk.tables.iter().enumerate().filter(is_content).map(|(_, byte)| *byte);
        let tables: Vec<u8> = tables.collect();
        let mut found = !self.tables.is_empty() && tables != self.tables;
        self.tables = tables;
        let packets = chunk.packets.as_chunks().0.iter().map(TsPacket::new);
        for packet in packets.filter(|it| !it.transport_error() && it.pid() != PID_NULL) {
            let last =
                packet.pcr().and_then(|pcr| Some((self.clocks.insert(packet.pid(), pcr)?, pcr)));
            found |= packet.discontinuity()
                || last.is_some_and(|(last, pcr)| pcr_step(last, pcr).is_none());
        }
        found
    }
}

impl SegmentWriter<'_> {
    fn write_queue(&mut self, chunks: &Receiver<QueuedChunk>) -> Result<()> {
        loop {
            let is_on = self.recording.is_on();
            match chunks.recv_timeout(if is_on { IDLE_INTERVAL } else { Duration::ZERO }) {
                Ok((chunk, _)) => {
                    self.recording.queue.release(&chunk);
                    self.write(&chunk)?;
                }
                Err(RecvTimeoutError::Timeout) if is_on => {}
                Err(_) => return Ok(()),
            }
        }
    }

    fn write(&mut self, chunk: &StreamChunk) -> Result<()> {
        let cut = self.cutter.cut(chunk);
        let (before, after) = chunk.packets.split_at(cut.unwrap_or(chunk.packets.len()));
        self.append(before)?;
        if cut.is_some() {
            self.end_segment()?;
            self.begin_segment()?;
            self.append(&chunk.tables)?;
            self.append(after)?;
        }
        Ok(())
    }

    fn append(&mut self, packets: &[u8]) -> Result<()> {
        let Some((path, file)) = &mut self.segment else {
            return Ok(());
        };
        // A file that was removed can be written.
        let gone = || io::Error::new(io::ErrorKind::NotFound, "it is not there any more");
        let there = files::stands_at(file, path).then_some(()).ok_or_else(gone);
        let written = there.and_then(|()| file.write_all(packets));
        written.map_err(Error::io(WRITE, ShownPath(path)))?;
        lock(&self.recording.shown).bytes += packets.len() as u64;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<()> {
        self.number += 1;
        let mut name = self.list.0.with_extension("").into_os_string();
        name.push(format!("-{:05}.ts", self.number));
        let path = PathBuf::from(name);
        let file = File::create_new(&path).map_err(Error::io(WRITE, ShownPath(&path)))?;
        (self.cutter.due, self.cutter.elapsed) = (None, Duration::ZERO);
        self.is_apart = std::mem::take(&mut self.cutter.is_apart) && self.number > 1;
        self.segment = Some((path, file));
        Ok(())
    }

    /// Ends the present segment, whole packets long, and puts it into the list.
    fn end_segment(&mut self) -> Result<()> {
        let Some((path, file)) = self.segment.take() else {
            return Ok(());
        };
        let len = file.metadata().map(|about| about.len());
        let cut = len.and_then(|len| file.set_len(len - len % PACKET as u64));
        cut.map_err(Error::io(WRITE, ShownPath(&path)))?;
        let apart = if self.is_apart { "#EXT-X-DISCONTINUITY\n" } else { "" };
        let (lasted, name) = (self.cutter.elapsed.as_secs_f64(), path.file_name());
        let name = name.unwrap_or_default().display();
        self.list(&format!("{apart}#EXTINF:{lasted:.6},\n{name}\n"))?;
        lock(&self.recording.shown).segments += 1;
        Ok(())
    }

    /// Adds whole lines to the list.
    fn list(&self, lines: &str) -> Result<()> {
        let (path, list) = self.list;
        let added = logfile::append_whole(list, list, lines.as_bytes());
        added.map_err(Error::io(WRITE, ShownPath(path)))
    }
}

/// Begins a recording of this `relay` into `folder`, of segments of about `length`.
///
/// # Errors
/// The folder cannot be made or written; the system refuses a thread.
pub(super) fn start(folder: &Path, length: Duration, relay: SessionId) -> Result<Arc<Recording>> {
    files::check_folder(folder, "--record")?;
    let name = logfile::run_name(clock::wall(), format_args!("relay-{relay}.m3u8"));
    let path = folder.join(name);
    let list = fs::create_dir_all(folder)
        .and_then(|()| File::options().append(true).create_new(true).open(&path))
        .map_err(Error::io(WRITE, ShownPath(&path)))?;
    let (recording, chunks) = Recording::new(path.clone());
    let recording = Arc::new(recording);
    let writing = Arc::clone(&recording);
    let write = move || {
        let written = writing.write_all((&path, &list), length, &chunks);
        writing.end(written.err().map(|error| error.to_string()));
    };
    net::spawn("relay-record", write).map_err(Error::io(WRITE, "its thread"))?;
    Ok(recording)
}

impl Recording {
    /// A recording of which `list` is to be the list, and what waits for the disk.
    fn new(list: PathBuf) -> (Self, Receiver<QueuedChunk>) {
        let (queue, chunks) = ChunkQueue::new(WAITING_MAX);
        let recording = Self {
            queue,
            shown: Mutex::new(RecordSnapshot { list, ..RecordSnapshot::default() }),
            lost: AtomicU64::new(0),
            full_since: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            over: AtomicBool::new(false),
        };
        (recording, chunks)
    }

    /// Writes what waits, until it is the last.
    fn write_all(
        &self,
        list: (&Path, &File),
        length: Duration,
        chunks: &Receiver<QueuedChunk>,
    ) -> Result<()> {
        let cutter = SegmentCutter { length, due: Some(Duration::ZERO), ..Default::default() };
        let mut writer = SegmentWriter {
            recording: self,
            list,
            cutter,
            segment: None,
            is_apart: false,
            number: 0,
        };
        // No segment is longer (4.3.3.1): what may pass until it is cut, and one pause.
        let longest = length.saturating_add(KEY_FRAME_LIMIT + PAUSE_MAX).as_secs_f64().ceil();
        writer.list(&format!(
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{longest}\n\
             #EXT-X-PLAYLIST-TYPE:EVENT\n"
        ))?;
        let written = writer.write_queue(chunks);
        // What is there can be played, also where the list lacks its last lines.
        let ended = writer.end_segment().and_then(|()| writer.list("#EXT-X-ENDLIST\n"));
        written.and(ended)
    }

    /// What it is doing now.
    pub(super) fn snapshot(&self) -> RecordSnapshot {
        let lost = self.lost.load(Ordering::Relaxed);
        RecordSnapshot { lost, ..lock(&self.shown).clone() }
    }

    /// Whether it takes what comes.
    pub(super) fn is_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed) && !self.ending.load(Ordering::Relaxed)
    }

    /// Leaves `chunk` for the disk, from the source thread.
    pub(super) fn offer(&self, chunk: &Arc<StreamChunk>) {
        if self.queue.offer(chunk, false) {
            return self.full_since.store(0, Ordering::Relaxed);
        }
        bump(&self.lost, chunk.came.len() as u64);
        let at = chunk.came.first().map_or(0, |first| first.0);
        let since = self.full_since.load(Ordering::Relaxed);
        if since == 0 {
            log::warn!("the disk is too slow for the recording, which has a gap");
            self.full_since.store(at, Ordering::Relaxed);
        } else if Moment(at).since(Moment(since)) >= STALL_LIMIT {
            self.end(Some("the disk took nothing for 10 s".to_owned()));
        }
    }

    /// Ends it, for `reason` where it failed; the relay goes on.
    fn end(&self, reason: Option<String>) {
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(reason) = reason {
            log::error!("the recording has ended, the relay goes on: {reason}");
            lock(&self.shown).failed = Some(reason);
        }
    }

    /// Waits until what has come is on the disk; what comes later is not recorded.
    pub(super) fn finish(&self) {
        self.ending.store(true, Ordering::SeqCst);
        // Its thread waits for something to write.
        self.queue.offer(&Arc::default(), false);
        let deadline = clock::now().after(STALL_LIMIT);
        while !self.over.load(Ordering::SeqCst) {
            if clock::left(deadline).is_none() {
                self.end(Some("the disk did not take its end within 10 s".to_owned()));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::{SYNC, continuity::Continuity, sample};

    /// A stream in virtual time: a chunk each 40 ms, a clock in each, tables and a key frame each
    /// second.
    struct Stream {
        chunks: Vec<Arc<StreamChunk>>,
        at: u64,
        number: u64,
        counter: u8,
        pcr: u64,
        map: u16,
        tables: u8,
    }

    const STEP: u64 = 40_000;

    impl Stream {
        fn new() -> Self {
            Self {
                chunks: Vec::new(),
                at: 1,
                number: 0,
                counter: 0,
                pcr: 0,
                map: 0x1000,
                tables: 0,
            }
        }

        /// Adds a chunk of `packets` beside the usual one.
        fn chunk(&mut self, is_key: bool, more: &[[u8; PACKET]]) {
            let mut first = sample::adapted(0x100, self.counter, 0x10, self.pcr, true);
            if is_key {
                first[1] |= 0x40;
                first[5] |= 0x40;
            }
            let tables = self.tables().concat();
            let mut chunk = StreamChunk { tables, number: self.number, ..StreamChunk::default() };
            chunk.packets = [more.concat(), first.to_vec()].concat();
            chunk.came.push(Moment(self.at));
            chunk.find_key_frame(&[0x100]);
            self.chunks.push(Arc::new(chunk));
            self.number += 1;
            self.at += STEP;
            self.pcr += STEP * 27;
            self.counter = self.counter.wrapping_add(1) & 0x0F;
        }

        fn tables(&self) -> [[u8; PACKET]; 2] {
            [sample::pat(self.tables, self.map), sample::pmt(self.tables, self.map)]
        }

        fn seconds(&mut self, seconds: u64) {
            for n in 0..seconds * 25 {
                self.tables += u8::from(n % 25 == 0);
                let tables = self.tables();
                self.chunk(n % 25 == 0, if n % 25 == 0 { &tables } else { &[] });
            }
        }
    }

    /// What becomes of a recording of `stream`: its list, and its segments.
    fn recorded(stream: &Stream, length: u64) -> (String, Vec<Vec<u8>>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.m3u8");
        let list = File::create_new(&path).expect("room");
        let (recording, chunks) = Recording::new(path.clone());
        assert!(stream.chunks.iter().all(|chunk| recording.queue.offer(chunk, false)));
        recording.ending.store(true, Ordering::SeqCst);
        let written = recording.write_all((&path, &list), Duration::from_secs(length), &chunks);
        written.expect("room");
        let list = fs::read_to_string(&path).expect("a list");
        let names = list.lines().filter(|line| !line.starts_with('#'));
        let segments: Vec<_> =
            names.map(|name| fs::read(folder.path().join(name)).expect("listed")).collect();
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1 + segments.len());
        let shown = recording.snapshot();
        assert_eq!(shown.segments, segments.len() as u64);
        assert_eq!(shown.bytes, segments.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
        (list, segments)
    }

    fn lengths(list: &str) -> Vec<f64> {
        let lines = list.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
        lines.map(|line| line.trim_end_matches(',').parse().expect("seconds")).collect()
    }

    #[test]
    fn segment_begins_at_tables_and_a_key_frame() {
        let mut stream = Stream::new();
        // What needs an earlier picture is in no segment.
        (0..5).for_each(|_| stream.chunk(false, &[]));
        stream.seconds(7);
        let (list, segments) = recorded(&stream, 3);
        assert_eq!(segments.len(), 3, "{list}");
        for segment in &segments {
            let packets = segment.as_chunks::<PACKET>().0;
            let pids: Vec<u16> = packets.iter().map(|it| TsPacket::new(it).pid()).collect();
            assert_eq!(pids[..3], [0, 0x1000, 0x100]);
            assert!(TsPacket::new(&packets[2]).random_access());
        }
        let packets: usize = segments.iter().map(|segment| segment.len() / PACKET - 2).sum();
        assert_eq!(
            packets,
            7 * 25 + 6 * 2,
            "and every packet from the first key frame on is in one"
        );
        // Together they are one stream: tables that come again are legal repeats.
        let mut continuity = Continuity::default();
        let all = segments.concat();
        all.as_chunks().0.iter().for_each(|packet| continuity.handle(TsPacket::new(packet)));
        assert_eq!(continuity.counts().errors, 0);
        assert!(list.starts_with("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n"));
        assert!(list.ends_with("-00003.ts\n#EXT-X-ENDLIST\n"), "{list}");
        assert!(!list.contains("DISCONTINUITY"), "{list}");
        let lengths = lengths(&list);
        assert!((lengths[1] - 3.0).abs() < 0.001 && (lengths[2] - 0.96).abs() < 0.001, "{list}");
    }

    #[test]
    fn source_without_key_frames_is_cut_all_the_same() {
        let mut stream = Stream::new();
        (0..20 * 25).for_each(|_| stream.chunk(false, &[]));
        let (list, segments) = recorded(&stream, 2);
        // 5 s until the first, then 2 s and 5 s each.
        assert_eq!(segments.len(), 3, "{list}");
        assert!(lengths(&list).iter().all(|length| *length <= 9.0), "{list}");
    }

    #[test]
    fn garbage_and_stuffing_do_not_stop_recording() {
        let mut stream = Stream::new();
        stream.seconds(2);
        let stuffing = sample::adapted(PID_NULL, 3, 0xFF, 1 << 40, true);
        let mut scrambled = sample::packet(0x101, 0, 0xC5);
        scrambled[3] |= 0xC0;
        let mut damaged = sample::adapted(0x100, 9, 0xFF, 77, true);
        damaged[1] |= 0x80;
        let mut noise = [0x5A; PACKET];
        noise[0] = SYNC;
        for n in 0..50 {
            stream.chunk(n % 25 == 0, &[stuffing, scrambled, damaged]);
            let mut empty = StreamChunk { number: stream.number, ..StreamChunk::default() };
            empty.came.push(Moment(stream.at));
            empty.tables = stream.tables().concat();
            stream.chunks.push(Arc::new(empty));
            stream.number += 1;
            stream.chunk(false, &[noise]);
        }
        let (list, segments) = recorded(&stream, 2);
        assert!(segments.len() >= 2 && list.ends_with("#EXT-X-ENDLIST\n"), "{list}");
        assert!(!list.contains("DISCONTINUITY"), "{list}");
        let packets: usize = segments.iter().map(|segment| segment.len() / PACKET - 2).sum();
        assert_eq!(packets, 50 + 2 + 50 * 4 + 50 * 2);
    }

    #[test]
    fn stream_that_does_not_go_on_begins_a_segment_apart() {
        type Change = fn(&mut Stream);
        let changes: [(&str, Change); 5] = [
            ("a pause", |stream| stream.at += 60_000_000),
            ("another clock", |stream| stream.pcr += 10 * 27_000_000),
            ("other tables", |stream| stream.map = 0x1001),
            ("what the disk was too slow for", |stream| stream.number += 9),
            ("what the source says", |stream| {
                stream.chunk(true, &[sample::adapted(0x101, 0, 0x80, 0, false)]);
            }),
        ];
        for (what, change) in changes {
            let mut stream = Stream::new();
            stream.seconds(2);
            change(&mut stream);
            stream.seconds(2);
            let (list, segments) = recorded(&stream, 60);
            assert_eq!(segments.len(), 2, "{what}: {list}");
            assert_eq!(list.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{what}: {list}");
            let sum: f64 = lengths(&list).iter().sum();
            assert!((3.8..4.2).contains(&sum), "{what}: a pause is no time: {list}");
        }
    }

    #[test]
    fn full_disk_ends_recording_with_its_name() {
        let Ok(full) = File::options().write(true).open("/dev/full") else { return };
        let (recording, _chunks) = Recording::new("a.m3u8".into());
        let mut writer = SegmentWriter {
            recording: &recording,
            list: (Path::new("a.m3u8"), &full),
            cutter: SegmentCutter::default(),
            segment: Some(("/dev/full".into(), full.try_clone().expect("a handle"))),
            is_apart: false,
            number: 1,
        };
        let error = writer.append(&[SYNC; PACKET]).expect_err("full").to_string();
        assert!(error.starts_with("cannot write the recording (/dev/full): No space"), "{error}");
        let error = writer.list("x\n").expect_err("full").to_string();
        assert!(error.starts_with("cannot write the recording (a.m3u8): No space"), "{error}");
    }

    #[test]
    fn slow_disk_costs_counted_datagrams_and_then_the_recording() {
        let (recording, chunks) = Recording::new("a.m3u8".into());
        let lost = || recording.snapshot().lost;
        let record = |seconds: u64| {
            let mut chunk = StreamChunk { packets: vec![0; 1 << 20], ..StreamChunk::default() };
            chunk.came = vec![Moment(seconds * 1_000_000); 3];
            recording.offer(&Arc::new(chunk));
        };
        (0..63).for_each(|_| record(1));
        assert_eq!(lost(), 0);
        record(2);
        record(11);
        assert_eq!(lost(), 6, "three datagrams each");
        // What the disk takes makes room, and its time begins anew.
        recording.queue.release(&chunks.recv().expect("the first").0);
        record(13);
        record(14);
        record(23);
        assert!(recording.is_on() && lost() == 12);
        record(24);
        assert!(!recording.is_on());
        let failed = recording.snapshot().failed;
        assert_eq!(failed.as_deref(), Some("the disk took nothing for 10 s"));
    }
}
