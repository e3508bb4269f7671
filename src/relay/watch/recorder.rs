//! The recording's way to the disk: pieces of the stream that wait for it, bounded by their bytes,
//! so that a slow disk costs the recording and neither the picture nor the memory.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;

/// The side that gives. The recording ends when it is dropped.
#[derive(Debug)]
pub(super) struct Recorder {
    pieces: Sender<Vec<u8>>,
    waiting: Arc<AtomicU64>,
}

/// The side that writes.
#[derive(Debug)]
pub(super) struct RecordWriter {
    pieces: Receiver<Vec<u8>>,
    waiting: Arc<AtomicU64>,
}

/// Most bytes that wait for the disk: eight seconds of a 4K stream, two of any that a relay carries.
pub(super) const WAITING_MAX: u64 = 64 << 20;

/// Bytes that a piece costs beyond its own, so that empty ones are bounded too.
const OVERHEAD: u64 = 64;

/// Both sides of a new recording.
pub(super) fn recorder() -> (Recorder, RecordWriter) {
    let (give, take) = crossbeam_channel::unbounded();
    let waiting = Arc::new(AtomicU64::new(0));
    let tape = Recorder {
        pieces: give,
        waiting: Arc::clone(&waiting),
    };
    (
        tape,
        RecordWriter {
            pieces: take,
            waiting,
        },
    )
}

impl Recorder {
    /// Takes `piece`, which is written when the disk comes to it; `false` where too much waits, or
    /// the disk's thread has ended and has an error to tell.
    pub(super) fn push(&self, piece: Vec<u8>) -> bool {
        let cost = cost(&piece);
        // The only one that adds: what is there can become less and not more.
        if self.waiting.load(Ordering::SeqCst) + cost > WAITING_MAX {
            return false;
        }
        self.waiting.fetch_add(cost, Ordering::SeqCst);
        self.pieces.send(piece).is_ok()
    }
}

impl RecordWriter {
    /// Writes the recording until there is no more of it; how many bytes it has.
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
    fn what_waits_for_the_disk_is_bounded_by_its_bytes() {
        let (tape, reel) = recorder();
        // No disk: what the largest datagrams would make, 64 together, and what small ones do.
        let given = (0..4096)
            .take_while(|_| tape.push(vec![0x47; 4 * MIB]))
            .count();
        assert_eq!(given, 15, "and the 16th finds its own cost too much");
        while tape.push(vec![0x47; 188]) {}
        while tape.push(Vec::new()) {}
        let waiting = tape.waiting.load(Ordering::SeqCst);
        assert!(
            (WAITING_MAX - OVERHEAD..=WAITING_MAX).contains(&waiting),
            "{waiting}"
        );
        // What the disk has taken makes room.
        let bytes = reel.pieces.iter().take(16).map(|piece| {
            tape.waiting.fetch_sub(cost(&piece), Ordering::SeqCst);
            piece.len()
        });
        assert!(bytes.sum::<usize>() > 15 * 4 * MIB);
        assert!(tape.push(vec![0x47; 4 * MIB]));
    }

    #[test]
    fn a_recording_is_written_as_it_came_whatever_its_length() {
        let (tape, reel) = recorder();
        let mut disk = Vec::new();
        thread::scope(|scope| {
            let writing = scope.spawn(|| reel.write(&mut disk));
            // More than may wait, as fast as the disk takes it.
            for n in 0..96_u8 {
                while !tape.push(vec![n; MIB]) {
                    thread::yield_now();
                }
            }
            drop(tape);
            let written = writing.join().expect("no panic").expect("room");
            assert_eq!(written, 96 * MIB as u64);
        });
        assert!(
            disk.chunks(MIB)
                .zip(0_u8..)
                .all(|(piece, n)| piece == vec![n; MIB])
        );
    }

    #[test]
    fn a_disk_that_fails_ends_the_recording() {
        let (tape, reel) = recorder();
        assert!(tape.push(vec![1]));
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let Ok(full) = full else { return };
        assert!(reel.write(full).is_err());
        assert!(!tape.push(vec![2]));
    }
}
