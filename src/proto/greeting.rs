//! Tells from a connection's first bytes which kind of client has come to the one port.

/// A kind of client, known by the first bytes that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Greeting {
    /// `GATECAST/`: our own protocol.
    Native,
    /// `Preparado`: the lab's TCP client.
    Lab,
    /// An HTTP/1.1 request (RFC 9112, section 3).
    Http,
    /// `CHAIN/1`: a member of a chain.
    Chain,
    /// A BitTorrent handshake (BEP 3, peer protocol).
    Swarm,
}

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// This client, whatever follows.
    Known(Greeting),
    /// Too few bytes to tell.
    More,
    /// No client that we know; the connection is closed without a byte.
    Unknown,
}

/// Most bytes that [`recognise`] ever needs.
pub const GREETING_MAX: usize = 20;

const PREFIXES: [(&[u8], Greeting); 8] = [
    (b"GATECAST/", Greeting::Native),
    (b"Preparado", Greeting::Lab),
    (b"CHAIN/1 ", Greeting::Chain),
    (b"GET ", Greeting::Http),
    (b"HEAD", Greeting::Http),
    (b"POST", Greeting::Http),
    (b"OPTI", Greeting::Http),
    (b"\x13BitTorrent protocol", Greeting::Swarm),
];

/// Recognises the client that sent `first` as its first bytes.
pub fn recognise(first: &[u8]) -> Recognised {
    let mut more = false;
    for (prefix, greeting) in PREFIXES {
        if first.starts_with(prefix) {
            return Recognised::Known(greeting);
        }
        more |= prefix.starts_with(first);
    }
    if more { Recognised::More } else { Recognised::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_is_recognised_whole_and_not_before() {
        for (prefix, greeting) in PREFIXES {
            for cut in 0..prefix.len() {
                assert_eq!(recognise(&prefix[..cut]), Recognised::More, "{prefix:?} at {cut}");
            }
            assert_eq!(recognise(prefix), Recognised::Known(greeting));
            assert!(prefix.len() <= GREETING_MAX);
        }
    }

    #[test]
    fn anything_else_is_unknown_at_its_first_strange_byte() {
        for first in [
            &b"\0"[..],
            b"SSH-2.0",
            b"preparado",
            b"PreparadX",
            b"GETX",
            b"\x13BitTorrent Protocol",
        ] {
            assert_eq!(recognise(first), Recognised::Unknown, "{first:?}");
        }
    }
}
