//! The relay log: one logger thread, one channel, one line per visit.
//!
//! As the session log (`runtime/journal.rs`): the thread alone opens, formats and writes, a line
//! is one `write_all` to a file opened for append, and who listens is told a visit once it is
//! logged. The file is made with the first line, under
//! `<log-dir>/<UTC, YYYY-MM-DD_HH-MM-SS>-relay-<relay>.log`.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use time::macros::format_description;

use crate::error::Error;
use crate::error::Result;
use crate::proto::relay::log;
use crate::proto::relay::log::Visit;

/// The logger thread.
#[derive(Debug)]
pub(super) struct Journal {
    pen: Pen,
    visits: Receiver<Visit>,
    thread: JoinHandle<Result<()>>,
}

/// The sending side.
#[derive(Clone, Debug)]
pub(super) struct Pen(Sender<Visit>);

impl Journal {
    /// Starts the logger, which writes into `folder` if there is one.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(folder: Option<PathBuf>) -> Result<Self> {
        let (pen, entries) = crossbeam_channel::unbounded();
        let (publish, visits) = crossbeam_channel::unbounded();
        let thread = thread::Builder::new()
            .name("logger".to_owned())
            .spawn(move || run(folder.as_deref(), &entries, &publish))
            .map_err(Error::io("start the logger thread", "the relay log"))?;
        Ok(Self {
            pen: Pen(pen),
            visits,
            thread,
        })
    }

    /// A way to write to it.
    pub(super) fn pen(&self) -> Pen {
        self.pen.clone()
    }

    /// The visits, each once it is in the log.
    pub(super) fn visits(&self) -> Receiver<Visit> {
        self.visits.clone()
    }

    /// Waits until all pens are gone and all lines are written.
    ///
    /// # Errors
    /// The first line that could not be written.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.pen);
        let ended = self.thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Pen {
    /// Writes a line.
    pub(super) fn write(&self, visit: Visit) {
        // The logger ends after all pens; if it panicked, the relay goes on.
        let _ = self.0.send(visit);
    }
}

fn run(folder: Option<&Path>, entries: &Receiver<Visit>, publish: &Sender<Visit>) -> Result<()> {
    let mut file = None;
    let mut failed = None;
    for visit in entries {
        if let Some(folder) = folder
            && let Err(error) = append(folder, &mut file, &visit)
        {
            ::log::error!(
                "cannot write the relay log in {}: {error}",
                folder.display()
            );
            let failure = Error::io("write the relay log", folder.display())(error);
            failed.get_or_insert(failure);
        }
        // Nobody needs to listen.
        let _ = publish.send(visit);
    }
    failed.map_or(Ok(()), Err)
}

fn append(folder: &Path, file: &mut Option<File>, visit: &Visit) -> io::Result<()> {
    let open = match file {
        Some(open) => open,
        None => {
            std::fs::create_dir_all(folder)?;
            let path = folder.join(file_name(visit));
            let mut made = OpenOptions::new().append(true).create(true).open(path)?;
            if made.metadata()?.len() == 0 {
                made.write_all(log::header().as_bytes())?;
            }
            file.insert(made)
        }
    };
    open.write_all(visit.encode().as_bytes())
}

/// `2026-11-20_23-26-55-relay-0123456789abcdef.log`, of the first visit.
fn file_name(visit: &Visit) -> String {
    let stamp = format_description!("[year]-[month]-[day]_[hour]-[minute]-[second]");
    let start = visit
        .at
        .format(&stamp)
        .expect("a valid time has these parts");
    format!("{start}-relay-{}.log", visit.relay)
}
