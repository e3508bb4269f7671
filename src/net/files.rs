//! What a path stands for just now, and folders that are safe on disk.

use std::{
    fs,
    fs::{File, Metadata},
    path::Path,
};

use crate::{
    error::{Error, Result},
    net::clock,
    text::escape,
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

/// Makes the names in `folder` safe on disk; whether it could. A file system that cannot do that
/// (some network ones refuse to sync a folder) is worth a warning and no more.
pub fn sync_folder(folder: &Path) -> bool {
    // A system that does not open folders keeps their names safe by itself.
    let sync = || File::open(folder).and_then(|folder| folder.sync_all());
    let synced = if cfg!(unix) { sync() } else { Ok(()) };
    if let Err(error) = &synced {
        let at = escape(&folder.display().to_string());
        log::warn!("cannot make the names in {at} durable: {error}");
    }
    synced.is_ok()
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
        let at = escape(&folder.display().to_string());
        let step = format_args!("choose another folder with {option}");
        Error::io("write into the folder", at)(error).advise(step)
    })
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
}
