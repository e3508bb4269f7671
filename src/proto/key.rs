//! A key that both ends of a control connection have: how each proves it to the other without
//! showing it, and how every line after that is sealed with it.
//!
//! Everything is HMAC-SHA1 (RFC 2104). What is authenticated begins with a word that belongs to one
//! use and one end, and goes on with both ends' challenges, which are random and as long each
//! time. So no proof or seal is good for the other end, for another use or for another connection.

use std::{cell::Cell, fmt};

use crate::{
    digest::{Digest, Hasher},
    proto::line::DecodeError,
    text::{debug_fields, hexadecimal},
};

/// A key.
#[derive(Clone)]
pub struct Key {
    /// SHA-1 that has the key's inner block in it, and its outer one.
    inner: Hasher,
    outer: Hasher,
}

/// What one end asks the other to answer with its key: 16 random bytes, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Challenge(pub u128);

/// The challenges of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenges {
    /// The client's.
    pub client: Challenge,
    /// The server's.
    pub server: Challenge,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionEnd {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// One end's seal: marks the lines that it sends, and checks those that come.
///
/// A line that was changed, repeated, left out or moved is seen. The exception is WAIT, which the
/// gate sends to all seats alike: it is a sign of life, and nothing is decided by its numbers.
pub struct LineSeal {
    ours: Key,
    theirs: Key,
    sent: Cell<u64>,
    received: u64,
}

/// Fewest bytes of a key: 128 bits, where they are random, are out of reach of guessing.
pub const KEY_MIN: usize = 16;

/// Most bytes of a key: a file that has more was given by mistake.
pub const KEY_MAX: usize = 4096;

/// What a seal adds to a line, bytes.
pub const SEAL_LEN: usize = SEAL.len() + 2 * Digest::LEN;

/// The last field of a sealed line.
const SEAL: &str = " hmac=";

/// The block of SHA-1, bytes.
const BLOCK: usize = 64;

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// Too few or too many.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        match bytes.len() {
            0 => Err("it is empty".to_owned()),
            len @ 1..KEY_MIN => {
                Err(format!("it has {len} bytes, and a key has {KEY_MIN} at least"))
            }
            KEY_MIN..=KEY_MAX => Ok(Self::padded(bytes)),
            _ => Err(format!("it has more than {KEY_MAX} bytes")),
        }
    }

    fn padded(bytes: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        if bytes.len() > BLOCK {
            block[..Digest::LEN].copy_from_slice(Digest::of(bytes).as_bytes());
        } else {
            block[..bytes.len()].copy_from_slice(bytes);
        }
        let with = |pad: u8| {
            let mut hasher = Hasher::default();
            hasher.update(&block.map(|byte| byte ^ pad));
            hasher
        };
        Self { inner: with(0x36), outer: with(0x5c) }
    }

    /// The HMAC of `parts`, one after the other.
    fn mac(&self, parts: &[&[u8]]) -> Digest {
        let mut inner = self.inner.clone();
        parts.iter().for_each(|part| inner.update(part));
        let mut outer = self.outer.clone();
        outer.update(inner.finish().as_bytes());
        outer.finish()
    }

    fn mac_of(&self, use_of: &str, end: ConnectionEnd, challenges: Challenges) -> Digest {
        let Challenges { client, server } = challenges;
        let end = match end {
            ConnectionEnd::Client => " client ",
            ConnectionEnd::Server => " server ",
        };
        let (client, server) = (client.0.to_be_bytes(), server.0.to_be_bytes());
        self.mac(&[use_of.as_bytes(), end.as_bytes(), &client, &server])
    }

    /// What `end` answers to show that it has this key.
    pub fn proof(&self, end: ConnectionEnd, challenges: Challenges) -> Digest {
        self.mac_of("gatecast/1 proof", end, challenges)
    }

    /// The seal of `end` for the rest of this connection.
    pub fn seal(&self, end: ConnectionEnd, challenges: Challenges) -> LineSeal {
        let of = |end| Self::padded(self.mac_of("gatecast/1 lines", end, challenges).as_bytes());
        let (client, server) = (of(ConnectionEnd::Client), of(ConnectionEnd::Server));
        let (ours, theirs) = match end {
            ConnectionEnd::Client => (client, server),
            ConnectionEnd::Server => (server, client),
        };
        LineSeal { ours, theirs, sent: Cell::new(0), received: 0 }
    }
}

impl Challenge {
    /// Reads 32 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// Anything else.
    pub fn decode(text: &str) -> Result<Self, &'static str> {
        let wrong = "a challenge is 32 lower-case hexadecimal digits";
        hexadecimal(text, 32).map(Self).ok_or(wrong)
    }
}

impl LineSeal {
    /// `lines`, each with its seal.
    pub fn seal(&self, lines: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(lines.len() + SEAL_LEN);
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let number = self.sent.get();
            self.sent.set(number + 1);
            let mac = self.ours.mac(&[&number.to_be_bytes(), text]);
            sealed.extend_from_slice(text);
            sealed.extend_from_slice(format!("{SEAL}{mac}\n").as_bytes());
        }
        sealed
    }

    /// The line within the seal.
    ///
    /// # Errors
    /// It has none, or another than this key makes for the next line.
    pub fn open(&mut self, mut line: String) -> Result<String, DecodeError> {
        if line.starts_with("WAIT ") {
            return Ok(line);
        }
        let at = line.rfind(SEAL).ok_or_else(|| DecodeError("a line without a seal".to_owned()))?;
        let mac = self.theirs.mac(&[&self.received.to_be_bytes(), &line.as_bytes()[..at]]);
        if !is_same(&line.as_bytes()[at + SEAL.len()..], mac.to_string().as_bytes()) {
            return Err(DecodeError("a line that was changed on its way".to_owned()));
        }
        self.received += 1;
        line.truncate(at);
        Ok(line)
    }
}

/// Compares in a time that does not depend on where the first difference is.
pub fn is_same(one: &[u8], two: &[u8]) -> bool {
    one.len() == two.len() && one.iter().zip(two).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

debug_fields!(Key);
debug_fields!(LineSeal);

#[cfg(test)]
mod tests {
    use ConnectionEnd::{Client, Server};

    use super::*;

    const CHALLENGES: Challenges =
        Challenges { client: Challenge(1), server: Challenge(u128::MAX) };

    fn key() -> Key {
        Key::new(b"sixteen bytes ok").expect("long enough")
    }

    #[test]
    fn hmac_is_that_of_rfc_2202() {
        let counting: Vec<u8> = (1..=25).collect();
        let vectors: [(&[u8], &[u8], &str); 7] = [
            (&[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
            (b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (&[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
            (&counting, &[0xcd; 50], "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
            (&[0x0c; 20], b"Test With Truncation", "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"),
            (
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "aa4ae5e15272d00e95705637ce8a3b55ed402112",
            ),
            (
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data",
                "e8e99d0f45237d786d6bbaa7965c7808bbff1a91",
            ),
        ];
        for (key, data, mac) in vectors {
            let key = Key::padded(key);
            assert_eq!(key.mac(&[data]).to_string(), mac);
            let (one, two) = data.split_at(data.len() / 2);
            assert_eq!(key.mac(&[one, b"", two]).to_string(), mac);
        }
    }

    #[test]
    fn key_has_sixteen_to_4096_bytes() {
        let why = |len: usize| Key::new(&vec![7; len]).map(|_| ()).expect_err("refused");
        assert_eq!(why(0), "it is empty");
        assert_eq!(why(15), "it has 15 bytes, and a key has 16 at least");
        assert_eq!(why(4097), "it has more than 4096 bytes");
        for len in [16, 4096] {
            assert!(Key::new(&vec![7; len]).is_ok(), "{len}");
        }
        assert_eq!(format!("{:?}", key()), "Key { .. }", "a key is never printed");
    }

    #[test]
    fn proof_is_of_one_key_one_end_and_these_challenges() {
        let right = key().proof(Client, CHALLENGES);
        assert_eq!(right, key().proof(Client, CHALLENGES));
        let other = Key::new(b"sixteen bytes no").expect("long enough");
        let Challenges { client, server } = CHALLENGES;
        let swapped = Challenges { client: server, server: client };
        let fresh = Challenges { server: Challenge(2), ..CHALLENGES };
        for wrong in [
            other.proof(Client, CHALLENGES),
            // What a man in the middle could send back.
            key().proof(Server, CHALLENGES),
            key().proof(Client, swapped),
            key().proof(Server, swapped),
            // What a captured exchange could be replayed with.
            key().proof(Client, fresh),
            key().mac_of("gatecast/1 lines", Client, CHALLENGES),
        ] {
            assert_ne!(wrong, right);
        }
    }

    #[test]
    fn challenge_is_read_back_and_nothing_else_is() {
        let challenge = Challenge(0x0123_4567_89ab_cdef_u128);
        assert_eq!(challenge.to_string(), "00000000000000000123456789abcdef");
        assert_eq!(Challenge::decode(&challenge.to_string()), Ok(challenge));
        for text in ["", "1", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33), &"+".repeat(32)] {
            assert!(Challenge::decode(text).is_err(), "{text}");
        }
    }

    /// Both ends of one connection.
    fn ends() -> (LineSeal, LineSeal) {
        (key().seal(Client, CHALLENGES), key().seal(Server, CHALLENGES))
    }

    fn lines(sealed: Vec<u8>) -> Vec<String> {
        String::from_utf8(sealed).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn sealed_lines_come_back_in_their_order() {
        let (mut client, mut server) = ends();
        let sealed = lines(client.seal(b"READY offset=0\nHELD\n"));
        assert_eq!(sealed[1].len(), "HELD".len() + SEAL_LEN);
        let open = sealed.into_iter().map(|line| server.open(line).expect("sealed"));
        assert_eq!(open.collect::<Vec<_>>(), ["READY offset=0", "HELD"]);
        let answer = lines(server.seal(b"GO bytes=1\n")).remove(0);
        assert_eq!(
            client.open("WAIT ready=1 clients=2".to_owned()).as_deref(),
            Ok("WAIT ready=1 clients=2")
        );
        assert_eq!(client.open(answer).as_deref(), Ok("GO bytes=1"));
    }

    #[test]
    fn line_that_was_changed_or_moved_is_refused() {
        let sealed = || lines(ends().0.seal(b"LAST bytes=1\nLAST bytes=2\n"));
        let [first, second] = [0, 1].map(|at| sealed()[at].clone());
        for at in 0..first.len() {
            let mut changed = first.clone().into_bytes();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            assert!(ends().1.open(changed.clone()).is_err(), "{changed}");
        }
        let (mut client, mut server) = ends();
        assert!(server.open(second.clone()).is_err(), "left out");
        server.open(first.clone()).expect("the first");
        assert!(server.open(first.clone()).is_err(), "repeated");
        server.open(second).expect("the second");
        assert!(client.open(first.clone()).is_err(), "sent back to who sent it");
        let fresh = Challenges { server: Challenge(9), ..CHALLENGES };
        assert!(key().seal(Server, fresh).open(first.clone()).is_err(), "another connection");
        for line in ["", "LAST bytes=1", "LAST bytes=1 hmac=", "LAST hmac=00", "WAITED x"] {
            assert!(ends().1.open(line.to_owned()).is_err(), "{line}");
        }
        let upper = first.to_uppercase().replace("HMAC", "hmac").replace("BYTES", "bytes");
        assert!(ends().1.open(upper).is_err(), "one spelling only");
    }

    #[test]
    fn same_bytes_are_the_same_and_no_others() {
        assert!(is_same(b"", b"") && is_same(b"abc", b"abc"));
        for other in [&b""[..], b"ab", b"abd", b"bbc", b"abcd"] {
            assert!(!is_same(b"abc", other));
        }
    }
}
