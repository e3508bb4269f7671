//! Bytes on disk, numbered from 0: an open file, or the files of a folder one after the other.
//!
//! Of a folder a bounded number of files is open; whoever works with one holds it open for so long.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::{Arc, Mutex},
};

use crate::{net::lock, proto::manifest::Manifest, text::debug_fields};

/// Bytes on disk, at positions. Clones share what is open.
#[derive(Clone, Debug)]
pub struct FileStorage(Kind);

#[derive(Clone, Debug)]
enum Kind {
    File(Arc<File>),
    /// A disk or a file that is overwritten: what is there is no part of the copy.
    InPlace(Arc<File>),
    Tree(Arc<TreeFiles>),
}

/// Opens a file of a folder by its place in [`Manifest::files`].
pub type OpenFile = Box<dyn Fn(usize) -> io::Result<File> + Send + Sync>;

struct TreeFiles {
    manifest: Arc<Manifest>,
    open: OpenFile,
    /// The files that were used last, the oldest first.
    recent: Mutex<VecDeque<(usize, Arc<File>)>>,
    most: usize,
}

/// A stretch of the bytes that lies in one file.
#[derive(Debug)]
pub struct Stretch {
    /// The file.
    pub file: Arc<File>,
    /// Where in it the stretch begins.
    pub at: u64,
    /// How long it is at most: to the end of the file, which a file by itself does not have.
    pub len: u64,
}

impl FileStorage {
    /// The files of `manifest`, opened by `open` when they are used; `most` stay open.
    pub fn of_tree(manifest: Arc<Manifest>, most: usize, open: OpenFile) -> Self {
        let recent = Mutex::default();
        Self(Kind::Tree(Arc::new(TreeFiles { manifest, open, recent, most })))
    }

    /// A disk, or a file, that is overwritten and keeps its size.
    pub fn in_place(file: Arc<File>) -> Self {
        Self(Kind::InPlace(file))
    }

    /// The one open file; `None` of a folder.
    pub fn file(&self) -> Option<&Arc<File>> {
        match &self.0 {
            Kind::File(file) | Kind::InPlace(file) => Some(file),
            Kind::Tree(_) => None,
        }
    }

    /// What is in the folder; `None` of one file.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        match &self.0 {
            Kind::File(_) | Kind::InPlace(_) => None,
            Kind::Tree(tree) => Some(&tree.manifest),
        }
    }

    /// Where the byte at `at` is.
    ///
    /// # Errors
    /// The file cannot be opened; `UnexpectedEof` behind the last byte of a folder.
    pub fn stretch(&self, at: u64) -> io::Result<Stretch> {
        let tree = match &self.0 {
            Kind::File(file) | Kind::InPlace(file) => {
                return Ok(Stretch { file: Arc::clone(file), at, len: u64::MAX });
            }
            Kind::Tree(tree) => tree,
        };
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let index = tree.manifest.file_at(at).ok_or_else(end)?;
        let entry = tree.manifest.files().get(index).ok_or_else(end)?;
        let within = at - entry.at;
        Ok(Stretch { file: tree.get(index)?, at: within, len: entry.bytes - within })
    }

    /// How many bytes are there: of a folder those of its manifest, and none of what is overwritten.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn held(&self) -> io::Result<u64> {
        match &self.0 {
            Kind::File(file) => Ok(file.metadata()?.len()),
            Kind::InPlace(_) => Ok(0),
            Kind::Tree(tree) => Ok(tree.manifest.bytes()),
        }
    }

    /// Unlocks a file for another client. Threads that are ending may still write to it, but only
    /// proven bytes at their places.
    pub fn unlock(&self) {
        if let Some(Err(error)) = self.file().map(|file| file.unlock()) {
            log::debug!("cannot unlock the copy: {error}");
        }
    }

    /// Cuts a file to `len`, but not what is overwritten. A folder keeps what it has: each of its
    /// files has a digest of its own, which tells whether it is whole.
    ///
    /// # Errors
    /// The system's.
    pub fn cut(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Kind::File(file) => file.set_len(len),
            Kind::InPlace(_) | Kind::Tree(_) => Ok(()),
        }
    }
}

impl TreeFiles {
    fn get(&self, index: usize) -> io::Result<Arc<File>> {
        let mut recent = lock(&self.recent);
        if let Some((_, file)) = recent.iter().rev().find(|(known, _)| *known == index) {
            return Ok(Arc::clone(file));
        }
        // Opened under the lock, so that many who need one file open it once.
        let file = Arc::new((self.open)(index)?);
        if recent.len() >= self.most {
            recent.pop_front();
        }
        recent.push_back((index, Arc::clone(&file)));
        Ok(file)
    }
}

impl From<File> for FileStorage {
    fn from(file: File) -> Self {
        Self(Kind::File(Arc::new(file)))
    }
}

impl From<Arc<File>> for FileStorage {
    fn from(file: Arc<File>) -> Self {
        Self(Kind::File(file))
    }
}

debug_fields!(TreeFiles, most);

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::net::copy;

    #[test]
    fn bytes_of_many_files_are_one_range() {
        let folder = tempfile::tempdir().expect("a folder");
        let sha1 = crate::digest::Digest::of(b"");
        let sizes = [3_u64, 0, 70_000, 0, 1];
        let line = |(n, bytes)| format!("f 644 0 {bytes} {sha1} {n}\n");
        let lines: String = (0..).zip(sizes).map(line).collect();
        let manifest = Arc::new(Manifest::decode(lines.as_bytes()).expect("honest"));
        let opened = Arc::new(AtomicUsize::new(0));
        let (count, place) = (Arc::clone(&opened), folder.path().to_owned());
        let open = move |index: usize| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).create(true).open(place.join(index.to_string()))
        };
        let storage = FileStorage::of_tree(manifest, 2, Box::new(open));
        let data: Vec<u8> = (0..70_004_u32).map(|n| (n % 251) as u8).collect();
        copy::write_at(&storage, &data[1..], 1).expect("room");
        copy::write_at(&storage, &data[..1], 0).expect("room");
        assert_eq!(opened.load(Ordering::Relaxed), 4, "the first was closed for the last");
        let (mut read, mut at) = (vec![0; data.len()], 0);
        while at < data.len() {
            at += copy::read_at(&storage, &mut read[at..], at as u64).expect("there");
        }
        assert!(read == data);
        let cut = [&data[10..12], &[], &data[12..60], &data[60..60_000]].map(io::IoSlice::new);
        copy::write_parts_at(&storage, &cut, 0).expect("room");
        assert_eq!(copy::read_at(&storage, &mut read, 0).expect("there"), 3, "one file's");
        copy::read_at(&storage, &mut read[3..], 3).expect("there");
        assert!(read[..59_990] == data[10..60_000] && read[59_990..] == data[59_990..]);
        let parts = [b"x", b"y"].map(|part| io::IoSlice::new(part));
        assert!(copy::write_parts_at(&storage, &parts, 70_003).is_err(), "it does not grow");
        assert!(storage.stretch(70_004).is_err() && storage.stretch(u64::MAX).is_err());
        assert!(copy::write_at(&storage, b"xy", 70_003).is_err(), "it does not grow");
        assert_eq!(fs::metadata(folder.path().join("4")).expect("there").len(), 1);
        assert!(!folder.path().join("1").exists(), "an empty file is never opened");
    }
}
