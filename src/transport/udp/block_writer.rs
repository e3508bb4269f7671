//! Writes received blocks to the copy.

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

/// Most bytes that are written together.
const WRITE: usize = 256 * 1024;

impl<'a> BlockWriter<'a> {
    pub(super) fn new(file: &'a FileStorage) -> Self {
        Self { file, at: 0, held: Vec::with_capacity(WRITE), failed_at: u64::MAX }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Stop> {
        let next = self.at + self.held.len() as u64;
        if offset != next || self.held.len() + bytes.len() > WRITE {
            self.flush().inspect_err(|_| self.failed_at = self.failed_at.min(offset))?;
            self.at = offset;
        }
        self.held.extend_from_slice(bytes);
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
        coded: &[u8],
        others: &[(u64, usize)],
        (offset, len): (u64, usize),
    ) -> Result<(), Stop> {
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
        for (first, second, failed_at) in [(1000, 0, 0), (1000, 3000, 1000)] {
            let mut writer = BlockWriter::new(&unwritable);
            writer.write(first, &[1; 500]).expect("held");
            assert_eq!(writer.failed_at, u64::MAX);
            // They do not follow each other, so the first are written now.
            writer.write(second, &[2; 500]).expect_err("not writable");
            assert_eq!(writer.failed_at, failed_at);
        }
        let writable = file.reopen().expect("there").into();
        let mut writer = BlockWriter::new(&writable);
        writer.write(0, &[1; 500]).expect("held");
        writer.write(900, &[2; 500]).expect("room");
        writer.flush().expect("room");
        assert_eq!(writer.failed_at, u64::MAX, "nothing has failed");
    }
}
