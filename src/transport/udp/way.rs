//! UDP as a way of sending, three times: raw, to each, to a group.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_channel::Sender as Tell;

use crate::error::Error;
use crate::error::Result;
use crate::net::STACK;
use crate::net::clock;
use crate::net::copy;
use crate::net::line_stream::LineStream;
use crate::proto::udp::control::Listen;
use crate::proto::udp::control::Terms;
use crate::proto::udp::packet::DATAGRAM;
use crate::proto::udp::packet::DATAGRAM_MAX;
use crate::proto::udp::packet::DATAGRAM_MIN;
use crate::proto::udp::packet::block_len;
use crate::proto::udp::receiver::block_count;
use crate::server::catalog::Source;
use crate::server::gate::SeatConnection;
use crate::server::transport::ControlExtension;
use crate::server::transport::EarlyReply;
use crate::server::transport::SeatDetail;
use crate::server::transport::SendJob;
use crate::server::transport::SendResult;
use crate::server::transport::SendSession;
use crate::server::transport::TransferFailure;
use crate::server::transport::Transport;
use crate::session::SeatId;
use crate::session::Via;
use crate::transfer::Counts;
use crate::transfer::Outcome;
use crate::transport::udp::config::UdpConfig;
use crate::transport::udp::pump;
use crate::transport::udp::pump::Job;
use crate::transport::udp::pump::Word;
use crate::transport::udp::socket::Outlet;
use crate::transport::udp::socket::Reach;
use crate::transport::udp::tally::Tally;
use crate::units::Rate;

/// One of the three ways.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    via: Via,
    config: UdpConfig,
}

/// One session.
#[derive(Debug)]
pub(super) struct Stream {
    via: Via,
    source: Arc<Source>,
    pub(super) terms: Terms,
    pub(super) ttl: u32,
    rate: Option<Rate>,
    pub(super) block_len: usize,
    pub(super) blocks: u32,
    state: Mutex<State>,
}

/// What is opened before the release, and what runs after it. The lock is never held while
/// anything blocks.
#[derive(Debug, Default)]
struct State {
    /// Who sits in each seat and where it listens; a seat that was given back may have another.
    listening: BTreeMap<SeatId, (SocketAddr, Listen)>,
    tallies: BTreeMap<SeatId, Arc<Tally>>,
    outlet: Option<(IpAddr, Outlet)>,
    words: Option<Tell<Word>>,
    many: bool,
}

/// Words that wait for the sending thread at most; then the clients' connections wait.
const WORDS: usize = 1024;

/// The rate from which on the kernel may send many datagrams as one: below it they would be a
/// burst, and above it single sends cost more than the network.
const MANY_FROM: Rate = Rate(900_000_000);

impl Datagrams {
    /// `via` must be one of `udp`, `raw` and `multicast`.
    pub fn new(via: Via, config: UdpConfig) -> Self {
        debug_assert!(matches!(via, Via::Udp | Via::Raw | Via::Multicast));
        Self { via, config }
    }
}

impl Transport for Datagrams {
    fn via(&self) -> Via {
        self.via
    }

    fn prepare(
        &self,
        source: &Arc<Source>,
        _: u16,
        rate: Option<Rate>,
    ) -> Result<Box<dyn SendSession>> {
        let size = self.config.size;
        if !(DATAGRAM_MIN..=DATAGRAM_MAX).contains(&size) {
            let what =
                format!("datagrams of {size} bytes: {DATAGRAM_MIN} to {DATAGRAM_MAX} are possible");
            return Err(Error::Usage { what });
        }
        if size > DATAGRAM {
            log::warn!(
                "a datagram of {size} bytes travels as several packets and is lost with any of them"
            );
        }
        let multicast = self.via == Via::Multicast;
        let block_len = block_len(size, multicast);
        let blocks = source.info.bytes.div_ceil(block_len as u64);
        if blocks >= 1 << 31 {
            let reason = format!("{blocks} blocks are more than datagrams can number");
            return Err(Error::refused("the server", reason));
        }
        Ok(Box::new(Stream {
            via: self.via,
            source: Arc::clone(source),
            terms: Terms {
                datagram: size,
                group: multicast.then(|| self.config.group.unwrap_or_else(some_group)),
                from: multicast
                    .then_some(self.config.interface)
                    .flatten()
                    .map(IpAddr::from),
            },
            ttl: self.config.ttl,
            rate,
            block_len,
            blocks: block_count(source.info.bytes, block_len),
            state: Mutex::default(),
        }))
    }
}

/// A group of the organisation's own (RFC 2365, section 6.2), so that two sessions have two.
fn some_group() -> SocketAddr {
    let random = clock::random().to_le_bytes();
    let address = Ipv4Addr::new(239, 255, random[0], random[1].max(1));
    let port = 20_000 + u16::from_le_bytes([random[2], random[3]]) % 10_000;
    (address, port).into()
}

impl SendSession for Stream {
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()> {
        let failed = || Error::io("look at the connection", "a client");
        let ip = stream.local_addr().map_err(failed())?.ip().to_canonical();
        let ip = self.terms.from.unwrap_or(ip);
        let mut state = self.lock();
        if let Some((other, _)) = &state.outlet {
            // One stream leaves by one interface.
            if self.via == Via::Multicast && *other != ip {
                let reason = format!("this session's group is on {other}, and this client on {ip}");
                return Err(Error::refused("the server", reason));
            }
            return Ok(());
        }
        let reach = (self.via == Via::Multicast).then_some(Reach { ttl: self.ttl });
        // Without a rate of its own a session is as fast as its clients' buffers allow.
        let many = self.rate.is_none_or(|rate| rate >= MANY_FROM);
        // Bound to the address that the client knows, and that its interface routes.
        let from = match self.via {
            Via::Multicast => ip,
            _ if ip.is_ipv6() => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        };
        let outlet = Outlet::open(from, many, reach)?;
        state.many = outlet.sends_many();
        state.outlet = Some((ip, outlet));
        Ok(())
    }

    fn description(&self, _: &TcpStream) -> String {
        let size = self.terms.datagram;
        let many = if self.lock().many {
            ", cut by the kernel"
        } else {
            ""
        };
        match self.rate {
            Some(rate) => format!("datagrams of {size}{many}, {} kbit/s", rate.0 / 1000),
            None => format!("datagrams of {size}{many}"),
        }
    }

    fn fills_control(&self) -> bool {
        false
    }

    fn control(&self) -> Option<&dyn ControlExtension> {
        Some(self)
    }

    fn send(&self, _: &SeatConnection, _: SendJob<'_>) -> SendResult {
        SendResult {
            first: None,
            end: Err(TransferFailure::new(
                Outcome::Refused,
                format!("only a client of our own can be sent to via {}", self.via),
            )),
        }
    }

    fn detail(&self, seat: SeatId) -> SeatDetail {
        let state = self.lock();
        let lost = state
            .tallies
            .get(&seat)
            .map(|tally| tally.lost.load(Ordering::Relaxed));
        SeatDetail {
            lost,
            ..SeatDetail::default()
        }
    }

    fn add_counts(&self, seat: SeatId, counts: &mut Counts) {
        let Some(tally) = self.lock().tallies.get(&seat).map(Arc::clone) else {
            return;
        };
        tally.account(counts, self.via == Via::Raw);
    }
}

impl ControlExtension for Stream {
    fn terms(&self) -> Vec<u8> {
        self.terms.encode()
    }

    fn on_line(&self, seat: &SeatConnection, line: &str) -> Result<()> {
        let wrong = |error: String| Error::protocol(seat.id(), error);
        let listen = Listen::decode(line).map_err(|error| wrong(error.to_string()))?;
        let peer = peer(seat)?;
        let before = self.lock().listening.insert(seat.id(), (peer, listen));
        if before.is_some_and(|(other, _)| other == peer) {
            return Err(wrong("LISTEN a second time".to_owned()));
        }
        Ok(())
    }

    fn send_native(
        &self,
        seat: &SeatConnection,
        preface: Vec<u8>,
        range: Range<u64>,
        lines: &mut LineStream<'_>,
        answer: &mut EarlyReply,
    ) -> SendResult {
        let opening = seat.release();
        // Nothing is sent over TCP after GO but the last words.
        drop(opening.fair_start.guard());
        let said = copy::send_all(
            seat.stream(),
            &preface,
            clock::now().after(seat.session().stall),
        );
        let listen = self.lock().listening.remove(&seat.id());
        let listen = listen
            .filter(|(who, _)| peer(seat).is_ok_and(|peer| peer == *who))
            .map(|(_, listen)| listen);
        let failure = match (said, listen) {
            _ if range.is_empty() => {
                self.tell(seat, Word::Absent);
                return SendResult {
                    first: None,
                    end: Ok(()),
                };
            }
            (Ok(()), Some(listen)) => {
                let end = self.attend(seat, range, listen, opening.admitted(), lines, answer);
                let tally = self.tally(seat.id());
                let first = tally.first_us.load(Ordering::Relaxed);
                let released = opening.released();
                seat.moved()
                    .store(tally.payload.load(Ordering::Relaxed), Ordering::Relaxed);
                return SendResult {
                    first: (first > 0).then(|| crate::units::Moment(first).since(released)),
                    end,
                };
            }
            (Ok(()), None) => TransferFailure::new(Outcome::Cut, "did not say where it listens"),
            (Err(_), _) => TransferFailure::new(Outcome::Cut, "the connection failed at GO"),
        };
        self.tell(seat, Word::Absent);
        SendResult {
            first: None,
            end: Err(failure),
        }
    }
}

/// The address of a seat's client.
fn peer(seat: &SeatConnection) -> Result<SocketAddr> {
    let failed = Error::io("look at the connection", "a client");
    seat.stream().peer_addr().map_err(failed)
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tally(&self, seat: SeatId) -> Arc<Tally> {
        Arc::clone(self.lock().tallies.entry(seat).or_default())
    }

    /// Passes a word to the sending thread, starting it with the first.
    pub(super) fn tell(&self, seat: &SeatConnection, word: Word) -> bool {
        let mut state = self.lock();
        if state.words.is_none() {
            let Some((_, outlet)) = state.outlet.take() else {
                return false;
            };
            let (tell, words) = crossbeam_channel::bounded(WORDS);
            let job = Job {
                via: self.via,
                stream: seat.session().id.0 as u32,
                source: Arc::clone(&self.source),
                datagram: usize::from(self.terms.datagram),
                block_len: self.block_len,
                blocks: self.blocks,
                rate: self.rate,
                outlet,
                group: self.terms.group,
            };
            let started = thread::Builder::new()
                .name(format!("send-{:04x}", seat.session().id.0 >> 48))
                .stack_size(STACK)
                .spawn(move || pump::run(job, &words));
            if let Err(error) = started {
                log::error!("cannot start the sending thread: {error}");
                return false;
            }
            state.words = Some(tell);
        }
        let words = state.words.clone();
        drop(state);
        words.is_some_and(|words| words.send(word).is_ok())
    }
}
