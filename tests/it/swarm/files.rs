//! What a swarm leaves in files: what the server plans and offers, and when each piece came.

use std::{collections::BTreeSet, fs, path::Path};

use crate::common::{
    program::{Program, folder_with_file, gatecast, text},
    until, within,
};

/// The columns of each line.
fn columns(path: &Path, separator: char) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).expect("written");
    text.lines().map(|line| line.split(separator).map(str::to_owned).collect()).collect()
}

#[test]
fn plan_is_written_before_release_and_the_rest_after() {
    within(super::LIMIT, || {
        let (folder, _) = folder_with_file(1_000_000);
        let path = folder.path();
        let words =
            ["f.bin", "--via", "swarm", "--clients", "2", "--one-off", "--tracker-file", "plan"];
        let (mut server, addr) = Program::serve(path, &words);
        let words = ["--via", "swarm", "--blocks", "blocks.csv"];
        let mut first = Program::fetch(path, &addr, "first", &words);
        let plan = path.join("plan");
        until("the plan", || {
            fs::read_to_string(&plan).is_ok_and(|text| text.lines().count() == 62)
        });
        let planned = columns(&plan, '\t');
        let mut turns: Vec<u32> =
            planned.iter().map(|row| row[2].parse().expect("a turn")).collect();
        assert_ne!(turns, (1..=62).collect::<Vec<_>>(), "not in the order of the file");
        turns.sort_unstable();
        assert_eq!(turns, (1..=62).collect::<Vec<_>>());
        assert!(planned.iter().all(|row| row[1] == "-"), "{planned:?}");
        let mut second = Program::fetch(path, &addr, "second", &["--via", "swarm"]);
        assert_eq!((first.code(), second.code(), server.code()), (0, 0, 0), "{}", first.stderr());

        let after = columns(&plan, '\t');
        let is_seat = |cell: &String| cell == "C1" || cell == "C2";
        for (row, planned) in after.iter().zip(&planned) {
            assert_eq!((&row[0], &row[2]), (&planned[0], &planned[2]), "the plan stays");
            assert!(is_seat(&row[1]), "{row:?}");
        }
        let blocks = columns(&path.join("blocks.csv"), ',');
        assert_eq!(blocks[0], ["seat", "seconds", "piece", "from"]);
        let pieces: BTreeSet<&String> = blocks[1..].iter().map(|row| &row[2]).collect();
        assert_eq!((blocks.len(), pieces.len()), (63, 62), "each piece once");
        assert!(blocks[1..].iter().all(|row| row[1].parse::<f64>().is_ok_and(|at| at < 60.0)));
        assert!(blocks[1..].iter().all(|row| row[0] == blocks[1][0]), "one client has one seat");
        let other = if blocks[1][0] == "1" { "C2" } else { "C1" };
        assert!(blocks[1..].iter().all(|row| [other, "server"].contains(&&*row[3])), "{blocks:?}");
    });
}

#[test]
fn clients_of_one_process_share_the_file_of_pieces() {
    within(super::LIMIT, || {
        let (folder, _) = folder_with_file(300_000);
        let path = folder.path();
        let (mut server, addr) = Program::serve(path, &["f.bin", "--one-off"]);
        let words = ["fetch", &addr, "--via", "swarm", "--clients", "3", "--blocks", "b.csv"];
        let fetched = gatecast(path, &words).output().expect("runs");
        assert!(fetched.status.success(), "{}", text(&fetched.stderr));
        assert_eq!(server.code(), 0);
        let rows = columns(&path.join("b.csv"), ',');
        for seat in ["1", "2", "3"] {
            assert_eq!(rows.iter().filter(|row| row[0] == seat).count(), 19, "{rows:?}");
        }
        assert_eq!(rows.len(), 1 + 3 * 19);
    });
}
