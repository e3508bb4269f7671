//! A copy's bytes on disk: read and written by pieces and blocks, at their own places.

use std::fs::File;
use std::io;
use std::thread;

use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::Error;
use crate::error::Result;
use crate::net::STACK;
use crate::net::copy;
use crate::net::copy::Stop;
use crate::proto::bt::bits::Bitfield;
use crate::proto::bt::layout::PieceLayout;
use crate::proto::bt::metainfo::Metainfo;
use crate::proto::bt::wire::Block;

/// An open file that holds a copy, or part of one.
#[derive(Debug)]
pub struct Store {
    file: File,
    layout: PieceLayout,
}

impl Store {
    /// The copy in `file`. Only positions are used, never the file's own offset.
    pub fn new(file: File, layout: PieceLayout) -> Self {
        Self { file, layout }
    }

    /// Reads `bytes.len()` bytes of `piece`, from its byte `begin` on.
    ///
    /// # Errors
    /// The file is shorter, or cannot be read.
    pub fn read(&self, piece: u32, begin: u32, bytes: &mut [u8]) -> io::Result<()> {
        let at = self.layout.start(piece) + u64::from(begin);
        let mut done = 0;
        while done < bytes.len() {
            done += read(&self.file, &mut bytes[done..], at + done as u64)?;
        }
        Ok(())
    }

    /// Reads `blocks` one after the other into `bytes`, neighbours in one go.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn load(&self, blocks: &[Block], bytes: &mut [u8]) -> io::Result<()> {
        let (mut at, mut first) = (0, 0);
        while first < blocks.len() {
            let begin = blocks[first];
            let mut len = begin.len;
            let mut last = first + 1;
            while last < blocks.len()
                && blocks[last].piece == begin.piece
                && blocks[last].begin == begin.begin + len
            {
                len += blocks[last].len;
                last += 1;
            }
            self.read(begin.piece, begin.begin, &mut bytes[at..at + len as usize])?;
            at += len as usize;
            first = last;
        }
        Ok(())
    }

    /// Writes a whole piece.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn write(&self, piece: u32, bytes: &[u8]) -> io::Result<()> {
        copy::write_at(&self.file, bytes, self.layout.start(piece)).map_err(failed)
    }

    /// Lets another client have the file, though threads that are ending still have it open: all
    /// that they can write is a right piece at its place.
    pub fn give_back(&self) {
        if let Err(error) = self.file.unlock() {
            log::debug!("cannot unlock the copy: {error}");
        }
    }

    /// Which pieces of `metainfo` the file holds already.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn verify(&self, metainfo: &Metainfo) -> io::Result<Bitfield> {
        let held = self.file.metadata()?.len();
        let mut have = Bitfield::new(self.layout.pieces());
        for piece in 0..self.layout.pieces() {
            let end = self.layout.start(piece) + u64::from(self.layout.len(piece));
            if end > held {
                break;
            }
            if digest(&self.file, self.layout, piece)? == metainfo.pieces[piece as usize] {
                have.set(piece);
            }
        }
        Ok(have)
    }
}

/// The digests of every piece of `file`, by two threads.
///
/// # Errors
/// The file is shorter than its layout, or cannot be read.
pub fn digests(file: &File, layout: PieceLayout, at: &str) -> Result<Vec<Digest>> {
    let pieces = layout.pieces();
    let half = |from: u32, to: u32| -> io::Result<Vec<Digest>> {
        (from..to)
            .map(|piece| digest(file, layout, piece))
            .collect()
    };
    let both = thread::scope(|scope| {
        let second = thread::Builder::new()
            .name("pieces".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || half(pieces / 2, pieces));
        let mut first = half(0, pieces / 2)?;
        first.extend(match second {
            Ok(second) => second
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            Err(_) => half(pieces / 2, pieces)?,
        });
        Ok(first)
    });
    both.map_err(Error::io("read the file", at))
}

fn digest(file: &File, layout: PieceLayout, piece: u32) -> io::Result<Digest> {
    let mut buffer = [0; 16 << 10];
    let (mut at, mut left) = (layout.start(piece), layout.len(piece) as usize);
    let mut hasher = Hasher::default();
    while left > 0 {
        let want = left.min(buffer.len());
        let len = read(file, &mut buffer[..want], at)?;
        hasher.update(&buffer[..len]);
        at += len as u64;
        left -= len;
    }
    Ok(hasher.finish())
}

fn read(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    copy::read_at(file, bytes, at).map_err(failed)
}

fn failed(stop: Stop) -> io::Error {
    match stop {
        Stop::Disk(error) | Stop::Peer(error) => error,
        Stop::Short => io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter now"),
        Stop::Stalled => io::ErrorKind::TimedOut.into(),
    }
}
