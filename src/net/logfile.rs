//! A file of results: made with its first line, under a name that sorts by time, and longer by
//! whole lines only.
//!
//! What a line holds is its writer's affair. One thread writes to one file; the run's number,
//! which is random, is in its name, so that nobody else does.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;

use time::OffsetDateTime;
use time::macros::format_description;

/// A log that is made when it is first written to.
#[derive(Debug, Default)]
pub struct LogFile {
    file: Option<File>,
}

/// `2026-11-20_23-26-55-0123456789abcdef.log`, so that a folder of logs sorts by time.
pub fn name(start: OffsetDateTime, number: &str) -> String {
    let stamp = format_description!("[year]-[month]-[day]_[hour]-[minute]-[second]");
    let start = start.format(&stamp).expect("a valid time has these parts");
    format!("{start}-{number}.log")
}

impl LogFile {
    /// Appends `line` to the file `name` of `folder`, which begins with `header`. Folder and file
    /// are made where they are not there.
    ///
    /// # Errors
    /// The system's; nothing of the line is in the file then.
    pub fn append(
        &mut self,
        folder: &Path,
        name: &str,
        header: &str,
        line: &str,
    ) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                std::fs::create_dir_all(folder)?;
                let path = folder.join(name);
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
        Self { file: Some(file) }
    }
}

/// Appends all of `line` to `file` through `writer`, or nothing: half a line on a full disk would
/// spoil the line after it, and with it the whole log for who reads it.
fn append_whole(file: &File, mut writer: impl Write, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    writer.write_all(line).inspect_err(|_| {
        // What cannot be taken back is seen by whoever reads the log.
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
    fn half_a_line_is_taken_back() {
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
    fn the_header_stands_once_whoever_opens_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let logs = folder.path().join("logs");
        for _ in 0..2 {
            let mut log = LogFile::default();
            for line in ["one\n", "two\n"] {
                log.append(&logs, "a.log", "header\n", line).expect("room");
            }
        }
        let text = fs::read_to_string(logs.join("a.log")).expect("text");
        assert_eq!(text, "header\none\ntwo\none\ntwo\n");
    }
}
