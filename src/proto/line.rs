//! Lines out of a byte stream, with a limit, and the `WORD key=value` form that native messages
//! have.
//!
//! A line ends with `\n`. Values are percent-encoded (RFC 3986, section 2.1), so that a value
//! holds any text and a line never holds a control character.

use std::{fmt, net::SocketAddr};

use crate::proto::percent;

/// Collects bytes until there is a line; holds at most [`LINE_MAX`] bytes of one.
#[derive(Debug, Default)]
pub struct LineBuf {
    bytes: Vec<u8>,
    start: usize,
    /// Bytes that a line may have beyond that.
    seal: usize,
}

/// One line taken apart: its word and its fields.
#[derive(Debug)]
pub struct Fields<'a> {
    word: &'a str,
    fields: Vec<(&'a str, String)>,
}

/// What is wrong with a message, with the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(pub String);

/// Longest line, bytes, its `\n` included: a file name of 255 bytes, percent-encoded, and every
/// field that a message has, twice over.
pub const LINE_MAX: usize = 2048;

/// Most fields in one line.
pub const FIELDS_MAX: usize = 56;

impl LineBuf {
    /// Lines have a seal of `len` bytes from now on.
    pub fn expect_seal(&mut self, len: usize) {
        self.seal = len;
    }

    /// Takes what a read returned.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line without its `\n`, or `None` until more bytes come.
    ///
    /// # Errors
    /// A line over [`LINE_MAX`] bytes, or one that is not UTF-8 text free of control characters.
    pub fn next_line(&mut self) -> Result<Option<String>, DecodeError> {
        let held = &self.bytes[self.start..];
        let most = LINE_MAX + self.seal;
        let Some(end) = held.iter().take(most).position(|&byte| byte == b'\n') else {
            if held.len() < most {
                return Ok(None);
            }
            return Err(DecodeError(format!("a line longer than {LINE_MAX} bytes")));
        };
        let line = std::str::from_utf8(&held[..end])
            .map_err(|_| DecodeError("a line that is not UTF-8".to_owned()))?;
        if line.chars().any(char::is_control) {
            return Err(DecodeError("a line with a control character in it".to_owned()));
        }
        let line = line.to_owned();
        self.start += end + 1;
        Ok(Some(line))
    }

    /// Takes up to `max` bytes that came after the last line: the beginning of a payload.
    pub fn take_payload(&mut self, max: usize) -> Vec<u8> {
        let end = self.bytes.len().min(self.start.saturating_add(max));
        let payload = self.bytes[self.start..end].to_vec();
        self.start = end;
        payload
    }

    /// How many bytes are held beyond the lines taken.
    pub fn held(&self) -> usize {
        self.bytes.len() - self.start
    }
}

impl<'a> Fields<'a> {
    /// Takes `line` apart.
    ///
    /// # Errors
    /// A field without `=`, a key twice, more than [`FIELDS_MAX`] fields, a broken percent code.
    pub fn parse(line: &'a str) -> Result<Self, DecodeError> {
        let mut parts = line.split(' ');
        let word = parts.next().unwrap_or_default();
        let mut fields: Vec<(&str, String)> = Vec::new();
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| DecodeError::value("a field without '='", part))?;
            if fields.len() == FIELDS_MAX {
                return Err(DecodeError(format!("more than {FIELDS_MAX} fields")));
            }
            if fields.iter().any(|&(known, _)| known == key) {
                return Err(DecodeError::value("a field twice", key));
            }
            fields.push((key, decoded(value)?));
        }
        Ok(Self { word, fields })
    }

    /// The line's first word.
    pub fn word(&self) -> &'a str {
        self.word
    }

    /// The field `key`, where the line has it.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|&&(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The field `key`, which the line must have.
    ///
    /// # Errors
    /// The field is missing.
    pub fn need(&self, key: &str) -> Result<&str, DecodeError> {
        self.get(key).ok_or_else(|| DecodeError(format!("{} without {key}", self.word)))
    }

    /// The field `key` as a decimal number without sign or leading zeros.
    ///
    /// # Errors
    /// The field is missing or no such number.
    pub fn number<N: TryFrom<u64>>(&self, key: &str) -> Result<N, DecodeError> {
        let text = self.need(key)?;
        decimal(text)
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| DecodeError::value(&format!("{} with a wrong {key}", self.word), text))
    }

    /// The field `key` as a number, where the line has it.
    ///
    /// # Errors
    /// The field is there and is no number.
    pub fn optional_number<N: TryFrom<u64>>(&self, key: &str) -> Result<Option<N>, DecodeError> {
        self.get(key).map(|_| self.number(key)).transpose()
    }

    /// The field `key`, read by the type's own parser.
    ///
    /// # Errors
    /// The field is missing, or the parser's own.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, DecodeError> {
        let text = self.need(key)?;
        parse(text).map_err(|why| DecodeError(format!("{} with a wrong {key}: {why}", self.word)))
    }

    /// The value of `key`, read by `parse`, where the line has it.
    ///
    /// # Errors
    /// As [`Self::parsed`].
    pub fn optional<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, DecodeError> {
        self.get(key).map(|_| self.parsed(key, parse)).transpose()
    }

    /// The multicast group, where the line names one.
    ///
    /// # Errors
    /// No address, another than a group's, or a port below 1024.
    pub fn group(&self) -> Result<Option<SocketAddr>, DecodeError> {
        match self.optional("group", str::parse::<SocketAddr>)? {
            Some(group) if !group.ip().is_multicast() || group.port() < 1024 => {
                Err(DecodeError(format!("{group} is no group to join")))
            }
            group => Ok(group),
        }
    }
}

/// Builds a line: `WORD key=value key=value\n`.
#[derive(Debug)]
#[must_use]
pub struct LineWriter(String);

impl LineWriter {
    /// Begins a line.
    pub fn new(word: &str) -> Self {
        Self(word.to_owned())
    }

    /// Adds a field.
    pub fn field(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.0.push(' ');
        self.0.push_str(key);
        self.0.push('=');
        let value = value.to_string();
        self.0.push_str(&percent::encode(value.as_bytes(), PLAIN));
        self
    }

    /// Adds a field where there is a value.
    pub fn maybe(self, key: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.field(key, value),
            None => self,
        }
    }

    /// The line's bytes, with its `\n`.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push('\n');
        self.0.into_bytes()
    }
}

/// Reads a decimal number: digits only, no sign, no leading zero, at most 2^64 - 1.
pub fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && !text.is_empty()
        && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok())?
}

/// What stands for itself in a value.
const PLAIN: &[u8] = b"-._~:/,+@[]()";

fn decoded(text: &str) -> Result<String, DecodeError> {
    percent::decode(text)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| DecodeError::value("a broken percent code", text))
}

impl DecodeError {
    /// `what`, with the offending value escaped and cut to 80 characters.
    pub fn value(what: &str, value: &str) -> Self {
        let shown: String = crate::text::escape(value).chars().take(80).collect();
        Self(format!("{what}: '{shown}'"))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_come_out_whole_however_the_stream_is_cut() {
        let stream = b"ONE a=1\nTWO b=%20\n\nrest";
        for cut in 0..=stream.len() {
            let mut buf = LineBuf::default();
            let mut lines = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                buf.push(part);
                while let Some(line) = buf.next_line().expect("plain lines") {
                    lines.push(line);
                }
            }
            assert_eq!(lines, ["ONE a=1", "TWO b=%20", ""], "cut at {cut}");
            assert_eq!(buf.take_payload(2), b"re");
            assert_eq!(buf.held(), 2);
        }
    }

    #[test]
    fn a_line_without_end_is_refused_and_the_longest_passes() {
        let mut buf = LineBuf::default();
        buf.push(&vec![b'x'; LINE_MAX - 1]);
        assert_eq!(buf.next_line(), Ok(None));
        buf.push(b"\n");
        assert_eq!(buf.next_line().expect("longest").map(|line| line.len()), Some(LINE_MAX - 1));
        buf.push(&vec![b'x'; LINE_MAX]);
        assert!(buf.next_line().is_err());
    }

    #[test]
    fn controls_and_broken_text_are_refused() {
        for line in [&b"A b=\x1b[2J\n"[..], b"A\0\n", b"A\r\n", b"\xff\xfe\n", b"A \xc2\x9b\n"] {
            let mut buf = LineBuf::default();
            buf.push(line);
            assert!(buf.next_line().is_err(), "{line:?}");
        }
        for line in
            ["A b", "A b=1 b=2", "A b=%", "A b=%4", "A b=%zz", "A b=%ff", "A  b=1", "A b=%+1"]
        {
            assert!(Fields::parse(line).is_err(), "{line}");
        }
        let many: String = (0..=FIELDS_MAX).map(|n| format!(" k{n}=1")).collect();
        assert!(Fields::parse(&format!("A{many}")).is_err());
        let most: String = (0..FIELDS_MAX).map(|n| format!(" k{n}=1")).collect();
        assert!(Fields::parse(&format!("A{most}")).is_ok());
    }

    #[test]
    fn numbers_are_plain_decimals() {
        for text in ["", "-1", "+1", "01", " 1", "1 ", "1e3", "0x1", "18446744073709551616", "١"] {
            assert_eq!(decimal(text), None, "{text}");
        }
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn any_value_comes_back(value in ".*") {
            let bytes = LineWriter::new("W").field("v", &value).finish();
            let line = String::from_utf8(bytes).expect("ASCII");
            let line = line.strip_suffix('\n').expect("ended");
            prop_assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)));
            let fields = Fields::parse(line).expect("own line");
            prop_assert_eq!(fields.need("v"), Ok(value.as_str()));
        }

        #[test]
        fn any_bytes_are_lines_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buf = LineBuf::default();
            buf.push(&bytes);
            while let Ok(Some(line)) = buf.next_line() {
                let _ = Fields::parse(&line);
            }
        }
    }
}
