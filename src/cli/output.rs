//! Standard output and standard error: results on the one, messages on the other.

use std::{
    fmt::Display,
    io::{self, Write},
};

use crate::{
    client::{ClientReport, failures},
    error::{Error, Result},
};

/// Writes a result. A reader that has gone (`| head`) is no failure.
///
/// # Errors
/// Standard output cannot be written, for instance because its disk is full.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::io("write the result", "standard output")),
    }
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
