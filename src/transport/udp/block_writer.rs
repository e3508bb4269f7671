//! Writes received blocks to the copy.

use std::io::IoSlice;

use crate::{
    net::{
        copy::{self, Stop},
        storage::FileStorage,
    },
    proto::udp::xor,
    transport::read_all,
};

/// Writes blocks to a file; blocks that follow each other are written together.
pub(super) struct BlockWriter<'a> {
    file: &'a FileStorage,
    at: u64,
    held: Vec<u8>,
    /// Of all that was given what lies below has been written, or is held.
    pub(super) failed_at: u64,
}

/// Blocks that follow each other, where they were received.
#[derive(Default)]
pub(super) struct BlockRun<'r> {
    at: u64,
    len: usize,
    parts: Vec<IoSlice<'r>>,
}

/// Most bytes that are held, to be written together.
const WRITE: usize = 256 * 1024;

/// So many bytes are written from where they were received; fewer are held first.
const DIRECT: usize = 32 * 1024;

impl<'a> BlockWriter<'a> {
    pub(super) fn new(file: &'a FileStorage) -> Self {
        Self { file, at: 0, held: Vec::new(), failed_at: u64::MAX }
    }

    /// Adds a block to `run`; one that does not follow ends it.
    pub(super) fn write<'r>(
        &mut self,
        run: &mut BlockRun<'r>,
        offset: u64,
        bytes: &'r [u8],
    ) -> Result<(), Stop> {
        if offset != run.at + run.len as u64 {
            self.end_run(run).inspect_err(|_| self.failed_at = self.failed_at.min(offset))?;
            run.at = offset;
        }
        run.parts.push(IoSlice::new(bytes));
        run.len += bytes.len();
        Ok(())
    }

    /// Writes the blocks of `run`, or holds a few, so that they need not stay where they are.
    pub(super) fn end_run(&mut self, run: &mut BlockRun<'_>) -> Result<(), Stop> {
        let BlockRun { at, len, parts } = std::mem::take(run);
        if parts.is_empty() {
            return Ok(());
        }
        let written = self.take_run(at, len, &parts);
        written.inspect_err(|_| self.failed_at = self.failed_at.min(at))
    }

    fn take_run(&mut self, at: u64, len: usize, parts: &[IoSlice<'_>]) -> Result<(), Stop> {
        let next = self.at + self.held.len() as u64;
        if at != next || len >= DIRECT || self.held.len() + len > WRITE {
            self.flush()?;
            self.at = at;
        }
        if len >= DIRECT {
            return copy::write_parts_at(self.file, parts, at);
        }
        parts.iter().for_each(|part| self.held.extend_from_slice(part));
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        if !self.held.is_empty() {
            let written = copy::write_at(self.file, &self.held, self.at);
            written.inspect_err(|_| self.failed_at = self.failed_at.min(self.at))?;
            self.held.clear();
        }
        Ok(())
    }

    /// Takes the blocks that are held (`others`) out of an XOR and writes the one that is left.
    pub(super) fn write_decoded(
        &mut self,
        run: &mut BlockRun<'_>,
        coded: &[u8],
        others: &[(u64, usize)],
        (offset, len): (u64, usize),
    ) -> Result<(), Stop> {
        self.end_run(run)?;
        self.flush()?;
        let mut sum = coded.to_vec();
        let mut block = vec![0; coded.len()];
        for &(at, len) in others {
            read_all(self.file, &mut block[..len], at)?;
            xor::add(&mut sum, &block[..len]);
        }
        copy::write_at(self.file, &sum[..len], offset)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn failed_write_tells_from_where_bytes_may_be_missing() {
        let file = tempfile::NamedTempFile::new().expect("room");
        let unwritable = File::open(file.path()).expect("there").into();
        let (few, many) = ([1; 500], [2; DIRECT]);
        for (first, second, failed_at) in [(90_000, 0, 0), (90_000, 99_000, 90_000)] {
            let (mut writer, mut run) = (BlockWriter::new(&unwritable), BlockRun::default());
            writer.write(&mut run, first, &few).expect("held");
            writer.end_run(&mut run).expect("held");
            writer.write(&mut run, second, &many).expect("not written yet");
            assert_eq!(writer.failed_at, u64::MAX);
            // They do not follow each other, so the first are written before.
            writer.end_run(&mut run).expect_err("not writable");
            assert_eq!(writer.failed_at, failed_at);
        }
        let (mut writer, mut run) = (BlockWriter::new(&unwritable), BlockRun::default());
        writer.write(&mut run, 70_000, &many).expect("not written yet");
        writer.write(&mut run, 0, &few).expect_err("not writable");
        assert_eq!(writer.failed_at, 0, "nor is the one that ended the run");
    }

    #[test]
    fn blocks_are_in_the_file_however_many_follow_each_other() {
        let file = tempfile::NamedTempFile::new().expect("room");
        let writable = file.reopen().expect("there").into();
        let sent: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut writer, mut at) = (BlockWriter::new(&writable), 0);
        // Rows of few blocks and of many, of which the second half comes first.
        for (number, row) in [2, 6, 120, 4, 200, 68].into_iter().enumerate() {
            let mut run = BlockRun::default();
            let mut blocks: Vec<u64> = (at..at + row).map(|block| block * 1000).collect();
            blocks.rotate_left(if row < 100 { 0 } else { row as usize / 2 });
            for offset in blocks {
                let block = &sent[offset as usize..][..1000];
                writer.write(&mut run, offset, block).expect("room");
            }
            writer.end_run(&mut run).expect("room");
            let there = file.as_file().metadata().expect("there").len();
            assert!(number > 1 || there == 0, "few are held");
            assert!(number != 2 || there == 128_000, "many are not");
            at += row;
        }
        writer.flush().expect("room");
        assert_eq!(writer.failed_at, u64::MAX, "nothing has failed");
        assert!(std::fs::read(file.path()).expect("there") == sent);
    }
}
