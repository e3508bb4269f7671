//! A file on its way: a `.part` beside its final name, which it takes only when it is whole,
//! verified and, where that was asked for, safe on disk.
//!
//! The part is named by the file's digest and a number, the client's own or, where another client
//! in this folder has that, the next free one: a later session finds it, whatever its seat. While it
//! may have holes it has another name. It is locked while it is written, and opened so that a link
//! put in its place is refused and not followed. Before it is renamed or removed, what stands at its
//! path is compared with the open file: another file that was put there is never published.
//!
//! The one exception is a disk, or an existing file, that is written in place: it has no other name
//! to take, and only the exit code says whether it holds the file.

use std::{
    fs::{self, File},
    io, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    client::part_file::{
        is_ours, lock, make_folder, open, remove, remove_left, shown, still_there, unlock,
    },
    digest::{Digest, HASH_BUF},
    error::{Error, Result},
    net::{
        self,
        disk::{self, Disk},
        files, plain_file,
        storage::FileStorage,
    },
    session::MAX_SEATS,
    text::FileName,
};

/// Which part is opened, and how.
#[derive(Clone, Debug)]
pub struct PartSpec<'a> {
    /// The folder for the copy; or, with `in_place`, the disk or file that becomes the copy.
    pub folder: &'a Path,
    /// The copy's final name.
    pub name: &'a FileName,
    /// The file's size.
    pub bytes: u64,
    /// What names the part, so that a later session finds it: the file's SHA-1 where it is known.
    pub identity: Digest,
    /// The client's number in this process, from which the part's number is counted.
    pub client: u16,
    /// In which order the bytes come.
    pub order: ByteOrder,
    /// Go on with the part that an earlier session left.
    pub resume: bool,
    /// A file that has the copy's name already may be replaced.
    pub replace: bool,
    /// What stands at `folder` is overwritten from its first byte on, and keeps what is behind the
    /// copy's last one.
    pub in_place: bool,
}

/// In which order the bytes of a copy come; it decides what a part that was left is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// From the first to the last: what was left is a beginning of the file.
    Sequential,
    /// In any order, behind a beginning that an earlier session left. While they come the part has
    /// another name ([`Part::begin_holes`]), so that a client that is killed leaves nothing that
    /// is taken for a beginning; such a part is removed.
    AfterBeginning,
    /// In any order: what was left says nothing of where its bytes are, and no transport that goes
    /// on from a beginning must find it.
    Any,
}

/// The file that a copy is received into.
#[derive(Debug)]
pub struct Part {
    file: Arc<File>,
    /// Where its bytes go.
    pub storage: FileStorage,
    path: PathBuf,
    target: PathBuf,
    replace: bool,
    /// Its name while it has holes, where its bytes come in any order.
    holed: Option<PathBuf>,
    /// How many bytes of an earlier session it holds.
    pub resumed: u64,
    /// Reads past the system's cache, where it is written in place.
    uncached: Option<FileStorage>,
    /// Room is reserved behind what it holds.
    is_reserved: bool,
}

/// A copy under its final name.
#[derive(Debug)]
pub struct PublishedCopy {
    /// Where it is.
    pub path: PathBuf,
    /// Its name is safe on disk.
    pub is_durable: bool,
}

/// Writes to the disk what has come so far of a copy.
pub(super) type EarlySync = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// The highest number of a part: two processes of the largest size write into one folder.
pub(super) const NUMBER_MAX: u16 = 2 * MAX_SEATS;

/// Read at a time past the cache, bytes: nothing is read ahead there, so that small reads are slow.
const READ_BACK: usize = 1 << 20;

impl Part {
    /// Opens a part, empty or, with `resume`, as it was left.
    ///
    /// # Errors
    /// The folder cannot be made or written, the target is something that a file must not
    /// replace, the part is no file of ours alone, or others write all parts.
    pub fn open(spec: &PartSpec<'_>) -> Result<Self> {
        if spec.in_place {
            return Self::open_in_place(spec);
        }
        make_folder(spec.folder)?;
        let target = target_in(spec.folder, spec.name)?;
        for number in spec.client..=NUMBER_MAX {
            if let Some(part) = Self::open_number(spec, number, &target)? {
                return Ok(part);
            }
        }
        Err(Error::refused(shown(spec.folder), "other clients write all its parts"))
    }

    /// Opens what is to be overwritten, if nobody uses it and the file has room in it.
    fn open_in_place(spec: &PartSpec<'_>) -> Result<Self> {
        let path = spec.folder.to_owned();
        let Disk { file, uncached, bytes } = disk::open(&path)?;
        if bytes < spec.bytes {
            let reason = format!("it has {bytes} bytes, and the file has {}", spec.bytes);
            return Err(Error::refused(shown(&path), reason));
        }
        let file = Arc::new(file);
        let storage = FileStorage::in_place(Arc::clone(&file));
        let (target, uncached) = (path.clone(), Some(uncached.into()));
        let (replace, holed, resumed) = (true, None, 0);
        let is_reserved = false;
        Ok(Self { file, storage, path, target, replace, holed, resumed, uncached, is_reserved })
    }

    /// Opens the part of this number, unless another client writes it.
    fn open_number(spec: &PartSpec<'_>, number: u16, target: &Path) -> Result<Option<Self>> {
        let short = spec.identity.short();
        let at = |end: &str| spec.folder.join(format!(".{short}-{number}.{end}"));
        let path = at(match spec.order {
            ByteOrder::Any => "pieces.part",
            ByteOrder::Sequential | ByteOrder::AfterBeginning => "part",
        });
        let Some((file, is_new)) = open(&path)? else {
            return Ok(None);
        };
        if !lock(&file, &path)? {
            return Ok(None);
        }
        if !is_new && !is_ours(&file, &path).map_err(Error::io("look at the file", shown(&path)))? {
            return Err(Error::refused(shown(&path), "it belongs to another user"));
        }
        let holed = (spec.order == ByteOrder::AfterBeginning).then(|| at("holes.part"));
        if let Some(holed) = &holed
            && !remove_left(holed)?
        {
            // The client whose part has holes may have taken this name back: nothing is to do then.
            if is_new && let Err(error) = remove(&file, &path) {
                log::debug!("{error}");
            }
            return Ok(None);
        }
        let held = file.metadata().map_err(Error::io("look at the file", shown(&path)))?.len();
        let resumed = if spec.resume && held <= spec.bytes { held } else { 0 };
        file.set_len(resumed).map_err(Error::io("empty the file", shown(&path)))?;
        let (target, replace) = (target.to_owned(), spec.replace);
        let file = Arc::new(file);
        let storage = Arc::clone(&file).into();
        let (uncached, is_reserved) = (None, false);
        let part =
            Self { file, storage, path, target, replace, holed, resumed, uncached, is_reserved };
        Ok(Some(part))
    }

    /// Reserves the room of the next `bytes` bytes, before the release and not while they come.
    pub(super) fn reserve(&mut self, bytes: u64) {
        self.is_reserved = files::reserve(&self.file, self.resumed..self.resumed + bytes);
    }

    /// From now on it may have holes.
    ///
    /// # Errors
    /// Another file stands in its place, or the system refuses to rename it.
    pub fn begin_holes(&mut self) -> Result<()> {
        if let Some(holed) = &mut self.holed {
            still_there(&self.file, &self.path)?;
            fs::rename(&self.path, &holed)
                .map_err(Error::io("rename the part", shown(&self.path)))?;
            mem::swap(holed, &mut self.path);
        }
        Ok(())
    }

    /// It has none any more: a later session may take it up.
    pub fn end_holes(&mut self) {
        // The names change places, so that this undoes the other.
        if let Err(error) = self.begin_holes() {
            log::warn!("a later session cannot take it up: {error}");
        }
    }

    /// What it is read back from, and how many bytes at a time.
    pub(super) fn read_back(&self) -> (&FileStorage, usize) {
        self.uncached.as_ref().map_or((&self.storage, HASH_BUF), |file| (file, READ_BACK))
    }

    /// Writes to the disk what has come so far, by another open file than that of `sync`: the system
    /// tells once to each what failed.
    pub(super) fn early_sync(&self) -> EarlySync {
        if let Some(file) = self.uncached.as_ref().and_then(FileStorage::file).map(Arc::clone) {
            return Arc::new(move || file.sync_data());
        }
        let path = self.path.clone();
        Arc::new(move || plain_file::open_to_write(&path)?.sync_data())
    }

    /// Does so beside what is read back past the cache: a read there waits for its block.
    pub(super) fn begin_sync(&self) {
        if self.uncached.is_some() {
            let sync = self.early_sync();
            drop(net::spawn("sync", move || sync()));
        }
    }

    /// Where it is, for messages.
    pub fn shown(&self) -> String {
        shown(&self.path)
    }

    /// Gives it another final name than the one that it was opened for.
    ///
    /// # Errors
    /// That name is something that a file must not replace.
    pub fn set_name(&mut self, name: &FileName) -> Result<()> {
        self.target = target_in(self.target.parent().unwrap_or_else(|| Path::new("")), name)?;
        Ok(())
    }

    /// The file that has the copy's name already, where it may not be replaced; and what to say then.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(super) fn standing(&self) -> Result<Option<(File, Error)>> {
        if self.replace {
            return Ok(None);
        }
        let there = match File::open(&self.target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            there => there.map_err(Error::io("look at the target", shown(&self.target)))?,
        };
        let what = "a file of that name is there, and only --overwrite replaces it";
        Ok(Some((there, Error::refused(shown(&self.target), what))))
    }

    /// Makes it safe on disk: its bytes are there when this returns.
    ///
    /// # Errors
    /// The disk failed. Syncing again would not tell the truth (the kernel forgets the failure),
    /// so the copy is not good.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("make the copy durable", self.shown()))
    }

    /// Gives it its final name; `durable` makes the name safe on disk too, where that can be done:
    /// the copy is whole, verified and there, and to call it failed would be as wrong as the
    /// contrary.
    ///
    /// # Errors
    /// Something that a file must not replace has taken the name, another file stands in the place
    /// of the part, or the system refuses.
    pub(super) fn publish(mut self, durable: bool) -> Result<PublishedCopy> {
        let path = mem::take(&mut self.target);
        if self.uncached.is_some() {
            return Ok(PublishedCopy { path, is_durable: durable });
        }
        replaceable(&path)?;
        still_there(&self.file, &self.path)?;
        fs::rename(&self.path, &path).map_err(Error::io("rename the copy", shown(&path)))?;
        self.is_reserved = false;
        let is_durable = durable && path.parent().is_some_and(files::sync_folder);
        Ok(PublishedCopy { path, is_durable })
    }

    /// Removes it: its bytes are not the file's. What was written in place stays.
    pub fn discard(self) {
        if self.uncached.is_none()
            && let Err(error) = remove(&self.file, &self.path)
        {
            log::warn!("{error}");
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Its storage is the other user of the file; a thread that still writes keeps the lock.
        if Arc::strong_count(&self.file) <= 2 {
            if self.is_reserved {
                files::give_back(&self.file);
            }
            unlock(&self.file);
        }
    }
}

/// The path of a file called `name` in `folder`.
fn target_in(folder: &Path, name: &FileName) -> Result<PathBuf> {
    let name = name.clone().for_file_here();
    let name = name.map_err(|error| Error::refused("gatecast", error.to_string()))?;
    let target = folder.join(name.as_str());
    replaceable(&target)?;
    Ok(target)
}

/// Refuses a name that a file must not replace.
fn replaceable(target: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look at the target", shown(target))(error)),
        Ok(metadata) => metadata.file_type(),
    };
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder of that name is in the way"
    } else if kind.is_symlink() {
        "a symbolic link of that name is in the way"
    } else {
        "something of that name that is not a regular file is in the way"
    };
    Err(Error::refused(shown(target), what))
}

#[cfg(test)]
mod tests;
