//! What a client that stays has proven, when it takes a seat, and how long it waits between two looks.
//!
//! Fed with what a server lists of itself; no sockets, no clock.

use std::{collections::VecDeque, time::Duration};

use crate::{
    client::config::FetchConfig,
    digest::Digest,
    error::{Error, Result},
    proto::native::ListEnd,
    session::FileInfo,
};

/// The memory of a client that stays.
#[derive(Debug, Default)]
pub struct StandingClient {
    run: Option<u64>,
    /// The digests that it has proven to this run of the server, the newest last.
    proven: VecDeque<Digest>,
    /// How often it has waited since it last got a copy or met another run.
    waits: u32,
}

/// Most digests that are remembered of one run of a server. A file seldom changes so often in it.
const PROVEN_MAX: usize = 64;

/// The first wait between two looks at a server. Each is twice the one before ...
const WAIT_LEAST: Duration = Duration::from_secs(1);

/// ... up to this one: a tenth of the time that a muster has by default is left to be late.
const WAIT_MOST: Duration = Duration::from_secs(8);

/// Each wait is longer by a random part of its length, up to one in so many: clients that were started
/// together do not come together for ever.
const SPREAD: u32 = 4;

impl StandingClient {
    /// How to ask for a seat of the server that lists `files` and `end`: as `config` says, and with
    /// what this server has fixed. `None` where the copy is proven already.
    ///
    /// # Errors
    /// Why there is no seat for a client that stays.
    pub fn choose(
        &mut self,
        (files, end): &(Vec<(FileInfo, bool)>, ListEnd),
        config: &FetchConfig,
    ) -> Result<Option<FetchConfig>> {
        if self.run != end.run {
            *self = Self { run: end.run, ..Self::default() };
        }
        let wanted = config.file.as_ref().or(end.file.as_ref());
        let file = files.iter().map(|(file, _)| file).find(|file| Some(&file.name) == wanted);
        let why = match (end.run, end.clients, file) {
            (Some(_), Some(_), Some(file)) => {
                config.check_sha1("the server", &file.name, Some(file.sha1))?;
                let (run, group, sha1) = (end.run, end.clients, Some(file.sha1));
                let is_proven = self.proven.contains(&file.sha1);
                return Ok((!is_proven).then(|| FetchConfig {
                    run,
                    group,
                    sha1,
                    ..config.clone()
                }));
            }
            (None, ..) => "it is of a version before --standing",
            (_, None, _) => "it has no --clients or --roster, so nobody says who gets it together",
            (.., None) => "it does not offer this file, or it offers several and none was named",
        };
        Err(Error::refused("the server", why))
    }

    /// The copy of this file is proven to the run that was met last.
    pub fn note_proven(&mut self, sha1: Digest) {
        if self.proven.len() == PROVEN_MAX {
            self.proven.pop_front();
        }
        self.proven.push_back(sha1);
        self.waits = 0;
    }

    /// How long to wait before the next look; `random` chooses the spread.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let wait = (WAIT_LEAST * 2_u32.pow(self.waits.min(8))).min(WAIT_MOST);
        self.waits += 1;
        let part = u32::try_from(random % 1024).expect("below 1024");
        wait + wait / SPREAD * part / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::FileName;

    fn config(file: Option<&str>) -> FetchConfig {
        let file = file.map(|name| FileName::new(name).expect("plain"));
        FetchConfig { file, ..FetchConfig::new(Vec::new()) }
    }

    fn file(name: &str, content: &[u8]) -> FileInfo {
        let name = FileName::new(name).expect("plain");
        FileInfo { name, bytes: content.len() as u64, sha1: Digest::of(content) }
    }

    fn end(run: u64, clients: Option<u16>, file: Option<&str>) -> ListEnd {
        let file = file.map(|name| FileName::new(name).expect("plain"));
        ListEnd { run: Some(run), clients, file }
    }

    #[test]
    fn proven_digest_gets_no_seat_until_the_run_changes() {
        let mut client = StandingClient::default();
        let mut chosen = |run, files: &[FileInfo], wanted: Option<&str>, proven: Option<&[u8]>| {
            let files = files.iter().map(|file| (file.clone(), false)).collect();
            let listing = (files, end(run, Some(3), Some("f")));
            let chosen = client.choose(&listing, &config(wanted)).expect("a server for it");
            proven.iter().for_each(|content| client.note_proven(Digest::of(content)));
            chosen.map(|config| (config.run, config.group, config.sha1))
        };
        let seat = |run: u64, content| Some((Some(run), Some(3), Some(Digest::of(content))));
        let files = [file("f", b"one"), file("g", b"two")];
        assert_eq!(chosen(1, &files, None, None), seat(1, b"one"));
        // A session that failed is tried again.
        assert_eq!(chosen(1, &files, None, Some(b"one")), seat(1, b"one"));
        assert_eq!(chosen(1, &files, None, None), None);
        assert_eq!(chosen(1, &files, Some("g"), None), seat(1, b"two"));
        // The same name, other bytes; then the first ones again.
        let changed = [file("f", b"three")];
        assert_eq!(chosen(1, &changed, None, Some(b"three")), seat(1, b"three"));
        assert_eq!(chosen(1, &files, None, None), None);
        assert_eq!(chosen(2, &files, None, None), seat(2, b"one"));
    }

    #[test]
    fn server_that_fixes_no_group_gets_no_standing_client() {
        let files = vec![(file("f", b"one"), false), (file("g", b"two"), true)];
        let refused = |end: ListEnd, config: &FetchConfig| {
            let chosen = StandingClient::default().choose(&(files.clone(), end), config);
            chosen.expect_err("no seat").to_string()
        };
        let why = |end: ListEnd, wanted: Option<&str>| refused(end, &config(wanted));
        let early = ListEnd { run: None, ..end(1, Some(3), Some("f")) };
        assert!(why(early, None).ends_with("it is of a version before --standing"));
        assert!(why(end(1, None, Some("f")), None).contains("has no --clients or --roster"));
        assert!(why(end(1, Some(3), None), None).ends_with("it offers several and none was named"));
        let none = why(end(1, Some(3), Some("f")), Some("h"));
        assert!(none.starts_with("the server refused: it does not offer this file"), "{none}");
        let sha1 = FetchConfig { sha1: Some(Digest::of(b"two")), ..config(None) };
        assert!(
            refused(end(1, Some(3), Some("f")), &sha1).contains("it offers 'f' with the SHA-1")
        );
    }

    #[test]
    fn waits_double_within_their_bounds_and_differ() {
        let mut client = StandingClient::default();
        let seconds: Vec<_> = (0..6).map(|_| client.next_wait(0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 8, 8]);
        for _ in 0..100_000 {
            let wait = client.next_wait(u64::MAX);
            assert!(wait > WAIT_MOST && wait < WAIT_MOST + WAIT_MOST / SPREAD, "{wait:?}");
        }
        assert_ne!(client.next_wait(1), client.next_wait(2));
        client.note_proven(Digest::of(b"one"));
        assert_eq!(client.next_wait(0), WAIT_LEAST);
    }

    #[test]
    fn remembered_digests_have_a_limit() {
        let mut client = StandingClient::default();
        let listing = |number: usize| {
            let content = number.to_string();
            (vec![(file("f", content.as_bytes()), false)], end(1, Some(2), Some("f")))
        };
        for number in 0..=PROVEN_MAX {
            assert!(client.choose(&listing(number), &config(None)).expect("a seat").is_some());
            client.note_proven(Digest::of(number.to_string().as_bytes()));
        }
        assert_eq!(client.proven.len(), PROVEN_MAX);
        assert!(
            client.choose(&listing(0), &config(None)).expect("the oldest is forgotten").is_some()
        );
        assert!(client.choose(&listing(1), &config(None)).expect("nothing to do").is_none());
    }
}
