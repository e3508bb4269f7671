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
            replace: true,
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
        let copy = copy.publish(true).expect("free");
        assert!(copy.is_durable);
        assert_eq!(fs::read(copy.path).expect("there"), b"0123456789");
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
        assert_eq!(open().expect("the next number").resumed(), 0);
        fs::remove_file(folder.path().join(format!(".{}-2.part", Digest::of(b"x").short())))
            .expect("left by that one");
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

    /// Removes the only file in `folder` and puts another in its place; returns where.
    fn swap(folder: &Path) -> PathBuf {
        let mut files = fs::read_dir(folder).expect("there");
        let path = files.next().expect("a part").expect("readable").path();
        assert!(files.next().is_none());
        fs::remove_file(&path).expect("ours");
        fs::write(&path, b"another's").expect("room");
        path
    }

    #[cfg(unix)]
    #[test]
    fn part_replaced_while_locked_is_never_published() {
        type Act = fn(Part) -> Result<()>;
        let acts: [Act; 3] = [
            |part| part.publish(true).map(drop),
            |mut part| part.begin_holes(),
            |mut part| {
                part.begin_holes()?;
                part.publish(false).map(drop)
            },
        ];
        for act in acts {
            let folder = tempfile::tempdir().expect("folder");
            let copy = open_as(folder.path(), "f", false, ByteOrder::AfterBeginning);
            let copy = copy.expect("room");
            io::Write::write_all(&mut copy.file(), b"0123456789").expect("room");
            let path = swap(folder.path());
            let error = act(copy).expect_err("it is another's").to_string();
            assert!(error.contains("another file stands in its place"), "{error}");
            assert!(error.contains(&shown(&path)), "{error}");
            assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
            assert_eq!(fs::read(&path).expect("untouched"), b"another's");
        }
    }

    #[cfg(unix)]
    #[test]
    fn discard_removes_only_its_own_part() {
        let folder = tempfile::tempdir().expect("folder");
        part(folder.path(), "f", false).expect("room").discard();
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
        let copy = part(folder.path(), "f", false).expect("room");
        let path = swap(folder.path());
        copy.discard();
        assert_eq!(fs::read(&path).expect("untouched"), b"another's");
    }

    #[test]
    fn second_client_of_a_number_takes_the_next_free_one() {
        let folder = tempfile::tempdir().expect("folder");
        let count = || fs::read_dir(folder.path()).expect("there").count();
        // As many as stand in one folder, each in a process of its own.
        let held: Vec<_> =
            (0..25).map(|_| part(folder.path(), "f", false).expect("a free number")).collect();
        assert_eq!(count(), 25);
        for (n, copy) in (0_u8..).zip(&held) {
            io::Write::write_all(&mut copy.file(), &[n; 10]).expect("room");
        }
        for (n, copy) in (0_u8..).zip(held) {
            let copy = copy.publish(false).expect("its own");
            assert_eq!(fs::read(copy.path).expect("there"), [n; 10]);
        }
        assert_eq!(count(), 1);
        // One that has holes has its number too.
        let open = || open_as(folder.path(), "g", false, ByteOrder::AfterBeginning).expect("room");
        let mut first = open();
        first.begin_holes().expect("a free name");
        let mut second = open();
        second.begin_holes().expect("a free name");
        assert_eq!(count(), 3, "no empty part is left behind");
    }

    #[test]
    fn part_that_was_published_before_the_lock_is_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let copy = part(folder.path(), "f", false).expect("room");
        io::Write::write_all(&mut copy.file(), b"0123456789").expect("room");
        let path = copy.path.clone();
        let (late, is_new) = open(&path).expect("readable").expect("there");
        assert!(!is_new);
        assert!(!lock(&late, &path).expect("a lock"), "the first one writes it");
        let published = copy.publish(false).expect("free").path;
        assert!(!lock(&late, &path).expect("a lock"), "it is a copy now");
        assert_eq!(fs::read(published).expect("there"), b"0123456789");
    }

    #[cfg(unix)]
    #[test]
    fn part_with_another_name_or_owner_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(format!(".{}-1.part", Digest::of(b"x").short()));
        let victim = folder.path().join("victim");
        fs::write(&victim, b"01234").expect("room");
        fs::hard_link(&victim, &path).expect("one file system");
        for resume in [true, false] {
            let error = part(folder.path(), "f", resume).expect_err("linked").to_string();
            assert!(error.contains("other names"), "{error}");
        }
        assert_eq!(fs::read(&victim).expect("there"), b"01234");
        // Left by a client of ours.
        fs::remove_file(&victim).expect("ours");
        assert_eq!(part(folder.path(), "f", true).expect("our own").resumed(), 5);
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1, "nothing but the part");
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(1), None).is_ok() {
            let error = part(folder.path(), "f", true).expect_err("foreign").to_string();
            assert!(error.contains("another user"), "{error}");
            assert_eq!(fs::read(&path).expect("there"), b"01234");
        }
    }

    /// Not by a program: between fork and exec it would hold the locks of parts of other tests.
    #[cfg(unix)]
    fn make_fifo(path: &Path) {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    }

    #[cfg(unix)]
    #[test]
    fn fifo_in_place_of_part_blocks_nobody() {
        for end in ["part", "holes.part"] {
            let folder = tempfile::tempdir().expect("folder");
            let name = format!(".{}-1.{end}", Digest::of(b"x").short());
            make_fifo(&folder.path().join(name));
            let opened = open_as(folder.path(), "f", true, ByteOrder::AfterBeginning);
            let error = opened.expect_err("a pipe").to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn folder_link_and_fifo_are_not_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("folder")).expect("room");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("room");
        make_fifo(&folder.path().join("fifo"));
        for name in ["folder", "link", "fifo"] {
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
