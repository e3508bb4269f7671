use super::*;

fn part(folder: &Path, name: &str, resume: bool) -> Result<Part> {
    open_as(folder, name, resume, ByteOrder::Sequential)
}

fn open_as(folder: &Path, name: &str, resume: bool, order: ByteOrder) -> Result<Part> {
    Part::open(&PartSpec {
        folder,
        name: &FileName::new(name).expect("plain"),
        bytes: 10,
        identity: Digest::of(b"x"),
        client: 1,
        order,
        resume,
        replace: true,
        in_place: false,
    })
}

#[test]
fn early_sync_reaches_the_part_where_it_stands() {
    let folder = tempfile::tempdir().expect("folder");
    let mut copy = open_as(folder.path(), "f", false, ByteOrder::AfterBeginning).expect("room");
    copy.begin_holes().expect("free");
    let sync = copy.early_sync();
    sync().expect("a disk");
    copy.end_holes();
    assert_eq!(sync().expect_err("it moved").kind(), io::ErrorKind::NotFound);
}

#[test]
fn final_name_appears_only_with_whole_file() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("made/here");
    let copy = part(&out, "f", false).expect("room");
    io::Write::write_all(&mut &*copy.file, b"0123456789").expect("room");
    assert!(!out.join("f").exists());
    copy.sync().expect("a disk");
    let copy = copy.publish(true).expect("free");
    assert!(copy.is_durable);
    assert_eq!(fs::read(copy.path).expect("there"), b"0123456789");
    assert_eq!(fs::read_dir(&out).expect("there").count(), 1, "nothing but the file is left");
}

#[test]
fn earlier_part_is_resumed_only_when_asked_and_not_too_long() {
    let folder = tempfile::tempdir().expect("folder");
    let fill = |bytes: &[u8]| {
        let copy = part(folder.path(), "f", false).expect("room");
        io::Write::write_all(&mut &*copy.file, bytes).expect("room");
    };
    fill(b"01234");
    assert_eq!(part(folder.path(), "f", true).expect("there").resumed, 5);
    assert_eq!(part(folder.path(), "f", false).expect("there").resumed, 0);
    assert_eq!(part(folder.path(), "f", true).expect("there").resumed, 0, "it was emptied");
    fill(b"0123456789");
    assert_eq!(part(folder.path(), "f", true).expect("whole").resumed, 10);
    fill(b"0123456789X");
    assert_eq!(part(folder.path(), "f", true).expect("too long").resumed, 0);
}

#[test]
fn process_that_was_started_meanwhile_holds_no_lock() {
    let folder = tempfile::tempdir().expect("folder");
    let copy = part(folder.path(), "f", false).expect("room");
    io::Write::write_all(&mut &*copy.file, b"01234").expect("room");
    // As a child has it between its fork and its program.
    let _child = copy.file.try_clone().expect("a descriptor");
    drop(copy);
    let copy = part(folder.path(), "f", true).expect("room");
    assert_eq!(copy.resumed, 5);
    let _writer = copy.storage.clone();
    drop(copy);
    assert_eq!(part(folder.path(), "f", true).expect("room").resumed, 0, "a thread writes it");
}

#[test]
fn part_with_holes_is_not_resumed_before_they_are_filled() {
    let folder = tempfile::tempdir().expect("folder");
    let open = || open_as(folder.path(), "f", true, ByteOrder::AfterBeginning);
    let left = || part(folder.path(), "f", true).map(|part| part.resumed);
    let copy = open().expect("room");
    io::Write::write_all(&mut &*copy.file, b"012").expect("room");
    drop(copy);
    let mut copy = {
        assert_eq!(open().expect("there").resumed, 3);
        open().expect("there")
    };
    copy.begin_holes().expect("a free name");
    io::Write::write_all(&mut &*copy.file, b"012____7").expect("room");
    assert_eq!(open().expect("the next number").resumed, 0);
    fs::remove_file(folder.path().join(format!(".{}-2.part", Digest::of(b"x").short())))
        .expect("left by that one");
    // Killed here.
    drop(copy);
    assert_eq!(left().expect("room"), 0);
    let mut copy = open().expect("room");
    assert_eq!(copy.resumed, 0);
    copy.begin_holes().expect("a free name");
    io::Write::write_all(&mut &*copy.file, b"01234_6").expect("room");
    copy.file.set_len(5).expect("cut");
    copy.end_holes();
    drop(copy);
    assert_eq!(left().expect("there"), 5);
    assert_eq!(open().expect("there").resumed, 5);
    let mut copy = open().expect("there");
    copy.begin_holes().expect("a free name");
    copy.publish(false).expect("free");
    let names: Vec<_> = fs::read_dir(folder.path()).expect("there").collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

/// Removes the only file in `folder` and puts another in its place; returns where.
fn swap(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).expect("there");
    let path = files.next().expect("a part").expect("readable").path();
    assert!(files.next().is_none());
    fs::remove_file(&path).expect("ours");
    fs::write(&path, b"another's").expect("room");
    path
}

#[cfg(unix)]
#[test]
fn part_replaced_while_locked_is_never_published() {
    type Act = fn(Part) -> Result<()>;
    let acts: [Act; 3] = [
        |part| part.publish(true).map(drop),
        |mut part| part.begin_holes(),
        |mut part| {
            part.begin_holes()?;
            part.publish(false).map(drop)
        },
    ];
    for act in acts {
        let folder = tempfile::tempdir().expect("folder");
        let copy = open_as(folder.path(), "f", false, ByteOrder::AfterBeginning);
        let copy = copy.expect("room");
        io::Write::write_all(&mut &*copy.file, b"0123456789").expect("room");
        let path = swap(folder.path());
        let error = act(copy).expect_err("it is another's").to_string();
        assert!(error.contains("another file stands in its place"), "{error}");
        assert!(error.contains(&shown(&path)), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
        assert_eq!(fs::read(&path).expect("untouched"), b"another's");
    }
}

#[cfg(unix)]
#[test]
fn discard_removes_only_its_own_part() {
    let folder = tempfile::tempdir().expect("folder");
    part(folder.path(), "f", false).expect("room").discard();
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
    let copy = part(folder.path(), "f", false).expect("room");
    let path = swap(folder.path());
    copy.discard();
    assert_eq!(fs::read(&path).expect("untouched"), b"another's");
}

#[test]
fn second_client_of_a_number_takes_the_next_free_one() {
    let folder = tempfile::tempdir().expect("folder");
    let count = || fs::read_dir(folder.path()).expect("there").count();
    // As many as stand in one folder, each in a process of its own.
    let held: Vec<_> =
        (0..25).map(|_| part(folder.path(), "f", false).expect("a free number")).collect();
    assert_eq!(count(), 25);
    for (n, copy) in (0_u8..).zip(&held) {
        io::Write::write_all(&mut &*copy.file, &[n; 10]).expect("room");
    }
    for (n, copy) in (0_u8..).zip(held) {
        let copy = copy.publish(false).expect("its own");
        assert_eq!(fs::read(copy.path).expect("there"), [n; 10]);
    }
    assert_eq!(count(), 1);
    // One that has holes has its number too.
    let open = || open_as(folder.path(), "g", false, ByteOrder::AfterBeginning).expect("room");
    let mut first = open();
    first.begin_holes().expect("a free name");
    let mut second = open();
    second.begin_holes().expect("a free name");
    assert_eq!(count(), 3, "no empty part is left behind");
}

#[test]
fn part_that_was_published_before_the_lock_is_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let copy = part(folder.path(), "f", false).expect("room");
    io::Write::write_all(&mut &*copy.file, b"0123456789").expect("room");
    let path = copy.path.clone();
    let (late, is_new) = open(&path).expect("readable").expect("there");
    assert!(!is_new);
    assert!(!lock(&late, &path).expect("a lock"), "the first one writes it");
    let published = copy.publish(false).expect("free").path;
    assert!(!lock(&late, &path).expect("a lock"), "it is a copy now");
    assert_eq!(fs::read(published).expect("there"), b"0123456789");
}

#[cfg(unix)]
#[test]
fn part_with_another_name_or_owner_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join(format!(".{}-1.part", Digest::of(b"x").short()));
    let victim = folder.path().join("victim");
    fs::write(&victim, b"01234").expect("room");
    fs::hard_link(&victim, &path).expect("one file system");
    for resume in [true, false] {
        let error = part(folder.path(), "f", resume).expect_err("linked").to_string();
        assert!(error.contains("other names"), "{error}");
    }
    assert_eq!(fs::read(&victim).expect("there"), b"01234");
    // Left by a client of ours.
    fs::remove_file(&victim).expect("ours");
    assert_eq!(part(folder.path(), "f", true).expect("our own").resumed, 5);
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1, "nothing but the part");
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(1), None).is_ok() {
        let error = part(folder.path(), "f", true).expect_err("foreign").to_string();
        assert!(error.contains("another user"), "{error}");
        assert_eq!(fs::read(&path).expect("there"), b"01234");
    }
}

/// Not by a program: between fork and exec it would hold the locks of parts of other tests.
#[cfg(unix)]
fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
}

#[cfg(unix)]
#[test]
fn fifo_in_place_of_part_blocks_nobody() {
    for end in ["part", "holes.part"] {
        let folder = tempfile::tempdir().expect("folder");
        let name = format!(".{}-1.{end}", Digest::of(b"x").short());
        make_fifo(&folder.path().join(name));
        let opened = open_as(folder.path(), "f", true, ByteOrder::AfterBeginning);
        let error = opened.expect_err("a pipe").to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn folder_link_and_fifo_are_not_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    fs::create_dir(folder.path().join("folder")).expect("room");
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("room");
    make_fifo(&folder.path().join("fifo"));
    for name in ["folder", "link", "fifo"] {
        let error = part(folder.path(), name, false).expect_err(name).to_string();
        assert!(error.contains("in the way"), "{error}");
    }
    fs::write(folder.path().join("file"), b"old").expect("room");
    part(folder.path(), "file", false)
        .expect("an old file is replaced")
        .publish(false)
        .expect("free");
}

#[cfg(unix)]
#[test]
fn link_in_place_of_part_is_not_followed() {
    let folder = tempfile::tempdir().expect("folder");
    let victim = folder.path().join("victim");
    fs::write(&victim, b"precious").expect("room");
    let path = folder.path().join(format!(".{}-1.part", Digest::of(b"x").short()));
    std::os::unix::fs::symlink(&victim, path).expect("room");
    assert!(part(folder.path(), "f", true).is_err());
    assert!(part(folder.path(), "f", false).is_err());
    assert_eq!(fs::read(&victim).expect("there"), b"precious");
}

#[cfg(all(target_os = "linux", feature = "sockopt"))]
#[test]
fn reserved_room_is_given_back_where_no_bytes_came() {
    use std::os::unix::fs::MetadataExt;

    const WANTED: u64 = 1 << 20;
    let folder = tempfile::tempdir().expect("folder");
    let mut copy = part(folder.path(), "f", false).expect("room");
    io::Write::write_all(&mut &*copy.file, b"01").expect("room");
    let path = copy.path.clone();
    // Blocks are counted in 512 bytes (stat(2)).
    let room = || {
        let there = fs::metadata(&path).expect("there");
        (there.len(), there.blocks() * 512)
    };
    let before = room().1;
    copy.resumed = 2;
    copy.reserve(WANTED);
    assert_eq!(room().0, 2, "the size says what is there");
    if !copy.is_reserved {
        return println!("skipped: this file system reserves nothing");
    }
    assert!(room().1 >= WANTED, "{}", room().1);
    drop(copy);
    assert_eq!(room(), (2, before));
}
