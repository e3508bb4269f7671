//! What a copy is received into: the part of a file, or of a folder.

use crate::{
    client::{
        part::{EarlySync, Part, PublishedCopy},
        tree_part::TreePart,
    },
    digest::HASH_BUF,
    error::Result,
    net::storage::FileStorage,
};

/// A part.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each client, and moved twice")]
pub(super) enum CopyPart {
    /// Of a file.
    File(Part),
    /// Of a folder.
    Tree(TreePart),
}

impl CopyPart {
    /// Where the bytes go.
    pub(super) fn storage(&self) -> &FileStorage {
        match self {
            Self::File(part) => &part.storage,
            Self::Tree(part) => &part.storage,
        }
    }

    /// What it is read back from, and how many bytes at a time.
    pub(super) fn read_back(&self) -> (&FileStorage, usize) {
        match self {
            Self::File(part) => part.read_back(),
            Self::Tree(part) => (&part.storage, HASH_BUF),
        }
    }

    /// How many bytes at the beginning are there already.
    pub(super) fn resumed(&self) -> u64 {
        match self {
            Self::File(part) => part.resumed,
            Self::Tree(part) => part.resumed,
        }
    }

    /// Where it is, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::File(part) => part.shown(),
            Self::Tree(part) => part.shown(),
        }
    }

    /// The part of a file, which can have holes, another name and a file in its way.
    pub(super) fn file(&mut self) -> Option<&mut Part> {
        match self {
            Self::File(part) => Some(part),
            Self::Tree(_) => None,
        }
    }

    /// Writes to the disk what has come so far, where this costs no more than it saves: each file
    /// of a folder would be opened for it.
    pub(super) fn early_sync(&self) -> Option<EarlySync> {
        match self {
            Self::File(part) => Some(part.early_sync()),
            Self::Tree(_) => None,
        }
    }

    /// Makes it safe on disk.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn sync(&self) -> Result<()> {
        match self {
            Self::File(part) => part.sync(),
            Self::Tree(part) => part.finish().and_then(|()| part.sync()),
        }
    }

    /// Gives it its final name.
    ///
    /// # Errors
    /// The name is taken, or the system refuses.
    pub(super) fn publish(self, durable: bool) -> Result<PublishedCopy> {
        match self {
            Self::File(part) => part.publish(durable),
            Self::Tree(part) => {
                // One that is to be durable was finished before it was made so.
                if !durable {
                    part.finish()?;
                }
                part.publish(durable)
            }
        }
    }

    /// Removes it: its bytes are not what was offered.
    pub(super) fn discard(self) {
        match self {
            Self::File(part) => part.discard(),
            Self::Tree(part) => part.discard(),
        }
    }
}
