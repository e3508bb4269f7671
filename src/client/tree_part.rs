//! A folder on its way: built beside its final name, which it takes in one step when all is proven.
//!
//! The part is `.NAME-<digest>.part/`, where another client in this folder has that,
//! `.NAME-<digest>-2.part/` and so on: a later session finds it. It is locked while it is written.
//! Every file and folder is made before the release, so that a name which this file system takes for
//! another, or a disk without room for so many, is known before anything is sent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    client::{
        messages::each_second,
        part::{NUMBER_MAX, PublishedCopy},
        part_file::{self, shown},
    },
    digest::{Digest, HASH_BUF, Hasher},
    error::{Error, Result},
    net::{files, lock, plain_file, storage::FileStorage},
    proto::manifest::{Attributes, FileEntry, Manifest},
    text::{FILE_NAME_MAX, FileName},
};

/// Which folder is received, and where to.
#[derive(Clone, Debug)]
pub struct TreeSpec<'a> {
    /// The folder for the copy.
    pub folder: &'a Path,
    /// The copy's final name.
    pub name: &'a FileName,
    /// What it is called at the server; with the digest it names the part, whatever the seat.
    pub offered: &'a FileName,
    /// What it will hold.
    pub manifest: Arc<Manifest>,
    /// The digest of the manifest's lines and then of all bytes.
    pub sha1: Digest,
    /// The client's number in this process, from which the part's number is counted.
    pub client: u16,
    /// Files that are right already are kept, or copied from a folder that has the final name.
    pub resume: bool,
    /// A folder that has the final name already may be replaced.
    pub replace: bool,
}

/// The folder that a copy is received into.
#[derive(Debug)]
pub struct TreePart {
    /// The open and locked folder, where the system opens folders.
    lock: Option<File>,
    root: PathBuf,
    /// Where its files are opened: here, and once it has its name, there.
    place: Arc<Mutex<PathBuf>>,
    target: PathBuf,
    manifest: Arc<Manifest>,
    /// Where its bytes go.
    pub(super) storage: FileStorage,
    replace: bool,
    /// Bytes of the files at the beginning that are right already.
    pub(super) resumed: u64,
    /// Bytes that the disk must still take.
    pub(super) missing: u64,
    /// What the user lets modes be (umask).
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix has modes"))]
    allowed: u32,
}

/// How many files of a part stay open.
const PART_OPEN_MAX: usize = 2;

/// Open files that each client of a folder needs: its connection, its part, the files of that, one
/// in use, and a pipe.
pub(super) const DESCRIPTORS: u64 = 8;

/// What a file takes of a disk at least, bytes: a block.
const BLOCK: u64 = 4096;

impl TreePart {
    /// Opens a part, empty or, to resume, with the files that are right already, and makes all files
    /// and folders in it. `progress` gets, about each second, up to which byte the files are made.
    ///
    /// # Errors
    /// The folder cannot be made or written, the target must not be replaced, this file system takes
    /// two names for one, or others write all parts.
    pub fn open(spec: &TreeSpec<'_>, progress: impl FnMut(u64) -> Result<()>) -> Result<Self> {
        part_file::make_folder(spec.folder)?;
        let target = spec.folder.join(spec.name.as_str());
        replaceable(&target, spec.replace)?;
        for number in spec.client..=NUMBER_MAX {
            let root = spec.folder.join(part_name(spec.offered, spec.sha1, number));
            let Some((lock, is_new)) = claim(&root)? else { continue };
            let mut part = Self::of(spec, lock, root, target)?;
            let Err(error) = part.make(spec, is_new, progress) else { return Ok(part) };
            if !spec.resume {
                part.discard();
            }
            return Err(error);
        }
        Err(Error::refused(shown(spec.folder), "other clients write all its parts"))
    }

    fn of(spec: &TreeSpec<'_>, held: Option<File>, root: PathBuf, target: PathBuf) -> Result<Self> {
        let manifest = Arc::clone(&spec.manifest);
        let place = Arc::new(Mutex::new(root.clone()));
        let (entries, at) = (Arc::clone(&manifest), Arc::clone(&place));
        let open = move |index: usize| {
            let none = || io::Error::from(ErrorKind::NotFound);
            let entry: &FileEntry = entries.files().get(index).ok_or_else(none)?;
            open_part_file(&lock(&at).join(&entry.path))
        };
        let storage = FileStorage::of_tree(Arc::clone(&manifest), PART_OPEN_MAX, Box::new(open));
        let there = fs::metadata(&root).map_err(Error::io("look at the folder", shown(&root)))?;
        let (allowed, replace) = (files::mode_of(&there), spec.replace);
        Ok(Self {
            lock: held,
            root,
            place,
            target,
            manifest,
            storage,
            replace,
            resumed: 0,
            missing: 0,
            allowed,
        })
    }

    /// Makes all folders and files, and keeps or copies those that are right.
    fn make(
        &mut self,
        spec: &TreeSpec<'_>,
        is_new: bool,
        progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if !is_new {
            self.clear(spec.resume)?;
        }
        for folder in self.manifest.folders() {
            let at = self.root.join(&folder.path);
            match fs::create_dir(&at) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && !is_new => {}
                made => made.map_err(|error| not_made(error, "make the folder", &at))?,
            }
        }
        let (mut tell, mut is_beginning) = (each_second(progress), true);
        for entry in self.manifest.files() {
            let at = self.root.join(&entry.path);
            let mut is_right = spec.resume && is_right_at(&at, entry, None, &mut tell)?;
            if !is_right {
                if spec.resume && fs::symlink_metadata(&at).is_ok() {
                    fs::remove_file(&at).map_err(Error::io("remove the file", shown(&at)))?;
                }
                let made = OpenOptions::new().write(true).create_new(true).open(&at);
                let file = made.map_err(|error| not_made(error, "make the file", &at))?;
                let old = self.target.join(&entry.path);
                is_right = entry.bytes == 0
                    || spec.resume && is_right_at(&old, entry, Some(&file), &mut tell)?;
                if !is_right {
                    // It may hold the beginning of another one.
                    if spec.resume {
                        file.set_len(0).map_err(Error::io("empty the file", shown(&at)))?;
                    }
                    let room = entry.bytes.next_multiple_of(BLOCK);
                    self.missing = self.missing.saturating_add(room);
                }
            }
            is_beginning &= is_right;
            if is_beginning {
                self.resumed = entry.at + entry.bytes;
            }
            tell(entry.at + entry.bytes)?;
        }
        Ok(())
    }

    /// Removes what an earlier session left: all, or, to resume, what the manifest does not have there.
    fn clear(&self, resume: bool) -> Result<()> {
        let mut left = vec![self.root.clone()];
        while let Some(folder) = left.pop() {
            let failed = || Error::io("empty the folder", shown(&folder));
            for entry in fs::read_dir(&folder).map_err(failed())? {
                let at = entry.map_err(failed())?.path();
                let kind = fs::symlink_metadata(&at).map_err(failed())?;
                let path = at.strip_prefix(&self.root).ok().and_then(Path::to_str);
                // Elsewhere separators are others, and then nothing is kept.
                let path = path.filter(|_| resume).unwrap_or_default();
                if kind.is_dir() && self.manifest.has_folder(path) {
                    left.push(at);
                } else if kind.is_dir() {
                    fs::remove_dir_all(&at).map_err(failed())?;
                } else if !kind.is_file() || !self.manifest.has_file(path) {
                    fs::remove_file(&at).map_err(failed())?;
                }
            }
        }
        Ok(())
    }

    /// Where it is, for messages.
    pub(super) fn shown(&self) -> String {
        shown(&self.root)
    }

    /// Gives every file and folder its mode and time.
    ///
    /// # Errors
    /// A file has another length, or the system refuses.
    pub(super) fn finish(&self) -> Result<()> {
        for entry in self.manifest.files() {
            let at = self.root.join(&entry.path);
            let failed = || Error::io("set the time of the file", shown(&at));
            let file = open_part_file(&at).map_err(failed())?;
            if file.metadata().map_err(failed())?.len() != entry.bytes {
                let what = format!("{} was changed by another program", shown(&at));
                return Err(Error::Corrupt { what });
            }
            self.set_attributes(&file, entry.attributes, 0).map_err(failed())?;
        }
        // Those that lie deeper come first: what is made in a folder changes its time.
        for folder in self.manifest.folders().iter().rev().filter(|_| cfg!(unix)) {
            let at = self.root.join(&folder.path);
            // Its owner must be able to remove what is in it.
            let open =
                File::open(&at).and_then(|at| self.set_attributes(&at, folder.attributes, 0o700));
            open.map_err(Error::io("set the time of the folder", shown(&at)))?;
        }
        Ok(())
    }

    fn set_attributes(&self, file: &File, attributes: Attributes, least: u32) -> io::Result<()> {
        let since = Duration::from_nanos(attributes.modified_ns.unsigned_abs());
        let at = if attributes.modified_ns < 0 {
            UNIX_EPOCH.checked_sub(since)
        } else {
            UNIX_EPOCH.checked_add(since)
        };
        file.set_modified(at.unwrap_or(SystemTime::UNIX_EPOCH))?;
        #[cfg(not(unix))]
        let _ = least;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = attributes.mode & self.allowed | least;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Makes it safe on disk: its bytes and names are there when this returns.
    ///
    /// # Errors
    /// The disk failed, so the copy is not good.
    pub(super) fn sync(&self) -> Result<()> {
        let failed = || Error::io("make the copy durable", self.shown());
        if let Some(lock) = &self.lock
            && files::sync_file_system(lock).map_err(failed())?
        {
            return Ok(());
        }
        for entry in self.manifest.files() {
            // Windows syncs no file that is open for reading only.
            let file = open_part_file(&self.root.join(&entry.path));
            file.and_then(|file| file.sync_all()).map_err(failed())?;
        }
        for folder in self.manifest.folders() {
            files::sync_folder(&self.root.join(&folder.path));
        }
        files::sync_folder(&self.root);
        Ok(())
    }

    /// Gives it its final name. A folder of that name is exchanged, and then removed.
    ///
    /// # Errors
    /// Something that it must not replace has taken the name, another folder stands in the place of
    /// the part, or the system refuses.
    pub(super) fn publish(mut self, durable: bool) -> Result<PublishedCopy> {
        let is_taken = replaceable(&self.target, self.replace)?;
        self.still_there()?;
        let failed = || Error::io("rename the copy", shown(&self.target));
        if !is_taken {
            fs::rename(&self.root, &self.target).map_err(failed())?;
        } else if files::exchange(&self.root, &self.target).map_err(failed())? {
            remove_old(&self.root);
        } else {
            let old = self.root.with_extension("old");
            if fs::symlink_metadata(&old).is_ok() {
                remove_old(&old);
            }
            fs::rename(&self.target, &old).map_err(failed())?;
            if let Err(error) = fs::rename(&self.root, &self.target) {
                fs::rename(&old, &self.target).map_err(failed())?;
                return Err(failed()(error));
            }
            remove_old(&old);
        }
        lock(&self.place).clone_from(&self.target);
        let is_durable = durable && self.target.parent().is_some_and(files::sync_folder);
        Ok(PublishedCopy { path: mem::take(&mut self.target), is_durable })
    }

    /// Removes it: its bytes are not those of the folder.
    pub(super) fn discard(self) {
        if self.still_there().is_ok() {
            remove_old(&self.root);
        }
    }

    fn still_there(&self) -> Result<()> {
        match &self.lock {
            Some(lock) => part_file::still_there(lock, &self.root),
            None => Ok(()),
        }
    }
}

impl Drop for TreePart {
    fn drop(&mut self) {
        self.lock.iter().for_each(part_file::unlock);
    }
}

/// The name of part `number`: cut where the copy's own is so long that nothing fits behind it.
fn part_name(name: &FileName, sha1: Digest, number: u16) -> String {
    let number = if number == 1 { String::new() } else { format!("-{number}") };
    let end = format!("-{}{number}.part", sha1.short());
    let name = name.as_str();
    format!(".{}{end}", &name[..name.floor_char_boundary(FILE_NAME_MAX - 1 - end.len())])
}

/// Makes or takes the folder at `root` and locks it; says whether it was made. `None` if another client
/// has it.
fn claim(root: &Path) -> Result<Option<(Option<File>, bool)>> {
    let failed = || Error::io("make the folder", shown(root));
    let is_new = match fs::create_dir(root) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        made => made.map(|()| true).map_err(failed())?,
    };
    if !fs::symlink_metadata(root).map_err(failed())?.is_dir() {
        return Err(Error::refused(shown(root), "it is not a folder of its own"));
    }
    if !cfg!(unix) {
        return Ok(Some((None, is_new)));
    }
    let lock = File::open(root).map_err(failed())?;
    if !part_file::lock(&lock, root)? {
        return Ok(None);
    }
    if !is_new && !part_file::is_ours(&lock, root).map_err(failed())? {
        return Err(Error::refused(shown(root), "it belongs to another user"));
    }
    Ok(Some((Some(lock), is_new)))
}

/// Whether something has the final name; refuses what must not be replaced.
fn replaceable(target: &Path, replace: bool) -> Result<bool> {
    let there = match fs::symlink_metadata(target) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        there => there.map_err(Error::io("look at the target", shown(target)))?,
    };
    if there.is_dir() && replace {
        return Ok(true);
    }
    let what = if there.is_dir() {
        "a folder of that name is there, and only --overwrite replaces it"
    } else {
        "something of that name that is not a folder is in the way"
    };
    Err(Error::refused(shown(target), what))
}

fn not_made(error: io::Error, doing: &'static str, at: &Path) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => {
            Error::refused(shown(at), "the file system here takes this name for another one's")
        }
        _ => Error::io(doing, shown(at))(error),
    }
}

/// Whether the file at `path` is what the manifest says; it is copied into `copy` on the way.
/// `tell` gets how far it was read.
fn is_right_at(
    path: &Path,
    entry: &FileEntry,
    mut copy: Option<&File>,
    tell: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<bool> {
    let Ok(Some(mut file)) = plain_file::open(path) else { return Ok(false) };
    if file.metadata().map_or(0, |file| file.len()) != entry.bytes {
        return Ok(false);
    }
    let (mut hasher, mut buffer, mut done) = (Hasher::default(), vec![0; HASH_BUF], 0);
    while done < entry.bytes {
        let Ok(len @ 1..) = file.read(&mut buffer) else { return Ok(false) };
        hasher.update(&buffer[..len]);
        if let Some(copy) = &mut copy {
            copy.write_all(&buffer[..len]).map_err(Error::io("copy the file", shown(path)))?;
        }
        done += len as u64;
        tell(entry.at + done)?;
    }
    Ok(hasher.finish() == entry.sha1)
}

/// Opens a file of a part; one that is finished may be for reading only.
fn open_part_file(path: &Path) -> io::Result<File> {
    plain_file::open_to_write(path).or_else(|error| match error.kind() {
        ErrorKind::PermissionDenied => File::open(path),
        _ => Err(error),
    })
}

/// Removes what nobody needs any more; what is left of it is worth a warning.
fn remove_old(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        log::warn!("cannot remove {}: {error}", shown(folder));
    }
}

#[cfg(test)]
mod tests;
