//! Files of results, written and read back. A file is made with its first line, under a name that
//! sorts by time, and grows by whole lines only.
//!
//! What a line holds is its writer's affair. One thread writes to one file; the run's number,
//! which is random, is in its name, so that nobody else does.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use time::{OffsetDateTime, macros::format_description};

use crate::{
    error::{Error, Result},
    net::files,
    text::ShownPath,
};

/// A log that is made when it is first written to.
#[derive(Debug)]
pub struct LogFile {
    name: String,
    file: Option<File>,
}

/// The folder of a thread's logs. A line that cannot be written is an error in the diagnostics, and
/// the first such error is kept for the end; what is logged goes on without it.
#[derive(Debug)]
pub struct LogFolder {
    /// What is done with it, for errors.
    doing: &'static str,
    path: Option<PathBuf>,
    header: String,
    failed: Option<Error>,
}

/// Largest log that is read, bytes: half a million transfers. A larger file is not a log.
pub const LOG_MAX: u64 = 256 * 1024 * 1024;

impl LogFile {
    /// A log named `2026-11-20_23-26-55-<number>.log`, so that a folder of logs sorts by time.
    pub fn new(start: OffsetDateTime, number: impl fmt::Display) -> Self {
        Self { name: run_name(start, number) + ".log", file: None }
    }

    /// Appends `line` to this file in `folder`, which begins with `header`. Folder and file are
    /// made where they are not there.
    ///
    /// # Errors
    /// The system's; nothing of the line is in the file then.
    fn append(&mut self, folder: &Path, header: &str, line: &str) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                std::fs::create_dir_all(folder)?;
                let path = folder.join(&self.name);
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                if file.metadata()?.len() == 0 {
                    append_whole(&file, &file, header.as_bytes())?;
                }
                self.file.insert(file)
            }
        };
        append_whole(file, file, line.as_bytes())
    }

    /// A log whose file is open already.
    #[cfg(test)]
    pub(crate) fn of(file: File) -> Self {
        let (name, file) = ("a.log".to_owned(), Some(file));
        Self { name, file }
    }
}

impl LogFolder {
    /// Logs in `path` that begin with `header`; without a path nothing is written. `doing` is for
    /// errors: "cannot write the session log".
    pub fn new(doing: &'static str, path: Option<PathBuf>, header: impl Into<String>) -> Self {
        Self { doing, path, header: header.into(), failed: None }
    }

    /// Appends `line` to `log`.
    pub fn append(&mut self, log: &mut LogFile, line: &str) {
        let Some(folder) = &self.path else { return };
        let path = folder.join(&log.name);
        if let Err(error) = log.append(folder, &self.header, line) {
            self.fail(&path, error);
        }
    }

    /// Makes what is in `log`, and its name, outlast a loss of power.
    pub fn sync(&mut self, log: &LogFile) {
        let (Some(folder), Some(file)) = (&self.path, &log.file) else { return };
        files::sync_folder(folder);
        let path = folder.join(&log.name);
        if let Err(error) = file.sync_all() {
            self.fail(&path, error);
        }
    }

    fn fail(&mut self, path: &Path, error: io::Error) {
        let failure = Error::io(self.doing, ShownPath(path))(error);
        log::error!("{failure}");
        self.failed.get_or_insert(failure);
    }

    /// The first error, if there was one.
    ///
    /// # Errors
    /// A line could not be written.
    pub fn finish(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// The name of what a run that began at `start` writes, without its kind.
pub fn run_name(start: OffsetDateTime, number: impl fmt::Display) -> String {
    let stamp = format_description!("[year]-[month]-[day]_[hour]-[minute]-[second]");
    let start = start.format(&stamp).expect("a valid time has these parts");
    format!("{start}-{number}")
}

/// Gives each line of the log at `path`, with its end, to `each`. Of a line that is longer than
/// `line_max` bytes it gives one byte more than that, and the rest as another line.
///
/// # Errors
/// A path that is not a readable file or is too large; what `each` says is wrong with a line, with
/// the line's number.
pub fn read_lines<E: fmt::Display>(
    path: &Path,
    line_max: usize,
    mut each: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> Result<()> {
    let at = ShownPath(path);
    // Looked at before it is opened: to open a FIFO is to wait for its writer.
    let about = std::fs::metadata(path).map_err(Error::io("open the log", &at))?;
    if !about.is_file() {
        return Err(Error::refused(at, "it is not a file"));
    }
    let file = File::open(path).map_err(Error::io("open the log", &at))?;
    if about.len() > LOG_MAX {
        return Err(Error::refused(at, "it is larger than 256 MiB, so it is not a log"));
    }
    // A log may grow while it is read; what came after the check above is not worth more memory.
    let mut lines = BufReader::new(file.take(LOG_MAX));
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let limit = line_max as u64 + 1;
        let read = lines.by_ref().take(limit).read_until(b'\n', &mut line);
        if read.map_err(Error::io("read the log", &at))? == 0 {
            break;
        }
        each(&line).map_err(|why| line_error(path, number, why))?;
    }
    Ok(())
}

/// The error of a log's line, which is named by its number from 1.
pub fn line_error(path: &Path, number: u64, why: impl fmt::Display) -> Error {
    let place = format_args!("{}, line {number},", ShownPath(path));
    Error::protocol(place, why.to_string())
}

/// Appends all of `line` to `file` through `writer`, or nothing: half a line on a full disk would
/// spoil the line after it, and with it the whole log for its readers.
///
/// # Errors
/// The system's.
pub fn append_whole(file: &File, mut writer: impl Write, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    writer.write_all(line).inspect_err(|_| {
        // If it cannot be removed, the readers of the log see it.
        let _ = file.set_len(before);
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A disk that takes half of what it is given.
    struct Half<'a>(&'a File);

    impl Write for Half<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write_all(&bytes[..bytes.len() / 2])?;
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn half_a_line_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(&path).expect("room");
        append_whole(&file, &file, b"a line\n").expect("room");
        let error = append_whole(&file, Half(&file), b"half a line\n").expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        append_whole(&file, &file, b"another\n").expect("room again");
        let text = fs::read_to_string(&path).expect("text");
        assert_eq!(text, "a line\nanother\n");
    }

    #[test]
    fn header_is_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let logs = folder.path().join("logs");
        for _ in 0..2 {
            let mut log = LogFile::new(OffsetDateTime::UNIX_EPOCH, "7");
            for line in ["one\n", "two\n"] {
                log.append(&logs, "header\n", line).expect("room");
            }
        }
        let path = logs.join("1970-01-01_00-00-00-7.log");
        let text = fs::read_to_string(path).expect("text");
        assert_eq!(text, "header\none\ntwo\none\ntwo\n");
    }
}
