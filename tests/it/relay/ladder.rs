//! Several inputs: who loses goes one down at a whole picture and up again later, and nobody who says
//! nothing is moved, unless his input is silent.

use std::{
    io::Read,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use gatecast::{
    RelayBuilder,
    internals::{
        proto::{
            mpegts::{PACKET, TsPacket, continuity::Continuity},
            relay::ladder::INPUTS_MAX,
        },
        relay::Relay,
    },
};

use crate::{
    common::{until, within},
    relay::{LIMIT, LOCAL, Lab, http, page, relay_with, source, visits},
};

/// One of several encodings of a source: pictures of PID 0x100, marked with its number.
struct Encoder {
    number: u8,
    datagrams: u64,
    pictures: u8,
    tables: u8,
}

/// Encoders that send until this is dropped.
struct Encoders {
    going: Arc<AtomicBool>,
    /// Of each: whether it sends, and whether it marks whole pictures.
    sends: Vec<Arc<[AtomicBool; 2]>>,
    /// Microseconds from one datagram of the first to the next.
    pace: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Encoder {
    fn new(number: u8) -> Self {
        Self { number, datagrams: 0, pictures: 5 * number, tables: 3 * number }
    }

    fn packet(&mut self, is_key: bool) -> [u8; PACKET] {
        let mut packet = [0xAB; PACKET];
        self.pictures += 1;
        let counter = self.pictures & 0x0F;
        let key = [0x47, 0x41, 0x00, 0x30 | counter, 1, 0x40];
        let rest = [0x47, 0x01, 0x00, 0x10 | counter, 0, 0];
        packet[..6].copy_from_slice(if is_key { &key } else { &rest });
        packet[8] = self.number;
        packet
    }

    /// The next datagram. In the middle of every twentieth are the tables and a picture that needs
    /// no earlier one.
    fn datagram(&mut self, marks: bool) -> Vec<u8> {
        self.pictures &= 0x0F;
        self.datagrams += 1;
        if self.datagrams % 20 != 7 {
            return (0..7).flat_map(|_| self.packet(false)).collect();
        }
        let mut tables = source::tables();
        self.tables = (self.tables + 1) & 0x0F;
        tables.chunks_mut(PACKET).for_each(|packet| packet[3] |= self.tables);
        let before: Vec<u8> = (0..2).flat_map(|_| self.packet(false)).collect();
        let key = self.packet(marks);
        let after: Vec<u8> = (0..2).flat_map(|_| self.packet(false)).collect();
        [before, tables, key.to_vec(), after].concat()
    }
}

impl Encoders {
    fn to(relay: &Relay) -> Self {
        let (going, pace) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(5000)));
        let (mut sends, mut threads) = (Vec::new(), Vec::new());
        for (number, input) in (1..).zip(relay.inputs()) {
            let does = Arc::new([true, true].map(AtomicBool::new));
            sends.push(Arc::clone(&does));
            let (going, pace) = (Arc::clone(&going), Arc::clone(&pace));
            threads.push(thread::spawn(move || {
                let socket = UdpSocket::bind(LOCAL).expect("a free port");
                let mut encoder = Encoder::new(number);
                while going.load(Ordering::SeqCst) {
                    let datagram = encoder.datagram(does[1].load(Ordering::SeqCst));
                    if does[0].load(Ordering::SeqCst) {
                        socket.send_to(&datagram, input).expect("sent");
                    }
                    let pace = if number == 1 { pace.load(Ordering::SeqCst) } else { 5000 };
                    thread::sleep(Duration::from_micros(pace));
                }
            }));
        }
        Self { going, sends, pace, threads }
    }

    fn set(&self, number: usize, what: usize, does: bool) {
        self.sends[number - 1][what].store(does, Ordering::SeqCst);
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.going.store(false, Ordering::SeqCst);
        let ended: Vec<_> = self.threads.drain(..).map(JoinHandle::join).collect();
        assert!(thread::panicking() || ended.iter().all(Result::is_ok), "{ended:?}");
    }
}

/// A relay of so many inputs.
fn relay_of(inputs: usize, set: impl FnOnce(RelayBuilder) -> RelayBuilder) -> Relay {
    relay_with(|builder| set(builder.lower_inputs(&vec![LOCAL; inputs - 1])))
}

/// Which input the first viewer gets, and how often it changed.
fn place(relay: &Relay) -> (u64, u64) {
    relay.snapshot().viewers[0].input.expect("there are several")
}

/// All that comes to `socket` from now on.
fn collected(socket: &UdpSocket) -> Arc<Mutex<Vec<u8>>> {
    let (bytes, socket) = (Arc::new(Mutex::new(Vec::new())), socket.try_clone().expect("a handle"));
    let (kept, mut datagram) = (Arc::clone(&bytes), [0; 2048]);
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    thread::spawn(move || {
        while let Ok(len) = socket.recv(&mut datagram) {
            kept.lock().expect("no panic").extend_from_slice(&datagram[..len]);
        }
    });
    bytes
}

/// The inputs in the order in which they came, each with whether it began with a whole picture; the
/// tables stand before it where it is not the first. No counter jumps without a word.
fn order(stream: &[u8]) -> Vec<(u8, bool)> {
    let (packets, rest) = stream.as_chunks::<PACKET>();
    assert!(rest.is_empty(), "whole packets");
    let mut continuity = Continuity::default();
    let mut order: Vec<(u8, bool)> = Vec::new();
    let mut last = Vec::new();
    for (at, bytes) in packets.iter().enumerate() {
        let packet = TsPacket::new(bytes);
        continuity.handle(packet);
        assert_eq!(continuity.counts().errors, 0, "packet {at} of {}", packets.len());
        if packet.pid() == 0x100 && packet.has_payload() {
            if order.last().is_none_or(|(input, _)| *input != bytes[8]) {
                if !order.is_empty() {
                    assert_eq!(last[last.len() - 2..], [0, 0x1000], "the tables come first");
                }
                order.push((bytes[8], packet.random_access()));
            }
            last.clear();
        }
        last.push(packet.pid());
    }
    order
}

#[test]
fn viewer_that_tells_of_loss_goes_down_and_up_again() {
    within(2 * LIMIT, || {
        let relay = relay_of(2, |builder| builder);
        let encoders = Encoders::to(&relay);
        let mut lab = Lab::connected(&relay);
        let got = collected(&lab.socket);
        let mut cc = 0;
        let mut tell = |loses: u64| {
            cc += loses;
            let answer = lab.ask(&format!("ALIVE datagrams=1 bytes=60000 cc={cc}"));
            assert!(answer.starts_with("OK sent="), "{answer}");
            thread::sleep(Duration::from_millis(100));
            place(&relay)
        };
        until("it goes down", || tell(1) == (2, 1));
        let metrics = page::get(&relay, "/metrics");
        let of = |name: &str| {
            let mut lines = metrics.lines().filter(|line| line.starts_with(name));
            lines.next().and_then(|line| line.rsplit(' ').next().map(str::to_owned))
        };
        assert_eq!(of("gatecast_relay_viewer_input{").as_deref(), Some("2"), "{metrics}");
        assert_eq!(of("gatecast_relay_viewer_input_changes_total{").as_deref(), Some("1"));
        let shown = page::get(&relay, "/viewers");
        assert!(shown.contains("\"input\":2,\"input_changes\":1,"), "{shown}");
        until("it goes up", || tell(0) == (1, 2));
        drop(encoders);
        let order = order(&got.lock().expect("no panic"));
        assert_eq!((order[1], order[2], order.len()), ((2, true), (1, true), 3), "{order:?}");
        let visits = visits(relay);
        assert_eq!(visits[0].reason.as_deref(), Some("input 1 after 2 changes"), "{visits:?}");
    });
}

#[test]
fn silent_input_is_left_also_without_whole_pictures() {
    within(2 * LIMIT, || {
        let relay = relay_of(3, |builder| builder);
        let encoders = Encoders::to(&relay);
        // The second is silent, and the third marks no pictures.
        encoders.set(2, 0, false);
        encoders.set(3, 1, false);
        let lab = Lab::connected(&relay);
        let got = collected(&lab.socket);
        let read = |input: usize| relay.snapshot().lower[input - 2].datagrams;
        until("all are read", || read(3) > 500);
        // The lab's client has said nothing, and whatever it has lost, it stays.
        assert_eq!((place(&relay), read(2)), ((1, 0), 0));
        encoders.set(1, 0, false);
        until("it goes where something comes", || place(&relay) == (3, 1));
        encoders.set(1, 0, true);
        until("it comes back", || place(&relay) == (1, 2));
        drop(encoders);
        let order = order(&got.lock().expect("no panic"));
        assert_eq!((order[1], order[2], order.len()), ((3, false), (1, true), 3), "{order:?}");
    });
}

#[test]
fn slow_viewer_over_http_goes_down_and_begins_anew() {
    within(2 * LIMIT, || {
        let relay = relay_of(2, |builder| builder);
        let encoders = Encoders::to(&relay);
        let mut slow = http::viewer(&relay);
        // More than what its connection takes at this pace.
        encoders.pace.store(50, Ordering::SeqCst);
        let mut bytes = vec![0; 40 * PACKET];
        let mut got = Vec::new();
        until("it goes down", || {
            let len = slow.read(&mut bytes).expect("the stream");
            got.extend_from_slice(&bytes[..len]);
            thread::sleep(Duration::from_millis(10));
            place(&relay) == (2, 1)
        });
        assert!(relay.snapshot().viewers[0].sent.dropped > 0);
        encoders.pace.store(5000, Ordering::SeqCst);
        // What was on its way, and then the other input, from its tables and a whole picture on.
        let is_second = |packet: &[u8; PACKET]| packet[1] & 0x1F == 1 && packet[8] == 2;
        until("the other comes", || {
            let len = slow.read(&mut bytes).expect("the stream");
            got.extend_from_slice(&bytes[..len]);
            got.as_chunks().0.iter().rev().take(60).any(is_second)
        });
        drop(encoders);
        let packets = got.as_chunks::<PACKET>().0;
        let jump = packets.iter().position(|bytes| TsPacket::new(bytes).discontinuity());
        let tail = &packets[jump.expect("it is announced")..];
        assert!(!packets[..jump.expect("known")].iter().any(is_second));
        assert_eq!(order(tail.as_flattened()), [(2, true)]);
    });
}

#[test]
fn relay_has_four_inputs_at_most_and_none_twice() {
    within(LIMIT, || {
        let relay = relay_of(INPUTS_MAX, |builder| builder);
        let inputs: Vec<SocketAddr> = relay.inputs().collect();
        assert_eq!((inputs.len(), inputs[0]), (INPUTS_MAX, relay.input()));
        let refused = |lower: &[SocketAddr]| {
            let builder = Relay::builder().input(inputs[0]).listen(LOCAL).lower_inputs(lower);
            builder.start().expect_err("refused").to_string()
        };
        assert_eq!(refused(&[LOCAL; INPUTS_MAX]), "a relay has 4 inputs at most");
        let twice = format!("{} is an input twice", inputs[0]);
        assert_eq!(refused(&[LOCAL, inputs[0]]), twice);
        assert!(refused(&[LOCAL]).contains("choose another address with --input"));
    });
}
