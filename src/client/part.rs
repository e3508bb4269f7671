//! A file on its way: a `.part` beside its final name, which it takes only when it is whole,
//! verified and, where that was asked for, safe on disk.
//!
//! The part is named by the file's digest and a number, the client's own or, where another client
//! in this folder has that, the next free one: a later session finds it, whatever its seat. While it
//! may have holes it has another name. It is locked while it is written, and opened so that a link
//! put in its place is refused and not followed. Before it is renamed or removed, what stands at its
//! path is compared with the open file: another file that was put there is never published.

use std::{
    fs,
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::files,
    session::MAX_SEATS,
    text::{FileName, escape},
};

/// Which part is opened, and how.
#[derive(Clone, Debug)]
pub struct PartSpec<'a> {
    /// The folder for the copy.
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
    file: File,
    path: PathBuf,
    target: PathBuf,
    replace: bool,
    /// Its name while it has holes, where its bytes come in any order.
    holed: Option<PathBuf>,
    /// How many bytes of an earlier session it holds.
    resumed: u64,
}

/// A copy under its final name.
#[derive(Debug)]
pub struct PublishedCopy {
    /// Where it is.
    pub path: PathBuf,
    /// Its name is safe on disk.
    pub is_durable: bool,
}

/// The highest number of a part: two processes of the largest size write into one folder.
const NUMBER_MAX: u16 = 2 * MAX_SEATS;

impl Part {
    /// Opens a part, empty or, with `resume`, as it was left.
    ///
    /// # Errors
    /// The folder cannot be made or written, the target is something that a file must not
    /// replace, the part is no file of ours alone, or others write all parts.
    pub fn open(spec: &PartSpec<'_>) -> Result<Self> {
        make_folder(spec.folder)?;
        let target = spec.folder.join(spec.name.as_str());
        replaceable(&target)?;
        for number in spec.client..=NUMBER_MAX {
            if let Some(part) = Self::open_number(spec, number, &target)? {
                return Ok(part);
            }
        }
        Err(Error::refused(shown(spec.folder), "other clients write all its parts"))
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
        // A client whose part has holes left its plain name free.
        let holed = (spec.order == ByteOrder::AfterBeginning).then(|| at("holes.part"));
        if let Some(holed) = &holed
            && !remove_left(holed)?
        {
            // That client may have taken its plain name back by now, and then nothing is to do.
            if is_new && let Err(error) = remove(&file, &path) {
                log::debug!("{error}");
            }
            return Ok(None);
        }
        let held = file.metadata().map_err(Error::io("look at the file", shown(&path)))?.len();
        let resumed = if spec.resume && held <= spec.bytes { held } else { 0 };
        file.set_len(resumed).map_err(Error::io("empty the file", shown(&path)))?;
        let (target, replace) = (target.to_owned(), spec.replace);
        Ok(Some(Self { file, path, target, replace, holed, resumed }))
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
            std::mem::swap(holed, &mut self.path);
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

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How many bytes of an earlier session it holds.
    pub fn resumed(&self) -> u64 {
        self.resumed
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
        let target = self.target.with_file_name(name.as_str());
        replaceable(&target)?;
        self.target = target;
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
    pub(super) fn publish(self, durable: bool) -> Result<PublishedCopy> {
        replaceable(&self.target)?;
        still_there(&self.file, &self.path)?;
        fs::rename(&self.path, &self.target)
            .map_err(Error::io("rename the copy", shown(&self.target)))?;
        let is_durable = durable && self.target.parent().is_some_and(files::sync_folder);
        Ok(PublishedCopy { path: self.target, is_durable })
    }

    /// Removes it: its bytes are not the file's.
    pub fn discard(self) {
        if let Err(error) = remove(&self.file, &self.path) {
            log::warn!("{error}");
        }
    }
}

/// Makes a folder, with those above it, and makes the names of all safe on disk.
fn make_folder(folder: &Path) -> Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = folder.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(folder).map_err(Error::io("make the folder", shown(folder)))?;
    for parent in missing.iter().rev().filter_map(|folder| folder.parent()) {
        let here = parent.as_os_str().is_empty();
        files::sync_folder(if here { Path::new(".") } else { parent });
    }
    Ok(())
}

/// Removes a part with holes that a client left which was killed; `false` if one writes it.
fn remove_left(path: &Path) -> Result<bool> {
    match open_there(path)? {
        Some(file) if !lock(&file, path)? => Ok(false),
        Some(file) => remove(&file, path).map(|()| true),
        None => Ok(true),
    }
}

/// Removes `file`, if it still stands at `path`.
fn remove(file: &File, path: &Path) -> Result<()> {
    still_there(file, path)?;
    fs::remove_file(path).map_err(Error::io("remove the file", shown(path)))
}

/// Refuses a path at which another file stands than the one that is open: its bytes are not those
/// that were received and verified.
fn still_there(file: &File, path: &Path) -> Result<()> {
    if files::stands_at(file, path) {
        return Ok(());
    }
    Err(Error::refused(shown(path), "it was removed, or another file stands in its place"))
}

/// Locks the file that was opened at `path`; `false` if another client has it, or had it and has
/// renamed or removed it meanwhile.
fn lock(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(files::stands_at(file, path)),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(Error::io("lock the file", shown(path))(error)),
    }
}

/// Opens a regular file for reading and writing, making it where there is none; says whether it was
/// made. `None` if another client takes it away just now.
fn open(path: &Path) -> Result<Option<(File, bool)>> {
    let made = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    match made {
        Ok(file) => Ok(Some((file, true))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(open_there(path)?.map(|file| (file, false)))
        }
        Err(error) => Err(Error::io("make the file", shown(path))(error)),
    }
}

/// Opens the regular file at `path` that has no other name; `None` where there is none.
fn open_there(path: &Path) -> Result<Option<File>> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let seen = match fs::symlink_metadata(path) {
        Err(error) if gone(&error) => return Ok(None),
        seen => seen.map_err(Error::io("look at the file", shown(path)))?,
    };
    if !seen.is_file() {
        return Err(Error::refused(shown(path), "it is not a regular file of its own"));
    }
    // To write too, so that the system does not wait for another end of what became a pipe.
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if gone(&error) => return Ok(None),
        file => file.map_err(Error::io("open the file", shown(path)))?,
    };
    let opened = file.metadata().map_err(Error::io("look at the file", shown(path)))?;
    if has_other_names(&opened) {
        return Err(Error::refused(shown(path), "it has other names, so others may write it"));
    }
    // What was looked at and what was opened must be one thing, or a link was put in between.
    Ok(files::is_same(&seen, &opened).then_some(file))
}

#[cfg(unix)]
fn has_other_names(file: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(file) > 1
}

#[cfg(not(unix))]
fn has_other_names(_: &fs::Metadata) -> bool {
    false
}

/// Whether the part that was found at `path` belongs to us: another user could change it at any time.
/// What the system calls us depends on the file system, so it is compared with a file made beside.
#[cfg(unix)]
fn is_ours(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let probe = path.with_extension("owner");
    // Only a client that was killed here leaves one.
    let _ = fs::remove_file(&probe);
    let us = File::create_new(&probe).and_then(|probe| probe.metadata())?.uid();
    fs::remove_file(&probe)?;
    Ok(file.metadata()?.uid() == us)
}

#[cfg(not(unix))]
fn is_ours(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
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

fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}

#[cfg(test)]
mod tests;
