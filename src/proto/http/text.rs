//! Small encodings used with HTTP: percent codes, queries, dates, Base64, server-sent events.

use std::{borrow::Cow, fmt::Write};

use time::{OffsetDateTime, UtcOffset, macros::format_description};

use crate::{digest::Digest, proto::percent};

/// The decoded pairs of a query or form, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryPairs(pub(super) Vec<(String, Vec<u8>)>);

/// Most pairs of one query or form.
pub const PAIRS_MAX: usize = 64;

/// A plain decimal number: digits, nothing else, at most what fits.
pub fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Encodes `text` as one segment of a path: all but unreserved characters as percent codes.
pub fn percent_encode(text: &str) -> String {
    percent::encode(text.as_bytes(), b"-._~")
}

impl QueryPairs {
    /// Decodes a query or form. A name without `=` has an empty value, and `+` is a blank (HTML's
    /// form encoding). `None` where a percent code is broken, a name is not UTF-8, or there are
    /// more than [`PAIRS_MAX`].
    pub fn parse(query: &str) -> Option<Self> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(percent::decode(&name.replace('+', " "))?).ok()?;
            if pairs.len() == PAIRS_MAX {
                return None;
            }
            pairs.push((name, percent::decode(&value.replace('+', " "))?));
        }
        Some(Self(pairs))
    }

    /// The first value of `name`; bytes that are not UTF-8 are replaced.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(String::from_utf8_lossy(value))
    }
}

/// The date as HTTP writes it (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn date(at: OffsetDateTime) -> String {
    let form = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    at.to_offset(UtcOffset::UTC).format(&form).expect("a valid time has these parts")
}

/// Base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = word >> (18 - 6 * place) & 63;
            let padding = place > chunk.len();
            text.push(if padding { '=' } else { char::from(ALPHABET[index as usize]) });
        }
    }
    text
}

/// Decodes a SHA-1 in Base64; `None` where `text` is not one.
pub fn base64_digest(text: &str) -> Option<Digest> {
    let text = text.strip_suffix('=')?;
    if text.len() != 27 {
        return None;
    }
    let mut bytes = [0; Digest::LEN];
    let (mut word, mut bits, mut len) = (0_u32, 0, 0);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|&known| known == byte)?;
        word = word << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(len)? = (word >> bits & 0xff) as u8;
            len += 1;
        }
    }
    (len == Digest::LEN).then(|| Digest::from_bytes(bytes))
}

/// The SHA-1 in a Repr-Digest (RFC 9530) or Digest (RFC 3230) field, if it has one.
pub fn digest_of_field(value: &str) -> Option<Digest> {
    value.split(',').find_map(|item| {
        let (name, text) = item.trim().split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("sha") {
            return None;
        }
        let text = text.trim();
        // RFC 9530 puts the bytes between colons (RFC 8941, section 3.3.5).
        let bare = text.strip_prefix(':').and_then(|t| t.split_once(':')).map_or(text, |(t, _)| t);
        base64_digest(bare)
    })
}

/// A message of a stream of server-sent events: `data` on one or more lines.
pub fn event(name: &str, id: u64, data: &str) -> String {
    let mut text = format!("event: {name}\nid: {id}\n");
    for line in data.split(['\r', '\n']) {
        let _ = writeln!(text, "data: {line}");
    }
    text.push('\n');
    text
}

/// The value of a Content-Disposition field (RFC 6266): a plain name for old clients, in which
/// unusual characters are `_`, and the exact name.
pub fn disposition(name: &str) -> String {
    let is_plain = |ch: char| matches!(ch, ' '..='~') && !"\"\\%".contains(ch);
    let plain: String = name.chars().map(|ch| if is_plain(ch) { ch } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", percent_encode(name))
}

/// Escapes `text` for HTML, so that nothing in it is markup.
pub fn html(text: &str) -> String {
    let marks = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")];
    let escaped = crate::text::escape(text);
    marks.into_iter().fold(escaped, |text, (mark, name)| text.replace(mark, name))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
