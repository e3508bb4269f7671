//! One copy on its way: a part is opened, bytes come into it, they are read back and hashed, and
//! only then does it get its final name.
//!
//! Every client downloads through this, whatever protocol its bytes come by. [`Verified`] is the
//! only thing that can take a final name, and [`Download::verify`] is the only thing that makes
//! one: nothing but a whole, verified file ever stands under a final name.

use std::{ops::Range, path::Path, thread};

use crate::{
    client::{
        copy_part::CopyPart,
        messages::each_second,
        part::{ByteOrder, EarlySync, Part, PartSpec, PublishedCopy},
        tree_part::{TreePart, TreeSpec},
    },
    digest::{Digest, HASH_BUF, Hasher},
    error::{Error, Result},
    net::{copy, disk::ALIGNMENT, files, storage::FileStorage},
    text::{FileName, escape_path},
};

/// What is downloaded, and where to.
#[derive(Clone, Debug)]
pub struct DownloadSpec<'a> {
    /// The part, and the copy's name.
    pub part: PartSpec<'a>,
    /// What will prove the copy.
    pub proof: Proof,
    /// How many clients of this process download as much: the disk must have room for all.
    pub clients: u16,
}

/// What proves that a copy is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The SHA-1 of the whole file.
    Sha1(Digest),
    /// The SHA-1 of each piece, which were compared as the pieces came.
    Pieces,
    /// Nothing: the copy gets a name that says so.
    Nothing,
}

impl Proof {
    /// The SHA-1 that the whole file has to have, where that is known.
    fn sha1(self) -> Option<Digest> {
        match self {
            Self::Sha1(sha1) => Some(sha1),
            Self::Pieces | Self::Nothing => None,
        }
    }
}

/// A copy that is being received.
#[derive(Debug)]
pub struct Download {
    part: CopyPart,
    bytes: u64,
    proof: Proof,
    hasher: Hasher,
    hashed: u64,
}

/// A complete copy, once its bytes were read back.
#[derive(Debug)]
pub enum Checked {
    /// It is the file.
    Whole(Verified),
    /// It is another file, and has been removed.
    Corrupt {
        /// Its SHA-1.
        sha1: Digest,
        /// What is wrong, as one clause.
        why: String,
    },
}

/// A copy that may get its final name.
#[derive(Debug)]
pub struct Verified {
    part: CopyPart,
    proof: Proof,
    bytes: u64,
    /// The copy's SHA-1, read back from disk.
    pub sha1: Digest,
}

/// Most that a client reserves of a disk, bytes: what a server says of its file is not there yet.
const RESERVE_MAX: u64 = 1 << 30;

impl Download {
    /// Opens the part, empty or, to resume, as an earlier session left it. `progress` is as in
    /// [`Download::hash_to`], where a file that has the final name is hashed.
    ///
    /// # Errors
    /// The folder cannot be made or written, the final name is taken by something that the copy
    /// must not replace, the part is not ours alone, or the disk has too little room.
    pub fn open(spec: &DownloadSpec<'_>, progress: impl FnMut(u64) -> Result<()>) -> Result<Self> {
        let in_place = spec.part.in_place;
        if in_place && spec.proof == Proof::Nothing {
            let reason = "only a file that can be proven is written in place; --sha1 proves it";
            return Err(Error::refused("gatecast", reason));
        }
        let name = final_name(spec.part.name, spec.proof)?;
        let mut part = Part::open(&PartSpec { name: &name, ..spec.part.clone() })?;
        // What is overwritten has its room already.
        let left = if in_place { 0 } else { spec.part.bytes - part.resumed };
        let is_free = check_target(&part, spec.part.bytes, spec.proof.sha1(), progress);
        let room = is_free.and_then(|()| room_for(spec.part.folder, left, spec.clients));
        match room {
            Err(error) => {
                if part.resumed == 0 {
                    part.discard();
                }
                return Err(error);
            }
            // How much of a swarm's part is there is seen by its blocks alone.
            Ok(DiskRoom::Plenty) if spec.part.order != ByteOrder::Any => {
                part.reserve(left.min(RESERVE_MAX));
            }
            Ok(_) => {}
        }
        Ok(Self {
            part: CopyPart::File(part),
            bytes: spec.part.bytes,
            proof: spec.proof,
            hasher: Hasher::default(),
            hashed: 0,
        })
    }

    /// Opens the part of a folder, empty or, to resume, with the files that are right already, for
    /// one of `clients` clients; `lines` was fed the manifest. `progress` gets up to which byte the
    /// files are made.
    ///
    /// # Errors
    /// As [`Download::open`].
    pub fn open_tree(
        spec: &TreeSpec<'_>,
        clients: u16,
        lines: Hasher,
        progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let part = TreePart::open(spec, progress)?;
        if let Err(error) = room_for(spec.folder, part.missing, clients) {
            if !spec.resume {
                part.discard();
            }
            return Err(error);
        }
        Ok(Self {
            part: CopyPart::Tree(part),
            bytes: spec.manifest.bytes(),
            proof: Proof::Sha1(spec.sha1),
            hasher: lines,
            hashed: 0,
        })
    }

    /// Where the bytes go, each at its own place.
    pub fn file(&self) -> &FileStorage {
        self.part.storage()
    }

    /// How many bytes of an earlier session it holds.
    pub fn resumed(&self) -> u64 {
        self.part.resumed()
    }

    /// From now on the part may have holes: a client that is killed must not leave it to a later
    /// session as a beginning of the file.
    ///
    /// # Errors
    /// The system refuses to rename it.
    pub fn begin_holes(&mut self) -> Result<()> {
        self.part.file().map_or(Ok(()), Part::begin_holes)
    }

    /// The part has no hole: a later session may go on with it.
    pub fn end_holes(&mut self) {
        if let Some(part) = self.part.file() {
            part.end_holes();
        }
    }

    /// Removes what has come, which nothing can go on from.
    pub fn discard(self) {
        self.part.discard();
    }

    /// Gives the copy another final name than the one it was opened for.
    ///
    /// # Errors
    /// That name is taken by something that a file must not replace.
    pub fn set_name(&mut self, name: &FileName) -> Result<()> {
        let Some(part) = self.part.file() else { return Ok(()) };
        part.set_name(&final_name(name, self.proof)?)?;
        check_target(part, self.bytes, self.proof.sha1(), |_| Ok(()))
    }

    /// Writes to the disk what has come so far.
    pub(super) fn early_sync(&self) -> Option<EarlySync> {
        self.part.early_sync()
    }

    /// Hashes the part up to byte `end`, reading it back from disk. `progress` gets the bytes
    /// hashed so far, about each second.
    ///
    /// # Errors
    /// The disk fails, the part is shorter than that, or `progress` fails.
    pub fn hash_to(&mut self, end: u64, progress: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let Self { part, hasher, hashed, .. } = self;
        let unreadable = |stop| match stop {
            copy::Stop::Disk(error) => Error::io("read the copy back", part.shown())(error),
            _ => Error::Corrupt {
                what: format!("{} was truncated by another program", part.shown()),
            },
        };
        hash(part.read_back(), *hashed..end, hasher, unreadable, progress)?;
        *hashed = end.max(*hashed);
        Ok(())
    }

    /// Every byte is in: reads the copy back and compares it with its proof. A copy that is not
    /// the file is removed.
    ///
    /// # Errors
    /// As [`Download::hash_to`].
    pub fn verify(mut self, progress: impl FnMut(u64) -> Result<()>) -> Result<Checked> {
        if let Some(part) = self.part.file() {
            part.begin_sync();
        }
        self.hash_to(self.bytes, progress)?;
        let sha1 = self.hasher.finish();
        if let Some(expected) = self.proof.sha1()
            && expected != sha1
        {
            self.part.discard();
            let why = format!("its SHA-1 is {sha1}, not {expected}");
            return Ok(Checked::Corrupt { sha1, why });
        }
        let Self { part, proof, bytes, .. } = self;
        Ok(Checked::Whole(Verified { part, proof, bytes, sha1 }))
    }
}

impl Checked {
    /// The copy, where it is the file `name`.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn whole(self, name: &FileName) -> Result<Verified> {
        match self {
            Self::Whole(verified) => Ok(verified),
            Self::Corrupt { why, .. } => Err(Error::Corrupt { what: format!("'{name}': {why}") }),
        }
    }
}

impl Verified {
    /// Whether anything proves the copy.
    pub fn is_proven(&self) -> bool {
        self.proof != Proof::Nothing
    }

    /// Makes the copy safe on disk: its bytes are there when this returns.
    ///
    /// # Errors
    /// The disk failed, so the copy is not good.
    pub fn sync(&self) -> Result<()> {
        self.part.sync()
    }

    /// Gives the copy its final name; `durable` makes the name safe on disk too.
    ///
    /// # Errors
    /// Something that a file must not replace has taken the name, another file stands in the place
    /// of the part, or the system refuses.
    pub fn publish(mut self, durable: bool) -> Result<PublishedCopy> {
        if let Some(part) = self.part.file() {
            check_target(part, self.bytes, Some(self.sha1), |_| Ok(()))?;
        }
        self.part.publish(durable)
    }
}

/// Refuses a copy whose name a file has already that must not be replaced. One that is equal, of
/// `bytes` bytes and the SHA-1 `expected`, is in nobody's way.
fn check_target(
    part: &Part,
    bytes: u64,
    expected: Option<Digest>,
    progress: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let Some((there, refusal)) = part.standing()? else {
        return Ok(());
    };
    let len = there.metadata().map_or(0, |there| there.len());
    let Some(expected) = expected.filter(|_| len == bytes) else {
        return Err(refusal);
    };
    let mut hasher = Hasher::default();
    let unreadable = |_| Error::refused("gatecast", "the file of that name cannot be read");
    hash((&there.into(), HASH_BUF), 0..bytes, &mut hasher, unreadable, progress)?;
    if hasher.finish() == expected { Ok(()) } else { Err(refusal) }
}

/// Hashes this range of `file`, `block` bytes at a time; `progress` gets where it is, about each
/// second.
fn hash(
    (file, block): (&FileStorage, usize),
    range: Range<u64>,
    hasher: &mut Hasher,
    unreadable: impl Fn(copy::Stop) -> Error,
    progress: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut progress = each_second(progress);
    let mut room = vec![0; block + ALIGNMENT];
    let begin = room.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut room[begin..begin + block];
    let (mut at, mut given) = (range.start, range.start);
    while at < range.end {
        // What is read past the cache is read in whole blocks.
        let read = copy::read_at(file, buffer, at).map_err(&unreadable)?;
        let read = usize::try_from(range.end - at).map_or(read, |left| left.min(read));
        hasher.update(&buffer[..read]);
        at += read as u64;
        // Other clients of this machine may still receive; those go first, though not for each of
        // many small files.
        if at - given >= block as u64 {
            given = at;
            thread::yield_now();
        }
        progress(at)?;
    }
    Ok(())
}

/// `name`, or, for a copy that nothing proves, `name` with `.unproven` behind it.
fn final_name(name: &FileName, proof: Proof) -> Result<FileName> {
    match proof {
        Proof::Sha1(_) | Proof::Pieces => Ok(name.clone()),
        Proof::Nothing => FileName::new(&format!("{}.unproven", name.as_str()))
            .map_err(|error| Error::refused("gatecast", error.to_string())),
    }
}

/// What room a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskRoom {
    /// What is needed, or nobody knows.
    Enough,
    /// Twice of it: each client may reserve its part while others still ask.
    Plenty,
}

/// Refuses a file of which `left` bytes are still to come to each of `clients` clients, where the
/// disk has no room for them.
fn room_for(folder: &Path, left: u64, clients: u16) -> Result<DiskRoom> {
    let needed = left.saturating_mul(u64::from(clients));
    match files::free_space(folder) {
        Some(free) if free < needed => Err(Error::refused(
            escape_path(folder),
            format!("{clients} x {left} bytes are to come and {free} bytes are free"),
        )),
        Some(free) if free / 2 >= needed => Ok(DiskRoom::Plenty),
        _ => Ok(DiskRoom::Enough),
    }
}
