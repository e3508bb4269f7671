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
        uploaded: 0,
        received_from: Vec::new(),
    }
}

fn counts(complete: u64, incomplete: u64, downloaded: u64) -> ScrapeCounts {
    ScrapeCounts { complete, incomplete, downloaded }
}

fn ask(
    registry: &mut PeerRegistry,
    announce: &Announce,
    second: u64,
) -> Result<Vec<String>, DecodeError> {
    let ip = IpAddr::from([10, 0, 0, announce.peer_id[0]]);
    ask_from(registry, announce, ip, false, second)
}

fn ask_from(
    registry: &mut PeerRegistry,
    announce: &Announce,
    ip: IpAddr,
    has_seat: bool,
    second: u64,
) -> Result<Vec<String>, DecodeError> {
    let seeder = SERVER.parse().expect("an address");
    let answer = registry.announce(announce, ip, has_seat, seeder, Moment(second * 1_000_000))?;
    Ok(answer.peers.iter().map(ToString::to_string).collect())
}

#[test]
fn first_response_names_everybody_but_the_asker() {
    let mut registry = PeerRegistry::new(1);
    assert_eq!(
        ask(&mut registry, &announce(2, 9, AnnounceEvent::Started), 0),
        Ok(vec![SERVER.into()])
    );
    let second = ask(&mut registry, &announce(3, 9, AnnounceEvent::Started), 0).expect("room");
    assert_eq!(second, [SERVER, "10.0.0.2:5002"]);
    let again = ask(&mut registry, &announce(2, 9, AnnounceEvent::Regular), 1).expect("room");
    assert_eq!(again, [SERVER, "10.0.0.3:5003"]);
    let few = Announce { wanted: 0, ..announce(2, 9, AnnounceEvent::Regular) };
    assert_eq!(ask(&mut registry, &few, 1), Ok(vec![]));
}

#[test]
fn complete_peers_are_not_named_to_each_other() {
    let mut registry = PeerRegistry::new(1);
    ask(&mut registry, &announce(2, 0, AnnounceEvent::Completed), 0).expect("room");
    ask(&mut registry, &announce(3, 9, AnnounceEvent::Started), 0).expect("room");
    let told = ask(&mut registry, &announce(4, 0, AnnounceEvent::Started), 0).expect("room");
    assert_eq!(told, ["10.0.0.3:5003"]);
    assert_eq!(registry.counts(), counts(3, 1, 1));
}

#[test]
fn peers_that_stop_or_are_silent_are_removed() {
    let mut registry = PeerRegistry::new(1);
    assert_eq!(ask(&mut registry, &announce(2, 9, AnnounceEvent::Stopped), 0), Ok(vec![]));
    ask(&mut registry, &announce(2, 9, AnnounceEvent::Started), 0).expect("room");
    ask(&mut registry, &announce(3, 9, AnnounceEvent::Started), 0).expect("room");
    ask(&mut registry, &announce(3, 9, AnnounceEvent::Stopped), 0).expect("room");
    assert_eq!(registry.counts(), counts(1, 1, 0));
    let later = ask(&mut registry, &announce(4, 9, AnnounceEvent::Started), 331).expect("room");
    assert_eq!(later, [SERVER]);
}

#[test]
fn address_announces_and_registers_only_so_often() {
    let mut registry = PeerRegistry::new(1);
    ask(&mut registry, &announce(3, 9, AnnounceEvent::Started), 0).expect("another");
    let mut flood = announce(2, 9, AnnounceEvent::Started);
    for port in 0..PEERS_MAX as u16 {
        flood.port = 2000 + port;
        ask(&mut registry, &flood, 1).expect("asked");
    }
    let known = |registry: &PeerRegistry| registry.counts().incomplete as usize;
    assert_eq!(known(&registry), ADDRESS_MAX + 1, "the other is not driven out");
    let refused = (0..ANNOUNCES_MAX).filter(|_| ask(&mut registry, &flood, 1).is_err()).count();
    assert_eq!(refused, PEERS_MAX, "the address has asked often enough");
    assert!(ask(&mut registry, &flood, 12).is_ok(), "and may again later");
}

#[test]
fn peers_without_a_seat_never_displace_those_with_one() {
    const SEATS: u16 = 1500;
    let mut registry = PeerRegistry::new(1);
    let seat = |n: u16| (announce(200, 9, AnnounceEvent::Started), 3000 + n);
    let stranger = announce(2, 9, AnnounceEvent::Started);
    let far = |n: u32| IpAddr::from([11, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
    for n in 0..PEERS_MAX as u32 {
        let second = u64::from(n / 100) * 11;
        ask_from(&mut registry, &stranger, far(n), false, second).expect("room");
    }
    assert_eq!(registry.counts().incomplete, PEERS_MAX as u64, "the largest honest number");
    let second = 11 * 12;
    ask_from(&mut registry, &stranger, far(9999), false, second).expect("one more");
    assert_eq!(registry.counts().incomplete, PEERS_MAX as u64);
    // More seats than strangers, all at one address, each with an id of its own.
    for n in 0..SEATS {
        let (mut one, port) = seat(n);
        one.port = port;
        one.peer_id[..2].copy_from_slice(&n.to_be_bytes());
        let home = IpAddr::from([10, 0, 0, 9]);
        let named = ask_from(&mut registry, &one, home, true, second).expect("a seat");
        let seats = usize::from(n).min(49);
        let here = named.iter().filter(|addr| addr.starts_with("10.0.0.9:"));
        assert_eq!((named.len(), here.count()), (50, seats), "seats first");
    }
    assert_eq!(registry.counts().incomplete, PEERS_MAX as u64 + u64::from(SEATS));
    ask_from(&mut registry, &stranger, far(10_000), false, second).expect("one more");
    assert_eq!(registry.counts().incomplete, PEERS_MAX as u64 + u64::from(SEATS));
}

#[test]
fn only_peers_with_a_seat_report_their_sources() {
    let mut registry = PeerRegistry::new(1);
    let tells =
        Announce { received_from: vec![([7; 20], 5)], ..announce(2, 9, AnnounceEvent::Regular) };
    ask(&mut registry, &tells, 0).expect("room");
    assert!(registry.reports.is_empty());
    let home = IpAddr::from([10, 0, 0, 2]);
    ask_from(&mut registry, &tells, home, true, 0).expect("room");
    assert_eq!(registry.reports[&[2; 20]].shares, tells.received_from);
}

#[test]
fn seat_is_one_entry_whatever_ports_it_announces() {
    let mut registry = PeerRegistry::new(1);
    let home = IpAddr::from([10, 0, 0, 2]);
    ask(&mut registry, &announce(3, 9, AnnounceEvent::Started), 0).expect("another");
    let mut seat = announce(2, 9, AnnounceEvent::Started);
    for port in 5000..65_000 {
        seat.port = port;
        let second = u64::from(port) / 1000;
        ask_from(&mut registry, &seat, home, true, second).expect("a seat");
        assert_eq!(registry.counts().incomplete, 2, "at port {port}");
    }
    let named = ask(&mut registry, &announce(4, 9, AnnounceEvent::Started), 65).expect("room");
    assert_eq!(named, [SERVER, "10.0.0.2:64999", "10.0.0.3:5003"]);
    // Another seat of its host that announces the same port takes that entry, and keeps it.
    let other = Announce { peer_id: [7; 20], ..seat.clone() };
    ask_from(&mut registry, &other, home, true, 66).expect("a seat");
    seat.port = 5000;
    ask_from(&mut registry, &seat, home, true, 66).expect("a seat");
    assert_eq!(registry.counts().incomplete, 4);
}
