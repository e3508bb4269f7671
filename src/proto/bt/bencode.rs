//! Bencode (BEP 3), strict and iterative: what is decoded encodes to the same bytes.
//!
//! Nesting uses a `Vec` and not recursion: twenty thousand `l` are an error and not a stack
//! overflow. Strings are slices of the input, and every item knows its own bytes, because an
//! info-hash is computed over them as they were found.

use std::collections::BTreeMap;

use crate::proto::line::DecodeError;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string of bytes.
    Bytes(&'a [u8]),
    /// An integer.
    Integer(i64),
    /// A list.
    List(Vec<Item<'a>>),
    /// A dictionary, its keys sorted and each once.
    Dictionary(Vec<(&'a [u8], Item<'a>)>),
}

/// A value and the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The value.
    pub value: Value<'a>,
    /// Its encoding.
    pub raw: &'a [u8],
}

/// A dictionary being written; its keys come out sorted.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Dictionary(BTreeMap<Vec<u8>, Vec<u8>>);

/// Deepest nesting of lists and dictionaries. A tracker's answer has three levels.
pub const DEPTH_MAX: usize = 16;

/// Most values in one input: each costs more memory than the two bytes that it may have. A response
/// with 200 peers has 1800.
pub const ITEMS_MAX: usize = 20_000;

/// A list or dictionary that is still open.
enum OpenContainer<'a> {
    List(usize, Vec<Item<'a>>),
    Dictionary(usize, Vec<(&'a [u8], Item<'a>)>, Option<&'a [u8]>),
}

/// Reads exactly one value.
///
/// # Errors
/// Anything that is not the one way to encode a value, or is over a limit, with its place.
pub fn decode(input: &[u8]) -> Result<Item<'_>, DecodeError> {
    let mut at = 0;
    let mut items = 0;
    let mut stack: Vec<OpenContainer<'_>> = Vec::new();
    loop {
        let start = at;
        let fail = |what| Err(malformed(what, start));
        let (begin, value) = match input.get(at) {
            None => return fail("the input ends too early"),
            Some(b'l' | b'd') if stack.len() == DEPTH_MAX => {
                return fail("nested deeper than 16 levels");
            }
            Some(b'l') => {
                stack.push(OpenContainer::List(at, Vec::new()));
                at += 1;
                continue;
            }
            Some(b'd') => {
                stack.push(OpenContainer::Dictionary(at, Vec::new(), None));
                at += 1;
                continue;
            }
            Some(b'i') => {
                let (number, end) = integer(input, at + 1)?;
                at = end;
                (start, Value::Integer(number))
            }
            Some(b'0'..=b'9') => {
                let (bytes, end) = string(input, at)?;
                at = end;
                if let Some(OpenContainer::Dictionary(_, entries, key @ None)) = stack.last_mut() {
                    if entries.last().is_some_and(|(last, _)| *last >= bytes) {
                        return fail("a key that is not after the one before it");
                    }
                    *key = Some(bytes);
                    continue;
                }
                (start, Value::Bytes(bytes))
            }
            Some(b'e') => {
                at += 1;
                match stack.pop() {
                    Some(OpenContainer::List(begin, items)) => (begin, Value::List(items)),
                    Some(OpenContainer::Dictionary(begin, entries, None)) => {
                        (begin, Value::Dictionary(entries))
                    }
                    Some(OpenContainer::Dictionary(..)) => return fail("a key without a value"),
                    None => return fail("an end without a beginning"),
                }
            }
            Some(_) => return fail("a byte that begins no value"),
        };
        items += 1;
        if items > ITEMS_MAX {
            return fail("more values than any valid input has");
        }
        let raw = &input[begin..at];
        match stack.last_mut() {
            None if at == input.len() => return Ok(Item { value, raw }),
            None => {
                return Err(malformed("bytes after the value", at));
            }
            Some(OpenContainer::List(_, items)) => items.push(Item { value, raw }),
            Some(OpenContainer::Dictionary(_, entries, key)) => match key.take() {
                Some(key) => entries.push((key, Item { value, raw })),
                None => return fail("a key that is not a string"),
            },
        }
    }
}

/// Why bytes are not bencode, and where.
fn malformed(what: &str, at: usize) -> DecodeError {
    DecodeError(format!("not bencode: {what} (byte {at})"))
}

/// The integer whose digits begin at `at`, and the place after its `e`.
fn integer(input: &[u8], at: usize) -> Result<(i64, usize), DecodeError> {
    let fail = |what| Err(malformed(what, at));
    // An i64 has at most 20 characters.
    let window = &input[at..input.len().min(at + 21)];
    let Some(len) = window.iter().position(|&byte| byte == b'e') else {
        return fail("an integer without an end, or one too long");
    };
    let text = &window[..len];
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return fail("an integer that is not a number");
    }
    if (digits[0] == b'0' && digits.len() > 1) || text == b"-0" {
        return fail("an integer with a leading zero");
    }
    match std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()) {
        Some(number) => Ok((number, at + len + 1)),
        None => fail("an integer beyond 64 bits"),
    }
}

/// The string whose length begins at `at`, and the place after it.
fn string(input: &[u8], at: usize) -> Result<(&[u8], usize), DecodeError> {
    let fail = |what| Err(malformed(what, at));
    // The input is bounded by its caller; nine digits are more than any bound.
    let window = &input[at..input.len().min(at + 10)];
    let Some(len) = window.iter().position(|&byte| byte == b':') else {
        return fail("a string without a length, or one too long");
    };
    let digits = &window[..len];
    if !digits.iter().all(u8::is_ascii_digit) || (digits[0] == b'0' && len > 1) {
        return fail("a length that is not a plain number");
    }
    let parsed = std::str::from_utf8(digits).ok().and_then(|t| t.parse().ok());
    let Some(length): Option<usize> = parsed else {
        return fail("a length that is not a plain number");
    };
    let from = at + len + 1;
    match input[from..].get(..length) {
        Some(string) => Ok((string, from + length)),
        None => fail("a string longer than the input"),
    }
}

impl<'a> Item<'a> {
    /// The value of `key`, in a dictionary that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Dictionary(entries) = &self.value else {
            return None;
        };
        let found = entries.binary_search_by(|(other, _)| (*other).cmp(key.as_bytes()));
        Some(&entries[found.ok()?].1)
    }

    /// The string's bytes.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The string as text.
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// The integer.
    pub fn integer(&self) -> Option<i64> {
        match self.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// The list's items.
    pub fn list(&self) -> Option<&[Self]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
}

impl Dictionary {
    /// Adds a string.
    pub fn bytes(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let mut encoded = format!("{}:", value.len()).into_bytes();
        encoded.extend_from_slice(value);
        self.raw(key, encoded)
    }

    /// Adds an integer.
    pub fn integer(self, key: &str, value: i64) -> Self {
        self.raw(key, format!("i{value}e").into_bytes())
    }

    /// Adds a count as an integer.
    pub fn count(self, key: &str, value: u64) -> Self {
        self.integer(key, i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// Adds a value that is encoded already. A key need not be text.
    pub fn raw(mut self, key: impl AsRef<[u8]>, encoded: Vec<u8>) -> Self {
        self.0.insert(key.as_ref().to_vec(), encoded);
        self
    }

    /// The dictionary's encoding.
    pub fn finish(self) -> Vec<u8> {
        let mut encoded = vec![b'd'];
        for (key, value) in self.0 {
            encoded.extend_from_slice(format!("{}:", key.len()).as_bytes());
            encoded.extend_from_slice(&key);
            encoded.extend_from_slice(&value);
        }
        encoded.push(b'e');
        encoded
    }
}

#[cfg(test)]
mod tests;
