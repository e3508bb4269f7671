//! Reading a whole file of text that may be anybody's.

use std::{fs::File, io::Read, path::Path};

use crate::{
    error::{Error, Result},
    text::escape_path,
    units::Bytes,
};

/// Reads a file of UTF-8 text.
///
/// # Errors
/// It cannot be read, is larger than `most` bytes, or is not UTF-8.
pub fn read(path: &Path, most: u64) -> Result<String> {
    let at = escape_path(path);
    let file = File::open(path).map_err(Error::io("open the file", &at))?;
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).map_err(Error::io("read the file", &at))?;
    if text.len() as u64 > most {
        return Err(Error::refused(at, format!("it is larger than {}", Bytes(most))));
    }
    Ok(text)
}
