//! A server and its clients, all machines, over one link in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use crate::{
    proto::udp::{
        Transmit,
        blocks::BlockLayout,
        control::Report,
        group_sender::{GroupSender, Straggler},
        packet::{Body, Packet},
        receiver::{BlockReceiver, Delivery},
        reports::RepairMode,
        sender::BlockSender,
        xor,
    },
    units::Moment,
};

/// Real bytes of a block; the link charges for a full datagram.
const BLOCK: usize = 16;
const STREAM: u32 = 9;
const WINDOW: u32 = 1000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) loss: f64,
    /// The first client's may be another.
    pub(super) loss_of_the_first: f64,
    pub(super) duplicate: f64,
    /// Chance that a datagram takes up to this much longer.
    pub(super) jitter: (f64, Duration),
    pub(super) delay: Duration,
    /// What waits at most in the sender's own queue.
    pub(super) queue: Duration,
    /// Of the segments of a control connection.
    pub(super) line_loss: f64,
    pub(super) seed: u64,
}

/// A line is sent again so long after it was, where none follows it; each time twice as long.
const RTO: u64 = 60_000;

/// After its last block a client says nothing for so long.
const HASH: u64 = 25_000;

#[allow(clippy::large_enum_variant, reason = "one in a simulation")]
enum Server {
    Each(BTreeMap<u16, BlockSender>),
    Group(GroupSender, BTreeMap<u16, BlockSender>),
}

struct Client {
    receiver: BlockReceiver,
    file: Vec<u8>,
    done: bool,
    /// It has not come yet, and neither hears nor says anything.
    late: bool,
    /// It was killed.
    dead: bool,
    timer: u64,
    /// Its lines that the server has not read, with the number of the first. `None` has come, and
    /// waits for those before it.
    lines: VecDeque<ControlLine>,
    read: u64,
    /// Until this line is read nothing new is sent: what was sent again fills TCP's window.
    again: Option<u64>,
}

/// What a client says, and whether it has come.
struct ControlLine {
    event: Option<Event>,
    came: bool,
}

enum Event {
    /// The link is free again.
    Free,
    /// At a client, in a stream of its own or its group's.
    Arrives(u16, Vec<u8>, bool),
    Timer(u16),
    Report(u16, Report),
    Done(u16),
    /// It has hashed its copy, and says so.
    Hashes(u16),
    /// A line that nobody waits for.
    Followed,
    /// A segment with the line of this number comes, or is sent again for the nth time.
    Segment(u16, u64),
    Again(u16, u64, u32),
    /// It says nothing any more.
    Dies(u16),
    /// It comes after the others.
    Joins(u16),
}

pub(super) struct World {
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
pub(super) struct Run {
    pub(super) seconds: f64,
    pub(super) datagrams: u64,
    pub(super) whole: usize,
    pub(super) asides: usize,
    /// In the order in which they were done.
    pub(super) done: Vec<(u16, f64)>,
}

/// A full datagram of 1432 bytes with UDP, IP and Ethernet headers at 100 Mbit/s, microseconds.
pub(super) const SLOT: u64 = (1432 + 42) * 8 / 100;

fn layout(len: usize) -> BlockLayout {
    BlockLayout { bytes: len as u64, block_len: BLOCK }
}

impl World {
    pub(super) fn new(group: bool, clients: u16, blocks: u32, link: Link) -> Self {
        let len = (blocks as usize * BLOCK).saturating_sub(3);
        let file: Vec<u8> = (0..len).map(|n| (n * 7 + n / 251) as u8).collect();
        let now = Moment(0);
        let layout = layout(len);
        let count = layout.count();
        let receiver = |client: u16| {
            let how = if group {
                RepairMode::Multicast(Duration::from_micros(200) * u32::from(client))
            } else {
                RepairMode::Unicast
            };
            BlockReceiver::new(STREAM, layout, 0, how, WINDOW / 4, now)
        };
        let clients: BTreeMap<u16, Client> = (1..=clients)
            .map(|n| {
                let client = Client {
                    receiver: receiver(n),
                    file: vec![0; len],
                    done: false,
                    late: false,
                    dead: false,
                    timer: 0,
                    lines: VecDeque::new(),
                    read: 0,
                    again: None,
                };
                (n, client)
            })
            .collect();
        let server = if group {
            let mut cast = GroupSender::new(count, now);
            clients.keys().for_each(|&n| cast.join(n, WINDOW, now));
            Server::Group(cast, BTreeMap::new())
        } else {
            let sender = || BlockSender::reliable(0..count, WINDOW, now);
            Server::Each(clients.keys().map(|&n| (n, sender())).collect())
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

    /// The client `n` of a group joins only after so many microseconds.
    pub(super) fn late(&mut self, n: u16, after: u64) {
        if let Server::Group(cast, _) = &mut self.server {
            cast.leave(n);
            self.clients.get_mut(&n).expect("known").late = true;
            self.at(after, Event::Joins(n));
        }
    }

    /// The client `n` is killed after so many microseconds.
    pub(super) fn dies(&mut self, n: u16, after: u64) {
        self.at(after, Event::Dies(n));
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

    pub(super) fn run(mut self) -> Run {
        while let Some(Reverse((time, serial))) = self.events.pop() {
            assert!(time < 120_000_000, "two minutes are over: {:?}", self.link);
            self.now = time;
            match self.what.remove(&serial).expect("each event once") {
                Event::Free => self.transmit(),
                Event::Arrives(client, bytes, own) => self.arrive(client, &bytes, own),
                Event::Timer(client) => self.report(client),
                Event::Report(client, report) => {
                    self.receive_report(client, &report);
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
                    if self.clients.values().all(|client| client.done || client.dead) {
                        break;
                    }
                    self.transmit();
                }
                Event::Hashes(n) => self.say(n, Event::Followed),
                Event::Followed => {}
                Event::Segment(n, line) => self.read(n, line),
                Event::Again(n, line, tries) => self.send(n, line, tries),
                Event::Dies(n) => self.clients.get_mut(&n).expect("known").dead = true,
                Event::Joins(n) => {
                    self.clients.get_mut(&n).expect("known").late = false;
                    if let Server::Group(cast, _) = &mut self.server {
                        cast.join(n, WINDOW, Moment(time));
                    }
                    self.transmit();
                }
            }
        }
        let whole = self.clients.values().filter(|client| client.file == self.file);
        Run {
            seconds: self.now as f64 / 1e6,
            datagrams: self.sent,
            whole: whole.count(),
            asides: self.asides,
            done: self.done_at.iter().map(|&(n, at)| (n, at as f64 / 1e6)).collect(),
        }
    }

    /// A client sends a line on its control connection.
    fn say(&mut self, n: u16, event: Event) {
        if self.link.line_loss == 0.0 {
            return self.at(self.now + self.link.delay.as_micros() as u64, event);
        }
        let client = self.clients.get_mut(&n).expect("known");
        client.lines.push_back(ControlLine { event: Some(event), came: false });
        let line = client.read + client.lines.len() as u64 - 1;
        if client.again.is_none() {
            self.send(n, line, 0);
        }
    }

    fn send(&mut self, n: u16, line: u64, tries: u32) {
        let client = self.clients.get_mut(&n).expect("known");
        if line < client.read || client.lines[(line - client.read) as usize].came {
            return;
        }
        if tries > 0 {
            client.again = Some(line);
        }
        if self.chance() < self.link.line_loss {
            self.at(self.now + (RTO << tries), Event::Again(n, line, tries + 1));
        } else {
            self.at(self.now + self.link.delay.as_micros() as u64, Event::Segment(n, line));
        }
    }

    /// A segment has come: what was waiting for it is read, and what lacks before it is sent again
    /// as soon as the client hears of that.
    fn read(&mut self, n: u16, line: u64) {
        let client = self.clients.get_mut(&n).expect("known");
        if line < client.read {
            return;
        }
        let at = (line - client.read) as usize;
        client.lines[at].came = true;
        let mut lacking: Vec<(u64, u32)> = (0..at)
            .filter(|&at| !client.lines[at].came)
            .map(|at| (client.read + at as u64, 1))
            .collect();
        let mut events = Vec::new();
        while client.lines.front().is_some_and(|line| line.came) {
            events.extend(client.lines.pop_front().and_then(|line| line.event));
            client.read += 1;
        }
        if client.again.is_some_and(|again| again < client.read) {
            client.again = None;
            lacking.extend((client.read..).zip(&client.lines).map(|(line, _)| (line, 0)));
        }
        let delay = self.link.delay.as_micros() as u64;
        for (line, tries) in lacking {
            self.at(self.now + delay, Event::Again(n, line, tries));
        }
        for event in events {
            self.at(self.now, event);
        }
    }

    fn receive_report(&mut self, client: u16, report: &Report) {
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
        let queue = self.link.queue.as_micros() as u64;
        if self.now + queue < self.busy_until {
            return;
        }
        let now = Moment(self.now);
        let (mut next, mut timeout) = (None, Moment(u64::MAX));
        let senders = match &mut self.server {
            Server::Each(senders) => senders,
            Server::Group(cast, after) => {
                next = cast.poll_transmit(now).map(|t| (None, t));
                while let Some(aside) = cast.poll_straggler() {
                    let Straggler { client, pkt, missing, .. } = aside;
                    self.asides += 1;
                    let blocks = layout(self.file.len()).count();
                    let sender = BlockSender::repairing(blocks, &missing, pkt, WINDOW, now);
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
        let each = senders.values().map(BlockSender::poll_timeout);
        timeout = each.fold(timeout, Moment::min);
        let Some((to, transmit)) = next else {
            let known = self.wakes.is_some_and(|at| at > self.now && at <= timeout.0);
            if timeout.0 < u64::MAX && timeout.0 > self.now && !known {
                self.wakes = Some(timeout.0);
                self.at(timeout.0, Event::Free);
            }
            return;
        };
        self.busy_until = self.now.max(self.busy_until) + SLOT;
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
                self.at(self.busy_until + delay, Event::Arrives(n, bytes.clone(), to.is_some()));
            }
        }
        self.at(self.now.max(self.busy_until.saturating_sub(queue)), Event::Free);
    }

    fn datagram(&mut self, transmit: &Transmit) -> Vec<u8> {
        let block = |n: u32| {
            let (offset, len) = layout(self.file.len()).place(n);
            &self.file[offset as usize..][..len]
        };
        let mut sum = vec![0; BLOCK];
        let (pkt, body) = match transmit {
            Transmit::Data { pkt, block: n, again } => {
                let payload = block(*n);
                (*pkt, Body::Data { block: *n, again: *again, payload })
            }
            Transmit::Xor { pkt, blocks } => {
                blocks.iter().for_each(|&n| xor::add(&mut sum, block(n)));
                (*pkt, Body::Xor { blocks: blocks.clone(), payload: &sum })
            }
            Transmit::End { pkts, upto, round } => {
                (*pkts, Body::End { upto: *upto, round: *round })
            }
        };
        let packet = Packet { stream: STREAM, pkt, sent_us: self.now as u32, body };
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        bytes
    }

    fn arrive(&mut self, n: u16, bytes: &[u8], own: bool) {
        let client = self.clients.get_mut(&n).expect("known");
        if client.late || client.dead {
            return;
        }
        if own {
            client.receiver.leave_group();
        }
        match client.receiver.handle(bytes, Moment(self.now)) {
            Delivery::Block { offset, payload } => {
                client.file[offset as usize..][..payload.len()].copy_from_slice(payload);
            }
            Delivery::Coded { lacking, others, payload } => {
                let mut sum = payload.to_vec();
                for other in others {
                    let (offset, len) = client.receiver.layout.place(other);
                    xor::add(&mut sum, &client.file[offset as usize..][..len]);
                }
                let (offset, len) = client.receiver.layout.place(lacking);
                client.file[offset as usize..][..len].copy_from_slice(&sum[..len]);
                client.receiver.repaired(lacking);
            }
            Delivery::Nothing => {}
        }
        if client.receiver.is_whole() && !client.done {
            client.done = true;
            self.done_at.push((n, self.now));
            self.say(n, Event::Done(n));
            if self.link.line_loss > 0.0 {
                self.say(n, Event::Followed);
                self.at(self.now + HASH, Event::Hashes(n));
            }
        }
        self.report(n);
    }

    fn report(&mut self, n: u16) {
        let client = self.clients.get_mut(&n).expect("known");
        if client.done || client.late || client.dead {
            return;
        }
        let reports = client.receiver.poll_reports(Moment(self.now));
        let timer = client.receiver.poll_timeout();
        let set = client.timer > self.now && client.timer <= timer.0;
        let arm = timer.0 > self.now && !set;
        if arm {
            client.timer = timer.0;
        }
        for report in reports {
            self.say(n, Event::Report(n, report));
        }
        if arm {
            self.at(timer.0, Event::Timer(n));
        }
    }
}
