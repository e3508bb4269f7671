//! The chain over real sockets: whole sessions, members that die, stall and lie, and strangers.

use std::{
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use gatecast::internals::{
    client::{ClientReport, FetchConfig, FetchRun},
    proto::{
        chain::words::{ChainLine, ticket},
        hosts::HostList,
    },
    server::config::ServerConfig,
    session::{SeatId, SessionId, Via},
    transfer::Outcome,
    transport::chain,
};

use crate::{
    common,
    common::{Peer, Server, bytes_per_second, ended, until, whole, within},
};

const LIMIT: Duration = Duration::from_secs(120);

fn server(bytes: u64, set: impl FnOnce(&mut ServerConfig)) -> Server {
    let set = |settings: &mut ServerConfig| {
        settings.via = Some(Via::Chain);
        set(settings);
    };
    Server::with(bytes, set, chain::serve)
}

/// Clients of this process, each in a thread.
fn fetch(
    server: &Server,
    clients: u16,
    set: impl FnOnce(&mut FetchConfig),
) -> JoinHandle<Vec<ClientReport>> {
    let mut order = server.order("o");
    order.clients = clients;
    set(&mut order);
    thread::spawn(move || {
        FetchRun::new(&order)
            .run(&order, &[&chain::receive::ChainReceiver])
            .expect("an order that can be begun")
    })
}

/// One client that a test can end in the middle, as by Ctrl-C.
struct Mortal {
    run: Arc<FetchRun>,
    thread: JoinHandle<Vec<ClientReport>>,
}

impl Mortal {
    fn start(server: &Server, name: &str) -> Self {
        let mut order = server.order(name);
        order.clients = 1;
        let run = Arc::new(FetchRun::new(&order));
        let running = Arc::clone(&run);
        let thread = thread::spawn(move || {
            running.run(&order, &[&chain::receive::ChainReceiver]).expect("it can be begun")
        });
        Self { run, thread }
    }
}

/// A member that a test plays itself: it has a seat and stands in the chain.
struct Actor {
    /// Its conversation with the server.
    control: Peer,
    /// Its connection as a member.
    member: Peer,
    /// Where others come for its bytes.
    listener: TcpListener,
    session: SessionId,
    seat: SeatId,
    token: gatecast::internals::proto::key::Challenge,
    /// Its link.
    link: Peer,
}

impl Actor {
    /// Comes into the chain as the next client, and is ready.
    fn join(server: &Server, group: u16, name: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (control, session, seat, token) = offered(server, group, name);
        let mut member = server.peer();
        member.send(ChainLine::Join { session, seat, token, port }.encode());
        let (step, link) = linked(server.addr, &mut member, session, seat);
        member.send(ChainLine::Linked(step).encode());
        assert_eq!(line(&mut member), ChainLine::Settled);
        let mut actor = Self { control, member, listener, session, seat, token, link };
        actor.control.send("READY offset=0\n");
        actor
    }

    /// The first who links to it.
    fn taker(&self) -> Peer {
        let (stream, _) = self.listener.accept().expect("the next client");
        let mut taker = Peer::over(stream);
        let ChainLine::Link { session, seat, ticket: shown } = line(&mut taker) else {
            panic!("no LINK");
        };
        assert_eq!((session, shown), (self.session, ticket(self.token, session, seat)));
        taker.send(ChainLine::Linked(0).encode());
        taker
    }
}

fn line(peer: &mut Peer) -> ChainLine {
    ChainLine::decode(peer.read_line().trim_end()).expect("a line of a chain")
}

/// A seat, with what proves it.
fn offered(
    server: &Server,
    group: u16,
    name: &str,
) -> (Peer, SessionId, SeatId, gatecast::internals::proto::key::Challenge) {
    let mut control = server.peer();
    control.send(format!("GATECAST/1 JOIN group={group} name={name}\n"));
    let offer = control.read_line();
    let field = |key: &str| {
        let mut fields = offer.split(' ').filter_map(|field| field.strip_prefix(key));
        fields.next().expect("an offer").trim_end().to_owned()
    };
    let session = field("session=").parse().expect("a session");
    let seat = SeatId(field("seat=").parse().expect("a seat"));
    let ChainLine::Terms(token) = line(&mut control) else { panic!("no terms") };
    (control, session, seat, token)
}

/// Follows the server's next FROM.
fn linked(server: SocketAddr, member: &mut Peer, session: SessionId, seat: SeatId) -> (u32, Peer) {
    let ChainLine::From { step, source, ticket } = line(member) else { panic!("no FROM") };
    let mut link = Peer::connect(source.map_or(server, |(_, at)| at));
    link.send(ChainLine::Link { session, seat, ticket }.encode());
    assert_eq!(line(&mut link), ChainLine::Linked(0));
    (step, link)
}

#[test]
fn clients_are_whole_and_each_byte_left_server_once() {
    within(LIMIT, || {
        for clients in [1, 2, 13] {
            let server = server(2_000_000, |_| {});
            let ends = fetch(&server, clients, |_| {});
            let record = server.record();
            whole(ends.join().expect("no panic"), &server);
            assert_eq!(record.proven(), usize::from(clients));
            assert_eq!(record.via, Via::Chain);
            assert_eq!(record.broken_identities(), Vec::<String>::new());
            let sent = |t: &gatecast::internals::transfer::Transfer| t.bytes_server.unwrap_or(0);
            assert_eq!(record.transfers.iter().map(sent).sum::<u64>(), 2_000_000);
            server.stop();
        }
    });
}

#[test]
fn files_of_awkward_sizes_arrive() {
    within(LIMIT, || {
        for bytes in [0, 1, 65_536, 262_145] {
            let server = server(bytes, |_| {});
            whole(fetch(&server, 3, |_| {}).join().expect("no panic"), &server);
            assert_eq!(server.record().broken_identities(), Vec::<String>::new());
            server.stop();
        }
    });
}

#[test]
fn clients_of_roster_stand_in_its_order() {
    within(LIMIT, || {
        let list = HostList::parse("pc-03\npc-01\npc-02\n", "room").expect("a list");
        let server = server(1_000_000, |settings| {
            settings.clients = Some(list.clients());
            settings.roster = Some(Arc::new(list));
        });
        let names = ["pc-02", "pc-01", "pc-03"];
        let begin = |(at, name): (usize, &&str)| {
            let name = (*name).to_owned();
            let client =
                fetch(&server, 1, |order| (order.out, order.name) = (server.out(&name), name));
            if at < 2 {
                server.until_ready(at + 1);
            }
            client
        };
        let clients: Vec<_> = names.iter().enumerate().map(begin).collect();
        clients.into_iter().for_each(|client| whole(client.join().expect("no panic"), &server));
        let record = server.record();
        let from_server = names.map(|name| common::row(&record, name).bytes_server);
        assert_eq!(from_server, [Some(0), Some(0), Some(1_000_000)], "the roster's first");
        assert_eq!((record.proven(), record.broken_identities()), (3, Vec::new()));
        server.stop();
    });
}

/// Ends one of several clients while the bytes flow; the others are whole.
fn killed(clients: u16, dead: u16) {
    within(LIMIT, move || {
        let server = server(6_000_000, |settings| {
            settings.clients = Some(clients);
            settings.rate = bytes_per_second(6_000_000);
        });
        // All have one address: they stand as they come.
        let mut running = Vec::new();
        for number in 1..=clients {
            running.push(Mortal::start(&server, &format!("c{number}")));
            if number < clients {
                server.until_ready(usize::from(number));
            }
        }
        until("bytes at the one that dies", || {
            let views = server.running().lobby().views();
            let mut seats = views.iter().flat_map(|view| &view.seats);
            seats.any(|seat| seat.name == format!("c{dead}") && seat.moved > 600_000)
        });
        let victim = running.remove(usize::from(dead) - 1);
        victim.run.stop();
        for client in running {
            whole(client.thread.join().expect("no panic"), &server);
        }
        let dead_end = victim.thread.join().expect("no panic").remove(0);
        assert!(dead_end.path.is_none());
        let record = server.record();
        assert_eq!(record.proven(), usize::from(clients) - 1);
        ended(&record, &format!("c{dead}"), Outcome::Cut, "");
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        server.stop();
    });
}

#[test]
fn client_killed_in_the_middle_is_lost_alone() {
    killed(5, 3);
}

#[test]
fn first_client_killed_is_lost_alone() {
    killed(4, 1);
}

#[test]
fn last_client_killed_is_lost_alone() {
    killed(4, 4);
}

#[test]
fn stalled_client_is_stepped_over() {
    within(LIMIT, || {
        let server = server(3_000_000, |settings| {
            settings.clients = Some(3);
            settings.stall = Duration::from_secs(8);
        });
        let mut stalled = Actor::join(&server, 3, "stalled");
        server.until_ready(1);
        let others = fetch(&server, 2, |order| order.group = Some(3));
        let mut taker = stalled.taker();
        until("its GO", || stalled.control.read_line().starts_with("GO "));
        // It takes a part, gives none of it, and reads no more.
        stalled.link.send(ChainLine::Take(0).encode());
        // Unless it has been moved before it could ask, as on a busy machine.
        let asked = taker.read_line();
        assert!(asked.is_empty() || ChainLine::decode(asked.trim_end()) == Ok(ChainLine::Take(0)));
        let ends = others.join().expect("no panic");
        whole(ends, &server);
        drop(stalled);
        let record = server.record();
        assert_eq!(record.proven(), 2);
        server.stop();
    });
}

#[test]
fn liar_about_what_it_has_is_stepped_over() {
    within(LIMIT, || {
        let server = server(2_000_000, |settings| settings.clients = Some(2));
        let mut liar = Actor::join(&server, 2, "liar");
        server.until_ready(1);
        let honest = fetch(&server, 1, |order| order.group = Some(2));
        let mut taker = liar.taker();
        until("its GO", || liar.control.read_line().starts_with("GO "));
        liar.member.send(ChainLine::At(2_000_000).encode());
        assert_eq!(line(&mut taker), ChainLine::Take(0));
        whole(honest.join().expect("no panic"), &server);
        drop(liar);
        assert_eq!(server.record().proven(), 1);
        server.stop();
    });
}

#[test]
fn copy_of_wrong_bytes_is_reported_corrupt() {
    within(LIMIT, || {
        let server = server(100_000, |settings| settings.clients = Some(2));
        let mut forger = Actor::join(&server, 2, "forger");
        server.until_ready(1);
        let honest = fetch(&server, 1, |order| order.group = Some(2));
        let mut taker = forger.taker();
        until("its GO", || forger.control.read_line().starts_with("GO "));
        assert_eq!(line(&mut taker), ChainLine::Take(0));
        taker.send(vec![7; 100_000]);
        let error = common::failed(honest.join().expect("no panic"));
        assert!(error.contains("SHA-1"), "{error}");
        drop(forger);
        let record = server.record();
        assert_eq!(record.transfers.iter().filter(|t| t.outcome == Outcome::Corrupt).count(), 1);
        server.stop();
    });
}

#[test]
fn nobody_moves_bytes_before_release() {
    within(LIMIT, || {
        let server = server(500_000, |settings| settings.clients = Some(2));
        let mut early = Actor::join(&server, 2, "early");
        server.until_ready(1);
        // Asked for before the gate is open.
        early.link.send(ChainLine::Take(0).encode());
        let read = Arc::new(AtomicBool::new(false));
        let got = Arc::new(Mutex::new(Vec::new()));
        let (flag, bytes, link) =
            (Arc::clone(&read), Arc::clone(&got), Arc::clone(&early.link.stream));
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 500_000];
            std::io::Read::read_exact(&mut &*link, &mut buffer).expect("the file");
            flag.store(true, Ordering::Relaxed);
            *bytes.lock().expect("no panic") = buffer;
        });
        assert_eq!((server.moved(), read.load(Ordering::Relaxed)), (0, false));
        let late = fetch(&server, 1, |order| order.group = Some(2));
        let mut taker = early.taker();
        until("its GO", || {
            let line = early.control.read_line();
            assert!(line.starts_with("GO ") || !read.load(Ordering::Relaxed), "{line}");
            line.starts_with("GO ")
        });
        reader.join().expect("no panic");
        assert_eq!(line(&mut taker), ChainLine::Take(0));
        taker.send(got.lock().expect("no panic").clone());
        whole(late.join().expect("no panic"), &server);
        drop(early);
        assert_eq!(server.record().proven(), 1);
        server.stop();
    });
}

/// Asserts that the other end closes without a byte.
fn gets_nothing(mut peer: Peer) {
    assert_eq!(peer.read_line(), "");
}

#[test]
fn stranger_gets_nothing_at_either_end() {
    within(LIMIT, || {
        let server = server(500_000, |settings| settings.clients = Some(2));
        let mut member = Actor::join(&server, 2, "member");
        server.until_ready(1);
        let (_second, session, seat, token) = offered(&server, 2, "second");
        let Actor { token: theirs, seat: other, .. } = member;
        let wrong = ticket(token, session, seat);
        for line in [
            ChainLine::Join { session: SessionId(1), seat, token, port: 1 },
            ChainLine::Join { session, seat: other, token, port: 1 },
            ChainLine::Join { session, seat: SeatId(9), token, port: 1 },
            ChainLine::Join { session, seat, token: theirs, port: 1 },
            ChainLine::Link { session: SessionId(1), seat, ticket: wrong },
            ChainLine::Link { session, seat, ticket: wrong },
            ChainLine::Link { session, seat: SeatId(9), ticket: wrong },
            ChainLine::Take(0),
            ChainLine::Settled,
        ] {
            let mut stranger = server.peer();
            stranger.send(line.encode());
            gets_nothing(stranger);
        }
        let mut long = server.peer();
        long.send(format!("CHAIN/1 {}\n", "x".repeat(3000)));
        gets_nothing(long);
        // A real client has a port of its own; the member before it is told where.
        drop(_second);
        until("the seat to be free", || server.seats().0 == 1);
        let client = fetch(&server, 1, |order| order.group = Some(2));
        let mut taker = member.taker();
        let at = taker.stream.peer_addr().expect("connected").ip();
        assert!(at.is_loopback());
        until("its GO", || member.control.read_line().starts_with("GO "));
        assert_eq!(line(&mut taker), ChainLine::Take(0));
        taker.stream.shutdown(Shutdown::Both).expect("open");
        whole(client.join().expect("no panic"), &server);
        drop(member);
        assert_eq!(server.record().proven(), 1);
        server.stop();
    });
}

#[test]
fn stranger_at_client_gets_nothing() {
    within(LIMIT, || {
        let server = server(500_000, |settings| settings.clients = Some(2));
        let first = fetch(&server, 1, |order| order.group = Some(2));
        server.until_ready(1);
        // The second is told where the first listens.
        let (mut control, session, seat, token) = offered(&server, 2, "second");
        let mut member = server.peer();
        member.send(ChainLine::Join { session, seat, token, port: 9 }.encode());
        let ChainLine::From { step, source: Some((_, at)), ticket: right } = line(&mut member)
        else {
            panic!("no FROM a client");
        };
        let wrong = ticket(token, session, seat);
        for line in [
            ChainLine::Link { session, seat, ticket: wrong },
            ChainLine::Link { session, seat: SeatId(1), ticket: right },
            ChainLine::Link { session: SessionId(1), seat, ticket: right },
            ChainLine::Join { session, seat, token, port: 1 },
            ChainLine::Take(0),
        ] {
            let mut stranger = Peer::connect(at);
            stranger.send(line.encode());
            gets_nothing(stranger);
        }
        let mut link = Peer::connect(at);
        link.send(ChainLine::Link { session, seat, ticket: right }.encode());
        assert_eq!(line(&mut link), ChainLine::Linked(0));
        member.send(ChainLine::Linked(step).encode());
        assert_eq!(line(&mut member), ChainLine::Settled);
        control.send("READY offset=0\n");
        until("its GO", || control.read_line().starts_with("GO "));
        // A client that asks for more than there is.
        link.send(ChainLine::Take(500_001).encode());
        gets_nothing(link);
        whole(first.join().expect("no panic"), &server);
        drop((control, member));
        assert_eq!(server.record().proven(), 1);
        server.stop();
    });
}

#[test]
fn resumed_client_goes_on_from_its_own_offset() {
    within(LIMIT, || {
        let server = server(4_000_000, |settings| {
            settings.clients = Some(2);
            settings.rate = bytes_per_second(4_000_000);
        });
        let dying = Mortal::start(&server, "a");
        let other = fetch(&server, 1, |order| order.group = Some(2));
        until("bytes at both", || server.moved() > 1_000_000);
        dying.run.stop();
        assert!(dying.thread.join().expect("no panic")[0].path.is_none());
        whole(other.join().expect("no panic"), &server);
        server.record();
        let again = fetch(&server, 1, |order| {
            order.out = server.out("a");
            order.name = "a".to_owned();
            (order.group, order.resume) = (Some(2), true);
        });
        let fresh = fetch(&server, 1, |order| {
            order.out = server.out("b");
            order.group = Some(2);
        });
        whole(again.join().expect("no panic"), &server);
        whole(fresh.join().expect("no panic"), &server);
        let record = server.record();
        assert!(common::row(&record, "a").bytes_resumed > 100_000);
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        server.stop();
    });
}

#[test]
fn server_that_ends_cuts_every_client() {
    within(LIMIT, || {
        let mut server = server(4_000_000, |settings| {
            settings.clients = Some(3);
            settings.rate = bytes_per_second(1_000_000);
        });
        let ends = fetch(&server, 3, |_| {});
        until("bytes", || server.moved() > 300_000);
        server.kill();
        for end in ends.join().expect("no panic") {
            assert!(end.path.is_none() && end.error.is_some());
        }
        server.only_whole_copies();
    });
}
