//! The chain as a server sends by it: the first link at the gate.

use std::{
    net::{IpAddr, TcpStream},
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use crate::{
    error::Result,
    net::{clock, copy, pacing::Pacer},
    server::{
        catalog::Source,
        gate::SeatConnection,
        transport::{
            ControlExtension, NativeJob, SendPlan, SendResult, SendSession, TransferFailure,
            Transport,
        },
    },
    session::Via,
    transport::{
        ProgressWatch,
        chain::{
            feed::FeedSpec,
            members::{ChainMembers, Chains, random_token},
        },
        congestion, cut,
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

impl Transport for ChainTransport {
    fn via(&self) -> Via {
        Via::Chain
    }

    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>> {
        Ok(Box::new(ChainSession {
            chains: Arc::clone(&self.chains),
            has_key: self.has_key,
            source: Arc::clone(&plan.source),
            rate: plan.rate,
            members: OnceLock::new(),
        }))
    }
}

impl ChainSession {
    fn members(&self, seat: &SeatConnection) -> &ChainMembers {
        self.members.get_or_init(|| {
            let spec = FeedSpec {
                session: seat.session.id,
                token: random_token(),
                file: self.source.file.clone(),
                bytes: self.source.info.bytes,
                stall: seat.session.stall,
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
        job: &mut NativeJob<'_, '_>,
    ) -> Result<(), TransferFailure> {
        let offset = job.range.start;
        let (members, mut watch) = (self.members(seat), ProgressWatch::new(offset));
        loop {
            if let Some(line) = job.next_line(CHECK_EVERY)? {
                job.end_with(line, self.source.info.bytes);
                return Ok(());
            }
            let has = members.progress(seat.id);
            if watch.update(seat, has, "byte")? {
                seat.moved.store(has - offset, Ordering::Relaxed);
            }
        }
    }
}

impl SendSession for ChainSession {
    fn only_peers(&self) -> Vec<IpAddr> {
        let members = self.members.get().filter(|_| self.has_key);
        members.into_iter().flat_map(|members| members.addresses()).collect()
    }

    fn description(&self, stream: &TcpStream) -> String {
        format!("chain, {}", congestion(stream))
    }

    fn control(&self) -> Option<&dyn ControlExtension> {
        Some(self)
    }
}

impl ControlExtension for ChainSession {
    fn terms(&self, seat: &SeatConnection) -> Vec<u8> {
        self.members(seat).terms(seat).encode()
    }

    fn send_native(&self, seat: &SeatConnection, mut job: NativeJob<'_, '_>) -> SendResult {
        let is_empty = job.range.is_empty();
        drop(seat.release().fair_start.guard());
        let members = self.members(seat);
        members.release(job.range.end);
        let deadline = clock::now().after(seat.session.stall);
        let end = match copy::send_all(&seat.stream, &job.preface, deadline) {
            Err(_) => Err(cut("the connection failed at GO")),
            Ok(()) if is_empty => Ok(()),
            Ok(()) => self.wait(seat, &mut job),
        };
        let mut until = clock::now();
        if end.is_err() {
            members.drop_member(seat.id);
        } else if !is_empty {
            until = until.after(COUNT_LIMIT);
        }
        let sent = members.feed.sent(seat.id, until);
        seat.moved.store(sent.bytes, Ordering::Relaxed);
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
