//! A file's blocks for sending, read in stretches.

use std::{sync::Arc, time::Duration};

use crate::{
    net::copy::{self, Stop},
    proto::udp::blocks::BlockLayout,
    server::{catalog::Source, transport::TransferFailure},
    transport::source_changed,
    units::Moment,
};

/// The stretches of a file that were read last.
#[derive(Debug)]
pub(super) struct BlockCache {
    source: Arc<Source>,
    layout: BlockLayout,
    /// The first block of each stretch, and its bytes; the oldest first.
    stretches: Vec<(u32, Vec<u8>)>,
    checked_at: Moment,
}

/// How often the source is checked for changes while parts of it are read again.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Blocks that are read from the file at once.
const STRETCH: u32 = 64;

/// How many stretches are kept: clients that are about equally far read each once.
const STRETCHES: usize = 16;

impl BlockCache {
    pub(super) fn new(source: Arc<Source>, layout: BlockLayout, now: Moment) -> Self {
        Self { source, layout, stretches: Vec::new(), checked_at: now }
    }

    /// One block's bytes. Before a block is read `again`, the source is checked: a repair from a
    /// changed file would put new bytes into an old copy.
    pub(super) fn block(
        &mut self,
        block: u32,
        again: bool,
        now: Moment,
    ) -> Result<&[u8], TransferFailure> {
        if again && now >= self.checked_at.after(CHECK_EVERY) {
            self.checked_at = now;
            let unchanged = self.source.unchanged();
            unchanged.map_err(|error| source_changed(error.to_string()))?;
        }
        let first = block / STRETCH * STRETCH;
        let known = self.stretches.iter().position(|(start, _)| *start == first);
        let at = match known {
            Some(at) => at,
            None => {
                let oldest =
                    (self.stretches.len() == STRETCHES).then(|| self.stretches.remove(0).1);
                let bytes = self.read(first, oldest.unwrap_or_default())?;
                self.stretches.push((first, bytes));
                self.stretches.len() - 1
            }
        };
        let (_, len) = self.layout.place(block);
        let from = (block - first) as usize * self.layout.block_len;
        Ok(&self.stretches[at].1[from..from + len])
    }

    /// Reads the stretch that begins with the block `first` into `bytes`, and returns it.
    fn read(&self, first: u32, mut bytes: Vec<u8>) -> Result<Vec<u8>, TransferFailure> {
        let base = u64::from(first) * self.layout.block_len as u64;
        let left = self.layout.bytes.saturating_sub(base);
        let want = left.min(u64::from(STRETCH) * self.layout.block_len as u64);
        bytes.resize(want as usize, 0);
        let mut done = 0;
        while done < bytes.len() {
            let at = base + done as u64;
            match copy::read_at(&self.source.file, &mut bytes[done..], at) {
                Ok(read) => done += read,
                Err(Stop::Disk(error)) => {
                    return Err(source_changed(format!("the source cannot be read: {error}")));
                }
                Err(_) => {
                    let reason = match self.source.unchanged() {
                        Err(error) => error.to_string(),
                        Ok(()) => format!("the source ended at byte {at}"),
                    };
                    return Err(source_changed(reason));
                }
            }
        }
        Ok(bytes)
    }
}
