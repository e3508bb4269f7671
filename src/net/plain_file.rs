//! Opens what others may have replaced meanwhile: a regular file, never through a link in the last
//! place of its path. With feature `sockopt` a pipe that is put there at the very moment is not
//! waited for either.

use std::{fs, fs::File, io, path::Path};

use crate::net::files::is_same;

/// Opens the regular file at `path` for reading; `None` where something else stands there, even if
/// it was put there a moment ago.
///
/// # Errors
/// The system's.
pub fn open(path: &Path) -> io::Result<Option<File>> {
    // Looked at before it is opened: to open a device or a pipe can have effects.
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    open_found(path)
}

/// Opens what was a regular file when it was looked at.
fn open_found(path: &Path) -> io::Result<Option<File>> {
    let opened = options().read(true).open(path);
    let there = fs::symlink_metadata(path)?;
    if !there.is_file() {
        return Ok(None);
    }
    let file = opened?;
    let metadata = file.metadata()?;
    // A build without those flags follows a link, and sees so afterwards.
    let is_it = cfg!(all(unix, feature = "sockopt")) || is_same(&there, &metadata);
    Ok((is_it && metadata.is_file()).then_some(file))
}

/// Opens the file at `path`, which is one of our own, to read and write it.
///
/// # Errors
/// The system's; a build with feature `sockopt` follows no link.
pub fn open_to_write(path: &Path) -> io::Result<File> {
    options().read(true).write(true).open(path)
}

/// Opens no link, and waits for no pipe's other end.
fn options() -> fs::OpenOptions {
    #[cfg_attr(not(all(unix, feature = "sockopt")), expect(unused_mut))]
    let mut options = File::options();
    #[cfg(all(unix, feature = "sockopt"))]
    {
        use nix::fcntl::OFlag;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    }
    options
}

#[cfg(all(test, unix))]
mod tests {
    use std::{io::Read, os::unix::fs::symlink};

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn file_swapped_after_the_look_is_not_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| folder.path().join(name));
        fs::write(&file, b"abc").expect("room");
        symlink(&file, &link).expect("room");
        // As if each had been a regular file a moment ago.
        assert!(open_found(&link).expect("readable").is_none());
        assert!(open_found(folder.path()).expect("readable").is_none());
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
        if cfg!(feature = "sockopt") {
            assert!(open_found(&pipe).expect("not waited for").is_none());
        }
        let mut text = String::new();
        let mut plain = open(&file).expect("readable").expect("a regular file");
        plain.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "abc");
        assert!(open(&link).expect("readable").is_none());
        assert!(open(&folder.path().join("none")).is_err());
    }
}
