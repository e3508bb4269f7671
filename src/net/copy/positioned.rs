//! Reads and writes at a place of a file, wherever its offset stands.

use std::{io, io::IoSlice};

use crate::net::{
    copy::Stop,
    storage::{FileStorage, Stretch},
};

/// Reads at least one byte of `file` at `at`, wherever its offset stands.
pub fn read_at(file: &FileStorage, buffer: &mut [u8], at: u64) -> Result<usize, Stop> {
    let Stretch { file, at, len } = file.stretch(at).map_err(stretch_stop)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
    let buffer = &mut buffer[..len];
    loop {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&*file, buffer, at);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&*file, buffer, at);
        match read {
            Ok(0) => return Err(Stop::Short),
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stop::Disk(error)),
        }
    }
}

/// Writes all of `bytes` at `at`.
///
/// # Errors
/// The disk failed.
pub fn write_at(file: &FileStorage, mut bytes: &[u8], mut at: u64) -> Result<(), Stop> {
    while !bytes.is_empty() {
        let part = file.stretch(at).map_err(Stop::Disk)?;
        let len = usize::try_from(part.len).unwrap_or(usize::MAX).min(bytes.len());
        #[cfg(unix)]
        let written = std::os::unix::fs::FileExt::write_at(&*part.file, &bytes[..len], part.at);
        #[cfg(windows)]
        let written =
            std::os::windows::fs::FileExt::seek_write(&*part.file, &bytes[..len], part.at);
        match written {
            Ok(0) => return Err(Stop::Disk(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stop::Disk(error)),
        }
    }
    Ok(())
}

/// Writes `parts` one after the other from `at` on: with one call where the system has it.
///
/// # Errors
/// The disk failed.
pub fn write_parts_at(file: &FileStorage, parts: &[IoSlice<'_>], mut at: u64) -> Result<(), Stop> {
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    {
        let want = parts.iter().map(|part| part.len()).sum();
        let stretch = file.stretch(at).map_err(Stop::Disk)?;
        if let Ok(offset) = i64::try_from(stretch.at)
            && want as u64 <= stretch.len
            && nix::sys::uio::pwritev(&*stretch.file, parts, offset) == Ok(want)
        {
            return Ok(());
        }
    }
    // Whatever stood in the way, a write at the same place says it.
    for part in parts {
        write_at(file, part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Behind the last byte of a folder there is none to read, as behind that of a file.
fn stretch_stop(error: io::Error) -> Stop {
    if error.kind() == io::ErrorKind::UnexpectedEof { Stop::Short } else { Stop::Disk(error) }
}
