//! The parser of what a folder holds.

use gatecast::internals::proto::manifest::{DEPTH_MAX, ENTRIES_MAX, MODE_MASK, Manifest, PATH_MAX};

use crate::heap::at_most;

/// A manifest that is taken encodes to one that is read again as it was, and all its paths stay below
/// its folder.
pub fn manifest(data: &[u8]) {
    // A line of a few bytes is an entry, a path in it and a key for that; a key may be 18 times as
    // long as its path.
    let most = 64 * data.len() + (1 << 20);
    let Ok(manifest) = at_most(most, || Manifest::decode(data)) else {
        return;
    };
    let again = Manifest::decode(&manifest.encode()).expect("our own");
    assert_eq!(again, manifest);
    assert!(manifest.entries() <= ENTRIES_MAX);
    let files = manifest.files().iter().map(|file| (&file.path, file.attributes));
    let folders = manifest.folders().iter().map(|folder| (&folder.path, folder.attributes));
    for (path, attributes) in files.chain(folders) {
        let path = path.as_str();
        assert!(path.len() <= PATH_MAX && path.split('/').count() <= DEPTH_MAX + 1);
        assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")), "{path}");
        assert!(!path.contains(['\\', '\0']) && attributes.mode & !MODE_MASK == 0);
    }
    let mut end = 0;
    for (index, file) in manifest.files().iter().enumerate() {
        assert_eq!(file.at, end);
        end += file.bytes;
        if file.bytes > 0 {
            assert_eq!(manifest.file_at(file.at), Some(index));
            assert_eq!(manifest.file_at(end - 1), Some(index));
        }
    }
    assert_eq!((manifest.bytes(), manifest.file_at(end)), (end, None));
}

/// Inputs to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    let lines = format!(
        "d 755 0 a\nf 644 -1 5 {sha1} a/caf\u{e9}\nf 4755 9 0 {sha1} a/\u{ac01}\nd 0 1 b c\n\
         f 600 3 9223372036854775802 {sha1} z\n"
    );
    vec![lines.clone().into_bytes(), lines[..lines.len() / 2].into()]
}
