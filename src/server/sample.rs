//! A file to send when the user has none: pseudo-random, of any size, the same on every machine.

use std::{fs, fs::File, io, io::Write, path::Path};

use crate::{
    error::{Error, Result},
    text::ShownPath,
};

/// Makes `path` a sample of `bytes` bytes, unless a file of that size is there already.
///
/// # Errors
/// The file cannot be written.
pub fn make(path: &Path, bytes: u64) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|there| there.is_file() && there.len() == bytes) {
        return Ok(());
    }
    // Under another name until it is whole: a sample that was interrupted is not taken for one.
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let made = write(&part, bytes).and_then(|()| fs::rename(&part, path));
    made.map_err(|error| {
        let _ = fs::remove_file(&part);
        Error::io("make the sample file", ShownPath(path))(error)
    })
}

fn write(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut state = SEED;
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&next(&mut state).to_le_bytes());
        }
        let len = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        file.write_all(&block[..len])?;
        left -= len as u64;
    }
    Ok(())
}

/// SplitMix64 (Steele, Lea and Flood, 2014): random enough that nothing on the way compresses it.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

const SEED: u64 = 0x6761_7465_6361_7374;

/// Bytes written at a time.
const BLOCK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_same_everywhere() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("sample.bin");
        for (bytes, sha1) in [
            (0, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (1_000_003, "6041f98d4586d300f8c80d6dfbf27961fde853ec"),
            (100_000_000, "af3259f7cda49f6d5a35928bf29c41071f3c7952"),
        ] {
            make(&path, bytes).expect("room");
            assert_eq!(fs::metadata(&path).expect("there").len(), bytes);
            let digest = crate::digest::Digest::of_reader(File::open(&path).expect("there"))
                .expect("readable");
            assert_eq!(digest.to_string(), sha1, "{bytes}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    }
}
