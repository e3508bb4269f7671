//! What a session sends from, and how it tells that it is still what was offered: a file, or the
//! files of a folder.

use std::{
    cmp::Ordering,
    fs::{self, Metadata},
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    digest::{Digest, HASH_BUF, Hasher},
    error::{Error, Result},
    net::{clock, copy, lock, plain_file, storage::FileStorage},
    proto::manifest::Manifest,
    session::FileInfo,
    text::{ShownPath, debug_fields, escape, escape_path},
    units::Moment,
};

/// A file or folder opened to be sent.
#[derive(Debug)]
pub struct Source {
    /// What is sent.
    pub info: FileInfo,
    /// Its bytes; of a folder those of its files.
    pub file: FileStorage,
    pub(super) origin: SourcePlace,
}

/// Where the bytes of a [`Source`] are.
#[derive(Debug)]
pub(super) enum SourcePlace {
    /// In a file.
    File { path: PathBuf, identity: Identity },
    /// In the files of a folder.
    Tree(Arc<Tree>),
}

/// A folder as it was when its digest was computed.
pub struct Tree {
    pub(super) root: PathBuf,
    /// What it holds.
    pub manifest: Arc<Manifest>,
    /// The same, as it is sent.
    pub lines: Vec<u8>,
    pub(super) sha1: Digest,
    /// What each of its files was, in the order of the manifest.
    pub(super) identities: Vec<Identity>,
    /// When all files were looked at, and what had changed.
    pub(super) looked: Mutex<Option<(Moment, Option<String>)>>,
}

/// What must stay the same for a file to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) bytes: u64,
    pub(super) modified_ns: i64,
    node: (u64, u64),
}

/// How many files of a folder stay open for those who send it.
pub const TREE_OPEN_MAX: usize = 32;

/// How often all files of a folder are looked at: a look at the most that there may be takes
/// seconds, and must not take the disk from those who send.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Source {
    /// The folder that is sent, where it is one.
    pub fn tree(&self) -> Option<&Arc<Tree>> {
        match &self.origin {
            SourcePlace::File { .. } => None,
            SourcePlace::Tree(tree) => Some(tree),
        }
    }

    /// Checks that the file is still the one that was offered.
    ///
    /// A file that was replaced by another of its name is: what was opened is still whole. Those of
    /// a folder are opened one by one, so there it is a change. A folder's files are not looked at
    /// more often than each second; each is looked at when it is opened too.
    ///
    /// # Errors
    /// [`Error::SourceChanged`], with what changed.
    pub fn unchanged(&self) -> Result<()> {
        let (at, change) = match &self.origin {
            SourcePlace::Tree(tree) => (&tree.root, tree.change()),
            SourcePlace::File { path, identity } => {
                let file = self.file.file().map(|file| file.metadata());
                let metadata = file.unwrap_or_else(|| fs::metadata(path));
                let metadata = metadata.map_err(Error::io("look at the file", ShownPath(path)))?;
                (path, identity.change(&Identity::of(&metadata)))
            }
        };
        let Some(what) = change else { return Ok(()) };
        let at = escape_path(at);
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

impl Tree {
    /// The bytes of its files. A file that is not the offered one any more cannot be opened.
    pub(super) fn storage(self: &Arc<Self>) -> FileStorage {
        let tree = Arc::clone(self);
        let open = move |index: usize| {
            let gone = || io::Error::new(io::ErrorKind::InvalidData, "the source changed");
            let entry = tree.manifest.files().get(index).ok_or_else(gone)?;
            let file = plain_file::open(&tree.root.join(&entry.path))?.ok_or_else(gone)?;
            let is_it = tree.identities.get(index) == Some(&Identity::of(&file.metadata()?));
            if is_it { Ok(file) } else { Err(gone()) }
        };
        FileStorage::of_tree(Arc::clone(&self.manifest), TREE_OPEN_MAX, Box::new(open))
    }

    /// What has changed: the first file that is another now.
    fn change(&self) -> Option<String> {
        let mut looked = lock(&self.looked);
        if let Some((at, change)) = &*looked
            && (change.is_some() || clock::now() < at.after(LOOK_EVERY))
        {
            return change.clone();
        }
        let files = self.manifest.files().iter().zip(&self.identities);
        let change = files.into_iter().find_map(|(entry, identity)| {
            let what = match fs::symlink_metadata(self.root.join(&entry.path)) {
                Ok(there) if Identity::of(&there) == *identity => return None,
                Ok(there) if there.is_file() => {
                    identity.change(&Identity::of(&there)).unwrap_or_else(|| "replaced".to_owned())
                }
                Ok(_) => "replaced".to_owned(),
                Err(error) => error.to_string(),
            };
            Some(format!("'{}': {what}", escape(entry.path.as_str())))
        });
        *looked = Some((clock::now(), change.clone()));
        change
    }
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let seconds = metadata.mtime().saturating_mul(1_000_000_000);
            Self {
                bytes: metadata.len(),
                modified_ns: seconds.saturating_add(metadata.mtime_nsec()),
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
                since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0);
            Self { bytes: metadata.len(), modified_ns, node: (0, 0) }
        }
    }

    /// What is another in `now`, if anything that a reader would see is.
    fn change(&self, now: &Self) -> Option<String> {
        let what = match now.bytes.cmp(&self.bytes) {
            Ordering::Less => "truncated",
            Ordering::Greater => "grown",
            Ordering::Equal if now.modified_ns != self.modified_ns => {
                return Some("written to".to_owned());
            }
            Ordering::Equal => return None,
        };
        Some(format!("{what} from {} to {} bytes", self.bytes, now.bytes))
    }
}

debug_fields!(Tree, root);

/// Feeds the first `bytes` of `file` to `hasher`, read at positions, so that several threads may use
/// one open file; `tell` is told after each stretch how many bytes it had.
///
/// # Errors
/// The file at the path `at` ends before, or cannot be read.
pub(super) fn hash(
    file: &FileStorage,
    bytes: u64,
    hasher: &mut Hasher,
    at: &str,
    mut tell: impl FnMut(u64),
) -> Result<()> {
    let mut buffer = vec![0; HASH_BUF];
    let mut done = 0;
    while done < bytes {
        let want = usize::try_from(bytes - done).unwrap_or(usize::MAX).min(buffer.len());
        let read = copy::read_at(file, &mut buffer[..want], done).map_err(|stop| match stop {
            copy::Stop::Disk(error) => Error::io("read the file", at)(error),
            _ => Error::SourceChanged {
                at: at.to_owned(),
                what: "the source changed: truncated while its digest was computed".to_owned(),
            },
        })?;
        hasher.update(&buffer[..read]);
        done += read as u64;
        tell(read as u64);
    }
    Ok(())
}
