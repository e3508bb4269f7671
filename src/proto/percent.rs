//! Percent codes (RFC 3986, section 2.1), for whatever line, path or query needs them. Which bytes
//! may stand for themselves is each one's own affair.

use std::fmt::Write;

/// Writes `bytes`, of which letters, digits and those in `plain` stand for themselves.
pub fn encode(bytes: &[u8], plain: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Undoes percent codes, once; `None` where one is broken.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_percent_code_decodes_to_none() {
        assert_eq!(decode("a%20b%2fc%C3"), Some(b"a b/c\xC3".to_vec()));
        for broken in ["%", "%2", "%2g", "a%+1", "%-1", "%\u{661}1"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn bytes_are_decoded_as_they_were_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let encoded = encode(&bytes, b"-._~");
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(decode(&encoded), Some(bytes));
        }
    }
}
