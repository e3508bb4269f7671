//! A file on its way: a `.part` beside its final name, which it takes only when it is whole,
//! verified and, where that was asked for, safe on disk.
//!
//! The part is named by the file's digest and the client, so that a later session finds it,
//! whatever its seat; while it may have holes it has another name. It is locked while it is written, and opened so that a link put in its place
//! is refused and not followed.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::text::FileName;
use crate::text::escape;

/// A copy that is being received.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// Its name while it has holes, where its bytes come in any order.
    holed: Option<PathBuf>,
    /// How many bytes of an earlier session it holds.
    resumed: u64,
}

impl Part {
    /// Opens the part of `client` for `name` in `folder`, empty or, with `resume`, as it was left.
    ///
    /// # Errors
    /// The folder cannot be made or written, the target is something that a file must not
    /// replace, or another client is writing this part.
    pub fn open(
        folder: &Path,
        name: &FileName,
        size: u64,
        sha1: Digest,
        client: u16,
        resume: bool,
    ) -> Result<Self> {
        let part = format!(".{}-{client}.part", sha1.short());
        Self::open_as(folder, name, size, &part, resume)
    }

    /// The same for bytes that follow a beginning of the file in any order: while they come the part
    /// has another name ([`Part::begin_holes`]), so that what a client leaves that was killed is
    /// not taken for a beginning. Such a one is removed.
    ///
    /// # Errors
    /// As [`Part::open`].
    pub fn open_holed(
        folder: &Path,
        name: &FileName,
        size: u64,
        sha1: Digest,
        client: u16,
        resume: bool,
    ) -> Result<Self> {
        let holed = folder.join(format!(".{}-{client}.holes.part", sha1.short()));
        if let Ok(file) = File::open(&holed) {
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Err(Error::refused(
                    shown(&holed),
                    "another client is writing it",
                ));
            }
            fs::remove_file(&holed).map_err(Error::io("remove what has holes", shown(&holed)))?;
        }
        let part = Self::open(folder, name, size, sha1, client, resume)?;
        Ok(Self {
            holed: Some(holed),
            ..part
        })
    }

    /// The same for bytes that come in any order: [`Part::resumed`] says nothing of where they
    /// are, and no way that goes on from a beginning must find it.
    ///
    /// # Errors
    /// As [`Part::open`].
    pub fn open_scattered(
        folder: &Path,
        name: &FileName,
        size: u64,
        sha1: Digest,
        client: u16,
        resume: bool,
    ) -> Result<Self> {
        let part = format!(".{}-{client}.pieces.part", sha1.short());
        Self::open_as(folder, name, size, &part, resume)
    }

    fn open_as(
        folder: &Path,
        name: &FileName,
        size: u64,
        part: &str,
        resume: bool,
    ) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("make the folder", shown(folder)))?;
        let target = folder.join(name.as_str());
        replaceable(&target)?;
        let path = folder.join(part);
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::refused(shown(&path), "another client is writing it"));
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => {
                return Err(Error::io("lock the file", shown(&path))(error));
            }
        }
        let held = file
            .metadata()
            .map_err(Error::io("look at the file", shown(&path)))?
            .len();
        let resumed = if resume && held <= size { held } else { 0 };
        file.set_len(resumed)
            .map_err(Error::io("empty the file", shown(&path)))?;
        Ok(Self {
            file,
            path,
            target,
            holed: None,
            resumed,
        })
    }

    /// From now on it may have holes.
    ///
    /// # Errors
    /// The system refuses to rename it.
    pub fn begin_holes(&mut self) -> Result<()> {
        if let Some(holed) = &mut self.holed {
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
    pub fn rename_to(&mut self, name: &FileName) -> Result<()> {
        let target = self.target.with_file_name(name.as_str());
        replaceable(&target)?;
        self.target = target;
        Ok(())
    }

    /// Makes it safe on disk: its bytes are there when this returns.
    ///
    /// # Errors
    /// The disk failed. Syncing again would not tell the truth (the kernel forgets the failure),
    /// so the copy is not good.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(Error::io("make the copy durable", self.shown()))
    }

    /// Gives it its final name; `durable` makes the name safe on disk too. A file system that cannot
    /// do that (some network ones refuse to sync a folder) is worth a warning and no more: the copy is
    /// whole, verified and there, and to call it failed would be as wrong as the contrary.
    ///
    /// # Errors
    /// Something that a file must not replace has taken the name, or the system refuses.
    pub fn publish(self, durable: bool) -> Result<PathBuf> {
        replaceable(&self.target)?;
        fs::rename(&self.path, &self.target)
            .map_err(Error::io("rename the copy", shown(&self.target)))?;
        if durable
            && let Some(folder) = self.target.parent().filter(|_| cfg!(unix))
            && let Err(error) = File::open(folder).and_then(|folder| folder.sync_all())
        {
            log::warn!("cannot make the name durable ({}): {error}", shown(folder));
        }
        Ok(self.target)
    }

    /// Removes it: its bytes are not the file's.
    pub fn discard(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.shown());
        }
    }
}

/// Opens a regular file for reading and writing, making it where there is none.
fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().create_new(true).open(path) {
        Ok(file) => return Ok(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("make the file", shown(path))(error)),
    }
    let refused = || Error::refused(shown(path), "it is no regular file of its own");
    let seen = fs::symlink_metadata(path).map_err(Error::io("look at the file", shown(path)))?;
    if !seen.is_file() {
        return Err(refused());
    }
    // What was looked at and what was opened must be one thing, or a link was put in between.
    let file = options
        .open(path)
        .map_err(Error::io("open the file", shown(path)))?;
    let opened = file
        .metadata()
        .map_err(Error::io("look at the file", shown(path)))?;
    match opened.is_file() && same(&seen, &opened) {
        true => Ok(file),
        false => Err(refused()),
    }
}

/// Refuses a name that a file must not replace.
fn replaceable(target: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look at the target", shown(target))(error)),
        Ok(metadata) => metadata.file_type(),
    };
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a folder of that name is in the way",
        () if kind.is_symlink() => "a symbolic link of that name is in the way",
        () => "something of that name that is no regular file is in the way",
    };
    Err(Error::refused(shown(target), what))
}

#[cfg(unix)]
fn same(one: &fs::Metadata, two: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (two.dev(), two.ino())
}

#[cfg(not(unix))]
fn same(one: &fs::Metadata, two: &fs::Metadata) -> bool {
    one.len() == two.len()
}

fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(folder: &Path, name: &str, resume: bool) -> Result<Part> {
        Part::open(
            folder,
            &FileName::new(name).expect("plain"),
            10,
            Digest::of(b"x"),
            1,
            resume,
        )
    }

    #[test]
    fn the_final_name_appears_only_with_the_whole_file() {
        let folder = tempfile::tempdir().expect("folder");
        let out = folder.path().join("made/here");
        let copy = part(&out, "f", false).expect("room");
        io::Write::write_all(&mut copy.file(), b"0123456789").expect("room");
        assert!(!out.join("f").exists());
        copy.sync().expect("a disk");
        assert_eq!(
            fs::read(copy.publish(true).expect("free")).expect("there"),
            b"0123456789"
        );
        assert_eq!(
            fs::read_dir(&out).expect("there").count(),
            1,
            "nothing but the file is left"
        );
    }

    #[test]
    fn an_earlier_part_is_taken_up_only_when_asked_and_never_when_too_long() {
        let folder = tempfile::tempdir().expect("folder");
        let fill = |bytes: &[u8]| {
            let copy = part(folder.path(), "f", false).expect("room");
            io::Write::write_all(&mut copy.file(), bytes).expect("room");
        };
        fill(b"01234");
        assert_eq!(part(folder.path(), "f", true).expect("there").resumed(), 5);
        assert_eq!(part(folder.path(), "f", false).expect("there").resumed(), 0);
        assert_eq!(
            part(folder.path(), "f", true).expect("there").resumed(),
            0,
            "it was emptied"
        );
        fill(b"0123456789");
        assert_eq!(part(folder.path(), "f", true).expect("whole").resumed(), 10);
        fill(b"0123456789X");
        assert_eq!(
            part(folder.path(), "f", true).expect("too long").resumed(),
            0
        );
    }

    #[test]
    fn two_clients_do_not_write_one_part() {
        let folder = tempfile::tempdir().expect("folder");
        let held = part(folder.path(), "f", false).expect("room");
        let error = part(folder.path(), "f", true)
            .expect_err("held")
            .to_string();
        assert!(error.contains("another client"), "{error}");
        drop(held);
        part(folder.path(), "f", true).expect("free again");
    }

    #[test]
    fn what_may_have_holes_is_taken_up_only_once_it_has_none() {
        let folder = tempfile::tempdir().expect("folder");
        let open = || {
            let name = FileName::new("f").expect("plain");
            Part::open_holed(folder.path(), &name, 10, Digest::of(b"x"), 1, true)
        };
        let left = || part(folder.path(), "f", true).map(|part| part.resumed());
        let copy = open().expect("room");
        io::Write::write_all(&mut copy.file(), b"012").expect("room");
        drop(copy);
        let mut copy = {
            assert_eq!(open().expect("there").resumed(), 3);
            open().expect("there")
        };
        copy.begin_holes().expect("a free name");
        io::Write::write_all(&mut copy.file(), b"012____7").expect("room");
        let error = open().expect_err("held").to_string();
        assert!(error.contains("another client"), "{error}");
        // Killed here.
        drop(copy);
        assert_eq!(left().expect("room"), 0);
        let mut copy = open().expect("room");
        assert_eq!(copy.resumed(), 0);
        copy.begin_holes().expect("a free name");
        io::Write::write_all(&mut copy.file(), b"01234_6").expect("room");
        copy.file().set_len(5).expect("cut");
        copy.end_holes();
        drop(copy);
        assert_eq!(left().expect("there"), 5);
        assert_eq!(open().expect("there").resumed(), 5);
        let mut copy = open().expect("there");
        copy.begin_holes().expect("a free name");
        copy.publish(false).expect("free");
        let names: Vec<_> = fs::read_dir(folder.path()).expect("there").collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_a_link_and_a_fifo_are_not_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("folder")).expect("room");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("room");
        let fifo = std::process::Command::new("mkfifo")
            .arg(folder.path().join("fifo"))
            .status();
        for name in ["folder", "link"]
            .into_iter()
            .chain(fifo.is_ok_and(|s| s.success()).then_some("fifo"))
        {
            let error = part(folder.path(), name, false)
                .expect_err(name)
                .to_string();
            assert!(error.contains("in the way"), "{error}");
        }
        fs::write(folder.path().join("file"), b"old").expect("room");
        part(folder.path(), "file", false)
            .expect("an old file is replaced")
            .publish(false)
            .expect("free");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_place_of_a_part_is_not_followed() {
        let folder = tempfile::tempdir().expect("folder");
        let victim = folder.path().join("victim");
        fs::write(&victim, b"precious").expect("room");
        let path = folder
            .path()
            .join(format!(".{}-1.part", Digest::of(b"x").short()));
        std::os::unix::fs::symlink(&victim, path).expect("room");
        assert!(part(folder.path(), "f", true).is_err());
        assert!(part(folder.path(), "f", false).is_err());
        assert_eq!(fs::read(&victim).expect("there"), b"precious");
    }
}
