//! Writes received blocks to the copy.

use std::fs::File;

use crate::{
    net::copy::{self, Stop},
    proto::udp::xor,
};

/// Writes blocks to a file; blocks that follow each other are written together.
pub(super) struct BlockWriter<'a> {
    file: &'a File,
    at: u64,
    held: Vec<u8>,
}

/// Most bytes that are written together.
const WRITE: usize = 256 * 1024;

impl<'a> BlockWriter<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, at: 0, held: Vec::with_capacity(WRITE) }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Stop> {
        let next = self.at + self.held.len() as u64;
        if offset != next || self.held.len() + bytes.len() > WRITE {
            self.flush()?;
            self.at = offset;
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        if !self.held.is_empty() {
            copy::write_at(self.file, &self.held, self.at)?;
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
            let mut read = 0;
            while read < len {
                read += copy::read_at(self.file, &mut block[read..len], at + read as u64)?;
            }
            xor::add(&mut sum, &block[..len]);
        }
        copy::write_at(self.file, &sum[..len], offset)
    }
}
