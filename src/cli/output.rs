//! Standard output and standard error: results on the one, messages on the other.

use std::fmt::Display;
use std::io;
use std::io::Write;

use crate::error::Error;
use crate::error::Result;

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

/// Writes a message.
pub(crate) fn say(message: impl Display) {
    // Whoever closed standard error does not want messages.
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Writes what went wrong.
pub(crate) fn complain(error: &Error) {
    say(format_args!("gatecast: {error}"));
}
