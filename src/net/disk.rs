//! A disk, or an existing file, that is written in place: who else uses it, and its bytes past the
//! system's cache. On Linux with feature `sockopt` only; elsewhere it is refused.

use std::fs::File;

#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
mod absent;
#[cfg(all(target_os = "linux", feature = "sockopt"))]
mod linux;

#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub use absent::{check, open};
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub use linux::{check, open};

/// What is written in place.
#[derive(Debug)]
pub struct Disk {
    /// Open to write it. A device is ours alone for as long: nobody can mount it.
    pub file: File,
    /// Open to read it back. A read waits until what it is to read has been written, and comes from
    /// the device. In the file and in memory it begins at a multiple of [`ALIGNMENT`].
    pub uncached: File,
    /// Its size.
    pub bytes: u64,
}

/// What a read past the cache begins at a multiple of, bytes: the block of no disk is larger.
pub const ALIGNMENT: usize = 4096;
