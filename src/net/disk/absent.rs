//! A build that cannot tell who uses a disk, nor read past the cache, writes none.

use std::path::Path;

use crate::{
    error::{Error, Result},
    net::disk::Disk,
};

/// Refuses everything.
///
/// # Errors
/// Always.
pub fn check(path: &Path) -> Result<()> {
    open(path).map(drop)
}

/// Refuses everything.
///
/// # Errors
/// Always.
pub fn open(_: &Path) -> Result<Disk> {
    let reason = "to write a disk or a file in place needs Linux and a build with feature sockopt";
    Err(Error::refused("gatecast", reason))
}
