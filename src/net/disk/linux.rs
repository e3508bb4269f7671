//! What Linux knows of a disk: its partitions (sysfs), mounts, swap, loop devices, and a claim on it.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, TryLockError},
    io::{self, Seek, SeekFrom},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
        },
    },
    path::Path,
};

use nix::{
    fcntl::OFlag,
    sys::stat::{major, minor},
};

use crate::{
    error::{Error, Result},
    net::{disk::Disk, files::is_same},
    text::{escape, escape_path},
};

/// Refuses what must not be written in place, without opening it.
///
/// # Errors
/// It is neither a disk nor a regular file, it is in use, or nobody says whether it is.
pub fn check(path: &Path) -> Result<()> {
    inspect(path).map(drop)
}

/// Opens what stands at `path`, also behind a link as those of `/dev/disk`. A device is claimed: as
/// long as it is open nobody can mount it.
///
/// # Errors
/// As [`check`]; or it cannot be opened, claimed, or read past the cache.
pub fn open(path: &Path) -> Result<Disk> {
    let failed = || Error::io("open the disk", shown(path));
    let is_file = inspect(path)?.is_file();
    let mut options = File::options();
    // It claims a device, and means nothing to a file.
    options.read(true).write(true).custom_flags(OFlag::O_EXCL.bits());
    let file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => refused(path, "it is in use elsewhere, as by a RAID"),
        _ => failed()(error),
    })?;
    if is_file && matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Err(refused(path, "another program has locked it"));
    }
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let uncached = File::options().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(again);
    let advice = "it cannot be read back past the system's cache";
    let uncached = uncached.map_err(|error| failed()(error).advise(advice))?;
    let bytes = (&file).seek(SeekFrom::End(0)).map_err(failed())?;
    Ok(Disk { file, uncached, bytes })
}

/// What stands at `path`, if it is of the right kind and nobody uses it.
fn inspect(path: &Path) -> Result<Metadata> {
    let seen = fs::metadata(path).map_err(Error::io("look at the disk", shown(path)))?;
    // To open a device of another kind, or a pipe, can have effects.
    if !seen.file_type().is_block_device() && !seen.is_file() {
        return Err(refused(path, "it is neither a disk nor a regular file"));
    }
    match user_of(path, &seen).map_err(Error::io("find out who uses the disk", shown(path)))? {
        Some(user) => Err(refused(path, &user)),
        None => Ok(seen),
    }
}

/// Who uses what was `seen` at `path`, as a clause.
fn user_of(path: &Path, seen: &Metadata) -> io::Result<Option<String>> {
    let is_device = seen.file_type().is_block_device();
    let devices = if is_device { devices_of(path, seen)? } else { Vec::new() };
    let mounts = fs::read("/proc/self/mountinfo")?;
    if let Some(user) = mounted(&String::from_utf8_lossy(&mounts), &devices) {
        return Ok(Some(user));
    }
    // A system that knows no swap has no such file.
    let swaps = fs::read("/proc/swaps").unwrap_or_default();
    for line in swaps.split(|byte| *byte == b'\n').skip(1) {
        let name = line.split(|byte| b" \t".contains(byte)).next().unwrap_or_default();
        let Ok(swap) = fs::metadata(OsStr::from_bytes(name)) else { continue };
        if is_same(&swap, seen) || devices.iter().any(|(own, _)| *own == number(&swap)) {
            return Ok(Some(format!("{} is swap", shown(OsStr::from_bytes(name).as_ref()))));
        }
    }
    for disk in fs::read_dir("/sys/block")?.flatten() {
        let backing = fs::read(disk.path().join("loop/backing_file")).unwrap_or_default();
        let backing = fs::metadata(OsStr::from_bytes(backing.trim_ascii_end()));
        if backing.is_ok_and(|backing| is_same(&backing, seen)) {
            let name = shown(disk.file_name().as_ref());
            return Ok(Some(format!("it is the disk {name} at the same time (losetup)")));
        }
    }
    Ok(None)
}

/// The device and its partitions, each by its number and its name.
fn devices_of(path: &Path, seen: &Metadata) -> io::Result<Vec<(String, String)>> {
    let own = number(seen);
    let folder = Path::new("/sys/dev/block").join(&own);
    let mut devices = vec![(own, shown(path))];
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.path().join("partition").exists() {
            let number = fs::read_to_string(entry.path().join("dev"))?;
            devices.push((number.trim().to_owned(), shown(entry.file_name().as_ref())));
        }
    }
    Ok(devices)
}

/// A device's number as sysfs and the table of mounts write it.
fn number(device: &Metadata) -> String {
    format!("{}:{}", major(device.rdev()), minor(device.rdev()))
}

/// Which of `devices` is mounted, and where, by a table of mounts (proc_pid_mountinfo(5)).
fn mounted(mounts: &str, devices: &[(String, String)]) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut columns = line.split(' ').skip(2);
        let number = columns.next()?;
        let at = columns.nth(1)?;
        let (_, name) = devices.iter().find(|(own, _)| own == number)?;
        Some(format!("{name} is mounted at {}", escape(at)))
    })
}

fn refused(path: &Path, reason: &str) -> Error {
    Error::refused(shown(path), reason)
}

fn shown(path: &Path) -> String {
    escape_path(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
43 27 259:0 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/sda1 rw
44 27 0:26 / /dev/pts rw - devpts devpts rw
broken";

    #[test]
    fn mounted_disk_or_partition_is_told_with_its_place() {
        let devices = |numbers: &[&str]| -> Vec<_> {
            numbers.iter().map(|&number| (number.to_owned(), format!("sd{number}"))).collect()
        };
        let told = |numbers: &[&str]| mounted(MOUNTS, &devices(numbers));
        assert_eq!(
            told(&["8:0", "259:0"]).as_deref(),
            Some("sd259:0 is mounted at /mnt/a\\u{5c}040b")
        );
        assert_eq!(told(&["254:0"]).as_deref(), Some("sd254:0 is mounted at /"));
        for free in [&[][..], &["8:0"], &["25:0"], &["254:00"], &["27"]] {
            assert_eq!(told(free), None, "{free:?}");
        }
    }

    #[test]
    fn what_is_no_disk_or_file_is_not_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for path in [folder.path(), &at("pipe"), "/dev/null".as_ref()] {
            let error = open(path).expect_err("no disk").to_string();
            assert!(error.contains("neither a disk nor a regular file"), "{error}");
        }
        let error = open(&at("none")).expect_err("nothing is there").to_string();
        assert!(error.contains("cannot look at the disk"), "{error}");
        assert!(!at("none").exists(), "nothing is made");
    }

    #[test]
    fn locked_file_is_refused_until_it_is_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.img");
        fs::write(&path, [7; 5000]).expect("room");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("room");
        let disk = open(&link).expect("nobody has it");
        assert_eq!(disk.bytes, 5000);
        let error = open(&path).expect_err("we have it").to_string();
        assert!(error.contains("has locked it"), "{error}");
        // A program that a test beside starts has the file open until it runs.
        disk.file.unlock().expect("ours");
        drop(disk);
        open(&path).expect("free again");
        assert_eq!(fs::read(&path).expect("there"), [7; 5000]);
    }
}
