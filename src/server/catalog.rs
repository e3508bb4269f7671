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
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    digest::{Digest, Hasher},
    error::{Error, Result},
    net::{lock, plain_file},
    proto::native::FILES_MAX,
    server::{
        source::{Identity, SourcePlace, Tree, hash},
        tree::Listing,
    },
    session::FileInfo,
    text::{FileName, ShownPath, choice, escape_path},
};

pub use crate::server::source::{Source, TREE_OPEN_MAX};

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
    /// A folder that is offered as one thing: what is known of it.
    tree: Option<Mutex<Option<Arc<Tree>>>>,
}

/// What is known of an offered file as it last was.
#[derive(Debug)]
struct Known {
    identity: Identity,
    sha1: Digest,
    /// Open for as long as anybody sends it: a slow reader costs no descriptor of its own.
    file: Weak<File>,
}

/// Told how far a digest has come: the file, its size and the bytes done.
pub type HashProgress<'a> = &'a (dyn Fn(&FileName, u64, u64) + Sync);

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
            let folder = ShownPath(path);
            let metadata = fs::metadata(path).map_err(Error::io("offer", folder))?;
            if !metadata.is_dir() {
                catalog.add(path, &metadata)?;
                continue;
            }
            let entries = fs::read_dir(path).map_err(Error::io("list the folder", folder))?;
            let mut subfolder = None;
            for entry in entries {
                let entry = entry.map_err(Error::io("list the folder", folder))?;
                let path = entry.path();
                // A link in a folder may lead anywhere; whoever wants its target names it.
                let kind = entry.file_type().map_err(Error::io("offer", ShownPath(&path)))?;
                let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                if kind.is_file() && !is_hidden {
                    let metadata =
                        entry.metadata().map_err(Error::io("offer", ShownPath(&path)))?;
                    catalog.add(&path, &metadata)?;
                }
                if kind.is_dir() && !is_hidden && subfolder.is_none() {
                    subfolder = Some(path);
                }
            }
            if let Some(path) = subfolder.filter(|_| !catalog.files.is_empty()) {
                let at = ShownPath(&path);
                log::warn!(
                    "'{folder}' is offered without its subfolders; name '{at}' to offer its files"
                );
            }
        }
        Ok(catalog)
    }

    /// Offers the folder at `path` as one thing, under its last name.
    ///
    /// # Errors
    /// It is no folder, or as in [`Catalog::offer`].
    pub fn offer_tree(&mut self, path: &Path) -> Result<()> {
        let metadata = fs::metadata(path).map_err(Error::io("offer", ShownPath(path)))?;
        if !metadata.is_dir() {
            let reason = "it is not a folder; name it without --tree";
            return Err(Error::refused(ShownPath(path), reason));
        }
        self.add(path, &metadata)
    }

    /// Whether `name` is a folder that is offered as one thing.
    pub fn is_tree(&self, name: &FileName) -> bool {
        self.files.get(name).is_some_and(|offered| offered.tree.is_some())
    }

    fn add(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(Error::refused(ShownPath(path), "it is not a regular file"));
        }
        let real = fs::canonicalize(path).map_err(Error::io("offer", ShownPath(path)))?;
        // `.` has a name too, elsewhere.
        let is_named = matches!(path.components().next_back(), Some(Component::Normal(_)));
        let name = (if is_named { path } else { &real })
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Error::refused(ShownPath(path), "its name is not UTF-8"))?;
        let name = FileName::new(name)
            .map_err(|error| Error::refused(escape_path(path), error.to_string()))?;
        if self.files.len() == FILES_MAX {
            return Err(Error::refused(ShownPath(path), format!("more than {FILES_MAX} files")));
        }
        let tree = metadata.is_dir().then(Mutex::default);
        let offered = Offered { path: real, known: Mutex::default(), tree };
        if let Some(other) = self.files.insert(name, offered) {
            let (one, two) = (escape_path(&other.path), escape_path(path));
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
        let Offered { path, known, tree } = self.files.get(name).ok_or_else(unknown)?;
        let teller = |bytes, reads| {
            let done = AtomicU64::new(0);
            move |read| {
                let done = done.fetch_add(read, Ordering::Relaxed) + read;
                progress(name, bytes, done / reads);
            }
        };
        if let Some(known) = tree {
            let mut known = lock(known);
            let listing = Listing::of(path)?;
            let same = known.as_ref().filter(|tree| listing.is_of(tree)).cloned();
            let tree = match same {
                Some(tree) => tree,
                None => {
                    let tell = teller(listing.bytes(), 2);
                    listing.hash(path, tell)?
                }
            };
            *known = Some(Arc::clone(&tree));
            drop(known);
            let info =
                FileInfo { name: name.clone(), bytes: tree.manifest.bytes(), sha1: tree.sha1 };
            return Ok(Source { info, file: tree.storage(), origin: SourcePlace::Tree(tree) });
        }
        let mut known = lock(known);
        let (identity, file) = open(path, known.as_ref())?;
        let storage = file.clone().into();
        let sha1 = match known.as_ref().filter(|known| known.identity == identity) {
            Some(known) => known.sha1,
            None => {
                let (at, mut hasher) = (escape_path(path), Hasher::default());
                let tell = teller(identity.bytes, 1);
                hash(&storage, identity.bytes, &mut hasher, &at, tell)?;
                hasher.finish()
            }
        };
        *known = Some(Known { identity, sha1, file: Arc::downgrade(&file) });
        drop(known);
        let info = FileInfo { name: name.clone(), bytes: identity.bytes, sha1 };
        let origin = SourcePlace::File { path: path.clone(), identity };
        let source = Source { info, file: storage, origin };
        source.unchanged()?;
        Ok(source)
    }
}

/// Opens the regular file at `path`, or shares it where it is open and still the `known` one.
fn open(path: &Path, known: Option<&Known>) -> Result<(Identity, Arc<File>)> {
    let at = ShownPath(path);
    // What is there now: the known file may have been replaced by another.
    let there = fs::symlink_metadata(path).map_err(Error::io("open the file", at))?;
    let identity = Identity::of(&there);
    let shared = known.filter(|known| known.identity == identity).and_then(|k| k.file.upgrade());
    if let Some(file) = shared.filter(|_| there.is_file()) {
        return Ok((identity, file));
    }
    if let Some(file) = plain_file::open(path).map_err(Error::io("open the file", at))? {
        let metadata = file.metadata().map_err(Error::io("look at the file", at))?;
        return Ok((Identity::of(&metadata), Arc::new(file)));
    }
    Err(Error::refused(at.to_string(), "it is not a regular file"))
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
        let file = |source: &Source| Arc::clone(source.file.file().expect("a file"));
        assert!(Arc::ptr_eq(&file(&one), &file(&two)));
        fs::write(folder.path().join("new"), b"other").expect("room");
        fs::rename(folder.path().join("new"), &path).expect("room");
        let new = open();
        assert!(!Arc::ptr_eq(&file(&one), &file(&new)));
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
