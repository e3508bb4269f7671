//! Reading a list of machines from its file.

use std::path::Path;

use crate::{
    error::Result,
    net::text_file,
    proto::hosts::{FILE_MAX, HostList},
    text::escape_path,
};

/// Reads the list of machines in the file at `path`.
///
/// # Errors
/// It cannot be read, or is no such list.
pub fn read(path: &Path) -> Result<HostList> {
    HostList::parse(&text_file::read(path, FILE_MAX)?, escape_path(path))
}
