//! The one format of a list of machines: `serve --roster`, `push --hosts` and `study --room` read it.
//!
//! A line is `NAME [ADDRESS]`. `#` begins a comment; a line without a name is passed over. The name is
//! what the machine's client calls itself, the address an IP address.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
};

use crate::{
    error::{Error, Result},
    session::{MAX_SEATS, SeatId},
    text::{ClientName, escape},
    transfer::{Record, Transfer},
};

/// A machine of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// What its client calls itself.
    pub name: ClientName,
    /// Its address, where the line has one.
    pub address: Option<IpAddr>,
}

/// Machines of different names, at least one, in the order of their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostList(Vec<HostEntry>);

/// Most machines of a list: they have a seat each.
pub const NAMES_MAX: usize = MAX_SEATS as usize;

/// Most bytes of a line: the longest name and address, and as many again for blanks and a comment.
pub const LINE_MAX: usize = 256;

/// Most bytes of a file with such a list: as many of the longest lines as it may have, and comments.
pub const FILE_MAX: u64 = 4 << 20;

impl HostList {
    /// Reads the text of the file `at`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the line's number: a line that is too long or is not `NAME [ADDRESS]`, a
    /// name that an earlier line has, too many names. Also a list without a name.
    pub fn parse(text: &str, at: impl fmt::Display) -> Result<Self> {
        let mut hosts = Vec::new();
        let mut lines = HashMap::new();
        // Some editors begin a text with this mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in (1_usize..).zip(text.lines()) {
            let wrong = |what: String| Error::usage(format_args!("{at}, line {number}: {what}"));
            let Some(host) = parse_line(line).map_err(wrong)? else {
                continue;
            };
            if let Some(earlier) = lines.insert(host.name.clone(), number) {
                return Err(wrong(format!("'{}' stands in line {earlier} already", host.name)));
            }
            if hosts.len() == NAMES_MAX {
                return Err(wrong(format!("more than {NAMES_MAX} names")));
            }
            hosts.push(host);
        }
        if hosts.is_empty() {
            return Err(Error::usage(format_args!("{at}: it names nobody; a line is {LINE}")));
        }
        Ok(Self(hosts))
    }

    /// Whose copy `record` does not prove, by the names in it; `None` where it proves all. Clients of
    /// whom it has no name are told as a warning.
    ///
    /// # Errors
    /// [`Error::Usage`]: two clients have one name, or none that lacks the copy has one.
    pub fn unproven(record: &Record) -> Result<Option<Self>> {
        if record.all_proven() {
            return Ok(None);
        }
        let session = record.session;
        let mut names: BTreeMap<&str, Vec<&Transfer>> = BTreeMap::new();
        // A row without a name counts clients that left.
        for row in record.transfers.iter().filter(|row| !row.name.is_empty()) {
            names.entry(&row.name).or_default().push(row);
        }
        let mut hosts = Vec::new();
        for (name, rows) in &names {
            // A client that left the muster may have come again, to another seat.
            let released = rows.iter().filter(|row| row.woke.is_some()).count();
            let name = ClientName::new(name).map_err(Error::usage)?;
            if released > 1 {
                return Err(Error::usage(format_args!(
                    "{released} clients of session {session} are called '{name}': give each its own \
                     --name, or a --roster"
                )));
            }
            if !rows.iter().any(|row| row.is_proven()) {
                hosts.push(HostEntry { name, address: None });
            }
        }
        let unknown = usize::from(record.clients).saturating_sub(names.len());
        let what =
            format!("session {session}: {unknown} seats had no client, so it has no name there");
        if hosts.is_empty() {
            return Err(Error::usage(what + "; give a --roster"));
        }
        if unknown > 0 {
            log::warn!("{what}");
        }
        Ok(Some(Self(hosts)))
    }

    /// The first `count` of them.
    pub fn first(&self, count: u16) -> Self {
        Self(self.0.iter().take(count.into()).cloned().collect())
    }

    /// The machines.
    pub fn entries(&self) -> &[HostEntry] {
        &self.0
    }

    /// How many there are, as the seats of a session.
    pub fn clients(&self) -> u16 {
        u16::try_from(self.0.len()).expect("no list has more than NAMES_MAX")
    }

    /// The seat of the client that calls itself `name` and comes from `address`: its place in the list.
    ///
    /// # Errors
    /// It is not on the list, as one clause that the client is told.
    pub fn seat_of(&self, name: &str, address: IpAddr) -> Result<SeatId, String> {
        let address = address.to_canonical();
        let Some((seat, host)) = self.seats().find(|(_, host)| host.name.as_str() == name) else {
            return Err(format!("'{}' is not on its roster", escape(name)));
        };
        match host.address.map(|ip| ip.to_canonical()).filter(|&ip| ip != address) {
            Some(ip) => Err(format!("'{}' is on its roster at {ip}, not at {address}", host.name)),
            None => Ok(seat),
        }
    }

    /// Each machine with its seat.
    pub fn seats(&self) -> impl Iterator<Item = (SeatId, &HostEntry)> {
        (1..).map(SeatId).zip(&self.0)
    }
}

/// What a line is, in messages.
const LINE: &str = "NAME [ADDRESS]";

fn parse_line(line: &str) -> Result<Option<HostEntry>, String> {
    if line.len() > LINE_MAX {
        return Err(format!("{} bytes, and a line has {LINE_MAX} at most", line.len()));
    }
    let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
    let Some(name) = words.next() else {
        return Ok(None);
    };
    let name = ClientName::new(name).map_err(|error| error.to_string())?;
    let address = words.next().map(|word| {
        let wrong = |_| format!("'{}' is not an IP address; a line is {LINE}", escape(word));
        word.parse::<IpAddr>().map_err(wrong)
    });
    if let Some(word) = words.next() {
        return Err(format!("'{}' is too much; a line is {LINE}", escape(word)));
    }
    Ok(Some(HostEntry { name, address: address.transpose()? }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        digest::Digest,
        session::{FileInfo, SessionId, Via},
        text::FileName,
        transfer::Outcome,
    };

    fn parse(text: &str) -> Result<HostList, String> {
        HostList::parse(text, "room").map_err(|error| {
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        })
    }

    #[test]
    fn list_has_names_and_addresses_in_order() {
        let text = "\u{feff}# a room\r\n\r\npc-01\r\n\tpc-02  10.0.0.2 # window\npc-03 fd00::3\n\
                    niño #10.0.0.4";
        let list = parse(text).expect("right");
        let shown = |host: &HostEntry| (host.name.to_string(), host.address.map(|a| a.to_string()));
        let hosts: Vec<_> = list.entries().iter().map(shown).collect();
        let host =
            |name: &str, address: Option<&str>| (name.to_owned(), address.map(str::to_owned));
        let second = [host("pc-01", None), host("pc-02", Some("10.0.0.2"))];
        assert_eq!(hosts[..2], second);
        assert_eq!(hosts[2..], [host("pc-03", Some("fd00::3")), host("niño", None)]);
    }

    #[test]
    fn wrong_line_is_refused_with_its_number() {
        for (text, says) in [
            ("", "room: it names nobody; a line is NAME [ADDRESS]"),
            ("# pc-01\n \n", "room: it names nobody; a line is NAME [ADDRESS]"),
            ("a\nb\n\na\n", "room, line 4: 'a' stands in line 1 already"),
            ("a 10.0.0.1\na 10.0.0.2", "room, line 2: 'a' stands in line 1 already"),
            ("a b", "room, line 1: 'b' is not an IP address; a line is NAME [ADDRESS]"),
            ("a 10.0.0.256", "room, line 1: '10.0.0.256' is not an IP address"),
            ("\na 10.0.0.1 c", "room, line 2: 'c' is too much; a line is NAME [ADDRESS]"),
            ("\u{1b}[2J \u{202e}", "is not an IP address"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(says) || error.contains(says), "{error}");
            assert!(!error.chars().any(crate::text::is_unsafe), "{error:?}");
        }
    }

    /// Rows of a session for `clients`: name, seat, whether it was released, whether it is proven.
    fn record(clients: u16, rows: &[(&str, u16, bool, bool)]) -> Record {
        let transfers = rows.iter().map(|&(name, seat, released, proven)| {
            let outcome = if proven { Outcome::Complete } else { Outcome::Cut };
            let mut row = Transfer::new(SeatId(seat), name, outcome);
            row.verified = proven.then_some(true);
            row.woke = released.then_some(Duration::ZERO);
            row
        });
        let name = FileName::new("f").expect("plain");
        Record {
            session: SessionId(7),
            via: Via::Tcp,
            file: FileInfo { name, bytes: 1, sha1: Digest::of(b"x") },
            clients,
            released_at: None,
            sender: None,
            key: false,
            auto: None,
            machine: None,
            transfers: transfers.collect(),
        }
    }

    #[test]
    fn names_without_a_proven_copy_are_the_next_list() {
        let of = |clients, rows: &[_]| match HostList::unproven(&record(clients, rows)) {
            Ok(list) => {
                let names = list.iter().flat_map(HostList::entries);
                names.map(|host| host.name.to_string()).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        };
        let all = [("a", 1, true, true), ("b", 2, true, true)];
        assert_eq!(of(2, &all), "");
        // A client left, and another one took its seat and has the copy.
        assert_eq!(of(2, &[("c", 1, false, false), all[0], all[1]]), "");
        let some = [("c", 3, true, false), ("d", 4, false, false), all[0], all[1]];
        assert_eq!(of(4, &some), "c d");
        // It left the muster, came again to another seat, and failed there.
        let again = [("a", 1, true, true), ("b", 2, false, false), ("b", 3, true, false)];
        assert_eq!(of(3, &again), "b", "and one never came");
        let nobody = "session 0000000000000007: 1 seats had no client, so it has no name there; give a --roster";
        assert_eq!(of(3, &all), nobody);
        // Many that left have one row without a name.
        assert_eq!(of(2, &[all[0], ("", 2, false, false)]), nobody);
    }

    #[test]
    fn log_whose_clients_share_a_name_makes_no_list() {
        let rows = [("vm", 1, true, true), ("vm", 2, true, false)];
        let error = HostList::unproven(&record(2, &rows)).expect_err("which one?");
        assert_eq!(error.exit_code(), 2);
        let says = "2 clients of session 0000000000000007 are called 'vm': ";
        assert!(error.to_string().starts_with(says), "{error}");
        let long = "n".repeat(65);
        let rows = [(long.as_str(), 1, true, false)];
        assert!(HostList::unproven(&record(1, &rows)).is_err(), "no name of a client");
    }

    #[test]
    fn longest_list_passes_and_one_more_is_refused() {
        let names = |count| (0..count).map(|n| format!("{n:064} 10.0.0.1\n")).collect::<String>();
        let text = names(NAMES_MAX);
        assert!(text.len() as u64 <= FILE_MAX);
        assert_eq!(parse(&text).expect("right").entries().len(), NAMES_MAX);
        let error = parse(&names(NAMES_MAX + 1)).expect_err("too many");
        assert_eq!(error, "room, line 10001: more than 10000 names");
        let line = |length: usize| format!("{:<length$}", "a fe80::1:2:3:4 # b");
        assert!(parse(&line(LINE_MAX)).is_ok());
        let error = parse(&line(LINE_MAX + 1)).expect_err("too long");
        assert_eq!(error, "room, line 1: 257 bytes, and a line has 256 at most");
        let error = parse(&"n".repeat(65)).expect_err("too long");
        assert!(error.contains("room, line 1: the name 'nnn"), "{error}");
    }
}
