//! The SHA-1 of a file, behind one newtype.
//!
//! SHA-1 is what the lab's clients and BitTorrent v1 speak; here it proves integrity, not origin.
//! `sha1_smol` computes it; with feature `fast-sha1`, where the processor has SHA instructions, the
//! `sha1` crate does. Nothing else in the crate names either package.

use std::{env, fmt, io, str::FromStr, sync::OnceLock};

/// A SHA-1 digest (FIPS 180-4), 20 bytes; shown as 40 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; Self::LEN]);

/// Computes a [`Digest`] from bytes fed in any slicing.
#[derive(Clone)]
pub struct Hasher(Inner);

#[derive(Clone)]
enum Inner {
    Portable(sha1_smol::Sha1),
    #[cfg(feature = "fast-sha1")]
    ByProcessor(sha1::Sha1),
}

/// Text that is not 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestError;

impl Digest {
    /// Length in bytes.
    pub const LEN: usize = 20;

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of everything `reader` yields.
    ///
    /// # Errors
    /// The first error of the reader other than an interruption.
    pub fn of_reader(mut reader: impl io::Read) -> io::Result<Self> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; HASH_BUF];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(len) => hasher.update(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The 20 bytes themselves.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// A digest that arrived as bytes.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The first 12 hexadecimal digits, enough to tell files apart in a name.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl Hasher {
    /// Feeds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Inner::Portable(state) => state.update(bytes),
            #[cfg(feature = "fast-sha1")]
            Inner::ByProcessor(state) => sha1::Digest::update(state, bytes),
        }
    }

    /// The digest of all that was fed.
    pub fn finish(self) -> Digest {
        match self.0 {
            Inner::Portable(state) => Digest(state.digest().bytes()),
            #[cfg(feature = "fast-sha1")]
            Inner::ByProcessor(state) => Digest(sha1::Digest::finalize(state).into()),
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        #[cfg(feature = "fast-sha1")]
        if uses_processor() {
            return Self(Inner::ByProcessor(sha1::Sha1::default()));
        }
        Self(Inner::Portable(sha1_smol::Sha1::default()))
    }
}

/// Which package computes the digest here: `sha1` or `sha1_smol`.
pub fn engine() -> &'static str {
    if uses_processor() { "sha1" } else { PORTABLE }
}

/// In the environment variable `GATECAST_SHA1` it makes every build use this package.
const PORTABLE: &str = "sha1_smol";

fn uses_processor() -> bool {
    static USES: OnceLock<bool> = OnceLock::new();
    *USES.get_or_init(|| {
        let is_forbidden = env::var_os("GATECAST_SHA1").is_some_and(|word| word == PORTABLE);
        cfg!(feature = "fast-sha1") && has_sha_instructions() && !is_forbidden
    })
}

/// Whether the processor has SHA instructions.
pub fn has_sha_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Bytes hashed at a time: small enough to stay in a core's second-level cache, so that the
/// copy out of the page cache is read back from there.
pub const HASH_BUF: usize = 64 * 1024;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Reads exactly 40 hexadecimal digits, of either case.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Self::LEN {
            return Err(DigestError);
        }
        let mut bytes = [0; Self::LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(DigestError);
            let value = nibble(pair[0])? * 16 + nibble(pair[1])?;
            *byte = u8::try_from(value).map_err(|_| DigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SHA-1 is 40 hexadecimal digits")
    }
}

impl std::error::Error for DigestError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_fips_180() {
        assert_eq!(Digest::of(b"").to_string(), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(Digest::of(b"abc").to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let million = vec![b'a'; 1_000_000];
        let want = "34aa973cd4c4daa4f61eeb2bdbad27316534016f";
        assert_eq!(Digest::of(&million).to_string(), want);
        assert_eq!(Digest::of_reader(&million[..]).expect("memory").to_string(), want);
    }

    #[test]
    fn any_slicing_gives_the_same_digest() {
        let data: Vec<u8> =
            (0..10_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for step in [1, 63, 64, 65, 4096] {
            let mut hasher = Hasher::default();
            data.chunks(step).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish(), Digest::of(&data), "step {step}");
        }
    }

    #[cfg(feature = "fast-sha1")]
    #[test]
    fn both_engines_agree_at_every_length() {
        let data: Vec<u8> = (0..300_u32).map(|n| (n * 7 % 251) as u8).collect();
        for len in 0..data.len() {
            let mut portable = Hasher(Inner::Portable(sha1_smol::Sha1::default()));
            let mut by_processor = Hasher(Inner::ByProcessor(sha1::Sha1::default()));
            let (first, second) = data[..len].split_at(len / 3);
            for part in [first, second] {
                portable.update(part);
                by_processor.update(part);
            }
            assert_eq!(portable.finish(), by_processor.finish(), "{len} bytes");
        }
    }

    #[test]
    fn text_round_trip_and_refusals() {
        let digest = Digest::of(b"gate");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.to_string().to_uppercase().parse(), Ok(digest));
        for text in ["", "12", &"g".repeat(40), &"0".repeat(39), &"0".repeat(41), &"é".repeat(20)]
        {
            assert_eq!(text.parse::<Digest>(), Err(DigestError), "{text}");
        }
    }
}
