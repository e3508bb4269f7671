//! A copy's bytes on disk, read and written by pieces and blocks at their own places.

use std::{io, thread};

use crate::{
    digest::{Digest, Hasher},
    error::{Error, Result},
    net::{STACK, copy, storage::FileStorage},
    proto::bt::{
        bitfield::Bitfield,
        layout::PieceLayout,
        metainfo::{self, Metainfo},
        wire::Block,
    },
    text::FileName,
    transport::read_all,
};

/// An open file that holds a copy, or part of one.
#[derive(Debug)]
pub struct Store {
    /// The copy.
    pub file: FileStorage,
    layout: PieceLayout,
}

/// A copy as it was found on disk.
#[derive(Debug)]
pub struct HeldCopy {
    /// Its torrent.
    pub metainfo: Metainfo,
    /// Its bytes.
    pub store: Store,
    /// The pieces that are there.
    pub have: Bitfield,
}

impl HeldCopy {
    /// Reads every piece of the copy in `file`, and compares it with its digest; `progress` gets
    /// the bytes read so far, after each piece.
    ///
    /// # Errors
    /// It cannot be read, or `progress` fails.
    pub fn read(
        metainfo: Metainfo,
        file: &FileStorage,
        mut progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let layout = metainfo.layout();
        let failed = |error| Error::io("read the copy", &metainfo.name)(error);
        let held = file.held().map_err(failed)?;
        let mut have = Bitfield::new(layout.pieces());
        for (piece, right) in (0..layout.pieces()).zip(&metainfo.pieces) {
            let end = layout.start(piece) + u64::from(layout.len(piece));
            if end > held {
                break;
            }
            match digest(file, layout, piece) {
                Ok(found) if found == *right => {
                    have.set(piece);
                }
                // A file of a folder may be shorter yet.
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(failed(error));
                }
                _ => {}
            }
            progress(end)?;
        }
        Ok(Self { store: Store::new(file.clone(), layout), metainfo, have })
    }
}

impl Store {
    /// The copy in `file`, whose own offset is never used.
    pub fn new(file: FileStorage, layout: PieceLayout) -> Self {
        Self { file, layout }
    }

    /// Reads `blocks` one after the other into `bytes`, neighbours with one call.
    ///
    /// # Errors
    /// The file is shorter, or cannot be read.
    pub fn read_blocks(&self, blocks: &[Block], bytes: &mut [u8]) -> io::Result<()> {
        let mut rest = bytes;
        for run in blocks.chunk_by(|one, two| {
            one.piece == two.piece && one.begin.checked_add(one.len) == Some(two.begin)
        }) {
            let len: usize = run.iter().map(|block| block.len as usize).sum();
            let (now, after) = rest.split_at_mut(len);
            let at = self.layout.start(run[0].piece) + u64::from(run[0].begin);
            read_all(&self.file, now, at)?;
            rest = after;
        }
        Ok(())
    }

    /// Writes a whole piece.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn write_piece(&self, piece: u32, bytes: &[u8]) -> io::Result<()> {
        Ok(copy::write_at(&self.file, bytes, self.layout.start(piece))?)
    }
}

/// Makes the torrent of a file or folder, with two threads that hash its pieces.
///
/// # Errors
/// The file is empty, shorter than `bytes`, has too many pieces, or cannot be read.
pub fn make_metainfo(file: &FileStorage, name: &FileName, bytes: u64) -> Result<Metainfo> {
    let layout = PieceLayout::new(bytes, metainfo::piece_bytes(bytes));
    let digests = digests(file, layout).map_err(Error::io("read the file", name))?;
    let made = match file.manifest() {
        Some(manifest) => Metainfo::of_tree(name.clone(), manifest, layout.piece, digests),
        None => Metainfo::new(name.clone(), bytes, layout.piece, digests),
    };
    made.map_err(|error| Error::refused("gatecast", error.to_string()))
}

fn digests(file: &FileStorage, layout: PieceLayout) -> io::Result<Vec<Digest>> {
    let pieces = layout.pieces();
    let range = |from: u32, to: u32| -> io::Result<Vec<Digest>> {
        (from..to).map(|piece| digest(file, layout, piece)).collect()
    };
    thread::scope(|scope| {
        let second = thread::Builder::new()
            .name("pieces".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || range(pieces / 2, pieces));
        let mut digests = range(0, pieces / 2)?;
        digests.extend(match second {
            Ok(second) => second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            Err(_) => range(pieces / 2, pieces)?,
        });
        Ok(digests)
    })
}

fn digest(file: &FileStorage, layout: PieceLayout, piece: u32) -> io::Result<Digest> {
    let mut buffer = [0; 16 << 10];
    let (mut at, mut left) = (layout.start(piece), layout.len(piece) as usize);
    let mut hasher = Hasher::default();
    while left > 0 {
        let want = left.min(buffer.len());
        read_all(file, &mut buffer[..want], at)?;
        hasher.update(&buffer[..want]);
        at += want as u64;
        left -= want;
    }
    Ok(hasher.finish())
}
