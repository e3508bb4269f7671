//! The recording's way to the disk: pieces of the stream that wait for it, bounded by their bytes,
//! so that a slow disk costs the recording and neither the picture nor the memory.

use std::{
    fs,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    error::{Error, Result},
    net::files,
    text::escape_path,
};

/// The receiving thread's side. The recording ends when it is dropped.
#[derive(Debug)]
pub(super) struct Recorder {
    pieces: Sender<Vec<u8>>,
    waiting: Arc<AtomicU64>,
}

/// The disk thread's side.
#[derive(Debug)]
pub(super) struct RecordWriter {
    pieces: Receiver<Vec<u8>>,
    waiting: Arc<AtomicU64>,
}

/// Most bytes that wait for the disk: eight seconds of a 4K stream, two of any that a relay carries.
pub(super) const WAITING_MAX: u64 = 64 << 20;

/// Bytes that a piece costs beyond its own, so that empty ones are bounded too.
const OVERHEAD: u64 = 64;

/// Opens the file of a new recording. An old one is replaced; what a link stands for is not.
///
/// # Errors
/// It is a symbolic link, or cannot be written.
pub(super) fn create(path: &Path) -> Result<File> {
    let at = escape_path(path);
    let failed = || Error::io("record into", &at);
    let refused = || Error::refused(&at, "it is a symbolic link, which no recording replaces");
    if fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink()) {
        return Err(refused());
    }
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(failed())?;
    if !files::stands_at(&file, path) {
        return Err(refused());
    }
    // A pipe or a device has nothing to empty.
    if file.metadata().map_err(failed())?.is_file() {
        file.set_len(0).map_err(failed())?;
    }
    Ok(file)
}

/// Both sides of a new recording.
pub(super) fn channel() -> (Recorder, RecordWriter) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let waiting = Arc::new(AtomicU64::new(0));
    let recorder = Recorder { pieces: sender, waiting: Arc::clone(&waiting) };
    let writer = RecordWriter { pieces: receiver, waiting };
    (recorder, writer)
}

impl Recorder {
    /// Queues `piece` for the disk; `false` where too much waits, or the disk's thread has ended with
    /// an error.
    pub(super) fn push(&self, piece: Vec<u8>) -> bool {
        let cost = cost(&piece);
        // No other thread adds, so what waits can only become less meanwhile.
        if self.waiting.load(Ordering::SeqCst) + cost > WAITING_MAX {
            return false;
        }
        self.waiting.fetch_add(cost, Ordering::SeqCst);
        self.pieces.send(piece).is_ok()
    }
}

impl RecordWriter {
    /// Writes the recording to its end; returns how many bytes it has.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn write(self, mut file: impl Write) -> io::Result<u64> {
        let mut written = 0;
        for piece in &self.pieces {
            file.write_all(&piece)?;
            written += piece.len() as u64;
            self.waiting.fetch_sub(cost(&piece), Ordering::SeqCst);
        }
        Ok(written)
    }
}

/// What is held in memory for `piece`.
fn cost(piece: &Vec<u8>) -> u64 {
    piece.capacity() as u64 + OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn recording_queue_is_bounded_by_bytes() {
        let (recorder, writer) = channel();
        // No disk: what the largest datagrams would make, 64 together, and what small ones do.
        let given = (0..4096).take_while(|_| recorder.push(vec![0x47; 4 * MIB])).count();
        assert_eq!(given, 15, "and the 16th finds its own cost too much");
        while recorder.push(vec![0x47; 188]) {}
        while recorder.push(Vec::new()) {}
        let waiting = recorder.waiting.load(Ordering::SeqCst);
        assert!((WAITING_MAX - OVERHEAD..=WAITING_MAX).contains(&waiting), "{waiting}");
        // What the disk has taken makes room.
        let bytes = writer.pieces.iter().take(16).map(|piece| {
            recorder.waiting.fetch_sub(cost(&piece), Ordering::SeqCst);
            piece.len()
        });
        assert!(bytes.sum::<usize>() > 15 * 4 * MIB);
        assert!(recorder.push(vec![0x47; 4 * MIB]));
    }

    #[test]
    fn recording_of_any_length_is_written_in_order() {
        let (recorder, writer) = channel();
        let mut disk = Vec::new();
        thread::scope(|scope| {
            let writing = scope.spawn(|| writer.write(&mut disk));
            // More than may wait, as fast as the disk takes it.
            for n in 0..96_u8 {
                while !recorder.push(vec![n; MIB]) {
                    thread::yield_now();
                }
            }
            drop(recorder);
            let written = writing.join().expect("no panic").expect("room");
            assert_eq!(written, 96 * MIB as u64);
        });
        assert!(disk.chunks(MIB).zip(0_u8..).all(|(piece, n)| piece == vec![n; MIB]));
    }

    #[test]
    fn failing_disk_ends_the_recording() {
        let (recorder, writer) = channel();
        assert!(recorder.push(vec![1]));
        let full = File::options().write(true).open("/dev/full");
        let Ok(full) = full else { return };
        assert!(writer.write(full).is_err());
        assert!(!recorder.push(vec![2]));
    }
}
