//! Standard output and standard error: results on the one, messages on the other.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    client::{ClientReport, failures},
    error::{Error, Result},
    report::{
        layout::{Layout, RateUnit},
        table::WIDTH_MIN,
        verdict::{FAILED, Verdict},
    },
    text::ShownPath,
};

/// Tables have all their columns, however wide the terminal is.
static WIDE: AtomicBool = AtomicBool::new(false);

/// The unit of rates in the tables of sessions.
static UNIT: OnceLock<RateUnit> = OnceLock::new();

/// Standard output gets the file itself, so that results go to standard error.
static IS_PIPE: AtomicBool = AtomicBool::new(false);

/// The user's `--wide` and `--unit`.
pub(crate) fn set_tables(wide: bool, unit: RateUnit) {
    WIDE.store(wide, Ordering::Relaxed);
    UNIT.get_or_init(|| unit);
}

/// The user's `--out -`: results go to standard error.
pub(crate) fn set_pipe(is_pipe: bool) {
    IS_PIPE.store(is_pipe, Ordering::Relaxed);
}

/// Writes the file at `path` to standard output.
///
/// # Errors
/// It cannot be read, or nobody reads standard output any more.
pub(crate) fn write_file(path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io("open the copy", ShownPath(path)))?;
    let mut out = io::stdout().lock();
    let written = io::copy(&mut file, &mut out).and_then(|_| out.flush());
    written.map_err(Error::io("write the file", "standard output"))
}

/// How many columns a table may take: those of the terminal. `None` where the user wants all that
/// a table has, and where a file or another program gets it.
pub(crate) fn width() -> Option<usize> {
    let is_pipe = IS_PIPE.load(Ordering::Relaxed);
    let terminal = if is_pipe { console::Term::stderr() } else { console::Term::stdout() };
    if WIDE.load(Ordering::Relaxed) || !terminal.is_term() {
        return None;
    }
    let (_, columns) = terminal.size_checked()?;
    Some(usize::from(columns).max(WIDTH_MIN))
}

/// How the tables of sessions are laid out.
pub(crate) fn layout() -> Layout {
    Layout { width: width(), unit: UNIT.get().copied().unwrap_or_default() }
}

/// Writes the last line of a session, on a terminal in colour.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_verdict(line: &str) -> Result<()> {
    let line = line.trim_end();
    let style = console::Style::new().for_stdout().bold();
    let style = if line.starts_with(FAILED) { style.red() } else { style.green() };
    print(&format!("{}\n", style.apply_to(line)))
}

/// Writes a result. A reader that has gone (`| head`) is no failure.
///
/// # Errors
/// Standard output cannot be written, for instance because its disk is full.
pub(crate) fn print(text: &str) -> Result<()> {
    if IS_PIPE.load(Ordering::Relaxed) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::io("write the result", "standard output")),
    }
}

/// Prints the answer of a command that does nothing else.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn answer(text: &str) -> Result<Verdict> {
    print(text).map(|()| Verdict::AllVerified)
}

/// Writes a message to standard error, as a line.
pub(crate) fn eprintln(message: impl Display) {
    // If standard error is closed, the user wants no messages.
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Writes an error to standard error.
pub(crate) fn print_error(error: &Error) {
    eprintln(format_args!("gatecast: {error}"));
}

/// Writes a line to standard error for each kind of failure, with the clients that it struck.
pub(crate) fn print_failures(reports: &[ClientReport]) {
    for line in failures(reports) {
        eprintln(format_args!("gatecast: {line}"));
    }
}
