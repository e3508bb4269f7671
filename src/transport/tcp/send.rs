//! TCP as a way of sending, and its fair start.
//!
//! The barrier releases all seats at once, and a bare barrier is not a fair start: the threads
//! that wake first fill their socket buffers before the last have run, so that 25 bodies begin 8
//! to 50 ms apart on two cores. So each seat first sends its preface and at most [`FIRST_BLOCK`]
//! bytes in one write, then waits for its client's answer (a native client says HELD, another
//! gets a [`GRACE`]) and for the other seats to come as far. Only then do the bodies flow.
//! `benches/README.md` has what that gives and what it costs.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    net::{
        self, clock, copy,
        copy::{Copying, Stop},
        pacing::Pacer,
        primitives::{TcpStream, atomic::Ordering, thread},
        socket,
    },
    proto::native::{LAST_WORDS_MAX, encode_last_words},
    server::{
        catalog::Source,
        config::ServerConfig,
        gate::{ClientKind, MusterEnd, SeatConnection},
        transport::{SendJob, SendPlan, SendResult, SendSession, TransferFailure, Transport},
    },
    session::Via,
    transfer::{Evidence, Outcome},
    transport::{congestion, cut, source_changed},
    units::micros,
};

/// The way. HTTP differs from it only in the head before the payload.
#[derive(Clone, Debug)]
pub struct TcpTransport {
    via: Via,
    method: copy::Method,
    congestion: Option<String>,
    fair_start: bool,
}

/// TCP for one session.
#[derive(Debug)]
struct TcpSession {
    transport: TcpTransport,
    buffer: usize,
    pacer: Option<Pacer>,
    /// The first block of the file, read before the gate: most seats open with it.
    head: Vec<u8>,
}

/// Most payload in the opening write, bytes. Small, so that no seat gains by being first.
pub const FIRST_BLOCK: usize = 1024;

/// How long a native client waits with its answer, for each seat of its session: what it takes
/// two cores to open one. Answers that came earlier would be served before the last seats are
/// opened, and delay them.
pub const HOLD: Duration = Duration::from_micros(30);

/// What a client gets that cannot answer its first block.
pub const GRACE: Duration = Duration::from_millis(2);

/// How long the fair start waits for answers at most: a client that is slow to wake, or dead,
/// costs the others no more than this. The part for each seat is what it takes two cores to
/// wake a thousand clients.
fn patience(seats: usize) -> Duration {
    Duration::from_millis(50)
        + Duration::from_micros(100) * u32::try_from(seats).unwrap_or(u32::MAX)
}

impl TcpTransport {
    /// TCP as `settings` ask for it, for sessions `via` TCP or HTTP.
    ///
    /// # Errors
    /// This system has no such copy or congestion control, or does not allow it.
    pub fn new(via: Via, settings: &ServerConfig) -> Result<Self> {
        let method = settings.copy.resolved()?;
        if let Some(name) = &settings.congestion {
            // Asked of a connection to nowhere, so that a wrong word is an error at the start and
            // not one for each client.
            probe(name)
                .map_err(Error::io("choose the congestion control", crate::text::escape(name)))?;
        }
        let congestion = settings.congestion.clone();
        Ok(Self { via, method, congestion, fair_start: settings.fair_start })
    }
}

impl Transport for TcpTransport {
    fn via(&self) -> Via {
        self.via
    }

    fn serves_http(&self) -> bool {
        true
    }

    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>> {
        let SendPlan { source, clients, rate } = plan;
        let buffer = if *clients > 256 { copy::COPY_BUF_MANY } else { copy::COPY_BUF };
        Ok(Box::new(TcpSession {
            transport: self.clone(),
            buffer,
            pacer: rate.map(Pacer::new),
            head: first_block(source, 0..source.info.bytes).unwrap_or_default(),
        }))
    }
}

impl SendSession for TcpSession {
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()> {
        let Some(name) = &self.transport.congestion else {
            socket::leave_bbr_within_host(stream);
            return Ok(());
        };
        socket::set_congestion(stream, name)
            .map_err(Error::io("choose the congestion control", crate::text::escape(name)))
    }

    fn has_fair_start(&self) -> bool {
        self.transport.fair_start
    }

    fn description(&self, stream: &TcpStream) -> String {
        format!("{}, {}", self.transport.method.word(), congestion(stream))
    }

    fn send(&self, seat: &SeatConnection, job: SendJob<'_>) -> SendResult {
        let opening = seat.release();
        let duty = opening.fair_start.guard();
        let until = clock::now().after(patience(opening.admitted));
        let SendJob { preface, range, answer } = job;
        let (stream, source) = (&seat.stream, &seat.session.source);

        let opened = self.open(seat, preface, &range);
        let first = opened
            .as_ref()
            .ok()
            .and_then(|&len| (len > 0).then(|| clock::now().since(opening.released())));
        let end = opened.and_then(|len| {
            if self.transport.fair_start {
                match seat.kind {
                    ClientKind::Native if len > 0 => answer(until),
                    ClientKind::Native => {}
                    ClientKind::Lab | ClientKind::Http => thread::sleep(GRACE),
                }
                duty.arrive_and_wait(until);
                net::lower_priority();
            } else {
                drop(duty);
            }
            let copying = Copying {
                buffer: self.buffer,
                pacer: self.pacer.as_ref(),
                stopped: Some(&seat.stopping),
                ..Copying::new(self.transport.method, seat.session.stall, &seat.moved)
            };
            let seen = copy::send(&source.file, range.start + len..range.end, stream, copying)?;
            seat.note(Evidence {
                paced_us: self.pacer.as_ref().map(|_| micros(seen.paced)),
                queued_bytes: seen.queued,
                ..Evidence::default()
            });
            Ok(())
        });
        net::lower_priority();
        let missing = (range.end - range.start).saturating_sub(seat.moved.load(Ordering::Relaxed));
        SendResult { first, end: end.map_err(|stop| self.explain(seat, stop, missing)) }
    }
}

impl TcpSession {
    /// Sends the preface and the first block in one write; returns the block's length.
    fn open(
        &self,
        seat: &SeatConnection,
        mut preface: Vec<u8>,
        range: &std::ops::Range<u64>,
    ) -> Result<u64, Stop> {
        let read;
        let block = match range.start {
            0 if !self.head.is_empty() => &self.head,
            _ => {
                read = first_block(&seat.session.source, range.clone())?;
                &read
            }
        };
        preface.extend_from_slice(block);
        let len = block.len();
        if let Some(pacer) = &self.pacer {
            pacer.grant(len as u64);
        }
        let deadline = clock::now().after(seat.session.stall);
        copy::send_all(&seat.stream, &preface, deadline)?;
        seat.moved.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len as u64)
    }

    /// What a copy's end means for the seat; tells a native client why its payload ends early.
    fn explain(&self, seat: &SeatConnection, stop: Stop, missing: u64) -> TransferFailure {
        let session = &seat.session;
        let moved = session.source.info.bytes - missing.min(session.source.info.bytes);
        match stop {
            Stop::Peer(error) => cut(format!("the connection was lost at byte {moved}: {error}")),
            Stop::Stopped => {
                let reason = MusterEnd::Stopped.to_string();
                // A payload with less to come would take the words for its rest.
                if seat.kind == ClientKind::Native && missing > LAST_WORDS_MAX as u64 {
                    send_last_words(seat, &reason, missing);
                }
                cut(reason)
            }
            Stop::Stalled => {
                let limit = session.stall.as_secs_f64();
                TransferFailure::new(
                    Outcome::TimedOut,
                    format!("stalled for {limit} s at byte {moved}"),
                )
            }
            Stop::Short | Stop::Disk(_) => {
                let reason = match (session.source.change(), stop) {
                    (Some(changed), _) => changed,
                    (None, Stop::Disk(error)) => {
                        format!("the source cannot be read at byte {moved}: {error}")
                    }
                    (None, _) => format!("the source ended at byte {moved}"),
                };
                if seat.kind == ClientKind::Native {
                    send_last_words(seat, &reason, missing);
                }
                source_changed(reason)
            }
        }
    }
}

/// Reads what the opening write takes of `range`.
fn first_block(source: &Source, range: std::ops::Range<u64>) -> Result<Vec<u8>, Stop> {
    let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut block = vec![0; left.min(FIRST_BLOCK)];
    let mut len = 0;
    while len < block.len() {
        match copy::read_at(&source.file, &mut block[len..], range.start + len as u64) {
            Ok(read) => len += read,
            Err(Stop::Short) if len > 0 => break,
            Err(stop) => return Err(stop),
        }
    }
    block.truncate(len);
    Ok(block)
}

/// Says why the payload ends: with last words behind it, or, where they would be taken for the
/// rest of it, with zeros in their place and an ERROR after them.
fn send_last_words(seat: &SeatConnection, reason: &str, missing: u64) {
    let words = encode_last_words(seat.session.id, reason);
    let short = usize::try_from(missing).ok().filter(|&missing| missing <= words.len());
    let said = match short {
        Some(missing) => vec![0; missing],
        None => words,
    };
    // The client may be gone too; its row has the reason all the same.
    let deadline = clock::now().after(Duration::from_secs(1));
    if copy::send_all(&seat.stream, &said, deadline).is_ok() && short.is_none() {
        let _ = seat.stream.shutdown(std::net::Shutdown::Write);
    }
}

/// Sets the congestion control of a socket that connects to ourselves and is dropped.
fn probe(name: &str) -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    socket::set_congestion(&stream, name)
}
