//! What a path stands for just now, and folders that are safe on disk.

use std::{
    fs,
    fs::{File, Metadata},
    io,
    ops::Range,
    path::Path,
};

use crate::{
    error::{Error, Result},
    net::clock,
    proto::manifest::MODE_MASK,
    text::escape_path,
};

/// Whether `file` is what stands at `path` itself, and not behind a link there.
pub fn stands_at(file: &File, path: &Path) -> bool {
    let there = fs::symlink_metadata(path).and_then(|there| Ok((there, file.metadata()?)));
    there.is_ok_and(|(there, open)| is_same(&there, &open))
}

/// Whether both are of one file.
#[cfg(unix)]
pub fn is_same(one: &Metadata, two: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (two.dev(), two.ino())
}

/// Whether both are of one file, as far as this system tells.
#[cfg(not(unix))]
pub fn is_same(one: &Metadata, two: &Metadata) -> bool {
    one.is_symlink() == two.is_symlink() && one.len() == two.len()
}

/// The bits of its mode that are sent with a folder.
#[cfg(unix)]
pub fn mode_of(metadata: &Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata) & MODE_MASK
}

/// Where there are no modes: what most files have elsewhere, and folders need.
#[cfg(not(unix))]
pub fn mode_of(metadata: &Metadata) -> u32 {
    (if metadata.is_dir() { 0o755 } else { 0o644 }) & MODE_MASK
}

/// Makes the names in `folder` safe on disk; whether it could. A file system that cannot do that
/// (some network ones refuse to sync a folder) is worth a warning and no more.
pub fn sync_folder(folder: &Path) -> bool {
    // A system that does not open folders keeps their names safe by itself.
    let sync = || File::open(folder).and_then(|folder| folder.sync_all());
    let synced = if cfg!(unix) { sync() } else { Ok(()) };
    if let Err(error) = &synced {
        let at = escape_path(folder);
        log::warn!("cannot make the names in {at} durable: {error}");
    }
    synced.is_ok()
}

/// Makes all that was written to the file system of `folder` safe on disk, with one call; `false` where
/// the system has none.
///
/// # Errors
/// The disk failed.
pub fn sync_file_system(folder: &File) -> io::Result<bool> {
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    return Ok(nix::unistd::syncfs(folder).map(|()| true)?);
    #[cfg(not(all(target_os = "linux", feature = "sockopt")))]
    {
        let _ = folder;
        Ok(false)
    }
}

/// Gives the two folders each other's name, in one step; `false` where the system cannot.
///
/// # Errors
/// The system's.
pub fn exchange(one: &Path, two: &Path) -> io::Result<bool> {
    #[cfg(all(target_os = "linux", target_env = "gnu", feature = "sockopt"))]
    {
        use nix::{
            errno::Errno,
            fcntl::{AT_FDCWD, RenameFlags, renameat2},
        };
        match renameat2(AT_FDCWD, one, AT_FDCWD, two, RenameFlags::RENAME_EXCHANGE) {
            Err(Errno::EINVAL | Errno::ENOSYS) => Ok(false),
            exchanged => Ok(exchanged.map(|()| true)?),
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu", feature = "sockopt")))]
    {
        let _ = (one, two);
        Ok(false)
    }
}

/// Checks that `folder` can be written, or made where it is missing, and leaves nothing behind.
/// `option` is where the user chose it. It tries: rights alone do not tell it of every file system.
///
/// # Errors
/// The system's word for why not.
pub fn check_folder(folder: &Path, option: &str) -> Result<()> {
    let there = folder.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    // The last ancestor of a relative path is empty, and stands for the folder that we are in.
    let probe =
        there.unwrap_or_else(|| Path::new("")).join(format!(".gatecast-{:016x}", clock::random()));
    File::create_new(&probe).and_then(|_| fs::remove_file(&probe)).map_err(|error| {
        let at = escape_path(folder);
        let step = format_args!("choose another folder with {option}");
        Error::io("write into the folder", at)(error).advise(step)
    })
}

/// Bytes that an ordinary user may still write below `folder`; `None` where it cannot be asked.
pub fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(all(unix, feature = "sockopt"))]
    {
        let stat = nix::sys::statvfs::statvfs(folder).ok()?;
        // The field widths differ by platform.
        #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
        let bytes = u64::try_from(stat.blocks_available())
            .ok()?
            .checked_mul(u64::try_from(stat.fragment_size()).ok()?);
        bytes
    }
    #[cfg(not(all(unix, feature = "sockopt")))]
    {
        let _ = folder;
        None
    }
}

/// Reserves the room of `range` for a file whose size stays as it is, where the system can: what is
/// written there later waits for no room, and finds it. A failure leaves nothing reserved, and says so.
pub fn reserve(file: &File, range: Range<u64>) -> bool {
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    {
        use nix::fcntl::{FallocateFlags, fallocate};
        let (Ok(at), Ok(len)) = (range.start.try_into(), (range.end - range.start).try_into())
        else {
            return false;
        };
        let reserved = fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, at, len);
        reserved.inspect_err(|_| give_back(file)).is_ok()
    }
    #[cfg(not(all(target_os = "linux", feature = "sockopt")))]
    {
        let _ = (file, range);
        false
    }
}

/// Gives back what is reserved behind the last byte of a file that nobody writes.
pub fn give_back(file: &File) {
    // The same size again ends a reservation (fallocate(2)).
    if let Err(error) = file.metadata().and_then(|metadata| file.set_len(metadata.len())) {
        log::debug!("cannot give back what was reserved: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn file_stands_at_its_own_path_only() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("one"), b"same").expect("room");
        fs::write(at("two"), b"same").expect("room");
        std::os::unix::fs::symlink(at("one"), at("link")).expect("room");
        let one = File::open(at("one")).expect("there");
        assert!(stands_at(&one, &at("one")));
        for other in ["two", "link", "none"] {
            assert!(!stands_at(&one, &at(other)), "{other}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn folder_is_checked_and_left_as_it_was() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), b"x").expect("room");
        std::os::unix::fs::symlink(at("none"), at("link")).expect("room");
        for good in [folder.path().to_owned(), at("new"), at("a/b/c")] {
            check_folder(&good, "--out").expect("it can be written");
        }
        for bad in [at("file"), at("file/new"), at("link/new"), "/proc/nope".into()] {
            let error = check_folder(&bad, "--out").expect_err("it cannot").to_string();
            let start = format!("cannot write into the folder ({}): ", bad.display());
            assert!(error.starts_with(&start), "{error}");
            assert!(error.ends_with("; choose another folder with --out"), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn failed_sync_of_a_folder_is_told() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(sync_folder(folder.path()));
        assert!(!sync_folder(&folder.path().join("none")));
        assert!(!sync_folder(Path::new("/proc")), "that file system cannot");
    }

    #[test]
    fn free_space_is_told_where_the_system_does() {
        assert_eq!(free_space(Path::new("/")).is_some(), cfg!(all(unix, feature = "sockopt")));
    }
}
