//! The chain as a client receives from it, and passes it on.

use std::{
    collections::BTreeSet,
    io,
    io::Read,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    client::{
        messages::{OFFER_LIMIT, server_error},
        receive::{
            self, PrepareContext, ReceiveContext, ReceiveError, ReceiveSession, ReceiveTransport,
            Received,
        },
    },
    error::{Error, Phase, Result},
    net::{clock, copy, line_stream::LineStream},
    proto::{chain::words::ChainLine, greeting::Greeting, native::FromServer},
    server::listener::{ConnectionHandler, Listener},
    session::Via,
    transfer::{Counts, Evidence},
    transport::chain::{
        feed::{Feed, FeedSpec},
        upstream::{Upstream, UpstreamLink},
    },
    units::Moment,
};

/// Receives from a chain.
#[derive(Clone, Copy, Debug)]
pub struct ChainReceiver;

/// One client of a chain.
#[derive(Debug)]
struct ChainReceiving {
    feed: Arc<Feed>,
    upstream: Arc<Upstream>,
    listener: Listener,
}

/// How far a copy is.
#[derive(Debug, Default)]
struct Taking {
    at: u64,
    reported: u64,
    report_due: Moment,
    first: Option<Moment>,
    last: Moment,
    from_peers: u64,
    buffer: Vec<u8>,
}

/// How often the server is told how far a client is, and how long one read waits.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Read at a time, bytes.
const READ_MAX: usize = 256 << 10;

/// A client that takes nothing for so long is given up by the one before it; the server has stepped
/// over it long before.
const LINK_STALL: Duration = Duration::from_secs(30);

/// How long a client that is whole waits for others that take nothing.
const LINGER_LIMIT: Duration = Duration::from_secs(10);

/// How long the server's last words may take.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(200);

impl ReceiveTransport for ChainReceiver {
    fn via(&self) -> Via {
        Via::Chain
    }

    fn prepare(&self, context: PrepareContext<'_, '_>) -> Result<Box<dyn ReceiveSession>> {
        let PrepareContext { lines, offer, file } = context;
        let server = lines.peer;
        let line = lines.read_line(clock::now().after(OFFER_LIMIT), Phase::Offer)?;
        let Ok(ChainLine::Terms(token)) = ChainLine::decode(&line) else {
            return Err(Error::protocol(server, "no terms of its chain"));
        };
        let feed = Feed::new(FeedSpec {
            session: offer.session,
            token,
            file: file.clone(),
            bytes: offer.file.bytes,
            stall: LINK_STALL,
            pacer: None,
        });
        let serving = Arc::clone(&feed);
        let handler: ConnectionHandler = Arc::new(move |connection| {
            let (stream, peer) = (&connection.stream, connection.peer);
            if let Err(error) = serving.serve(stream, peer, &connection.first, connection.deadline)
            {
                log::debug!("{peer}: {error}");
            }
        });
        let at = SocketAddr::new(lines.local()?.ip(), 0);
        let listener = Listener::start(at, [(Greeting::Chain, handler)].into())?;
        let (session, seat, port) = (offer.session, offer.seat, listener.addr().port());
        let join = ChainLine::Join { session, seat, token, port };
        let upstream = Upstream::join(server, session, seat, join)?;
        Ok(Box::new(ChainReceiving { feed, upstream, listener }))
    }
}

impl ReceiveSession for ChainReceiving {
    fn limit_peers(&self, addresses: BTreeSet<IpAddr>) {
        let addresses = addresses.into_iter().map(|ip| ip.to_canonical());
        self.feed.limit_to(addresses.collect());
    }

    fn receive(
        &mut self,
        context: &ReceiveContext<'_>,
        lines: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        let now = clock::now();
        let mut taking = Taking {
            at: context.range.start,
            report_due: now,
            last: now,
            buffer: vec![0; READ_MAX],
            ..Taking::default()
        };
        self.feed.hold(taking.at);
        self.report(&mut taking, now);
        let mut step = 0;
        while taking.at < context.range.end {
            let Some(link) = self.upstream.after(step, clock::now().after(REPORT_EVERY)) else {
                may_go_on(context, &taking)?;
                if self.upstream.is_gone() {
                    return Err(gone(context, lines, taking.at).into());
                }
                continue;
            };
            step = link.step;
            self.take(&link, context, &mut taking)?;
            if taking.at < context.range.end && self.upstream.is_current(&link) {
                log::debug!("seat {}: the link of step {step} is lost", context.offer.seat);
                // A server that is gone is noticed above.
                let _ = self.upstream.send(ChainLine::Lost(step));
            }
        }
        let counts = Counts {
            bytes_from_server: Some(taking.at - context.range.start - taking.from_peers),
            bytes_from_peers: Some(taking.from_peers),
            ..Counts::default()
        };
        let evidence = Evidence::default();
        Ok(Received { first: taking.first, last: taking.last, counts, evidence })
    }

    fn serve_others(self: Box<Self>, stopped: &AtomicBool) {
        let (mut sent, mut until) = (0, clock::now().after(LINGER_LIMIT));
        while clock::left(until).is_some() && !stopped.load(Ordering::Relaxed) {
            let (links, bytes) = self.feed.progress();
            if links == 0 {
                return;
            }
            if bytes != sent {
                (sent, until) = (bytes, clock::now().after(LINGER_LIMIT));
            }
            thread::sleep(REPORT_EVERY / 10);
        }
    }
}

impl ChainReceiving {
    /// Takes over `link` until it ends, another takes its place or all is there.
    fn take(
        &self,
        link: &UpstreamLink,
        context: &ReceiveContext<'_>,
        taking: &mut Taking,
    ) -> Result<()> {
        let deadline = clock::now().after(REPORT_EVERY);
        let asked = copy::send_all(&link.stream, &ChainLine::Take(taking.at).encode(), deadline);
        if asked.is_err() || link.stream.set_read_timeout(Some(REPORT_EVERY)).is_err() {
            return Ok(());
        }
        while taking.at < context.range.end {
            may_go_on(context, taking)?;
            let left = usize::try_from(context.range.end - taking.at).unwrap_or(usize::MAX);
            let len = left.min(taking.buffer.len());
            match (&*link.stream).read(&mut taking.buffer[..len]) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    copy::write_at(context.file, &taking.buffer[..len], taking.at).map_err(
                        |stop| {
                            let moved = (taking.at - context.range.start, left as u64);
                            receive::stopped(stop, "the disk", context.config, moved)
                        },
                    )?;
                    taking.at += len as u64;
                    taking.last = clock::now();
                    taking.first.get_or_insert(taking.last);
                    taking.from_peers += if link.is_server { 0 } else { len as u64 };
                    context.moved.fetch_add(len as u64, Ordering::Relaxed);
                    self.feed.hold(taking.at);
                    if taking.last >= taking.report_due || taking.at == context.range.end {
                        self.report(taking, taking.last);
                    }
                }
                Err(error) if Error::is_timeout(&error) => self.report(taking, clock::now()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Tells the server how far the copy is.
    fn report(&self, taking: &mut Taking, now: Moment) {
        if taking.reported < taking.at {
            taking.reported = taking.at;
            // A server that is gone is noticed when a link is lost.
            let _ = self.upstream.send(ChainLine::At(taking.at));
        }
        taking.report_due = now.after(REPORT_EVERY);
    }
}

impl Drop for ChainReceiving {
    fn drop(&mut self) {
        self.feed.close();
        self.upstream.close();
        self.listener.stop();
        // Threads that are ending only read.
        self.feed.spec.file.unlock();
    }
}

fn may_go_on(context: &ReceiveContext<'_>, taking: &Taking) -> Result<()> {
    if context.stopped.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    if clock::now().since(taking.last) > context.config.stall {
        return Err(Error::timed_out(Phase::Transfer, "the chain", context.config.stall));
    }
    Ok(())
}

/// Why nobody gives any more: in the server's words, where it said some.
fn gone(context: &ReceiveContext<'_>, lines: &mut LineStream<'_>, at: u64) -> Error {
    let peer = lines.peer;
    let said = lines.read_line(clock::now().after(LAST_WORDS_LIMIT), Phase::Transfer);
    match said.map(|line| FromServer::decode(&line)) {
        Ok(Ok(FromServer::Error { code, reason })) => server_error(peer, code, reason),
        _ => {
            let moved = (at, context.range.end);
            let eof = io::ErrorKind::UnexpectedEof.into();
            receive::stopped(copy::Stop::Peer(eof), peer, context.config, moved)
        }
    }
}
