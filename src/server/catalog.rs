//! The files that a server offers: by name, one path component each, and nothing else reachable.
//!
//! A file's digest is computed once, however many ask for it at once, and kept for as long as device,
//! inode, size and modification time stay the same. What a session sends from is a [`Source`]: the
//! file opened once for all that send it, each at positions of its own, and which can tell whether
//! it is still what was offered. A link or a pipe in the place of an offered file is refused.

use std::{
    collections::BTreeMap,
    fs,
    fs::{File, Metadata},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    digest::{Digest, HASH_BUF, Hasher},
    error::{Error, Result},
    net::{copy, lock, plain_file},
    proto::native::FILES_MAX,
    session::FileInfo,
    text::{FileName, choice, escape},
};

/// The offered files, by name.
#[derive(Debug, Default)]
pub struct Catalog {
    files: BTreeMap<FileName, Offered>,
}

/// An offered file.
#[derive(Debug)]
struct Offered {
    /// Without links: those in the path that the user gave were followed when it was offered.
    path: PathBuf,
    /// Held while the digest is computed, so that all who ask wait for one computation.
    known: Mutex<Option<Known>>,
}

/// What is known of an offered file as it last was.
#[derive(Debug)]
struct Known {
    identity: Identity,
    sha1: Digest,
    /// Open for as long as anybody sends it: a slow reader costs no descriptor of its own.
    file: Weak<File>,
}

/// A file opened to be sent.
#[derive(Debug)]
pub struct Source {
    /// What is sent.
    pub info: FileInfo,
    /// Open for reading; its own offset is never used.
    pub file: Arc<File>,
    path: PathBuf,
    identity: Identity,
}

/// Told how far a digest has come: the file, its size and the bytes done.
pub type HashProgress<'a> = &'a (dyn Fn(&FileName, u64, u64) + Sync);

/// What must stay the same for a file to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    bytes: u64,
    modified_ns: i128,
    node: (u64, u64),
}

impl Catalog {
    /// Offers each of `paths`: a file by its own name, a folder by the names of the regular files
    /// in it, without its subfolders and without hidden files.
    ///
    /// # Errors
    /// A path that is not there or is neither, a name that is refused, two files of one name.
    pub fn offer<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut catalog = Self::default();
        for path in paths {
            let path = path.as_ref();
            let metadata = fs::metadata(path).map_err(Error::io("offer", path.display()))?;
            if !metadata.is_dir() {
                catalog.add(path, &metadata)?;
                continue;
            }
            let entries =
                fs::read_dir(path).map_err(Error::io("list the folder", path.display()))?;
            let mut subfolder = None;
            for entry in entries {
                let entry = entry.map_err(Error::io("list the folder", path.display()))?;
                // A link in a folder may lead anywhere; whoever wants its target names it.
                let kind = entry.file_type().map_err(Error::io("offer", entry.path().display()))?;
                let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                if kind.is_file() && !is_hidden {
                    let metadata =
                        entry.metadata().map_err(Error::io("offer", entry.path().display()))?;
                    catalog.add(&entry.path(), &metadata)?;
                }
                if kind.is_dir() && !is_hidden && subfolder.is_none() {
                    subfolder = Some(entry.path());
                }
            }
            if let Some(folder) = subfolder.filter(|_| !catalog.files.is_empty()) {
                let (of, at) = (path.display().to_string(), folder.display().to_string());
                let (of, at) = (escape(&of), escape(&at));
                log::warn!(
                    "'{of}' is offered without its subfolders; name '{at}' to offer its files"
                );
            }
        }
        Ok(catalog)
    }

    fn add(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        if !metadata.is_file() {
            return Err(Error::refused(path.display(), "it is not a regular file"));
        }
        let real = fs::canonicalize(path).map_err(Error::io("offer", path.display()))?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Error::refused(path.display(), "its name is not UTF-8"))?;
        let name = FileName::new(name).map_err(|error| {
            Error::refused(escape(&path.display().to_string()), error.to_string())
        })?;
        if self.files.len() == FILES_MAX {
            return Err(Error::refused(path.display(), format!("more than {FILES_MAX} files")));
        }
        let offered = Offered { path: real, known: Mutex::default() };
        if let Some(other) = self.files.insert(name, offered) {
            let (one, two) =
                (escape(&other.path.display().to_string()), escape(&path.display().to_string()));
            return Err(Error::Usage {
                what: format!("{one} and {two} have the same name; rename one"),
            });
        }
        Ok(())
    }

    /// The offered names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &FileName> {
        self.files.keys()
    }

    /// The only file, where there is just one.
    pub fn only(&self) -> Option<&FileName> {
        self.names().next().filter(|_| self.files.len() == 1)
    }

    /// Opens `name` for a session, computing its digest unless it is known.
    ///
    /// # Errors
    /// The name is not offered, or its file cannot be read or changes while it is.
    pub fn open(&self, name: &FileName, progress: HashProgress<'_>) -> Result<Source> {
        let unknown = || {
            let names = choice(self.names());
            let reason = format!("the file '{name}' is not offered here; name one of {names}");
            Error::refused("the server", reason)
        };
        let Offered { path, known } = self.files.get(name).ok_or_else(unknown)?;
        let mut known = lock(known);
        let (identity, file) = open(path, known.as_ref())?;
        let sha1 = match known.as_ref().filter(|known| known.identity == identity) {
            Some(known) => known.sha1,
            None => {
                let done = AtomicU64::new(0);
                let tell = |bytes| {
                    progress(name, identity.bytes, done.fetch_add(bytes, Ordering::Relaxed) + bytes)
                };
                let at = escape(&path.display().to_string());
                digest_of(&file, identity.bytes, tell).map_err(|stop| changed_or_io(stop, &at))?
            }
        };
        *known = Some(Known { identity, sha1, file: Arc::downgrade(&file) });
        drop(known);
        let info = FileInfo { name: name.clone(), bytes: identity.bytes, sha1 };
        let source = Source { info, file, path: path.clone(), identity };
        source.unchanged()?;
        Ok(source)
    }
}

/// Opens the regular file at `path`, or shares it where it is open and still the `known` one.
fn open(path: &Path, known: Option<&Known>) -> Result<(Identity, Arc<File>)> {
    let at = || escape(&path.display().to_string());
    // What is there now: the known file may have been replaced by another.
    let there = fs::symlink_metadata(path).map_err(Error::io("open the file", at()))?;
    let identity = Identity::of(&there);
    let shared = known.filter(|known| known.identity == identity).and_then(|k| k.file.upgrade());
    if let Some(file) = shared.filter(|_| there.is_file()) {
        return Ok((identity, file));
    }
    if let Some(file) = plain_file::open(path).map_err(Error::io("open the file", at()))? {
        let metadata = file.metadata().map_err(Error::io("look at the file", at()))?;
        return Ok((Identity::of(&metadata), Arc::new(file)));
    }
    Err(Error::refused(at(), "it is not a regular file"))
}

impl Source {
    /// Checks that the file is still the one that was offered.
    ///
    /// A file that was replaced by another of its name is: what was opened is still whole.
    ///
    /// # Errors
    /// [`Error::SourceChanged`], with what changed.
    pub fn unchanged(&self) -> Result<()> {
        let at = escape(&self.path.display().to_string());
        let metadata = self.file.metadata().map_err(Error::io("look at the file", &at))?;
        let now = Identity::of(&metadata);
        let what = match now.bytes.cmp(&self.identity.bytes) {
            std::cmp::Ordering::Less => {
                format!("truncated from {} to {} bytes", self.identity.bytes, now.bytes)
            }
            std::cmp::Ordering::Greater => {
                format!("grown from {} to {} bytes", self.identity.bytes, now.bytes)
            }
            std::cmp::Ordering::Equal if now.modified_ns != self.identity.modified_ns => {
                "written to".to_owned()
            }
            std::cmp::Ordering::Equal => return Ok(()),
        };
        Err(Error::SourceChanged { at, what: format!("the source changed: {what}") })
    }

    /// What has changed, as the reason of a row or a message; clients need not know the path.
    pub fn change(&self) -> Option<String> {
        match self.unchanged() {
            Ok(()) => None,
            Err(Error::SourceChanged { what, .. }) => Some(what),
            Err(other) => Some(other.to_string()),
        }
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Self {
                bytes: metadata.len(),
                modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
                    + i128::from(metadata.mtime_nsec()),
                node: (metadata.dev(), metadata.ino()),
            }
        }
        #[cfg(not(unix))]
        {
            let since = metadata
                .modified()
                .ok()
                .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let modified_ns =
                since.and_then(|since| i128::try_from(since.as_nanos()).ok()).unwrap_or(0);
            Self { bytes: metadata.len(), modified_ns, node: (0, 0) }
        }
    }
}

/// The digest of the first `bytes` of `file`, read at positions, so that several threads may use
/// one open file; `tell` is told after each stretch how many bytes it had.
///
/// # Errors
/// [`copy::Stop::Short`] when the file ends before, [`copy::Stop::Disk`] when it cannot be read.
pub fn digest_of(file: &File, bytes: u64, mut tell: impl FnMut(u64)) -> Result<Digest, copy::Stop> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; HASH_BUF];
    let mut at = 0;
    while at < bytes {
        let want = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = copy::read_at(file, &mut buffer[..want], at)?;
        hasher.update(&buffer[..read]);
        at += read as u64;
        tell(read as u64);
    }
    Ok(hasher.finish())
}

fn changed_or_io(stop: copy::Stop, at: &str) -> Error {
    match stop {
        copy::Stop::Disk(error) => Error::io("read the file", at)(error),
        _ => Error::SourceChanged {
            at: at.to_owned(),
            what: "the source changed: truncated while its digest was computed".to_owned(),
        },
    }
}

/// Progress that nobody looks at.
pub fn silent(_: &FileName, _: u64, _: u64) {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn name(text: &str) -> FileName {
        FileName::new(text).expect("plain")
    }

    #[test]
    fn a_folder_offers_its_files_and_not_what_lies_beyond() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("a.bin"), b"abc").expect("room");
        fs::write(folder.path().join(".hidden"), b"x").expect("room");
        fs::create_dir(folder.path().join("sub")).expect("room");
        fs::write(folder.path().join("sub/b.bin"), b"x").expect("room");
        #[cfg(unix)]
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("room");
        let catalog = Catalog::offer([folder.path()]).expect("readable");
        assert_eq!(catalog.names().collect::<Vec<_>>(), [&name("a.bin")]);
        assert_eq!(catalog.only(), Some(&name("a.bin")));
        let source = catalog.open(&name("a.bin"), &silent).expect("offered");
        assert_eq!(source.info.sha1, Digest::of(b"abc"));
        assert_eq!(source.info.bytes, 3);
        for outside in ["b.bin", "sub", "link", ".hidden"] {
            let error = catalog.open(&name(outside), &silent).expect_err(outside).to_string();
            assert!(error.contains("not offered"), "{error}");
        }
    }

    #[test]
    fn two_files_of_one_name_and_a_missing_path_are_errors() {
        let (one, two) =
            (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        for folder in [&one, &two] {
            fs::write(folder.path().join("same"), b"x").expect("room");
        }
        let error = Catalog::offer([one.path(), two.path()]).expect_err("same name").to_string();
        assert!(error.contains("same name"), "{error}");
        assert!(Catalog::offer([one.path().join("missing")]).is_err());
    }

    #[test]
    fn a_changed_source_is_noticed_and_a_replaced_one_goes_on() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("f");
        fs::write(&path, vec![1; 100_000]).expect("room");
        let catalog = Catalog::offer([&path]).expect("there");
        let source = catalog.open(&name("f"), &silent).expect("there");
        source.unchanged().expect("untouched");

        let mut file = File::options().append(true).open(&path).expect("there");
        file.write_all(b"more").expect("room");
        assert!(source.unchanged().expect_err("grown").to_string().contains("grown"));
        file.set_len(5).expect("room");
        assert!(source.unchanged().expect_err("short").to_string().contains("truncated"));

        let again = catalog.open(&name("f"), &silent).expect("there");
        assert_eq!(
            again.info.sha1,
            Digest::of(&[1; 5]),
            "the digest is that of the file as it is now"
        );
        fs::write(folder.path().join("new"), b"other").expect("room");
        fs::rename(folder.path().join("new"), &path).expect("room");
        again.unchanged().expect("the open file is still whole");
    }

    #[cfg(unix)]
    #[test]
    fn a_fifo_in_the_place_of_a_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("f");
        fs::write(&path, b"abc").expect("room");
        let catalog = Catalog::offer([&path]).expect("there");
        fs::remove_file(&path).expect("there");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let error = catalog.open(&name("f"), &silent).expect_err("a FIFO");
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn link_in_place_of_an_offered_file_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let (inside, secret) = (folder.path().join("pub"), folder.path().join("secret"));
        fs::create_dir(&inside).expect("room");
        fs::write(&secret, b"secret").expect("room");
        let (named, member) = (folder.path().join("f"), inside.join("g"));
        for path in [&named, &member] {
            fs::write(path, b"abc").expect("room");
        }
        let catalog = Catalog::offer([&named, &inside]).expect("there");
        let held = catalog.open(&name("f"), &silent).expect("there");
        for path in [&named, &member] {
            fs::remove_file(path).expect("there");
            std::os::unix::fs::symlink(&secret, path).expect("room");
        }
        for file in ["f", "g"] {
            let error = catalog.open(&name(file), &silent).expect_err(file).to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
        held.unchanged().expect("what is open goes on");
    }

    #[cfg(unix)]
    #[test]
    fn link_that_the_user_names_is_offered() {
        let folder = tempfile::tempdir().expect("folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, b"abc").expect("room");
        std::os::unix::fs::symlink(&target, &link).expect("room");
        let catalog = Catalog::offer([&link]).expect("there");
        let source = catalog.open(&name("link"), &silent).expect("its target");
        assert_eq!(source.info.sha1, Digest::of(b"abc"));
    }

    #[test]
    fn one_open_file_serves_all_who_send_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("f");
        fs::write(&path, b"abc").expect("room");
        let catalog = Catalog::offer([&path]).expect("there");
        let open = || catalog.open(&name("f"), &silent).expect("there");
        let (one, two) = (open(), open());
        assert!(Arc::ptr_eq(&one.file, &two.file));
        fs::write(folder.path().join("new"), b"other").expect("room");
        fs::rename(folder.path().join("new"), &path).expect("room");
        let new = open();
        assert!(!Arc::ptr_eq(&one.file, &new.file));
        assert_eq!(new.info.sha1, Digest::of(b"other"));
        drop((one, two, new));
        assert_eq!(open().info.bytes, 5, "it is opened again when nobody sends it any more");
    }

    #[test]
    fn changed_file_is_hashed_once_for_all_who_ask() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("f");
        let bytes: u64 = 2 << 20;
        fs::write(&path, vec![1; 2 << 20]).expect("room");
        let catalog = Catalog::offer([&path]).expect("there");
        catalog.open(&name("f"), &silent).expect("there");
        fs::write(&path, vec![2; 2 << 20]).expect("room");
        let touched = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        File::options().write(true).open(&path).expect("there").set_modified(touched).expect("set");
        let hashed = AtomicU64::new(0);
        let together = std::sync::Barrier::new(25);
        let tell = |_: &FileName, size, done| {
            if size == done {
                hashed.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..25 {
                scope.spawn(|| {
                    together.wait();
                    let source = catalog.open(&name("f"), &tell).expect("there");
                    assert_eq!(source.info.sha1, Digest::of(&vec![2; 2 << 20]));
                    assert_eq!(source.info.bytes, bytes);
                });
            }
        });
        assert_eq!(hashed.into_inner(), 1);
    }

    #[test]
    fn a_known_digest_is_not_computed_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("f");
        fs::write(&path, b"abc").expect("room");
        let catalog = Catalog::offer([&path]).expect("there");
        let told = AtomicU64::new(0);
        let tell = |_: &FileName, size, done| {
            assert_eq!((size, done), (3, 3));
            told.fetch_add(1, Ordering::Relaxed);
        };
        for _ in 0..3 {
            catalog.open(&name("f"), &tell).expect("there");
        }
        assert_eq!(told.into_inner(), 1);
    }
}
