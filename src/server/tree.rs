//! A folder that is offered as one thing: what is in it is listed, and its digest computed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::{
    digest::Hasher,
    error::{Error, Result},
    net::{files, plain_file, storage::FileStorage},
    proto::manifest::{
        Attributes, ENTRIES_MAX, Entry, FileEntry, FolderEntry, ManifestBuilder, RelativePath,
    },
    server::source::{Identity, Tree, hash},
    text::escape_path,
};

/// What a folder holds, sorted by path.
#[derive(Debug, Default)]
pub(super) struct Listing {
    folders: Vec<FolderEntry>,
    files: Vec<(RelativePath, Attributes, Identity)>,
}

impl Listing {
    /// Lists `root`, without links, devices and pipes; those are worth a warning.
    ///
    /// # Errors
    /// It cannot be listed, it holds too much, or a name that cannot be sent.
    pub(super) fn of(root: &Path) -> Result<Self> {
        let mut listing = Self::default();
        let mut skipped: Vec<PathBuf> = Vec::new();
        // Paths in the folder, with '/' whatever the system has.
        let mut left = vec![String::new()];
        while let Some(folder) = left.pop() {
            let at = root.join(&folder);
            let shown = |path: &Path| escape_path(path);
            let failed = Error::io("list the folder", shown(&at));
            for entry in fs::read_dir(&at).map_err(failed)? {
                let entry = entry.map_err(Error::io("list the folder", shown(&at)))?;
                let metadata = entry.metadata();
                let metadata = metadata.map_err(Error::io("look at", shown(&entry.path())))?;
                if !metadata.is_dir() && !metadata.is_file() {
                    skipped.push(entry.path());
                    continue;
                }
                let refused = |why: String| Error::refused(shown(&entry.path()), why);
                let name = entry.file_name();
                let name = name.to_str().ok_or_else(|| refused("no UTF-8 name".to_owned()))?;
                let path =
                    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                let relative = RelativePath::new(&path).map_err(|error| refused(error.0))?;
                let identity = Identity::of(&metadata);
                let attributes = Attributes {
                    mode: files::mode_of(&metadata),
                    modified_ns: identity.modified_ns,
                };
                if listing.folders.len() + listing.files.len() == ENTRIES_MAX {
                    let why = format!("more than {ENTRIES_MAX} files and folders");
                    return Err(Error::refused(shown(root), why));
                }
                if metadata.is_dir() {
                    listing.folders.push(FolderEntry { path: relative, attributes });
                    left.push(path);
                } else {
                    listing.files.push((relative, attributes, identity));
                }
            }
        }
        if let Some(first) = skipped.first() {
            let (count, first) = (skipped.len(), escape_path(first));
            log::warn!(
                "not sent, as they are no files or folders: {count}, the first is '{first}'"
            );
        }
        listing.folders.sort_unstable_by(|one, two| one.path.cmp(&two.path));
        listing.files.sort_unstable_by(|one, two| one.0.cmp(&two.0));
        Ok(listing)
    }

    /// Whether it lists what `tree` holds.
    pub(super) fn is_of(&self, tree: &Tree) -> bool {
        let files = self.files.iter().map(|(path, attributes, is)| (path, attributes, is));
        let known = tree.manifest.files().iter().zip(&tree.identities);
        self.folders == tree.manifest.folders()
            && files.eq(known.map(|(entry, is)| (&entry.path, &entry.attributes, is)))
    }

    /// The bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, (_, _, is)| sum.saturating_add(is.bytes))
    }

    /// Computes the digests of the files in `root`, and then that of all: every byte is read twice,
    /// as the list with the digests stands before the bytes. `tell` gets the bytes read.
    ///
    /// # Errors
    /// A file cannot be read or changes, or the list breaks a rule of manifests.
    pub(super) fn hash(self, root: &Path, tell: impl Fn(u64)) -> Result<Arc<Tree>> {
        let shown = escape_path(root);
        let mut builder = ManifestBuilder::default();
        let mut identities = Vec::with_capacity(self.files.len());
        let mut folders = self.folders.into_iter().peekable();
        let mut add = |entry| builder.add(entry).map_err(|error| Error::refused(&shown, error.0));
        for (path, attributes, identity) in self.files {
            while let Some(folder) = folders.next_if(|folder| folder.path < path) {
                add(Entry::Folder(folder))?;
            }
            let at = root.join(&path);
            let shown = escape_path(&at);
            let file = plain_file::open(&at).map_err(Error::io("open the file", &shown))?;
            let file = file.ok_or_else(|| Error::refused(&shown, "it is not a regular file"))?;
            let mut hasher = Hasher::default();
            hash(&FileStorage::from(file), identity.bytes, &mut hasher, &shown, &tell)?;
            let (bytes, sha1) = (identity.bytes, hasher.finish());
            add(Entry::File(FileEntry { path, attributes, at: 0, bytes, sha1 }))?;
            identities.push(identity);
        }
        folders.try_for_each(|folder| add(Entry::Folder(folder)))?;
        let manifest = Arc::new(builder.finish());
        let lines = manifest.encode();
        let mut hasher = Hasher::default();
        hasher.update(&lines);
        let (root, looked) = (root.to_owned(), Mutex::default());
        let bytes = manifest.bytes();
        let sha1 = hasher.clone().finish();
        let tree = Arc::new(Tree { root, manifest, lines, sha1, identities, looked });
        hash(&tree.storage(), bytes, &mut hasher, &shown, &tell)?;
        let whole = |tree: Tree| Tree { sha1: hasher.finish(), ..tree };
        // The storage that was read from is gone, and with it the other owner.
        Arc::try_unwrap(tree)
            .map(|tree| Arc::new(whole(tree)))
            .map_err(|_| Error::refused(&shown, "it is read by another thread"))
    }
}
