//! How a file is divided into pieces, and pieces into blocks.

use crate::proto::bt::wire::{BLOCK_LEN, Block, REQUEST_MAX};

/// How a file is divided into pieces, and pieces into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLayout {
    /// The file's length, at least 1.
    pub bytes: u64,
    /// Length of a piece, bytes.
    pub piece: u32,
    /// Length of a block, bytes; [`BLOCK_LEN`] on the wire, a whole piece in a simulation.
    pub block: u32,
}

impl PieceLayout {
    /// A file of `bytes` in pieces of `piece`, as it is on the wire.
    pub fn new(bytes: u64, piece: u32) -> Self {
        Self { bytes, piece, block: BLOCK_LEN }
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(u64::from(self.piece))).expect("bounded by the metainfo")
    }

    /// Where a piece begins in the file.
    pub fn start(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.piece)
    }

    /// A piece's length.
    pub fn len(&self, piece: u32) -> u32 {
        let left = self.bytes.saturating_sub(self.start(piece));
        u32::try_from(left).unwrap_or(u32::MAX).min(self.piece)
    }

    /// A piece's `index`th block.
    pub fn block(&self, piece: u32, index: u32) -> Block {
        let begin = index * self.block;
        let len = (self.len(piece) - begin).min(self.block);
        Block { piece, begin, len }
    }

    /// The index of a block in its piece.
    pub fn index(&self, block: Block) -> usize {
        (block.begin / self.block) as usize
    }

    /// How many blocks a piece has.
    pub fn blocks(&self, piece: u32) -> u32 {
        self.len(piece).div_ceil(self.block)
    }

    /// Whether a peer may request `block`: inside its piece, not empty, not too long.
    pub fn allows(&self, block: Block) -> bool {
        block.piece < self.pieces()
            && (1..=REQUEST_MAX).contains(&block.len)
            && u64::from(block.begin) + u64::from(block.len) <= u64::from(self.len(block.piece))
    }
}
