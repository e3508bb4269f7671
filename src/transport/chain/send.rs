//! The chain as a server sends by it: the first link at the gate.

use std::{
    net::{IpAddr, TcpStream},
    ops::Range,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::{clock, copy, line_stream::LineStream, pacing::Pacer, socket},
    proto::native::FromClient,
    server::{
        catalog::Source,
        gate::SeatConnection,
        transport::{
            ControlExtension, EarlyReply, SendJob, SendResult, SendSession, TransferFailure,
            Transport,
        },
    },
    session::Via,
    transfer::Outcome,
    transport::chain::{
        feed::FeedSpec,
        members::{ChainMembers, Chains, random_token},
    },
    units::Rate,
};

/// Sends by chains.
#[derive(Debug)]
pub struct ChainTransport {
    /// Its sessions.
    pub chains: Arc<Chains>,
    /// Clients prove a key, and take only from those who have.
    pub has_key: bool,
}

/// The chain of one session, which begins with its first seat.
#[derive(Debug)]
struct ChainSession {
    chains: Arc<Chains>,
    has_key: bool,
    source: Arc<Source>,
    rate: Option<Rate>,
    members: OnceLock<Arc<ChainMembers>>,
}

/// How often a seat's progress is looked at.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// How long the end of a link whose client has everything is waited for, to count it.
const COUNT_LIMIT: Duration = Duration::from_secs(2);

/// How often the source file is checked for changes.
const SOURCE_EVERY: Duration = Duration::from_secs(1);

impl Transport for ChainTransport {
    fn via(&self) -> Via {
        Via::Chain
    }

    fn prepare(
        &self,
        source: &Arc<Source>,
        _: u16,
        rate: Option<Rate>,
    ) -> Result<Box<dyn SendSession>> {
        Ok(Box::new(ChainSession {
            chains: Arc::clone(&self.chains),
            has_key: self.has_key,
            source: Arc::clone(source),
            rate,
            members: OnceLock::new(),
        }))
    }
}

impl ChainSession {
    fn members(&self, seat: &SeatConnection) -> &ChainMembers {
        self.members.get_or_init(|| {
            let spec = FeedSpec {
                session: seat.session().id,
                token: random_token(),
                file: self.source.file.clone(),
                bytes: self.source.info.bytes,
                stall: seat.session().stall,
                pacer: self.rate.map(Pacer::new),
            };
            self.chains.begin(seat, spec)
        })
    }

    /// Waits for the client's next line, which is its reply; meanwhile it must get further, whoever
    /// it takes from.
    fn wait(
        &self,
        seat: &SeatConnection,
        offset: u64,
        lines: &mut LineStream<'_>,
        reply: &mut EarlyReply,
    ) -> Result<(), TransferFailure> {
        let (members, stall) = (self.members(seat), seat.session().stall);
        let (mut kept, mut since, mut checked) = (offset, clock::now(), clock::now());
        loop {
            match lines.read_line(clock::now().after(CHECK_EVERY), Phase::Transfer) {
                Ok(line) if FromClient::decode(&line) == Ok(FromClient::Held) => {}
                Ok(line) => {
                    reply.line = Some(line);
                    reply.heard_at = Some(lines.last_read_at());
                    // The others may have sent it all; its digest tells.
                    reply.sent = self.source.info.bytes;
                    return Ok(());
                }
                Err(Error::TimedOut { .. }) => {}
                Err(Error::Protocol { what, .. }) => return Err(cut(what)),
                Err(error) => return Err(cut(error.to_string())),
            }
            let now = clock::now();
            let has = members.progress(seat.id());
            if has > kept {
                (kept, since) = (has, now);
                seat.moved().store(has - offset, Ordering::Relaxed);
            } else if now.since(since) > stall {
                let reason = format!("no new byte for {} s, with {kept}", stall.as_secs_f64());
                return Err(TransferFailure::new(Outcome::TimedOut, reason));
            }
            if now.since(checked) > SOURCE_EVERY {
                checked = now;
                if let Some(reason) = self.source.change() {
                    let outcome = Outcome::Cut;
                    return Err(TransferFailure { outcome, reason, source_changed: true });
                }
            }
        }
    }
}

impl SendSession for ChainSession {
    fn prepare_connection(&self, _: &TcpStream) -> Result<()> {
        Ok(())
    }

    fn fills_control(&self) -> bool {
        false
    }

    fn only_peers(&self) -> Vec<IpAddr> {
        let members = self.members.get().filter(|_| self.has_key);
        members.map(|members| members.addresses()).unwrap_or_default()
    }

    fn description(&self, stream: &TcpStream) -> String {
        let congestion =
            socket::congestion(stream).unwrap_or_else(|| "unknown congestion control".to_owned());
        format!("chain, {congestion}")
    }

    fn control(&self) -> Option<&dyn ControlExtension> {
        Some(self)
    }

    fn send(&self, _: &SeatConnection, _: SendJob<'_>) -> SendResult {
        let reason = "only a gatecast client can receive via chain";
        SendResult { first: None, end: Err(TransferFailure::new(Outcome::Refused, reason)) }
    }
}

impl ControlExtension for ChainSession {
    fn terms(&self, seat: &SeatConnection) -> Vec<u8> {
        self.members(seat).terms(seat).encode()
    }

    fn on_line(&self, seat: &SeatConnection, _: &str) -> Result<()> {
        Err(Error::protocol(seat.id(), "no line of a chain on this connection"))
    }

    fn send_native(
        &self,
        seat: &SeatConnection,
        preface: Vec<u8>,
        range: Range<u64>,
        lines: &mut LineStream<'_>,
        reply: &mut EarlyReply,
    ) -> SendResult {
        drop(seat.release().fair_start.guard());
        let members = self.members(seat);
        members.release(range.end);
        let deadline = clock::now().after(seat.session().stall);
        let end = match copy::send_all(seat.stream(), &preface, deadline) {
            Err(_) => Err(cut("the connection failed at GO")),
            Ok(()) if range.is_empty() => Ok(()),
            Ok(()) => self.wait(seat, range.start, lines, reply),
        };
        let mut until = clock::now();
        if end.is_err() {
            members.drop_member(seat.id());
        } else if !range.is_empty() {
            until = until.after(COUNT_LIMIT);
        }
        let sent = members.feed.sent(seat.id(), until);
        seat.moved().store(sent.bytes, Ordering::Relaxed);
        let released = seat.release().released();
        SendResult { first: sent.first.map(|first| first.since(released)), end }
    }
}

impl Drop for ChainSession {
    fn drop(&mut self) {
        if let Some(members) = self.members.get() {
            self.chains.end(members);
        }
    }
}

fn cut(reason: impl Into<String>) -> TransferFailure {
    TransferFailure::new(Outcome::Cut, reason)
}
