//! What a server appends to a payload that it cannot finish.

use crate::{
    proto::{
        line::{Fields, LineWriter},
        native::fields::{REASON_MAX, clip},
    },
    session::SessionId,
};

/// The last words of a payload that ends before its time: a line that tells the client why.
///
/// The session's random number keeps a file from holding it by chance or on purpose.
pub fn encode_last_words(session: SessionId, reason: &str) -> Vec<u8> {
    LineWriter::new("\nGATECAST/1 LASTWORDS")
        .field("session", session)
        .field("reason", clip(reason))
        .finish()
}

/// Finds the [last words](encode_last_words) at the end of a short payload's `tail`: how many
/// bytes they take, and the reason.
pub fn decode_last_words(session: SessionId, tail: &[u8]) -> Option<(usize, String)> {
    let mark = format!("\nGATECAST/1 LASTWORDS session={session} ");
    let at = tail.windows(mark.len()).rposition(|window| window == mark.as_bytes())?;
    let line = std::str::from_utf8(&tail[at..]).ok()?.strip_suffix('\n')?;
    let fields = Fields::parse(line.strip_prefix("\nGATECAST/1 ")?).ok()?;
    Some((tail.len() - at, fields.get("reason")?.to_owned()))
}

/// Longest [last words](encode_last_words), bytes.
pub const LAST_WORDS_MAX: usize = 64 + 3 * REASON_MAX + 16;
