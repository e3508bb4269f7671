//! The networking lab's TCP client: what it says and what it is told.
//!
//! ```text
//! client                          server
//! Preparado          ->                        9 bytes, no newline; then it waits at the gate
//!                    <-  1\n                   its seat
//!                    <-  100MB.bin\n           the file's name
//!                    <-  100000000\n           its size, bytes, decimal
//!                    <-  <40 hex digits>\n     its SHA-1
//!                    <-  <the file's bytes>
//! Recibido           ->                        8 bytes, no newline, only if the digest matches
//!                    <-  1762300000.123456\n   the server's start time, seconds since the epoch
//! 0.482\n            ->                        the client's own elapsed seconds; then it closes
//! ```

use std::time::Duration;

use crate::{
    proto::{http::text::digits, line::DecodeError, native::SIZE_MAX},
    session::{FileInfo, SeatId},
    text::FileName,
    units::decimal_seconds,
};

/// What the client says when it is ready.
pub const READY: &[u8] = b"Preparado";

/// What the client says when it holds the file and the digest matched.
pub const RECEIVED: &[u8] = b"Recibido";

/// Most [stray](is_stray) bytes passed over before [`RECEIVED`].
pub const STRAY_MAX: usize = 64;

/// Whether `byte`, before [`RECEIVED`], is passed over: a client that lets slip a newline or a sign
/// that nobody asked for holds its file all the same. Letters and digits are not, so that
/// `No Recibido` stays a no.
pub fn is_stray(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric()
}

/// The four lines before the file.
pub fn encode_offer(seat: SeatId, file: &FileInfo) -> Vec<u8> {
    format!("{seat}\n{}\n{}\n{}\n", file.name.as_str(), file.bytes, file.sha1).into_bytes()
}

/// Reads the four lines.
///
/// # Errors
/// No seat from 1 on, a name that is not one, no size, or no SHA-1.
pub fn decode_offer(lines: &[String; 4]) -> Result<(SeatId, FileInfo), DecodeError> {
    let [seat, name, bytes, sha1] = lines.each_ref().map(|line| line.trim_ascii());
    let file_name = FileName::new(name).map_err(|_| DecodeError::value("no file's name", name))?;
    let size = digits(bytes).filter(|&bytes| bytes <= SIZE_MAX);
    let number = digits(seat).and_then(|seat| u16::try_from(seat).ok()).filter(|&seat| seat > 0);
    let file = FileInfo {
        name: file_name,
        bytes: size.ok_or_else(|| DecodeError::value("no size", bytes))?,
        sha1: sha1.parse().map_err(|_| DecodeError::value("no SHA-1", sha1))?,
    };
    Ok((SeatId(number.ok_or_else(|| DecodeError::value("no number of a client", seat))?), file))
}

/// The client's own elapsed time, seconds.
pub fn encode_elapsed(elapsed: Duration) -> Vec<u8> {
    format!("{}\n", decimal_seconds(elapsed)).into_bytes()
}

/// The server's start time as the client wants it: seconds since the Unix epoch.
pub fn encode_start(since_epoch: Duration) -> Vec<u8> {
    format!("{}.{:06}\n", since_epoch.as_secs(), since_epoch.subsec_micros()).into_bytes()
}

/// Reads the client's elapsed seconds: a decimal, perhaps with an exponent as Python prints small
/// floats, from zero to a year.
///
/// # Errors
/// Anything else.
pub fn decode_elapsed(line: &str) -> Result<Duration, DecodeError> {
    let wrong = || DecodeError::value("no elapsed time in seconds", line);
    let text = line.trim_ascii();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) {
        return Err(wrong());
    }
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.0..=365.0 * 86_400.0).contains(&seconds) {
        return Err(wrong());
    }
    // Microseconds, like every other span in the log, so that what is read back is what was held.
    Duration::try_from_secs_f64(seconds)
        .map(|span| Duration::from_micros(crate::units::micros(span)))
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use crate::{digest::Digest, text::FileName};

    use super::*;

    #[test]
    fn lab_offer_is_four_lines() {
        let file = FileInfo {
            name: FileName::new("a b.bin").expect("plain"),
            bytes: 3,
            sha1: Digest::of(b"abc"),
        };
        assert_eq!(
            encode_offer(SeatId(7), &file),
            b"7\na b.bin\n3\na9993e364706816aba3e25717850c26c9cd0d89d\n"
        );
        assert_eq!(encode_start(Duration::new(1_762_300_000, 5_000)), b"1762300000.000005\n");
    }

    #[test]
    fn elapsed_seconds_are_read_as_python_prints_them() {
        assert_eq!(decode_elapsed("0.482"), Ok(Duration::from_millis(482)));
        assert_eq!(decode_elapsed("5.1e-05"), Ok(Duration::from_micros(51)));
        assert_eq!(decode_elapsed("12"), Ok(Duration::from_secs(12)));
        for text in ["", "-1", "nan", "inf", "1e309", "1e99", "abc", "0x1", "1,5", "1 2", "é"] {
            assert!(decode_elapsed(text).is_err(), "{text}");
        }
    }
}
