use super::*;
use crate::proto::{
    manifest::{Entry, ManifestBuilder},
    native::SIZE_MAX,
};

/// A manifest of files of these sizes.
fn manifest(files: &[(&str, u64)]) -> Manifest {
    let mut builder = ManifestBuilder::default();
    let mut folders: Vec<&str> = Vec::new();
    for (path, bytes) in files {
        if let Some((folder, _)) = path.rsplit_once('/')
            && !folders.contains(&folder)
        {
            folders.push(folder);
            builder.add(Entry::decode(&format!("d 755 0 {folder}")).expect("a line")).expect("new");
        }
        let line = format!("f 644 0 {bytes} {} {path}", Digest::of(b"x"));
        builder.add(Entry::decode(&line).expect("a line")).expect("in order");
    }
    builder.finish()
}

fn of_tree(manifest: &Manifest) -> (FileName, Metainfo) {
    let name = FileName::new("a folder").expect("plain");
    let piece = piece_bytes(manifest.bytes());
    let count = manifest.bytes().div_ceil(u64::from(piece));
    let pieces = (0..count).map(|n| Digest::of(&n.to_le_bytes())).collect();
    (name.clone(), Metainfo::of_tree(name, manifest, piece, pieces).expect("honest"))
}

#[test]
fn folder_torrent_lists_all_files_with_their_paths() {
    let files = [("a", 0), ("b", 5), ("c/z", 3), ("c/\u{65e5}\u{672c}", 16_384)];
    let (_, made) = of_tree(&manifest(&files));
    assert_eq!((made.bytes, made.pieces.len()), (16_392, 2));
    let torrent = made.encode(Some("http://h:1/announce"), None);
    let read = bencode::decode(&torrent).expect("bencode");
    let info = read.get("info").expect("there");
    assert_eq!(made.info_hash(), Digest::of(info.raw));
    let listed = info.get("files").and_then(Item::list).expect("a list").iter().map(|file| {
        let path = file.get("path").and_then(Item::list).expect("a list");
        let path: Vec<&str> = path.iter().filter_map(Item::text).collect();
        let length = file.get("length").and_then(Item::integer).expect("a number");
        (path.join("/"), u64::try_from(length).expect("not negative"))
    });
    assert!(listed.eq(files.map(|(path, bytes)| (path.to_owned(), bytes))));
    assert_eq!(info.get("name").and_then(Item::text), Some("a folder"));
    assert!(Metainfo::decode(&torrent).expect_err("a folder").to_string().contains("several"));
}

#[test]
fn folder_torrent_is_read_only_with_its_own_manifest() {
    let files = [("a", 7), ("b", 40_000)];
    let own = manifest(&files);
    let (name, made) = of_tree(&own);
    let torrent = made.encode(Some("http://h:1/announce"), None);
    let read = Metainfo::decode_tree(&torrent, &name, &own).expect("its own");
    assert_eq!(read, made);
    assert!(torrent.len() <= tree_torrent_max(&own));
    for end in 0..torrent.len() - 1 {
        assert!(Metainfo::decode_tree(&torrent[..end], &name, &own).is_err(), "{end}");
    }
    for other in [[("a", 7), ("c", 40_000)], [("a", 8), ("b", 39_999)], [("a", 7), ("b", 1)]] {
        let error = Metainfo::decode_tree(&torrent, &name, &manifest(&other));
        assert!(error.is_err(), "{other:?}");
    }
    let other = FileName::new("b folder").expect("plain");
    assert!(Metainfo::decode_tree(&torrent, &other, &own).is_err());
    let empty = manifest(&[("a", 0)]);
    assert!(Metainfo::decode_tree(&torrent, &name, &empty).is_err());
    let huge = manifest(&[("a", SIZE_MAX)]);
    assert!(Metainfo::decode_tree(&torrent, &name, &huge).is_err());
}

#[test]
fn torrent_of_folder_with_many_files_can_be_read() {
    let deep = "d/".repeat(60);
    let paths: Vec<String> = (0..100_000).map(|n| format!("{n:06}")).collect();
    let mut files: Vec<(&str, u64)> = paths.iter().map(|path| (&**path, 10_000)).collect();
    let own = manifest(&files);
    let (name, made) = of_tree(&own);
    let torrent = made.encode(Some("http://h:1/announce"), Some("http://h:1/f"));
    assert!(torrent.len() <= tree_torrent_max(&own), "{}", torrent.len());
    assert_eq!(Metainfo::decode_tree(&torrent, &name, &own).expect("its own"), made);
    // A path of many short names is longer in a torrent.
    files.clear();
    let mut builder = ManifestBuilder::default();
    for end in (1..deep.len()).step_by(2) {
        let line = format!("d 755 0 {}", &deep[..end]);
        builder.add(Entry::decode(&line).expect("a line")).expect("in order");
    }
    let line = format!("f 644 0 {} {} {deep}f", 1 << 30, Digest::of(b"x"));
    builder.add(Entry::decode(&line).expect("a line")).expect("in order");
    let own = builder.finish();
    let entry = encode_file(&own.files()[0]).len();
    assert!(METAINFO_MAX + entry <= tree_torrent_max(&own), "{entry}");
}

fn honest() -> Metainfo {
    let name = FileName::new("a file.bin").expect("plain");
    let pieces = vec![Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3")];
    Metainfo::new(name, 40_000, 16 << 10, pieces).expect("honest")
}

/// An `info` of which single entries are replaced.
fn with(key: &str, value: &[u8]) -> Vec<u8> {
    let info = Dictionary::default()
        .integer("length", 40_000)
        .bytes("name", "x")
        .integer("piece length", 16 << 10)
        .bytes("pieces", [7; 60])
        .raw(key, value.to_vec());
    Dictionary::default().raw("info", info.finish()).finish()
}

#[test]
fn torrent_of_the_most_pieces_can_be_read() {
    let bytes = u64::from(PIECES_MAX) * (4 << 20);
    assert_eq!(piece_bytes(bytes), 4 << 20);
    let name = FileName::new(&"n".repeat(200)).expect("plain");
    let pieces = vec![Digest::of(b"1"); PIECES_MAX as usize];
    let made = Metainfo::new(name, bytes, 4 << 20, pieces).expect("honest");
    let torrent = made.encode(Some("http://h:1/announce"), Some("http://h:1/f"));
    assert!(torrent.len() > 10 << 20);
    let read = Metainfo::decode(&torrent).expect("ours");
    assert_eq!(read.info_hash(), made.info_hash());
    assert!(Metainfo::decode(&vec![b'd'; METAINFO_MAX + 1]).is_err());
}

#[test]
fn torrent_round_trips_with_the_same_hash() {
    let made = honest();
    let bytes = made.encode(Some("http://h:1/announce"), None);
    let read = Metainfo::decode(&bytes).expect("honest");
    assert_eq!(read.info_hash(), made.info_hash());
    assert_eq!(read.announce.as_deref(), Some("http://h:1/announce"));
    assert!(read.private);
    for end in 0..bytes.len() {
        assert!(Metainfo::decode(&bytes[..end]).is_err(), "{end}");
    }
}

#[test]
fn info_hash_is_of_the_bytes_as_found() {
    // A key that we do not know is part of what is hashed.
    let torrent = with("zz", b"i1e");
    let read = Metainfo::decode(&torrent).expect("honest");
    let from = torrent.windows(7).position(|w| w == b"4:infod").expect("there") + 6;
    assert_eq!(read.info_hash(), Digest::of(&torrent[from..torrent.len() - 1]));
}

#[test]
fn invalid_values_are_refused() {
    Metainfo::decode(&with("private", b"i0e")).expect("honest");
    for (key, value) in [
        ("length", &b"i0e"[..]),
        ("length", b"i-1e"),
        ("length", b"1:5"),
        ("length", b"i4611686018427387904e"),
        ("length", b"i9223372036854775807e"),
        ("length", b"i65536e"),
        ("piece length", b"i0e"),
        ("piece length", b"i-1e"),
        ("piece length", b"i4611686018427387904e"),
        ("piece length", b"i16383e"),
        ("piece length", b"i8192e"),
        ("piece length", b"i33554432e"),
        ("piece length", b"i32768e"),
        ("pieces", b"0:"),
        ("pieces", b"5:12345"),
        ("pieces", b"le"),
        ("files", b"le"),
        ("attr", b"1:l"),
        ("name", b"0:"),
        ("name", b"1:."),
        ("name", b"2:.."),
        ("name", b"6:/etc/x"),
        ("name", b"6:a/../b"),
        ("name", b"4:..\\x"),
        ("name", b"4:C:\\x"),
        ("name", b"3:a\0b"),
        ("name", b"2:\xff\xfe"),
        ("name", b"4:a\xe2\x80\xae"),
        ("name", b"i5e"),
    ] {
        let shown = String::from_utf8_lossy(value).into_owned();
        assert!(Metainfo::decode(&with(key, value)).is_err(), "{key} {shown}");
    }
    let long = format!("10000:{}", "x".repeat(10_000));
    assert!(Metainfo::decode(&with("name", long.as_bytes())).is_err());
    assert!(Metainfo::decode(&vec![b'l'; METAINFO_MAX + 1]).is_err());
    assert!(Metainfo::decode(b"i5e").is_err());
}

#[test]
fn files_have_about_a_thousand_pieces_and_never_too_many() {
    for (bytes, piece) in [
        (1, 16 << 10),
        (10_485_760, 16 << 10),
        (100_000_000, 64 << 10),
        (1 << 30, 512 << 10),
        (1 << 40, 4 << 20),
    ] {
        assert_eq!(piece_bytes(bytes), piece, "{bytes}");
    }
    let huge = 1 << 43;
    assert!(huge / u64::from(piece_bytes(huge)) <= u64::from(PIECES_MAX));
}
