//! What a folder holds that is sent as one thing: its files and folders, a line each, sorted by path.
//!
//! ```text
//! d MODE MODIFIED PATH               a folder
//! f MODE MODIFIED BYTES SHA1 PATH    a file
//! ```
//!
//! MODE is octal, MODIFIED nanoseconds since 1970, PATH relative, with `/`. The top folder has no line.
//! A folder stands before what lies in it. The digest of a folder is that of all its lines, each with
//! its `\n`, and then of the bytes of its files in this order.

mod fold;

use std::{borrow::Cow, collections::HashSet, fmt};

use crate::{
    digest::Digest,
    proto::{
        line::{DecodeError, decimal},
        native::SIZE_MAX,
    },
    text::FileName,
};

/// Longest manifest, bytes: half a million files with paths of 60 bytes.
pub const MANIFEST_MAX: usize = 64 << 20;

/// Most files and folders. In memory each takes about 150 bytes and its path.
pub const ENTRIES_MAX: usize = 500_000;

/// Longest path, bytes: macOS takes 1024 with the folder before it, Linux 4096.
pub const PATH_MAX: usize = 768;

/// Most folders above a file: whoever removes a folder may hold a descriptor for each.
pub const DEPTH_MAX: usize = 64;

/// The bits of a mode that are kept: who may read, write and execute. Those that lend rights
/// (set-user-id, set-group-id) are taken off at both ends.
pub const MODE_MASK: u32 = 0o777;

/// Largest mode in a line.
const MODE_MAX: u32 = 0o7777;

/// A path in a folder: [`FileName`]s with `/` between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Box<str>);

/// What a file or folder has beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its permission bits, at most [`MODE_MASK`].
    pub mode: u32,
    /// When it was modified, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// A folder in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderEntry {
    /// Where it is.
    pub path: RelativePath,
    /// Its mode and time.
    pub attributes: Attributes,
}

/// A file in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Where it is.
    pub path: RelativePath,
    /// Its mode and time.
    pub attributes: Attributes,
    /// Where its bytes begin among those of all files.
    pub at: u64,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-1.
    pub sha1: Digest,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A folder's.
    Folder(FolderEntry),
    /// A file's; its `at` is set when it is added to a manifest.
    File(FileEntry),
}

/// The files and folders of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    folders: Vec<FolderEntry>,
    files: Vec<FileEntry>,
    bytes: u64,
}

/// A manifest that is being put together, or read; nothing that breaks its rules gets in.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    manifest: Manifest,
    /// The path that came last.
    last: Option<RelativePath>,
    /// A key for each path, equal for those that a file system may take for one.
    seen: HashSet<String>,
    /// Length of all lines.
    len: usize,
}

impl RelativePath {
    /// Checks `path`.
    ///
    /// # Errors
    /// It is too long or too deep, or a component of it is no [`FileName`].
    pub fn new(path: &str) -> Result<Self, DecodeError> {
        if path.len() > PATH_MAX {
            return Err(DecodeError::value("a path longer than 768 bytes", path));
        }
        let mut depth = 0;
        for name in path.split('/') {
            FileName::new(name)
                .and_then(FileName::for_file_here)
                .map_err(|error| DecodeError::value(&error.to_string(), path))?;
            depth += 1;
        }
        if depth > DEPTH_MAX + 1 {
            return Err(DecodeError::value("a path of more than 64 folders", path));
        }
        Ok(Self(path.into()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that it lies in; `None` in the top folder.
    fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }
}

impl Entry {
    /// Its path.
    pub fn path(&self) -> &RelativePath {
        match self {
            Self::Folder(folder) => &folder.path,
            Self::File(file) => &file.path,
        }
    }

    /// Reads a line, which has no `\n`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let wrong = || DecodeError::value("a wrong line of a folder", line);
        let (kind, rest) = line.split_once(' ').ok_or_else(wrong)?;
        let fields = if kind == "f" { 5 } else { 3 };
        let fields: Vec<&str> = rest.splitn(fields, ' ').collect();
        let attributes = |mode, modified| Attributes::decode(mode, modified).ok_or_else(wrong);
        match (kind, &*fields) {
            ("d", &[mode, modified, path]) => {
                let path = RelativePath::new(path)?;
                Ok(Self::Folder(FolderEntry { path, attributes: attributes(mode, modified)? }))
            }
            ("f", &[mode, modified, bytes, sha1, path]) => Ok(Self::File(FileEntry {
                path: RelativePath::new(path)?,
                attributes: attributes(mode, modified)?,
                at: 0,
                bytes: decimal(bytes).filter(|&bytes| bytes <= SIZE_MAX).ok_or_else(wrong)?,
                sha1: sha1.parse().map_err(|_| wrong())?,
            })),
            _ => Err(wrong()),
        }
    }
}

impl Attributes {
    fn decode(mode: &str, modified: &str) -> Option<Self> {
        let octal = u32::from_str_radix(mode, 8).ok().filter(|&bits| bits <= MODE_MAX)?;
        let modified_ns: i64 = modified.parse().ok()?;
        let is_plain = format!("{octal:o}") == mode && modified_ns.to_string() == modified;
        is_plain.then_some(Self { mode: octal & MODE_MASK, modified_ns })
    }
}

impl ManifestBuilder {
    /// Adds a file or folder, whose path comes after all others.
    ///
    /// # Errors
    /// The manifest would break a rule or a limit by it.
    pub fn add(&mut self, entry: Entry) -> Result<(), DecodeError> {
        let path = entry.path();
        let wrong = |what: &str| Err(DecodeError::value(what, path.as_str()));
        if self.manifest.entries() == ENTRIES_MAX {
            return Err(DecodeError(format!("more than {ENTRIES_MAX} files and folders")));
        }
        self.len += entry.to_string().len() + 1;
        if self.len > MANIFEST_MAX {
            return Err(DecodeError(format!("a list longer than {MANIFEST_MAX} bytes")));
        }
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return wrong("a path that is not behind all others");
        }
        if path.parent().is_some_and(|parent| !self.manifest.has_folder(parent)) {
            return wrong("a path in what is no folder of the list");
        }
        if !self.seen.insert(fold::fold(path.as_str())) {
            return wrong("a path that some systems take for another of the list");
        }
        self.last = Some(path.clone());
        match entry {
            Entry::Folder(folder) => self.manifest.folders.push(folder),
            Entry::File(file) => {
                let at = self.manifest.bytes;
                let sum = at.checked_add(file.bytes).filter(|&sum| sum <= SIZE_MAX);
                self.manifest.bytes = sum.ok_or_else(|| {
                    DecodeError::value("more bytes than a file can have", file.path.as_str())
                })?;
                self.manifest.files.push(FileEntry { at, ..file });
            }
        }
        Ok(())
    }

    /// The manifest.
    pub fn finish(self) -> Manifest {
        self.manifest
    }
}

impl Manifest {
    /// The files, sorted by path, which is the order of their bytes.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The folders, sorted by path: each before those that lie in it.
    pub fn folders(&self) -> &[FolderEntry] {
        &self.folders
    }

    /// Whether it has a folder at `path`.
    pub fn has_folder(&self, path: &str) -> bool {
        self.folders.binary_search_by(|folder| folder.path.as_str().cmp(path)).is_ok()
    }

    /// Whether it has a file at `path`.
    pub fn has_file(&self, path: &str) -> bool {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).is_ok()
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many lines it has.
    pub fn entries(&self) -> usize {
        self.folders.len() + self.files.len()
    }

    /// The file that has the byte at `at` of all, by its place in [`Manifest::files`].
    pub fn file_at(&self, at: u64) -> Option<usize> {
        // Of the files that begin there the last is the one that is not empty.
        let after = self.files.partition_point(|file| file.at <= at);
        after.checked_sub(1).filter(|_| at < self.bytes)
    }

    /// All lines, each with its `\n`.
    pub fn encode(&self) -> Vec<u8> {
        let mut lines = String::new();
        let (mut folders, mut files) =
            (self.folders.iter().peekable(), self.files.iter().peekable());
        loop {
            let is_folder = match (folders.peek(), files.peek()) {
                (Some(folder), Some(file)) => folder.path < file.path,
                (folder, None) if folder.is_none() => return lines.into_bytes(),
                (folder, _) => folder.is_some(),
            };
            let entry = if is_folder {
                folders.next().cloned().map(Entry::Folder)
            } else {
                files.next().cloned().map(Entry::File)
            };
            lines.extend(entry.map(|entry| format!("{entry}\n")));
        }
    }

    /// Reads all lines.
    ///
    /// # Errors
    /// The first that is wrong, or that breaks a rule or a limit.
    pub fn decode(lines: &[u8]) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(lines)
            .map_err(|_| DecodeError("a list that is not UTF-8".to_owned()))?;
        let mut builder = ManifestBuilder::default();
        for line in text.split_terminator('\n') {
            builder.add(Entry::decode(line)?)?;
        }
        Ok(builder.finish())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, attributes, file) = match self {
            Self::Folder(folder) => ('d', folder.attributes, Cow::Borrowed("")),
            Self::File(file) => {
                ('f', file.attributes, Cow::Owned(format!("{} {} ", file.bytes, file.sha1)))
            }
        };
        let Attributes { mode, modified_ns } = attributes;
        write!(f, "{kind} {mode:o} {modified_ns} {file}{}", self.path().as_str())
    }
}

impl AsRef<std::path::Path> for RelativePath {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(&*self.0)
    }
}

#[cfg(test)]
mod tests;
