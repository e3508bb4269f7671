//! Reading a key from its file, which nobody but its owner may read.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    path::Path,
};

use crate::{
    error::{Error, Result},
    proto::key::{KEY_MAX, Key},
    text::{ShownPath, escape_path},
};

/// Reads the key in the file at `path`, or on standard input if that is `-`.
///
/// # Errors
/// There is no such file, others may read or write it, or it has too few or too many bytes.
pub fn read(path: &Path) -> Result<Key> {
    Ok(read_with_bytes(path)?.0)
}

/// The same, and the bytes that it is made of: all of the file's, whatever they are.
///
/// # Errors
/// As [`read`].
pub fn read_with_bytes(path: &Path) -> Result<(Key, Vec<u8>)> {
    let at = escape_path(path);
    let refuse = |why: &str| Error::usage(format!("the key file '{at}' cannot be used: {why}"));
    let most = KEY_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        open(path, refuse)?.take(most).read_to_end(&mut bytes)
    };
    read.map_err(Error::io("read the key", &at))?;
    let key = Key::new(&bytes).map_err(|why| refuse(&why))?;
    Ok((key, bytes))
}

fn open(path: &Path, refuse: impl Fn(&str) -> Error) -> Result<File> {
    let at = ShownPath(path);
    // Looked at before it is opened: to open a FIFO is to wait for its writer.
    if !fs::metadata(path).map_err(Error::io("open the key file", at))?.is_file() {
        return Err(refuse("it is not a regular file"));
    }
    let file = File::open(path).map_err(Error::io("open the key file", at))?;
    let metadata = file.metadata().map_err(Error::io("look at the key file", at))?;
    if let Some(mode) = mode_for_others(&metadata) {
        let why = format!("others may use it too (its mode is {mode:04o}); chmod 600 ends that");
        return Err(refuse(&why));
    }
    Ok(file)
}

/// The mode of a file that gives anything to others than its owner.
#[cfg(unix)]
fn mode_for_others(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let mode = metadata.mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Other systems say it in ways that std does not read.
#[cfg(not(unix))]
fn mode_for_others(_: &Metadata) -> Option<u32> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_file_is_its_owners_alone_and_long_enough() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let with = |bytes: &[u8], mode: u32| {
            // A file that its owner may not write cannot be written anew.
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).expect("room");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
            read(&path).map(|_| ()).map_err(|error| error.to_string())
        };
        for mode in [0o600, 0o400, 0o700] {
            assert_eq!(with(b"0123456789abcdef", mode), Ok(()), "{mode:o}");
        }
        assert_eq!(with(&[0; KEY_MAX], 0o600), Ok(()), "any bytes, as many as are allowed");
        assert_eq!(read_with_bytes(&path).expect("a key").1, [0; KEY_MAX]);
        for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666] {
            let why = with(b"0123456789abcdef", mode).expect_err("others may use it");
            assert!(why.contains(&format!("its mode is 0{mode:o}); chmod 600")), "{why}");
        }
        for (bytes, says) in [
            (&b""[..], "it is empty"),
            (b"0123456789abcde", "it has 15 bytes, and a key has 16 at least"),
            (&[0; KEY_MAX + 1], "it has more than 4096 bytes"),
        ] {
            let why = with(bytes, 0o600).expect_err("no key");
            assert!(why.ends_with(says) && why.contains("key' cannot be used: "), "{why}");
        }
        let error = |path: &Path| read(path).expect_err("no key").to_string();
        assert!(error(folder.path()).ends_with("it is not a regular file"));
        assert!(error(&folder.path().join("none")).starts_with("cannot open the key file ("));
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(error(&fifo).ends_with("it is not a regular file"));
    }
}
