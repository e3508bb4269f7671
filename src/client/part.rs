//! A file on its way: a `.part` beside its final name, which it takes only when it is whole,
//! verified and, where that was asked for, safe on disk.
//!
//! The part is named by the file's digest and the client, so that a later session finds it,
//! whatever its seat; while it may have holes it has another name. It is locked while it is
//! written, and opened so that a link put in its place is refused and not followed.

use std::{
    fs,
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::{
    digest::Digest,
    error::{Error, Result},
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
    /// The client's number in this process.
    pub client: u16,
    /// In which order the bytes come.
    pub order: ByteOrder,
    /// Go on with the part that an earlier session left.
    pub resume: bool,
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
    /// Its name while it has holes, where its bytes come in any order.
    holed: Option<PathBuf>,
    /// How many bytes of an earlier session it holds.
    resumed: u64,
}

impl Part {
    /// Opens a part, empty or, with `resume`, as it was left.
    ///
    /// # Errors
    /// The folder cannot be made or written, the target is something that a file must not
    /// replace, or another client is writing this part.
    pub fn open(spec: &PartSpec<'_>) -> Result<Self> {
        let (folder, short) = (spec.folder, spec.identity.short());
        let at = |end: &str| folder.join(format!(".{short}-{}.{end}", spec.client));
        let holed = (spec.order == ByteOrder::AfterBeginning).then(|| at("holes.part"));
        if let Some(holed) = &holed {
            remove_holed(holed)?;
        }
        let path = at(match spec.order {
            ByteOrder::Any => "pieces.part",
            ByteOrder::Sequential | ByteOrder::AfterBeginning => "part",
        });
        fs::create_dir_all(folder).map_err(Error::io("make the folder", shown(folder)))?;
        let target = folder.join(spec.name.as_str());
        replaceable(&target)?;
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(written_by_another(&path)),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => {
                return Err(Error::io("lock the file", shown(&path))(error));
            }
        }
        let held = file.metadata().map_err(Error::io("look at the file", shown(&path)))?.len();
        let resumed = if spec.resume && held <= spec.bytes { held } else { 0 };
        file.set_len(resumed).map_err(Error::io("empty the file", shown(&path)))?;
        Ok(Self { file, path, target, holed, resumed })
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
    pub fn set_name(&mut self, name: &FileName) -> Result<()> {
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
        self.file.sync_all().map_err(Error::io("make the copy durable", self.shown()))
    }

    /// Gives it its final name; `durable` makes the name safe on disk too. A file system that cannot
    /// do that (some network ones refuse to sync a folder) is worth a warning and no more: the copy is
    /// whole, verified and there, and to call it failed would be as wrong as the contrary.
    ///
    /// # Errors
    /// Something that a file must not replace has taken the name, or the system refuses.
    pub(super) fn publish(self, durable: bool) -> Result<PathBuf> {
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

/// Removes a part with holes that a client left which was killed.
fn remove_holed(path: &Path) -> Result<()> {
    let Ok(file) = File::open(path) else {
        return Ok(());
    };
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(written_by_another(path));
    }
    fs::remove_file(path).map_err(Error::io("remove what has holes", shown(path)))
}

fn written_by_another(path: &Path) -> Error {
    Error::refused(shown(path), "another client is writing it")
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
    let refused = || Error::refused(shown(path), "it is not a regular file of its own");
    let seen = fs::symlink_metadata(path).map_err(Error::io("look at the file", shown(path)))?;
    if !seen.is_file() {
        return Err(refused());
    }
    // What was looked at and what was opened must be one thing, or a link was put in between.
    let file = options.open(path).map_err(Error::io("open the file", shown(path)))?;
    let opened = file.metadata().map_err(Error::io("look at the file", shown(path)))?;
    if opened.is_file() && same(&seen, &opened) { Ok(file) } else { Err(refused()) }
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
        open_as(folder, name, resume, ByteOrder::Sequential)
    }

    fn open_as(folder: &Path, name: &str, resume: bool, order: ByteOrder) -> Result<Part> {
        Part::open(&PartSpec {
            folder,
            name: &FileName::new(name).expect("plain"),
            bytes: 10,
            identity: Digest::of(b"x"),
            client: 1,
            order,
            resume,
        })
    }

    #[test]
    fn final_name_appears_only_with_whole_file() {
        let folder = tempfile::tempdir().expect("folder");
        let out = folder.path().join("made/here");
        let copy = part(&out, "f", false).expect("room");
        io::Write::write_all(&mut copy.file(), b"0123456789").expect("room");
        assert!(!out.join("f").exists());
        copy.sync().expect("a disk");
        assert_eq!(fs::read(copy.publish(true).expect("free")).expect("there"), b"0123456789");
        assert_eq!(fs::read_dir(&out).expect("there").count(), 1, "nothing but the file is left");
    }

    #[test]
    fn earlier_part_is_resumed_only_when_asked_and_not_too_long() {
        let folder = tempfile::tempdir().expect("folder");
        let fill = |bytes: &[u8]| {
            let copy = part(folder.path(), "f", false).expect("room");
            io::Write::write_all(&mut copy.file(), bytes).expect("room");
        };
        fill(b"01234");
        assert_eq!(part(folder.path(), "f", true).expect("there").resumed(), 5);
        assert_eq!(part(folder.path(), "f", false).expect("there").resumed(), 0);
        assert_eq!(part(folder.path(), "f", true).expect("there").resumed(), 0, "it was emptied");
        fill(b"0123456789");
        assert_eq!(part(folder.path(), "f", true).expect("whole").resumed(), 10);
        fill(b"0123456789X");
        assert_eq!(part(folder.path(), "f", true).expect("too long").resumed(), 0);
    }

    #[test]
    fn two_clients_cannot_write_one_part() {
        let folder = tempfile::tempdir().expect("folder");
        let held = part(folder.path(), "f", false).expect("room");
        let error = part(folder.path(), "f", true).expect_err("held").to_string();
        assert!(error.contains("another client"), "{error}");
        drop(held);
        part(folder.path(), "f", true).expect("free again");
    }

    #[test]
    fn part_with_holes_is_not_resumed_before_they_are_filled() {
        let folder = tempfile::tempdir().expect("folder");
        let open = || open_as(folder.path(), "f", true, ByteOrder::AfterBeginning);
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
    fn folder_link_and_fifo_are_not_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("folder")).expect("room");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("room");
        let fifo = std::process::Command::new("mkfifo").arg(folder.path().join("fifo")).status();
        for name in
            ["folder", "link"].into_iter().chain(fifo.is_ok_and(|s| s.success()).then_some("fifo"))
        {
            let error = part(folder.path(), name, false).expect_err(name).to_string();
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
    fn link_in_place_of_part_is_not_followed() {
        let folder = tempfile::tempdir().expect("folder");
        let victim = folder.path().join("victim");
        fs::write(&victim, b"precious").expect("room");
        let path = folder.path().join(format!(".{}-1.part", Digest::of(b"x").short()));
        std::os::unix::fs::symlink(&victim, path).expect("room");
        assert!(part(folder.path(), "f", true).is_err());
        assert!(part(folder.path(), "f", false).is_err());
        assert_eq!(fs::read(&victim).expect("there"), b"precious");
    }
}
