//! A client that has nothing but datagrams: it knocks, proves its address, says when it is ready,
//! takes its file in as every client over UDP does, and attests it.
//!
//! What must be heard is said until it is answered; reports are not, for the next one says it all.

use std::cell::Cell;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client;
use crate::client::Client;
use crate::client::End;
use crate::client::Fetch;
use crate::client::Order;
use crate::client::Stage;
use crate::client::part::Part;
use crate::client::receive::Taken;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::copy::Stop;
use crate::proto::native::FromClient;
use crate::proto::native::FromServer;
use crate::proto::native::Offer;
use crate::proto::native::Receipt;
use crate::proto::udp::control::window;
use crate::proto::udp::door::Knock;
use crate::proto::udp::greet::Greet;
use crate::proto::udp::greet::Welcome;
use crate::proto::udp::greet::Word;
use crate::proto::udp::packet::block_len;
use crate::proto::udp::receiver::How;
use crate::proto::udp::receiver::Receiver;
use crate::server::catalog::digest_of;
use crate::session::FileInfo;
use crate::session::SeatId;
use crate::session::Via;
use crate::transfer::Outcome;
use crate::transfer::Transfer;
use crate::transport::udp::porter::SEAT;
use crate::transport::udp::reception;
use crate::transport::udp::reception::Control;
use crate::transport::udp::reception::Reception;
use crate::transport::udp::reception::Source;
use crate::transport::udp::reception::Target;
use crate::transport::udp::socket::Inlet;
use crate::transport::udp::writer::Writer;
use crate::units::Moment;

/// How long each address of a server is knocked at before the next.
const KNOCK_LIMIT: Duration = Duration::from_secs(4);

/// Pause between two sayings of what must be heard, and how often it is said.
const AGAIN: Duration = Duration::from_millis(250);
const TRIES: u32 = 10;

/// Runs every client of `order` to its end, each a session by itself.
///
/// # Errors
/// As [`Fetch::run`].
pub fn run(fetch: &Fetch, order: &Order) -> Result<Vec<End>> {
    fetch.run_each(order, &|client, number| {
        let mut end = End::before_the_seat(Error::Interrupted);
        let visit = Visit {
            fetch,
            order,
            client,
            number,
        };
        end.error = visit.run(&mut end).err();
        if fetch.is_stopped() && end.path.is_none() {
            end.error = Some(Error::Interrupted);
        }
        if let (Some(transfer), Some(error)) = (&mut end.transfer, &end.error) {
            transfer.fail(client::outcome_of(error), error.to_string());
        }
        client.enter(Stage::Ended);
        end
    })
}

/// One client's way.
struct Visit<'a> {
    fetch: &'a Fetch,
    order: &'a Order,
    client: &'a Client,
    number: u16,
}

/// Speaks to the server from the socket at which the payload comes.
struct Voice<'a> {
    fetch: &'a Fetch,
    socket: UdpSocket,
    server: SocketAddr,
    nonce: u64,
    /// What the server waits for before it sends anything; said again until something comes.
    ready: Vec<u8>,
    begun: bool,
}

impl Voice<'_> {
    fn send(&self, datagram: &[u8]) -> Result<()> {
        match self.socket.send_to(datagram, self.server) {
            Ok(_) => Ok(()),
            // What came back for an earlier datagram: a server that is not there is found by its
            // silence.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(Error::io("speak to the server", self.server)(error)),
        }
    }

    /// What the server says in a datagram, if it is for this client.
    fn heard<'d>(&self, datagram: &'d [u8]) -> Option<Word<'d>> {
        let greet = Greet::decode(datagram).ok()?;
        (greet.nonce == self.nonce).then_some(greet.word)
    }
}

impl Control for Voice<'_> {
    fn peer(&self) -> SocketAddr {
        self.server
    }

    fn say(&mut self, line: &[u8]) -> Result<()> {
        let line = std::str::from_utf8(line).expect("lines are text");
        let (nonce, word) = (self.nonce, Word::Line(line));
        self.send(&Greet { nonce, word }.encode())
    }

    fn look(&mut self) -> Result<()> {
        if self.fetch.is_stopped() {
            return Err(Error::Interrupted);
        }
        if !self.begun {
            let ready = self.ready.clone();
            self.say(&ready)?;
        }
        Ok(())
    }

    fn take(&mut self, datagram: &[u8]) -> Result<bool> {
        if self.fetch.is_stopped() {
            return Err(Error::Interrupted);
        }
        match self.heard(datagram) {
            None => {
                self.begun = true;
                Ok(false)
            }
            Some(Word::Line(line)) => Err(reception::told(self.server, line)),
            Some(Word::Refused(reason)) => {
                Err(Error::refused(self.server, crate::text::escape(reason)))
            }
            Some(_) => Ok(true),
        }
    }
}

impl Visit<'_> {
    fn run(&self, end: &mut End) -> Result<()> {
        self.client.enter(Stage::Joining);
        let (inlet, mut voice, welcome) = self.knock()?;
        let (order, info, server) = (self.order, &welcome.file, voice.server);
        if let Some(file) = order.file.as_ref().filter(|file| **file != info.name) {
            let what = format!("offered '{}' and not '{file}'", info.name);
            return Err(Error::protocol(server, what));
        }
        if let Some(sha1) = order.sha1.filter(|sha1| *sha1 != info.sha1) {
            let reason = format!(
                "it offers '{}' with the SHA-1 {}, not {sha1}",
                info.name, info.sha1
            );
            return Err(Error::refused(server, reason));
        }
        // Each is the only seat of its session, so the copies of a process are told apart by its
        // own numbers.
        let name = order.copy_name(SeatId(self.number), &info.name)?;
        let mut part = Part::open_holed(
            &order.out,
            &name,
            info.bytes,
            info.sha1,
            self.number,
            order.resume,
        )?;
        let offset = part.resumed();
        let want = info.bytes - offset;
        if let Err(error) = order.needs_room(want) {
            if offset == 0 {
                part.discard();
            }
            return Err(error);
        }
        self.client.expect(want);
        end.offer = Some(Offer {
            session: welcome.session,
            seat: SEAT,
            clients: 1,
            via: Via::Udp,
            file: info.clone(),
        });
        let name = order.name_of(self.number)?;
        let transfer = end
            .transfer
            .insert(Transfer::new(SEAT, name.as_str(), Outcome::Complete));
        transfer.client = voice.socket.local_addr().ok();
        transfer.server = Some(server);
        transfer.bytes_resumed = offset;

        self.client.enter(Stage::Receiving);
        end.released_at = Some(clock::wall());
        let released = clock::now();
        voice.ready = FromClient::Ready { offset }.encode();
        voice.look()?;
        let mut source = Source::Own(inlet);
        part.begin_holes()?;
        let taken = self.receive(&mut source, &mut voice, &welcome, &mut part, transfer);
        transfer.bytes_client = Some(self.client.moved().load(Ordering::Relaxed));
        let copied = taken.and_then(|taken| {
            transfer.counts = taken.counts;
            transfer.seconds_client = Some(taken.last.since(released));
            let bytes = want;
            let last = FromClient::Last { bytes }.encode();
            self.ask(&mut source, &mut voice, &last, &|word| {
                (*word == Word::Heard).then_some(())
            })?;
            self.client.enter(Stage::Verifying);
            let part = self.prove(part, info, released, transfer)?;
            if order.durable {
                part.sync()?;
                transfer.seconds_durable = Some(clock::now().since(released));
            }
            Ok((part.publish(order.durable)?, taken))
        });
        let (path, taken) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                self.fail(&mut source, &mut voice, &error, transfer);
                return Err(error);
            }
        };
        transfer.verified = Some(true);
        transfer.first_client = taken.first.map(|first| (clock::id(), first));
        end.path = Some(path);
        let receipt = Receipt {
            bytes: want,
            sha1: info.sha1,
            last: transfer.seconds_client.unwrap_or_default(),
            hashed: transfer.seconds_verified.unwrap_or_default(),
            durable: transfer.seconds_durable,
            first: transfer.first_client,
            counts: taken.counts,
        };
        self.conclude(&mut source, &mut voice, receipt, end);
        Ok(())
    }

    /// Knocks at each address in turn, and again while the order's patience lasts.
    fn knock(&self) -> Result<(Inlet, Voice<'_>, Welcome)> {
        let patience = clock::now().after(self.order.retry);
        let begun = clock::now();
        loop {
            for &server in &self.order.server {
                let mut inlet = Inlet::open(own_address(server)?)?;
                let mut voice = Voice {
                    fetch: self.fetch,
                    socket: inlet.voice()?,
                    server,
                    nonce: clock::random(),
                    ready: Vec::new(),
                    begun: false,
                };
                if let Some(welcome) = self.knock_at(&mut inlet, &mut voice)? {
                    return Ok((inlet, voice, welcome));
                }
            }
            if clock::left(patience).is_none() {
                let at = self.order.server.first();
                return Err(Error::TimedOut {
                    phase: Phase::Offer,
                    at: at.map_or_else(String::new, ToString::to_string),
                    after: clock::now().since(begun),
                });
            }
        }
    }

    fn knock_at(&self, inlet: &mut Inlet, voice: &mut Voice<'_>) -> Result<Option<Welcome>> {
        let begun = clock::now();
        let mut knock = Knock::new(voice.nonce, self.order.file.clone(), inlet.room(), begun);
        let server = voice.server;
        while let Some(_left) = clock::left(begun.after(KNOCK_LIMIT)) {
            if self.fetch.is_stopped() {
                return Err(Error::Interrupted);
            }
            if let Some(hello) = knock.poll_transmit(clock::now()) {
                voice.send(&hello)?;
            }
            let came = inlet.receive();
            let came = came.map_err(Error::io("receive datagrams", server))?;
            let Some((from, segment, bytes)) = came.filter(|(from, ..)| same(*from, server)) else {
                continue;
            };
            log::trace!("{} bytes from {from}", bytes.len());
            for datagram in bytes.chunks(segment.max(1)) {
                let refused = |reason: String| Error::refused(server, crate::text::escape(&reason));
                if let Some(welcome) = knock.handle(datagram, clock::now()).map_err(refused)? {
                    return Ok(Some(welcome));
                }
            }
        }
        Ok(None)
    }

    /// Takes the payload in.
    fn receive(
        &self,
        source: &mut Source,
        voice: &mut Voice<'_>,
        welcome: &Welcome,
        part: &mut Part,
        transfer: &mut Transfer,
    ) -> Result<Taken> {
        let range = part.resumed()..welcome.file.bytes;
        let now = clock::now();
        if range.is_empty() {
            return Ok(Taken::nothing(now));
        }
        let Source::Own(inlet) = &*source else {
            unreachable!("a client by itself is in no group");
        };
        let receiver = Receiver::new(
            welcome.session.0 as u32,
            welcome.file.bytes,
            block_len(welcome.datagram, false),
            range.start,
            How::Unicast,
            (window(inlet.room(), welcome.datagram) / 4).max(1),
            now,
        );
        let server = voice.server.ip().to_canonical();
        let holed = Cell::new(None);
        let target = Target {
            order: self.order,
            file: part.file(),
            moved: self.client.moved(),
            holed: &holed,
        };
        let writer = Writer::new(part.file());
        let taken = Reception::new(How::Unicast, receiver, writer, server, range, now)
            .with_port(voice.server.port())
            .run(&target, source, voice);
        if let Some(holed) = holed.take() {
            transfer.counts = holed.counts;
            if holed.cut {
                part.end_holes();
            }
        }
        taken
    }

    /// Hashes what is on disk; a copy with another digest is removed.
    fn prove(
        &self,
        part: Part,
        info: &FileInfo,
        released: Moment,
        transfer: &mut Transfer,
    ) -> Result<Part> {
        let found = digest_of(part.file(), info.bytes, |_| {}).map_err(|stop| match stop {
            Stop::Disk(error) => Error::io("read the copy back", part.shown())(error),
            _ => Error::Corrupt {
                what: format!("{} was truncated by another program", part.shown()),
            },
        })?;
        transfer.seconds_verified = Some(clock::now().since(released));
        if found == info.sha1 {
            return Ok(part);
        }
        transfer.verified = Some(false);
        part.discard();
        Err(Error::Corrupt {
            what: format!("'{}': its SHA-1 is {found}, not {}", info.name, info.sha1),
        })
    }

    /// Says `line` until the server answers it.
    fn ask<T>(
        &self,
        source: &mut Source,
        voice: &mut Voice<'_>,
        line: &[u8],
        answer: &dyn Fn(&Word<'_>) -> Option<T>,
    ) -> Result<T> {
        let Source::Own(inlet) = source else {
            unreachable!("a client by itself is in no group");
        };
        for _ in 0..TRIES {
            voice.say(line)?;
            let again = clock::now().after(AGAIN);
            while clock::left(again).is_some() {
                if self.fetch.is_stopped() {
                    return Err(Error::Interrupted);
                }
                let came = inlet.receive();
                let came = came.map_err(Error::io("receive datagrams", voice.server))?;
                let Some((from, segment, bytes)) = came else {
                    continue;
                };
                if !same(from, voice.server) {
                    continue;
                }
                let mut words = bytes
                    .chunks(segment.max(1))
                    .filter_map(|datagram| voice.heard(datagram));
                if let Some(answer) = words.find_map(|word| match word {
                    Word::Line(line) => match answer(&word) {
                        Some(answer) => Some(Ok(answer)),
                        None => Some(Err(reception::told(voice.server, line))),
                    },
                    word => answer(&word).map(Ok),
                }) {
                    return answer;
                }
            }
        }
        Err(Error::TimedOut {
            phase: Phase::Receipt,
            at: voice.server.to_string(),
            after: AGAIN * TRIES,
        })
    }

    /// Attests the copy and hears the server's account, without which it is no less proven.
    fn conclude(
        &self,
        source: &mut Source,
        voice: &mut Voice<'_>,
        receipt: Receipt,
        end: &mut End,
    ) {
        let line = FromClient::Receipt(receipt).encode();
        let summary = self.ask(source, voice, &line, &|word| match word {
            Word::Line(line) => match FromServer::decode(line) {
                Ok(FromServer::Summary(summary)) => Some(summary),
                _ => None,
            },
            _ => None,
        });
        match (summary, &mut end.transfer) {
            (Ok(summary), Some(transfer)) => {
                transfer.bytes_server = Some(summary.bytes);
                transfer.seconds_server = summary.last;
                transfer.woke = Some(summary.woke);
                transfer.first_server = summary.first;
                transfer.counts = summary.counts;
                transfer.reason = summary.reason;
                end.sender = Some(summary.sender);
            }
            (Err(error), _) => log::warn!("no summary: {error}"),
            (Ok(_), None) => {}
        }
    }

    /// Tells the server, as far as it hears.
    fn fail(&self, source: &mut Source, voice: &mut Voice<'_>, error: &Error, transfer: &Transfer) {
        let line = FromClient::Fail {
            outcome: client::outcome_of(error),
            bytes: transfer.bytes_client.unwrap_or(0),
            reason: error.to_string(),
            last: None,
            counts: transfer.counts,
        }
        .encode();
        if self.fetch.is_stopped() {
            // Nobody waits any more.
            let _ = voice.say(&line);
        } else if let Err(error) = self.ask(source, voice, &line, &|word| {
            (*word == Word::Heard).then_some(())
        }) {
            log::debug!("{error}");
        }
    }
}

/// The address of this host from which `server` is reached.
fn own_address(server: SocketAddr) -> Result<IpAddr> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let route = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(server)?;
        socket.local_addr()
    });
    Ok(route.map_err(Error::io("find a way to", server))?.ip())
}

fn same(from: SocketAddr, server: SocketAddr) -> bool {
    (from.ip().to_canonical(), from.port()) == (server.ip().to_canonical(), server.port())
}
