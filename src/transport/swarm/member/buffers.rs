//! The bytes of pieces that are not complete yet.

use std::collections::BTreeMap;

use crate::proto::bt::piece_picker::PiecePicker;

/// A buffer for each unfinished piece, and buffers to be used again.
#[derive(Debug, Default)]
pub(super) struct PieceBuffers {
    /// By piece.
    pub(super) partial: BTreeMap<u32, Vec<u8>>,
    pub(super) spare: Vec<Vec<u8>>,
}

impl PieceBuffers {
    /// Stores `data` at `begin` of `piece`, which has `size` bytes.
    pub(super) fn write(&mut self, piece: u32, size: usize, begin: usize, data: &[u8]) {
        let spare = &mut self.spare;
        let buffer = self.partial.entry(piece).or_insert_with(|| spare.pop().unwrap_or_default());
        buffer.resize(size, 0);
        buffer[begin..begin + data.len()].copy_from_slice(data);
    }

    /// Frees the buffers of pieces that the picker has dropped.
    pub(super) fn drop_stale(&mut self, picker: &PiecePicker) {
        if self.partial.len() > picker.partial_count() {
            self.partial.retain(|&piece, _| picker.is_partial(piece));
        }
    }
}
