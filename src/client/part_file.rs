//! What parts are made of: files in a folder that others may write too. Each is found or made without
//! following a link, locked, and compared with what stands at its path before it is used by that.

use std::{
    fs,
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use crate::{
    error::{Error, Result},
    net::files,
    text::escape_path,
};

/// Makes a folder, with those above it, and makes the names of all safe on disk.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
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
pub(super) fn remove_left(path: &Path) -> Result<bool> {
    match open_there(path)? {
        Some(file) if !lock(&file, path)? => Ok(false),
        Some(file) => remove(&file, path).map(|()| true),
        None => Ok(true),
    }
}

/// Removes `file`, if it still stands at `path`.
pub(super) fn remove(file: &File, path: &Path) -> Result<()> {
    still_there(file, path)?;
    fs::remove_file(path).map_err(Error::io("remove the file", shown(path)))
}

/// Refuses a path at which another file stands than the one that is open: its bytes are not those
/// that were received and verified.
pub(super) fn still_there(file: &File, path: &Path) -> Result<()> {
    if files::stands_at(file, path) {
        return Ok(());
    }
    Err(Error::refused(shown(path), "it was removed, or another file stands in its place"))
}

/// Locks the file that was opened at `path`; `false` if another client has it, or had it and has
/// renamed or removed it meanwhile.
pub(super) fn lock(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(files::stands_at(file, path)),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(Error::io("lock the file", shown(path))(error)),
    }
}

/// Opens a regular file for reading and writing, making it where there is none; says whether it was
/// made. `None` if another client takes it away just now.
pub(super) fn open(path: &Path) -> Result<Option<(File, bool)>> {
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
pub(super) fn is_ours(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let probe = path.with_extension("owner");
    // Only a client that was killed here leaves one.
    let _ = fs::remove_file(&probe);
    let us = File::create_new(&probe).and_then(|probe| probe.metadata())?.uid();
    fs::remove_file(&probe)?;
    Ok(file.metadata()?.uid() == us)
}

#[cfg(not(unix))]
pub(super) fn is_ours(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Lets go of the lock before the file is closed: a process that is started meanwhile has the file,
/// and with it the lock, until it runs its program.
pub(super) fn unlock(file: &File) {
    if let Err(error) = file.unlock() {
        log::debug!("a part stays locked until its file is closed: {error}");
    }
}

pub(super) fn shown(path: &Path) -> String {
    escape_path(path)
}
