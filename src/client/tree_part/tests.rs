use super::*;
use crate::net::copy;

const LINES: &str = "d 755 1000 a\nf 640 5000000000 3 a9993e364706816aba3e25717850c26c9cd0d89d a/x\n\
                     f 644 -7 0 da39a3ee5e6b4b0d3255bfef95601890afd80709 b\n\
                     f 444 0 3 a9993e364706816aba3e25717850c26c9cd0d89d c\n";

fn open(folder: &Path, resume: bool, replace: bool) -> Result<TreePart> {
    let spec = TreeSpec {
        folder,
        name: &FileName::new("tree").expect("plain"),
        offered: &FileName::new("tree").expect("plain"),
        manifest: Arc::new(Manifest::decode(LINES.as_bytes()).expect("honest")),
        sha1: Digest::of(b"x"),
        client: 1,
        resume,
        replace,
    };
    TreePart::open(&spec, |_| Ok(()))
}

fn part_at(folder: &Path) -> PathBuf {
    folder.join(format!(".tree-{}.part", Digest::of(b"x").short()))
}

fn filled(folder: &Path, resume: bool, replace: bool) -> TreePart {
    let part = open(folder, resume, replace).expect("room");
    copy::write_at(&part.storage, b"abcabc", 0).expect("room");
    part
}

#[test]
fn folder_takes_its_name_once_with_modes_and_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let part = filled(folder.path(), false, false);
    assert!(part_at(folder.path()).join("a/x").exists(), "it is built beside");
    part.finish().expect("as it should be");
    part.sync().expect("a disk");
    let storage = part.storage.clone();
    let copy = part.publish(true).expect("free");
    assert_eq!(copy.path, folder.path().join("tree"));
    assert!(!part_at(folder.path()).exists());
    let x = fs::metadata(copy.path.join("a/x")).expect("there");
    assert_eq!(x.modified().expect("known"), UNIX_EPOCH + Duration::from_secs(5));
    let before = fs::metadata(copy.path.join("b")).expect("there").modified().expect("known");
    assert_eq!(before, UNIX_EPOCH - Duration::from_nanos(7));
    #[cfg(unix)]
    {
        let c = fs::metadata(copy.path.join("c")).expect("there");
        assert_eq!((files::mode_of(&x) & 0o700, files::mode_of(&c) & 0o700), (0o600, 0o400));
        assert_eq!(files::mode_of(&x) & 0o007, 0, "no more than the list says");
    }
    let mut bytes = [0; 6];
    assert_eq!(copy::read_at(&storage, &mut bytes, 0).expect("it moved along"), 3);
    assert_eq!(copy::read_at(&storage, &mut bytes, 3).expect("it moved along"), 3);
    assert!(matches!(copy::read_at(&storage, &mut bytes, 6), Err(copy::Stop::Short)));
}

#[test]
fn existing_target_is_refused_or_exchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("tree");
    fs::create_dir(&target).expect("room");
    fs::write(target.join("old"), b"old").expect("room");
    let error = open(folder.path(), false, false).expect_err("it is there").to_string();
    assert!(error.contains("only --overwrite replaces it"), "{error}");
    assert!(!part_at(folder.path()).exists());
    let part = filled(folder.path(), false, true);
    part.finish().expect("as it should be");
    part.publish(false).expect("exchanged");
    assert_eq!(fs::read(target.join("a/x")).expect("there"), b"abc");
    assert!(!target.join("old").exists());
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1, "nothing is left beside");
    fs::remove_dir_all(&target).expect("ours");
    fs::write(&target, b"a file").expect("room");
    let error = open(folder.path(), false, true).expect_err("a file").to_string();
    assert!(error.contains("that is not a folder"), "{error}");
}

#[test]
fn part_that_was_left_is_emptied_or_taken_up() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(filled(folder.path(), false, false));
    let at = part_at(folder.path());
    fs::write(at.join("stray"), b"x").expect("room");
    fs::create_dir(at.join("a/more")).expect("room");
    fs::write(at.join("c"), b"abd").expect("room");
    #[cfg(unix)]
    std::os::unix::fs::symlink("/etc/passwd", at.join("a/link")).expect("room");
    let part = open(folder.path(), true, false).expect("ours");
    assert_eq!((part.resumed, part.missing), (3, BLOCK), "all before the file c is right");
    for gone in ["stray", "a/more", "a/link"] {
        assert!(fs::symlink_metadata(at.join(gone)).is_err(), "{gone}");
    }
    drop(part);
    let part = open(folder.path(), false, false).expect("ours");
    assert_eq!(part.resumed, 0);
    assert_eq!(fs::read(at.join("a/x")).expect("made"), b"");
}

#[test]
fn right_files_of_the_final_folder_are_copied() {
    let folder = tempfile::tempdir().expect("a folder");
    let part = filled(folder.path(), false, false);
    part.publish(false).expect("free");
    fs::write(folder.path().join("tree/c"), b"new").expect("room");
    let part = open(folder.path(), true, true).expect("may be replaced");
    assert_eq!(part.resumed, 3);
    assert_eq!(fs::read(part_at(folder.path()).join("a/x")).expect("copied"), b"abc");
    assert_eq!(fs::read(part_at(folder.path()).join("c")).expect("made"), b"");
    assert_eq!(fs::read(folder.path().join("tree/c")).expect("untouched"), b"new");
}

#[cfg(unix)]
#[test]
fn second_client_takes_another_part() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = open(folder.path(), false, false).expect("room");
    let second = open(folder.path(), true, false).expect("room");
    assert!(second.shown().ends_with("-2.part"), "{}", second.shown());
}

#[test]
fn file_that_grew_is_not_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let part = filled(folder.path(), false, false);
    fs::write(part_at(folder.path()).join("b"), b"more").expect("room");
    let error = part.finish().expect_err("changed").to_string();
    assert!(error.contains("changed by another program"), "{error}");
}
