//! All machines over a simulated link in virtual time: loss, duplicates, reordering and delay
//! from a seed, and a table of what each way needs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::time::Duration;

use proptest::prelude::*;

use crate::proto::udp::Transmit;
use crate::proto::udp::cast::Aside;
use crate::proto::udp::cast::Cast;
use crate::proto::udp::control::Report;
use crate::proto::udp::packet::Body;
use crate::proto::udp::packet::Packet;
use crate::proto::udp::receiver::Heard;
use crate::proto::udp::receiver::How;
use crate::proto::udp::receiver::Receiver;
use crate::proto::udp::receiver::block_count;
use crate::proto::udp::receiver::place;
use crate::proto::udp::sender::Sender;
use crate::proto::udp::xor;
use crate::units::Moment;

/// Real bytes of a block; the link charges for a full datagram.
const BLOCK: usize = 16;
const STREAM: u32 = 9;
const WINDOW: u32 = 1000;

#[derive(Clone, Copy, Debug)]
struct Link {
    loss: f64,
    /// The first client's may be another.
    loss_of_the_first: f64,
    duplicate: f64,
    /// Chance that a datagram takes up to this much longer.
    jitter: (f64, Duration),
    delay: Duration,
    seed: u64,
}

enum Server {
    Each(BTreeMap<u16, Sender>),
    Group(Cast, BTreeMap<u16, Sender>),
}

struct Client {
    receiver: Receiver,
    file: Vec<u8>,
    done: bool,
    timer: u64,
}

enum Event {
    /// The link is free again.
    Free,
    /// At a client, in a stream of its own or its group's.
    Arrives(u16, Vec<u8>, bool),
    Timer(u16),
    Report(u16, Report),
    Done(u16),
}

struct World {
    link: Link,
    now: u64,
    random: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<u64, Event>,
    serial: u64,
    file: Vec<u8>,
    server: Server,
    clients: BTreeMap<u16, Client>,
    turn: u16,
    sent: u64,
    busy_until: u64,
    wakes: Option<u64>,
    /// Clients that the group left to streams of their own.
    asides: usize,
    done_at: Vec<(u16, u64)>,
}

/// How a run went.
#[derive(Debug)]
struct Run {
    seconds: f64,
    datagrams: u64,
    whole: usize,
    asides: usize,
    /// In the order in which they were done.
    done: Vec<(u16, f64)>,
}

/// A full datagram of 1432 bytes with UDP, IP and Ethernet headers at 100 Mbit/s, microseconds.
const SLOT: u64 = (1432 + 42) * 8 / 100;

impl World {
    fn new(group: bool, clients: u16, blocks: u32, link: Link) -> Self {
        let len = (blocks as usize * BLOCK).saturating_sub(3);
        let file: Vec<u8> = (0..len).map(|n| (n * 7 + n / 251) as u8).collect();
        let now = Moment(0);
        let count = block_count(len as u64, BLOCK);
        let receiver = |client: u16| {
            let how = match group {
                true => How::Multicast(Duration::from_micros(200) * u32::from(client)),
                false => How::Unicast,
            };
            Receiver::new(STREAM, len as u64, BLOCK, 0, how, WINDOW / 4, now)
        };
        let clients: BTreeMap<u16, Client> = (1..=clients)
            .map(|n| {
                let client = Client {
                    receiver: receiver(n),
                    file: vec![0; len],
                    done: false,
                    timer: 0,
                };
                (n, client)
            })
            .collect();
        let server = match group {
            true => {
                let mut cast = Cast::new(count, now);
                clients.keys().for_each(|&n| cast.join(n, WINDOW, now));
                Server::Group(cast, BTreeMap::new())
            }
            false => {
                let sender = || Sender::reliable(0..count, WINDOW, now);
                Server::Each(clients.keys().map(|&n| (n, sender())).collect())
            }
        };
        let mut world = Self {
            link,
            now: 0,
            random: link.seed.wrapping_mul(2).wrapping_add(1),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            serial: 0,
            file,
            server,
            clients,
            turn: 0,
            sent: 0,
            busy_until: 0,
            wakes: None,
            asides: 0,
            done_at: Vec::new(),
        };
        world.at(0, Event::Free);
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((time, self.serial)));
        self.what.insert(self.serial, event);
    }

    /// SplitMix64, as a fraction.
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn run(mut self) -> Run {
        while let Some(Reverse((time, serial))) = self.events.pop() {
            assert!(time < 120_000_000, "two minutes are over: {:?}", self.link);
            self.now = time;
            match self.what.remove(&serial).expect("each event once") {
                Event::Free => self.transmit(),
                Event::Arrives(client, bytes, own) => self.arrive(client, &bytes, own),
                Event::Timer(client) => self.report(client),
                Event::Report(client, report) => {
                    self.hear(client, &report);
                    self.transmit();
                }
                Event::Done(client) => {
                    match &mut self.server {
                        Server::Each(senders) => {
                            senders.remove(&client);
                        }
                        Server::Group(cast, after) => {
                            cast.leave(client);
                            after.remove(&client);
                        }
                    }
                    if self.clients.values().all(|client| client.done) {
                        break;
                    }
                    self.transmit();
                }
            }
        }
        let whole = self
            .clients
            .values()
            .filter(|client| client.file == self.file);
        Run {
            seconds: self.now as f64 / 1e6,
            datagrams: self.sent,
            whole: whole.count(),
            asides: self.asides,
            done: self
                .done_at
                .iter()
                .map(|&(n, at)| (n, at as f64 / 1e6))
                .collect(),
        }
    }

    fn hear(&mut self, client: u16, report: &Report) {
        let now = Moment(self.now);
        match &mut self.server {
            Server::Each(senders) => {
                if let Some(sender) = senders.get_mut(&client) {
                    sender.handle_report(report, now).expect("an honest client");
                }
            }
            Server::Group(cast, after) => match after.get_mut(&client) {
                Some(sender) => sender.handle_report(report, now).expect("an honest client"),
                None => {
                    cast.handle_report(client, report, now);
                    assert_eq!(cast.poll_fault(), None, "an honest client");
                }
            },
        }
    }

    /// Sends one datagram if there is one, in turn; otherwise comes back when there may be.
    fn transmit(&mut self) {
        if self.now < self.busy_until {
            return;
        }
        let now = Moment(self.now);
        let (mut next, mut timeout) = (None, Moment(u64::MAX));
        let senders = match &mut self.server {
            Server::Each(senders) => senders,
            Server::Group(cast, after) => {
                next = cast.poll_transmit(now).map(|t| (None, t));
                while let Some(aside) = cast.poll_aside() {
                    let Aside {
                        client,
                        pkt,
                        missing,
                    } = aside;
                    self.asides += 1;
                    let blocks = block_count(self.file.len() as u64, BLOCK);
                    let sender = Sender::repairing(blocks, &missing, pkt, WINDOW, now);
                    after.insert(client, sender);
                }
                if !cast.is_over() {
                    timeout = cast.poll_timeout();
                }
                after
            }
        };
        if next.is_none() {
            let order: Vec<u16> = senders
                .range(self.turn..)
                .chain(senders.range(..self.turn))
                .map(|(&n, _)| n)
                .collect();
            for n in order {
                let sender = senders.get_mut(&n).expect("listed");
                if let Some(t) = sender.poll_transmit(now).expect("an honest client") {
                    self.turn = n + 1;
                    next = Some((Some(n), t));
                    break;
                }
            }
        }
        let each = senders.values().map(Sender::poll_timeout);
        timeout = each.fold(timeout, Moment::min);
        let Some((to, transmit)) = next else {
            let known = self
                .wakes
                .is_some_and(|at| at > self.now && at <= timeout.0);
            if timeout.0 < u64::MAX && timeout.0 > self.now && !known {
                self.wakes = Some(timeout.0);
                self.at(timeout.0, Event::Free);
            }
            return;
        };
        self.busy_until = self.now + SLOT;
        self.sent += 1;
        let bytes = self.datagram(&transmit);
        let receivers: Vec<u16> = match to {
            Some(n) => vec![n],
            None => self.clients.keys().copied().collect(),
        };
        for n in receivers {
            let copies = 1 + usize::from(self.chance() < self.link.duplicate);
            let loss = match n {
                1 => self.link.loss_of_the_first,
                _ => self.link.loss,
            };
            for _ in 0..copies {
                if self.chance() < loss {
                    continue;
                }
                let mut delay = self.link.delay.as_micros() as u64;
                if self.chance() < self.link.jitter.0 {
                    delay += (self.chance() * self.link.jitter.1.as_micros() as f64) as u64;
                }
                self.at(
                    self.now + SLOT + delay,
                    Event::Arrives(n, bytes.clone(), to.is_some()),
                );
            }
        }
        self.at(self.now + SLOT, Event::Free);
    }

    fn datagram(&mut self, transmit: &Transmit) -> Vec<u8> {
        let block = |n: u32| {
            let (offset, len) = place(self.file.len() as u64, BLOCK, n);
            &self.file[offset as usize..][..len]
        };
        let mut sum = vec![0; BLOCK];
        let (pkt, body) = match transmit {
            Transmit::Data {
                pkt,
                block: n,
                again,
            } => {
                let payload = block(*n);
                (
                    *pkt,
                    Body::Data {
                        block: *n,
                        again: *again,
                        payload,
                    },
                )
            }
            Transmit::Xor { pkt, blocks } => {
                blocks.iter().for_each(|&n| xor::add(&mut sum, block(n)));
                (
                    *pkt,
                    Body::Xor {
                        blocks: blocks.clone(),
                        payload: &sum,
                    },
                )
            }
            Transmit::End { pkts, upto, round } => (
                *pkts,
                Body::End {
                    upto: *upto,
                    round: *round,
                },
            ),
        };
        let packet = Packet {
            stream: STREAM,
            pkt,
            sent_us: self.now as u32,
            body,
        };
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        bytes
    }

    fn arrive(&mut self, n: u16, bytes: &[u8], own: bool) {
        let client = self.clients.get_mut(&n).expect("known");
        if own {
            client.receiver.alone();
        }
        match client.receiver.handle(bytes, Moment(self.now)) {
            Heard::Block { offset, payload } => {
                client.file[offset as usize..][..payload.len()].copy_from_slice(payload);
            }
            Heard::Coded {
                lacking,
                others,
                payload,
            } => {
                let mut sum = payload.to_vec();
                for other in others {
                    let (offset, len) = client.receiver.place(other);
                    xor::add(&mut sum, &client.file[offset as usize..][..len]);
                }
                let (offset, len) = client.receiver.place(lacking);
                client.file[offset as usize..][..len].copy_from_slice(&sum[..len]);
                client.receiver.repaired(lacking);
            }
            Heard::Nothing => {}
        }
        if client.receiver.is_whole() && !client.done {
            client.done = true;
            self.done_at.push((n, self.now));
            let delay = self.link.delay.as_micros() as u64;
            self.at(self.now + delay, Event::Done(n));
        }
        self.report(n);
    }

    fn report(&mut self, n: u16) {
        let client = self.clients.get_mut(&n).expect("known");
        if client.done {
            return;
        }
        let reports = client.receiver.poll_reports(Moment(self.now));
        let timer = client.receiver.poll_timeout();
        let set = client.timer > self.now && client.timer <= timer.0;
        let arm = timer.0 > self.now && !set;
        if arm {
            client.timer = timer.0;
        }
        let delay = self.link.delay.as_micros() as u64;
        for report in reports {
            self.at(self.now + delay, Event::Report(n, report));
        }
        if arm {
            self.at(timer.0, Event::Timer(n));
        }
    }
}

fn link(loss: f64, seed: u64) -> Link {
    Link {
        loss,
        loss_of_the_first: loss,
        duplicate: 0.0,
        jitter: (0.0, Duration::ZERO),
        delay: Duration::from_micros(300),
        seed,
    }
}

/// Time over the least possible, and datagrams sent over blocks.
fn ratio(group: bool, clients: u16, blocks: u32, link: Link) -> (f64, f64) {
    let run = World::new(group, clients, blocks, link).run();
    assert_eq!(run.whole, usize::from(clients), "{link:?}");
    let streams = if group { 1 } else { u64::from(clients) };
    let least = (u64::from(blocks) * streams * SLOT) as f64 / 1e6;
    let sent = run.datagrams as f64 / (u64::from(blocks) * streams) as f64;
    (run.seconds / least, sent)
}

#[test]
fn the_table_of_loss_clients_and_size() {
    let mut table = String::from("way        clients  blocks  loss  time/bound  sent/blocks\n");
    for (group, way) in [(false, "udp"), (true, "multicast")] {
        for clients in [1, 4, 13] {
            for blocks in [300, 3000] {
                for percent in [0, 1, 5, 20] {
                    let link = link(f64::from(percent) / 100.0, 1);
                    let (time, sent) = ratio(group, clients, blocks, link);
                    let _ = writeln!(
                        table,
                        "{way:9}  {clients:7}  {blocks:6}  {percent:3}%  {time:10.3}  {sent:11.3}"
                    );
                }
            }
        }
    }
    insta::assert_snapshot!(table, @r#"
    way        clients  blocks  loss  time/bound  sent/blocks
    udp              1     300    0%       1.017        1.003
    udp              1     300    1%       1.044        1.013
    udp              1     300    5%       1.088        1.057
    udp              1     300   20%       1.754        1.263
    udp              1    3000    0%       1.002        1.000
    udp              1    3000    1%       1.010        1.009
    udp              1    3000    5%       1.057        1.054
    udp              1    3000   20%       1.287        1.249
    udp              4     300    0%       1.003        1.000
    udp              4     300    1%       1.016        1.014
    udp              4     300    5%       1.062        1.057
    udp              4     300   20%       1.418        1.286
    udp              4    3000    0%       1.000        1.000
    udp              4    3000    1%       1.012        1.011
    udp              4    3000    5%       1.062        1.052
    udp              4    3000   20%       1.276        1.256
    udp             13     300    0%       1.001        1.001
    udp             13     300    1%       1.013        1.011
    udp             13     300    5%       1.055        1.053
    udp             13     300   20%       1.280        1.254
    udp             13    3000    0%       1.000        1.000
    udp             13    3000    1%       1.011        1.011
    udp             13    3000    5%       1.052        1.051
    udp             13    3000   20%       1.252        1.251
    multicast        1     300    0%       1.017        1.003
    multicast        1     300    1%       1.050        1.013
    multicast        1     300    5%       1.119        1.060
    multicast        1     300   20%       1.349        1.267
    multicast        1    3000    0%       1.002        1.000
    multicast        1    3000    1%       1.013        1.009
    multicast        1    3000    5%       1.060        1.054
    multicast        1    3000   20%       1.284        1.250
    multicast        4     300    0%       1.017        1.003
    multicast        4     300    1%       1.067        1.020
    multicast        4     300    5%       1.165        1.080
    multicast        4     300   20%       1.980        1.327
    multicast        4    3000    0%       1.002        1.000
    multicast        4    3000    1%       1.021        1.013
    multicast        4    3000    5%       1.088        1.059
    multicast        4    3000   20%       1.385        1.268
    multicast       13     300    0%       1.017        1.003
    multicast       13     300    1%       1.198        1.030
    multicast       13     300    5%       1.269        1.093
    multicast       13     300   20%       2.663        1.367
    multicast       13    3000    0%       1.002        1.000
    multicast       13    3000    1%       1.033        1.015
    multicast       13    3000    5%       1.090        1.061
    multicast       13    3000   20%       1.474        1.284
    "#);
}

#[test]
fn one_that_hears_little_is_repaired_by_itself_and_holds_nobody() {
    let mut link = link(0.01, 3);
    let control = World::new(true, 13, 3000, link).run();
    link.loss_of_the_first = 0.4;
    let run = World::new(true, 13, 3000, link).run();
    assert_eq!((control.asides, run.asides), (0, 1));
    assert_eq!(run.whole, 13);
    let (last, rest) = run.done.split_last().expect("thirteen");
    assert_eq!(last.0, 1, "it is done after the others");
    let others = rest.last().expect("twelve").1;
    assert!(
        others < control.seconds * 1.1,
        "{others} s beside {} s without it",
        control.seconds
    );
}

#[test]
fn more_clients_are_repaired_by_less_than_each_alone() {
    let link = link(0.05, 5);
    let group = World::new(true, 13, 3000, link).run();
    let each = World::new(false, 13, 3000, link).run();
    assert!(group.datagrams * 10 < each.datagrams, "{group:?} {each:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_client_gets_the_file_whatever_the_link_does(
        group: bool,
        clients in 1_u16..6,
        blocks in 1_u32..200,
        loss in 0.0..0.5_f64,
        loss_of_the_first in proptest::option::of(0.0..0.7_f64),
        duplicate in 0.0..0.3_f64,
        chance in 0.0..1.0_f64,
        extra_ms in 0_u64..40,
        delay_ms in 0_u64..30,
        seed: u64,
    ) {
        let link = Link {
            loss,
            loss_of_the_first: loss_of_the_first.unwrap_or(loss),
            duplicate,
            jitter: (chance, Duration::from_millis(extra_ms)),
            delay: Duration::from_millis(delay_ms),
            seed,
        };
        let run = World::new(group, clients, blocks, link).run();
        prop_assert_eq!(run.whole, usize::from(clients));
    }
}
