//! The proof that an address can be sent to: a keyed digest that only who receives there can say.
//!
//! A cookie is made of the address, the client's number and the time, so that nothing is kept for
//! whoever has not shown one. It is good for [`SLICE`] to twice as long, and for no other address.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use crate::digest::Digest;
use crate::digest::Hasher;
use crate::units::Moment;

/// A cookie as it travels.
pub type Cookie = [u8; COOKIE];

/// Makes and checks cookies.
#[derive(Clone)]
pub struct Cookies {
    key: [u8; KEY],
}

/// Bytes of a cookie: an HMAC cut as RFC 2104, section 5 allows.
pub const COOKIE: usize = 16;

/// Bytes of the server's secret: those of the digest (RFC 2104, section 3).
pub const KEY: usize = Digest::LEN;

/// A cookie is good in the slice of time in which it was made and in the next.
pub const SLICE: Duration = Duration::from_secs(30);

/// What SHA-1 takes at once (RFC 2104, section 2).
const BLOCK: usize = 64;

impl Cookies {
    /// Cookies under a secret, which must be this process's own and new.
    pub fn new(key: [u8; KEY]) -> Self {
        Self { key }
    }

    /// The cookie of the client `nonce` at `from`.
    pub fn make(&self, from: SocketAddr, nonce: u64, now: Moment) -> Cookie {
        self.of_slice(from, nonce, slice(now))
    }

    /// True when `cookie` was made here for this client, and not long ago.
    pub fn is_good(&self, cookie: &Cookie, from: SocketAddr, nonce: u64, now: Moment) -> bool {
        let current = slice(now);
        [Some(current), current.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|slice| same(&self.of_slice(from, nonce, slice), cookie))
    }

    fn of_slice(&self, from: SocketAddr, nonce: u64, slice: u64) -> Cookie {
        let mut said = Vec::with_capacity(34);
        match from.ip().to_canonical() {
            IpAddr::V4(ip) => said.extend(ip.octets()),
            IpAddr::V6(ip) => said.extend(ip.octets()),
        }
        said.extend(from.port().to_be_bytes());
        said.extend(nonce.to_be_bytes());
        said.extend(slice.to_be_bytes());
        let (cookie, _) = hmac(&self.key, &said)
            .as_bytes()
            .split_first_chunk::<COOKIE>()
            .map(|(head, rest)| (*head, rest.len()))
            .expect("a digest is longer");
        cookie
    }
}

fn slice(now: Moment) -> u64 {
    now.0 / u64::try_from(SLICE.as_micros()).expect("seconds")
}

/// In the same time wherever they differ.
fn same(a: &Cookie, b: &Cookie) -> bool {
    a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// HMAC-SHA1 (RFC 2104) with a key of at most a block.
fn hmac(key: &[u8], said: &[u8]) -> Digest {
    let padded = |with: u8| {
        let mut block = [with; BLOCK];
        block.iter_mut().zip(key).for_each(|(to, key)| *to ^= key);
        block
    };
    let digest = |pad: u8, bytes: &[u8]| {
        let mut hasher = Hasher::default();
        hasher.update(&padded(pad));
        hasher.update(bytes);
        hasher.finish()
    };
    digest(0x5c, digest(0x36, said).as_bytes())
}

impl std::fmt::Debug for Cookies {
    /// The secret stays one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_rfc_2202() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b617318655057264e28bc0b6fb378c8ef146be00",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
            ),
        ];
        for (key, said, digest) in cases {
            assert_eq!(hmac(key, said).to_string(), digest);
        }
    }

    #[test]
    fn a_cookie_is_good_for_one_client_at_one_address_for_a_while() {
        let cookies = Cookies::new([7; KEY]);
        let from: SocketAddr = "192.0.2.1:5000".parse().expect("an address");
        let now = Moment(0).after(SLICE * 10);
        let cookie = cookies.make(from, 5, now);
        assert!(cookies.is_good(&cookie, from, 5, now));
        assert!(cookies.is_good(&cookie, from, 5, Moment(now.after(SLICE * 2).0 - 1)));
        assert!(
            !cookies.is_good(&cookie, from, 5, now.after(SLICE * 2)),
            "it is too old"
        );
        assert!(
            !cookies.is_good(&cookie, from, 5, Moment(now.0 - 1)),
            "it is of the future"
        );
        for other in ["192.0.2.2:5000", "192.0.2.1:5001", "[::1]:5000"] {
            let other = other.parse().expect("an address");
            assert!(!cookies.is_good(&cookie, other, 5, now), "{other}");
        }
        assert!(!cookies.is_good(&cookie, from, 6, now), "another client");
        let others = Cookies::new([8; KEY]);
        assert!(!others.is_good(&cookie, from, 5, now), "another server");
        // One address in two spellings is one.
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5000".parse().expect("an address");
        assert!(cookies.is_good(&cookie, mapped, 5, now));
        for bit in 0..COOKIE * 8 {
            let mut wrong = cookie;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!cookies.is_good(&wrong, from, 5, now), "bit {bit}");
        }
    }
}
