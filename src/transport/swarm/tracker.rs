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
use crate::proto::bt::tracker::AnnounceEvent;
use crate::proto::bt::tracker::AnnounceResponse;
use crate::proto::bt::tracker::Share;
use crate::session::MAX_SEATS;
use crate::transport::swarm::member::EXTERNAL_CONNECTIONS;
use crate::units::Moment;

/// The peers of one swarm.
#[derive(Debug)]
pub struct PeerRegistry {
    peers: BTreeMap<SocketAddr, RegisteredPeer>,
    asked: BTreeMap<IpAddr, (Moment, u32)>,
    completed: u64,
    /// What the peers of this session told of what they got from whom.
    told: BTreeMap<[u8; 20], SourceReport>,
    random: Random,
    /// When the silent were forgotten last.
    swept: Moment,
}

/// What one of our own peers told of its bytes.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// Where it listens.
    pub addr: SocketAddr,
    /// It has the whole file.
    pub whole: bool,
    /// Payload bytes by the member that they came from.
    pub from: Vec<Share>,
}

#[derive(Debug)]
struct RegisteredPeer {
    id: [u8; 20],
    whole: bool,
    /// It has a seat at the gate.
    seat: bool,
    seen: Moment,
}

/// How long a peer waits between two announces, seconds. A local network bears more than the
/// usual half hour.
pub const INTERVAL: u64 = 5;

/// Most peers of one swarm that are remembered, beside those with a seat: then the one that was
/// silent longest is forgotten.
pub const PEERS_MAX: usize = 1024;

/// Most of these at one address.
const ADDRESS_MAX: usize = EXTERNAL_CONNECTIONS;

/// For how long a silent peer is remembered: two intervals and a half; but a libtorrent comes
/// back after five minutes only, however it is asked.
const REMEMBERED: Duration = Duration::from_secs(330);

/// How often the silent are forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// Most announces of one address in [`SPAN`]. All clients of a test may be on one host.
const ASKS_MAX: u32 = 3000;

/// The same for those with a seat: each begins, is whole, and asks every five seconds meanwhile.
const SEAT_ASKS_MAX: u32 = 4 * MAX_SEATS as u32;

/// The span in which announces are counted.
const SPAN: Duration = Duration::from_secs(10);

impl PeerRegistry {
    /// Nobody yet.
    pub fn new(seed: u64) -> Self {
        Self {
            peers: BTreeMap::new(),
            asked: BTreeMap::new(),
            completed: 0,
            told: BTreeMap::new(),
            random: Random::new(seed),
            swept: Moment(0),
        }
    }

    /// Enters an announce from `ip`, and answers it; `seat` tells that the gate knows that peer,
    /// and `seeder` is our own address as it reaches it. Who has a seat is never turned away for
    /// others, is named first, and alone is heard of what came from whom.
    ///
    /// # Errors
    /// Why not, as the tracker's failure reason.
    pub fn announce(
        &mut self,
        announce: &Announce,
        ip: IpAddr,
        seat: bool,
        seeder: SocketAddr,
        now: Moment,
    ) -> Result<AnnounceResponse, &'static str> {
        self.asked.retain(|_, (since, _)| now.since(*since) < SPAN);
        if !seat && self.asked.len() >= PEERS_MAX && !self.asked.contains_key(&ip) {
            return Err("too many peers ask at once");
        }
        let (_, asks) = self.asked.entry(ip).or_insert((now, 0));
        *asks += 1;
        if *asks > if seat { SEAT_ASKS_MAX } else { ASKS_MAX } {
            return Err("this address asks too often");
        }
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.peers
                .retain(|_, entry| now.since(entry.seen) < REMEMBERED);
        }
        let addr = SocketAddr::new(ip, announce.port);
        let whole = announce.left == Some(0);
        if seat {
            self.record_sources(announce, addr, whole);
        }
        // A program may say that it stopped before it ever started (transmission does).
        if announce.event == AnnounceEvent::Stopped {
            self.peers.remove(&addr);
            return Ok(self.answer(Vec::new()));
        }
        if announce.event == AnnounceEvent::Completed {
            self.completed += 1;
        }
        if !seat && !self.peers.contains_key(&addr) {
            self.make_room(ip);
        }
        let entry = RegisteredPeer {
            id: announce.peer_id,
            whole,
            seat,
            seen: now,
        };
        self.peers.insert(addr, entry);
        let useful = |&(other, entry): &(&SocketAddr, &RegisteredPeer)| {
            *other != addr && entry.id != announce.peer_id && !(whole && entry.whole)
        };
        let useful = self.peers.iter().filter(useful);
        let (mut others, mut strangers): (Vec<_>, Vec<_>) =
            useful.partition(|(_, entry)| entry.seat);
        self.random.draw(&mut others, announce.wanted);
        self.random.draw(&mut strangers, announce.wanted);
        others.append(&mut strangers);
        let mut others: Vec<SocketAddr> = others.into_iter().map(|(addr, _)| *addr).collect();
        // The seeder always, and first: the list may be cut.
        if !whole {
            others.insert(0, seeder);
        }
        others.truncate(announce.wanted);
        Ok(self.answer(others))
    }

    /// Forgets who was silent longest of those without a seat, at `ip` where these are many, or
    /// else anywhere where all are.
    fn make_room(&mut self, ip: IpAddr) {
        let others = || self.peers.iter().filter(|(_, entry)| !entry.seat);
        let here = || others().filter(|(addr, _)| addr.ip() == ip);
        let oldest = match () {
            () if here().count() >= ADDRESS_MAX => here().min_by_key(|(_, entry)| entry.seen),
            () if others().count() >= PEERS_MAX => others().min_by_key(|(_, entry)| entry.seen),
            () => None,
        };
        if let Some(&oldest) = oldest.map(|(addr, _)| addr) {
            self.peers.remove(&oldest);
        }
    }

    fn record_sources(&mut self, announce: &Announce, addr: SocketAddr, whole: bool) {
        // Who leaves without a word more has said before how it ended.
        if !announce.received_from.is_empty() {
            let told = SourceReport {
                addr,
                whole,
                from: announce.received_from.clone(),
            };
            self.told.insert(announce.peer_id, told);
        }
    }

    /// What our own peers told of their bytes, by id.
    pub fn source_reports(&self) -> &BTreeMap<[u8; 20], SourceReport> {
        &self.told
    }

    /// A new session: what was told of the last one is over.
    pub fn clear_reports(&mut self) {
        self.told.clear();
    }

    fn answer(&self, peers: Vec<SocketAddr>) -> AnnounceResponse {
        let (complete, incomplete, _) = self.counts();
        AnnounceResponse {
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

    fn announce(number: u8, left: u64, event: AnnounceEvent) -> Announce {
        Announce {
            info_hash: Digest::of(b"x"),
            peer_id: [number; 20],
            port: 5000 + u16::from(number),
            left: Some(left),
            event,
            wanted: 50,
            sent: 0,
            received_from: Vec::new(),
        }
    }

    fn ask(
        board: &mut PeerRegistry,
        announce: &Announce,
        second: u64,
    ) -> Result<Vec<String>, &'static str> {
        let ip = IpAddr::from([10, 0, 0, announce.peer_id[0]]);
        ask_from(board, announce, ip, false, second)
    }

    fn ask_from(
        board: &mut PeerRegistry,
        announce: &Announce,
        ip: IpAddr,
        seat: bool,
        second: u64,
    ) -> Result<Vec<String>, &'static str> {
        let seeder = SERVER.parse().expect("an address");
        let answer = board.announce(announce, ip, seat, seeder, Moment(second * 1_000_000))?;
        Ok(answer.peers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_answer_has_everybody_but_the_asker() {
        let mut board = PeerRegistry::new(1);
        assert_eq!(
            ask(&mut board, &announce(2, 9, AnnounceEvent::Started), 0),
            Ok(vec![SERVER.into()])
        );
        let second = ask(&mut board, &announce(3, 9, AnnounceEvent::Started), 0).expect("room");
        assert_eq!(second, [SERVER, "10.0.0.2:5002"]);
        let again = ask(&mut board, &announce(2, 9, AnnounceEvent::Regular), 1).expect("room");
        assert_eq!(again, [SERVER, "10.0.0.3:5003"]);
        let few = Announce {
            wanted: 0,
            ..announce(2, 9, AnnounceEvent::Regular)
        };
        assert_eq!(ask(&mut board, &few, 1), Ok(vec![]));
    }

    #[test]
    fn whole_peers_are_not_told_of_each_other() {
        let mut board = PeerRegistry::new(1);
        ask(&mut board, &announce(2, 0, AnnounceEvent::Completed), 0).expect("room");
        ask(&mut board, &announce(3, 9, AnnounceEvent::Started), 0).expect("room");
        let told = ask(&mut board, &announce(4, 0, AnnounceEvent::Started), 0).expect("room");
        assert_eq!(told, ["10.0.0.3:5003"]);
        assert_eq!(board.counts(), (3, 1, 1));
    }

    #[test]
    fn who_stops_or_is_silent_is_forgotten_and_stopping_first_is_no_error() {
        let mut board = PeerRegistry::new(1);
        assert_eq!(
            ask(&mut board, &announce(2, 9, AnnounceEvent::Stopped), 0),
            Ok(vec![])
        );
        ask(&mut board, &announce(2, 9, AnnounceEvent::Started), 0).expect("room");
        ask(&mut board, &announce(3, 9, AnnounceEvent::Started), 0).expect("room");
        ask(&mut board, &announce(3, 9, AnnounceEvent::Stopped), 0).expect("room");
        assert_eq!(board.counts(), (1, 1, 0));
        let later = ask(&mut board, &announce(4, 9, AnnounceEvent::Started), 331).expect("room");
        assert_eq!(later, [SERVER]);
    }

    #[test]
    fn an_address_may_only_ask_so_often_and_is_only_remembered_so_often() {
        let mut board = PeerRegistry::new(1);
        ask(&mut board, &announce(3, 9, AnnounceEvent::Started), 0).expect("another");
        let mut flood = announce(2, 9, AnnounceEvent::Started);
        for port in 0..PEERS_MAX as u16 {
            flood.port = 2000 + port;
            ask(&mut board, &flood, 1).expect("asked");
        }
        let known = |board: &PeerRegistry| board.counts().1 as usize;
        assert_eq!(
            known(&board),
            ADDRESS_MAX + 1,
            "the other is not driven out"
        );
        let refused = (0..ASKS_MAX)
            .filter(|_| ask(&mut board, &flood, 1).is_err())
            .count();
        assert_eq!(refused, PEERS_MAX, "the address has asked often enough");
        assert!(ask(&mut board, &flood, 12).is_ok(), "and may again later");
    }

    #[test]
    fn strangers_drive_out_each_other_and_never_who_has_a_seat() {
        const SEATS: u16 = 1500;
        let mut board = PeerRegistry::new(1);
        let seat = |n: u16| (announce(200, 9, AnnounceEvent::Started), 3000 + n);
        let stranger = announce(2, 9, AnnounceEvent::Started);
        let far = |n: u32| IpAddr::from([11, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
        for n in 0..PEERS_MAX as u32 {
            let second = u64::from(n / 100) * 11;
            ask_from(&mut board, &stranger, far(n), false, second).expect("room");
        }
        assert_eq!(
            board.counts().1,
            PEERS_MAX as u64,
            "the largest honest number"
        );
        let second = 11 * 12;
        ask_from(&mut board, &stranger, far(9999), false, second).expect("one more");
        assert_eq!(board.counts().1, PEERS_MAX as u64);
        // More seats than strangers, all at one address, each with an id of its own.
        for n in 0..SEATS {
            let (mut one, port) = seat(n);
            one.port = port;
            one.peer_id[..2].copy_from_slice(&n.to_be_bytes());
            let home = IpAddr::from([10, 0, 0, 9]);
            let named = ask_from(&mut board, &one, home, true, second).expect("a seat");
            let seats = usize::from(n).min(49);
            let here = named.iter().filter(|addr| addr.starts_with("10.0.0.9:"));
            assert_eq!((named.len(), here.count()), (50, seats), "seats first");
        }
        assert_eq!(board.counts().1, PEERS_MAX as u64 + u64::from(SEATS));
        ask_from(&mut board, &stranger, far(10_000), false, second).expect("one more");
        assert_eq!(board.counts().1, PEERS_MAX as u64 + u64::from(SEATS));
    }

    #[test]
    fn only_who_has_a_seat_is_heard_of_what_came_from_whom() {
        let mut board = PeerRegistry::new(1);
        let tells = Announce {
            received_from: vec![([7; 20], 5)],
            ..announce(2, 9, AnnounceEvent::Regular)
        };
        ask(&mut board, &tells, 0).expect("room");
        assert!(board.source_reports().is_empty());
        let home = IpAddr::from([10, 0, 0, 2]);
        ask_from(&mut board, &tells, home, true, 0).expect("room");
        assert_eq!(board.source_reports()[&[2; 20]].from, tells.received_from);
    }
}
