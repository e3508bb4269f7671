//! The server's tracker: who is in which swarm. Announce in, bytes out; a face brings them.
//!
//! A peer is where its connection comes from, whatever it says of its address. What it says may
//! be wrong in any way: the list of a swarm is bounded, and each address may only ask so often.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use crate::proto::bt::random::Random;
use crate::proto::bt::tracker::Announce;
use crate::proto::bt::tracker::Answer;
use crate::proto::bt::tracker::Event;
use crate::proto::bt::tracker::Share;
use crate::units::Moment;

/// The peers of one swarm.
#[derive(Debug)]
pub struct Board {
    peers: BTreeMap<SocketAddr, Entry>,
    asked: BTreeMap<IpAddr, (Moment, u32)>,
    completed: u64,
    /// What the peers of this session told of what they got from whom.
    told: BTreeMap<[u8; 20], Told>,
    random: Random,
}

/// What one of our own peers told of its bytes.
#[derive(Clone, Debug)]
pub struct Told {
    /// Where it listens.
    pub addr: SocketAddr,
    /// It has the whole file.
    pub whole: bool,
    /// Payload bytes by the member that they came from.
    pub from: Vec<Share>,
}

#[derive(Debug)]
struct Entry {
    id: [u8; 20],
    whole: bool,
    seen: Moment,
}

/// How long a peer waits between two announces, seconds. A local network bears more than the
/// usual half hour.
pub const INTERVAL: u64 = 5;

/// Most peers of one swarm that are remembered.
pub const PEERS_MAX: usize = 1024;

/// For how long a silent peer is remembered: two intervals and a half; but a libtorrent comes
/// back after five minutes only, however it is asked.
const REMEMBERED: Duration = Duration::from_secs(330);

/// Most announces of one address in [`SPAN`]. All clients of a test may be on one host.
const ASKS_MAX: u32 = 3000;

/// The span in which announces are counted.
const SPAN: Duration = Duration::from_secs(10);

impl Board {
    /// Nobody yet.
    pub fn new(seed: u64) -> Self {
        Self {
            peers: BTreeMap::new(),
            asked: BTreeMap::new(),
            completed: 0,
            told: BTreeMap::new(),
            random: Random::new(seed),
        }
    }

    /// Enters an announce from `ip`, and answers it; `seeder` is our own address as that peer
    /// reaches it.
    ///
    /// # Errors
    /// Why not, as the tracker's failure reason.
    pub fn announce(
        &mut self,
        announce: &Announce,
        ip: IpAddr,
        seeder: SocketAddr,
        now: Moment,
    ) -> Result<Answer, &'static str> {
        self.asked.retain(|_, (since, _)| now.since(*since) < SPAN);
        if self.asked.len() >= PEERS_MAX && !self.asked.contains_key(&ip) {
            return Err("too many peers ask at once");
        }
        let (_, asks) = self.asked.entry(ip).or_insert((now, 0));
        *asks += 1;
        if *asks > ASKS_MAX {
            return Err("this address asks too often");
        }
        self.peers
            .retain(|_, entry| now.since(entry.seen) < REMEMBERED);
        let addr = SocketAddr::new(ip, announce.port);
        let whole = announce.left == Some(0);
        self.hear(announce, addr, whole);
        // A program may say that it stopped before it ever started (transmission does).
        if announce.event == Event::Stopped {
            self.peers.remove(&addr);
            return Ok(self.answer(Vec::new()));
        }
        if announce.event == Event::Completed {
            self.completed += 1;
        }
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&addr) {
            return Err("this swarm is full");
        }
        let entry = Entry {
            id: announce.peer_id,
            whole,
            seen: now,
        };
        self.peers.insert(addr, entry);
        let mut others: Vec<SocketAddr> = self
            .peers
            .iter()
            .filter(|(other, entry)| {
                **other != addr && entry.id != announce.peer_id && !(whole && entry.whole)
            })
            .map(|(other, _)| *other)
            .collect();
        self.random.shuffle(&mut others);
        // The seeder always, and first: the list may be cut.
        if !whole {
            others.insert(0, seeder);
        }
        others.truncate(announce.wanted);
        Ok(self.answer(others))
    }

    fn hear(&mut self, announce: &Announce, addr: SocketAddr, whole: bool) {
        let known = self.told.contains_key(&announce.peer_id);
        let tells = !announce.from.is_empty() && (known || self.told.len() < PEERS_MAX);
        // Who leaves without a word more has said before how it ended.
        if tells {
            let told = Told {
                addr,
                whole,
                from: announce.from.clone(),
            };
            self.told.insert(announce.peer_id, told);
        }
    }

    /// What our own peers told of their bytes, by id.
    pub fn told(&self) -> &BTreeMap<[u8; 20], Told> {
        &self.told
    }

    /// A new session: what was told of the last one is over.
    pub fn forget(&mut self) {
        self.told.clear();
    }

    fn answer(&self, peers: Vec<SocketAddr>) -> Answer {
        let (complete, incomplete, _) = self.counts();
        Answer {
            complete,
            incomplete,
            interval: INTERVAL,
            peers,
        }
    }

    /// Whole peers (with our seeder), others, and how often somebody became whole.
    pub fn counts(&self) -> (u64, u64, u64) {
        let whole = self.peers.values().filter(|entry| entry.whole).count() as u64;
        (whole + 1, self.peers.len() as u64 - whole, self.completed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const SERVER: &str = "10.0.0.1:8080";

    fn announce(number: u8, left: u64, event: Event) -> Announce {
        Announce {
            info_hash: Digest::of(b"x"),
            peer_id: [number; 20],
            port: 5000 + u16::from(number),
            left: Some(left),
            event,
            wanted: 50,
            sent: 0,
            from: Vec::new(),
        }
    }

    fn ask(
        board: &mut Board,
        announce: &Announce,
        second: u64,
    ) -> Result<Vec<String>, &'static str> {
        let ip = IpAddr::from([10, 0, 0, announce.peer_id[0]]);
        let seeder = SERVER.parse().expect("an address");
        let answer = board.announce(announce, ip, seeder, Moment(second * 1_000_000))?;
        Ok(answer.peers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_answer_has_everybody_but_the_asker() {
        let mut board = Board::new(1);
        assert_eq!(
            ask(&mut board, &announce(2, 9, Event::Started), 0),
            Ok(vec![SERVER.into()])
        );
        let second = ask(&mut board, &announce(3, 9, Event::Started), 0).expect("room");
        assert_eq!(second, [SERVER, "10.0.0.2:5002"]);
        let again = ask(&mut board, &announce(2, 9, Event::Regular), 1).expect("room");
        assert_eq!(again, [SERVER, "10.0.0.3:5003"]);
        let few = Announce {
            wanted: 0,
            ..announce(2, 9, Event::Regular)
        };
        assert_eq!(ask(&mut board, &few, 1), Ok(vec![]));
    }

    #[test]
    fn whole_peers_are_not_told_of_each_other() {
        let mut board = Board::new(1);
        ask(&mut board, &announce(2, 0, Event::Completed), 0).expect("room");
        ask(&mut board, &announce(3, 9, Event::Started), 0).expect("room");
        let told = ask(&mut board, &announce(4, 0, Event::Started), 0).expect("room");
        assert_eq!(told, ["10.0.0.3:5003"]);
        assert_eq!(board.counts(), (3, 1, 1));
    }

    #[test]
    fn who_stops_or_is_silent_is_forgotten_and_stopping_first_is_no_error() {
        let mut board = Board::new(1);
        assert_eq!(
            ask(&mut board, &announce(2, 9, Event::Stopped), 0),
            Ok(vec![])
        );
        ask(&mut board, &announce(2, 9, Event::Started), 0).expect("room");
        ask(&mut board, &announce(3, 9, Event::Started), 0).expect("room");
        ask(&mut board, &announce(3, 9, Event::Stopped), 0).expect("room");
        assert_eq!(board.counts(), (1, 1, 0));
        let later = ask(&mut board, &announce(4, 9, Event::Started), 331).expect("room");
        assert_eq!(later, [SERVER]);
    }

    #[test]
    fn a_swarm_and_an_address_have_their_limits() {
        let mut board = Board::new(1);
        let mut flood = announce(2, 9, Event::Started);
        for port in 0..PEERS_MAX as u16 {
            flood.port = 2000 + port;
            ask(&mut board, &flood, 0).expect("room for the largest honest swarm");
        }
        assert!(
            ask(&mut board, &announce(3, 9, Event::Started), 0).is_err(),
            "it is full"
        );
        let refused = (0..ASKS_MAX)
            .filter(|_| ask(&mut board, &flood, 0).is_err())
            .count();
        assert_eq!(refused, PEERS_MAX, "the address has asked often enough");
        assert!(ask(&mut board, &flood, 11).is_ok(), "and may again later");
    }
}
