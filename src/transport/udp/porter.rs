//! Clients that have nothing but datagrams, as the server has them.
//!
//! One thread receives at the door ([`door`](crate::proto::udp::door)) and keeps the guests that
//! were let in. They have no seat at a gate, which needs a connection to hold: each is a session by
//! itself, released when it says READY, sent to by the thread that every session over UDP has, and
//! written to the same log. Until then each of its datagrams is answered by one that is shorter.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::net::copy;
use crate::proto::native::ErrorCode;
use crate::proto::native::FromClient;
use crate::proto::native::FromServer;
use crate::proto::native::Summary;
use crate::proto::udp::CONSENT;
use crate::proto::udp::control::Report;
use crate::proto::udp::cookie::Cookies;
use crate::proto::udp::cookie::KEY;
use crate::proto::udp::door::Comes;
use crate::proto::udp::door::Door;
use crate::proto::udp::greet::Greet;
use crate::proto::udp::greet::Welcome;
use crate::proto::udp::greet::Word;
use crate::proto::udp::packet::DATAGRAM_MAX;
use crate::server::catalog;
use crate::server::lobby::Lobby;
use crate::server::receipt;
use crate::server::session_log::Head;
use crate::server::session_log::Pen;
use crate::server::transport::Failure;
use crate::session::SeatId;
use crate::session::SessionId;
use crate::session::Via;
use crate::text::FileName;
use crate::transfer::Outcome;
use crate::transfer::Transfer;
use crate::transport::udp::attend::TOO_SLOW;
use crate::transport::udp::mend;
use crate::transport::udp::sending::Sending;
use crate::transport::udp::socket;
use crate::units::Moment;

/// The door, open; dropping it ends every guest's session.
#[derive(Debug)]
pub struct Porter {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Most guests at a time.
pub const GUESTS_MAX: usize = 256;

/// How often the thread looks at its guests, and whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a guest whose session is over is still answered: its last word may be said again.
const LINGER: Duration = Duration::from_secs(5);

struct House {
    socket: UdpSocket,
    lobby: Arc<Lobby>,
    pen: Pen,
    door: Door,
    guests: BTreeMap<(SocketAddr, u64), Guest>,
    stop: Arc<AtomicBool>,
}

/// Who was let in.
struct Guest {
    welcome: Welcome,
    source: Arc<catalog::Source>,
    buffer: u32,
    stage: Stage,
    /// When the stage is over unless something is heard.
    until: Moment,
}

enum Stage {
    /// It was told of its file and is not ready yet.
    Welcome,
    /// It is sent to.
    Sending(Box<Sending>),
    /// It has everything and hashes.
    Hashing(Box<Sending>),
    /// It is over; what its last word is answered by.
    Over(Vec<u8>),
}

impl Porter {
    /// Opens the door at `addr` for `lobby`'s files, and logs with `pen`.
    ///
    /// # Errors
    /// The address is taken, or the system refuses a thread.
    pub fn start(addr: SocketAddr, lobby: &Arc<Lobby>, pen: Pen) -> Result<Self> {
        let failed = || Error::io("listen for datagrams", addr);
        let socket = UdpSocket::bind(addr).map_err(failed())?;
        socket
            .set_read_timeout(Some(LOOK_EVERY))
            .map_err(failed())?;
        let addr = socket.local_addr().map_err(failed())?;
        let stop = Arc::new(AtomicBool::new(false));
        let house = House {
            socket,
            lobby: Arc::clone(lobby),
            pen,
            door: Door::new(Cookies::new(secret())),
            guests: BTreeMap::new(),
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("door".to_owned())
            .spawn(move || house.run())
            .map_err(Error::io("start the door's thread", addr))?;
        Ok(Self {
            addr,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the door's thread panicked");
        }
    }
}

/// The key of this process's cookies, from the system where it has a file for that.
fn secret() -> [u8; KEY] {
    let mut key = [0; KEY];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key));
    if read.is_err() {
        for part in key.chunks_mut(8) {
            let random = clock::random().to_le_bytes();
            part.copy_from_slice(&random[..part.len()]);
        }
    }
    key
}

impl House {
    fn run(mut self) {
        let mut buffer = vec![0; usize::from(DATAGRAM_MAX) + 1];
        let mut looked_at = clock::now();
        while !self.stop.load(Ordering::SeqCst) {
            match socket::hear(&self.socket, &mut buffer) {
                Ok((len, from)) => self.hear(&buffer[..len], from),
                Err(error) if Error::is_timeout(&error) => {}
                Err(error) => log::debug!("the door's socket: {error}"),
            }
            if clock::now() >= looked_at.after(LOOK_EVERY) {
                looked_at = clock::now();
                self.look(looked_at);
            }
        }
        for (who, guest) in std::mem::take(&mut self.guests) {
            if let Stage::Sending(sending) | Stage::Hashing(sending) = guest.stage {
                let failure = Failure::new(Outcome::Cut, "the server is ending");
                self.fail(who, guest.welcome.session, *sending, &failure);
            }
        }
    }

    fn say(&self, who: (SocketAddr, u64), word: Word<'_>) {
        let (to, nonce) = who;
        self.send(&Greet { nonce, word }.encode(), to);
    }

    fn send(&self, datagram: &[u8], to: SocketAddr) {
        if let Err(error) = self.socket.send_to(datagram, to) {
            log::debug!("{to}: {error}");
        }
    }

    fn hear(&mut self, datagram: &[u8], from: SocketAddr) {
        let now = clock::now();
        match self.door.handle(datagram, from, now) {
            Comes::Nobody => {}
            Comes::Stranger(answer) => self.send(&answer, from),
            Comes::Guest {
                nonce,
                buffer,
                file,
            } => self.welcome((from, nonce), buffer, file, now),
            Comes::Line { nonce, line } => self.hear_line((from, nonce), line, now),
        }
    }

    /// Tells a client of its file, or why it gets none.
    fn welcome(
        &mut self,
        who: (SocketAddr, u64),
        buffer: u32,
        file: Option<FileName>,
        now: Moment,
    ) {
        let said = match self.guests.get(&who) {
            Some(guest) => Ok(guest.welcome.clone()),
            None => self.admit(who, buffer, file, now),
        };
        match said {
            Ok(welcome) => self.say(who, Word::Welcome(welcome)),
            Err(reason) => {
                log::info!("{}: refused, {reason}", who.0);
                self.say(who, Word::Refused(&reason));
            }
        }
    }

    fn admit(
        &mut self,
        who: (SocketAddr, u64),
        buffer: u32,
        file: Option<FileName>,
        now: Moment,
    ) -> std::result::Result<Welcome, String> {
        let settings = &self.lobby.settings;
        if settings.via.is_some_and(|via| via != Via::Udp) {
            return Err("this server does not send via udp".to_owned());
        }
        if let Some(clients) = settings.clients.filter(|&clients| clients > 1) {
            return Err(format!(
                "this server waits for {clients} clients, which takes a control connection"
            ));
        }
        if self.guests.len() >= GUESTS_MAX {
            return Err(format!("{GUESTS_MAX} clients are being served"));
        }
        let default = settings.file.as_ref().or_else(|| self.lobby.catalog.only());
        let file = file
            .as_ref()
            .or(default)
            .ok_or("several files are offered, and this client named none")?;
        let source = self.lobby.catalog.open(file, &catalog::silent);
        let source = source.map_err(|error| error.to_string())?;
        let welcome = Welcome {
            session: SessionId(clock::random()),
            datagram: settings.datagrams.size,
            file: source.info.clone(),
        };
        let guest = Guest {
            welcome: welcome.clone(),
            source: Arc::new(source),
            buffer,
            stage: Stage::Welcome,
            until: now.after(CONSENT),
        };
        self.guests.insert(who, guest);
        Ok(welcome)
    }

    /// Hears what a guest says, and nobody else.
    fn hear_line(&mut self, who: (SocketAddr, u64), line: &str, now: Moment) {
        let Some(guest) = self.guests.remove(&who) else {
            return;
        };
        if let Some(guest) = self.go_on(who, guest, line, now) {
            self.guests.insert(who, guest);
        }
    }

    fn go_on(
        &self,
        who: (SocketAddr, u64),
        mut guest: Guest,
        line: &str,
        now: Moment,
    ) -> Option<Guest> {
        let session = guest.welcome.session;
        if let (Stage::Sending(sending), true) = (&guest.stage, Report::is_one(line)) {
            // One that cannot be true is dropped, and so is one too many: the next says it all.
            match Report::decode(line, sending.blocks) {
                Ok(report) => sending.tell(report),
                Err(error) => log::debug!("{}: {error}", who.0),
            }
            return Some(guest);
        }
        let message = match FromClient::decode(line) {
            Ok(message) => message,
            Err(error) => {
                log::debug!("{}: {error}", who.0);
                return Some(guest);
            }
        };
        let bytes = guest.welcome.file.bytes;
        (guest.stage, guest.until) = match (guest.stage, message) {
            (Stage::Welcome, FromClient::Ready { offset }) if offset <= bytes => {
                match self.begin(who.0, &guest.welcome, &guest.source, guest.buffer, offset) {
                    Ok(sending) => {
                        // Where nothing is to be sent, nothing but its word can be waited for.
                        let patience = match sending.want {
                            0 => now.after(CONSENT),
                            want => copy::deadline(want, self.lobby.settings.stall),
                        };
                        (Stage::Sending(Box::new(sending)), patience)
                    }
                    Err(error) => {
                        self.say(who, Word::Refused(&error.to_string()));
                        return None;
                    }
                }
            }
            (Stage::Sending(mut sending), FromClient::Last { bytes }) => {
                match sending.take_last(bytes, now) {
                    Ok(()) => {
                        self.say(who, Word::Heard);
                        let patience = mend::patience(guest.welcome.file.bytes);
                        (Stage::Hashing(sending), now.after(patience))
                    }
                    Err(failure) => {
                        let told = self.fail(who, session, *sending, &failure);
                        (Stage::Over(told), now.after(LINGER))
                    }
                }
            }
            (Stage::Hashing(sending), FromClient::Last { .. }) => {
                self.say(who, Word::Heard);
                (Stage::Hashing(sending), guest.until)
            }
            (Stage::Hashing(mut sending), FromClient::Receipt(receipt)) => {
                let (want, sha1) = (sending.want, guest.welcome.file.sha1);
                let mut transfer = sending.transfer();
                if let Err(failure) = receipt::settle(&receipt, want, sha1, &mut transfer) {
                    transfer.fail(failure.outcome, failure.reason);
                }
                sending.tally.account(&mut transfer.counts, false);
                transfer.reason = transfer.reason.or_else(|| guest.source.change());
                let said = FromServer::Summary(Summary {
                    outcome: transfer.outcome,
                    reason: transfer.reason.clone(),
                    bytes: transfer.bytes_server.unwrap_or(0),
                    last: transfer.seconds_server,
                    woke: Duration::ZERO,
                    first: transfer.first_server,
                    sender: sending.sender.clone(),
                    counts: transfer.counts,
                });
                let told = self.conclude(who, session, transfer, &said);
                (Stage::Over(told), now.after(LINGER))
            }
            (
                Stage::Sending(mut sending) | Stage::Hashing(mut sending),
                FromClient::Fail {
                    outcome,
                    bytes,
                    reason,
                    counts,
                    ..
                },
            ) => {
                let mut transfer = sending.transfer();
                (transfer.bytes_client, transfer.counts) = (Some(bytes), counts);
                sending.tally.account(&mut transfer.counts, false);
                let outcome = match outcome {
                    Outcome::Complete => Outcome::Cut,
                    outcome => outcome,
                };
                transfer.fail(outcome, reason);
                self.close(session, transfer);
                self.say(who, Word::Heard);
                let nonce = who.1;
                let word = Word::Heard;
                (
                    Stage::Over(Greet { nonce, word }.encode()),
                    now.after(LINGER),
                )
            }
            (Stage::Over(told), message) => {
                if !matches!(message, FromClient::Ready { .. }) {
                    self.send(&told, who.0);
                }
                (Stage::Over(told), guest.until)
            }
            (stage, _) => (stage, guest.until),
        };
        Some(guest)
    }

    /// Releases a guest's session.
    fn begin(
        &self,
        to: SocketAddr,
        welcome: &Welcome,
        source: &Arc<catalog::Source>,
        buffer: u32,
        offset: u64,
    ) -> Result<Sending> {
        let socket = self.socket.try_clone();
        let socket = socket.map_err(Error::io("send from the door's socket", to))?;
        let rate = self.lobby.settings.rate;
        let sending = Sending::start(to, welcome, source, socket, rate, buffer, offset)?;
        let head = Head {
            via: Via::Udp,
            file: welcome.file.clone(),
            clients: 1,
        };
        self.pen.open(welcome.session, head);
        self.pen
            .release(welcome.session, clock::wall(), sending.sender.clone());
        Ok(sending)
    }

    /// Gives up whom nothing is heard of, and forgets who is over.
    fn look(&mut self, now: Moment) {
        let failed = |guest: &Guest| match &guest.stage {
            Stage::Sending(sending) => sending.tally.failure.get().cloned().or_else(|| {
                let why = match sending.want {
                    0 => "said nothing more, and nothing was to be sent",
                    _ => TOO_SLOW,
                };
                (now >= guest.until).then(|| Failure::new(Outcome::TimedOut, why))
            }),
            Stage::Hashing(_) if now >= guest.until => {
                let why = "silent before its receipt";
                Some(Failure::new(Outcome::TimedOut, why))
            }
            _ => None,
        };
        let failures: Vec<_> = self
            .guests
            .iter()
            .filter_map(|(&who, guest)| Some((who, failed(guest)?)))
            .collect();
        for (who, failure) in failures {
            let Some(mut guest) = self.guests.remove(&who) else {
                continue;
            };
            if let Stage::Sending(sending) | Stage::Hashing(sending) = guest.stage {
                let told = self.fail(who, guest.welcome.session, *sending, &failure);
                guest.stage = Stage::Over(told);
                guest.until = now.after(LINGER);
                self.guests.insert(who, guest);
            }
        }
        self.guests.retain(|_, guest| match guest.stage {
            Stage::Welcome | Stage::Over(_) => now < guest.until,
            Stage::Sending(_) | Stage::Hashing(_) => true,
        });
    }

    /// Writes a failed guest's row, and tells it; what it was told.
    fn fail(
        &self,
        who: (SocketAddr, u64),
        session: SessionId,
        mut sending: Sending,
        failure: &Failure,
    ) -> Vec<u8> {
        let mut transfer = sending.transfer();
        transfer.fail(failure.outcome, failure.reason.clone());
        let code = match failure.source_changed {
            true => ErrorCode::Changed,
            false => ErrorCode::Refused,
        };
        let reason = failure.reason.clone();
        self.conclude(who, session, transfer, &FromServer::Error { code, reason })
    }

    fn conclude(
        &self,
        who: (SocketAddr, u64),
        session: SessionId,
        transfer: Transfer,
        said: &FromServer,
    ) -> Vec<u8> {
        self.close(session, transfer);
        let line = String::from_utf8_lossy(&said.encode()).into_owned();
        let (to, nonce) = who;
        let word = Word::Line(&line);
        let told = Greet { nonce, word }.encode();
        self.send(&told, to);
        told
    }

    fn close(&self, session: SessionId, transfer: Transfer) {
        self.pen.finish(session, transfer);
        self.pen.close(session);
    }
}

/// A guest's only seat.
pub(super) const SEAT: SeatId = SeatId(1);
