//! TCP as a client has it: the payload follows GO on the control connection.

use std::{io, sync::atomic::Ordering, thread};

use crate::{
    client::receive::{
        self, PrepareContext, ReceiveContext, ReceiveError, ReceiveSession, ReceiveTransport,
        Received,
    },
    error::{Error, Result},
    net::{
        arrival, clock, copy,
        copy::{Copying, Stop},
        line_stream::LineStream,
    },
    proto::native::{FromClient, LAST_WORDS_MAX, decode_last_words},
    session::Via,
    transfer::{Counts, Evidence},
    transport::{
        read_all,
        tcp::send::{FIRST_BLOCK, HOLD},
    },
    units::{Moment, micros},
};

/// The way. A native client that leaves it to a server of HTTP gets the same stream after GO.
#[derive(Clone, Copy, Debug)]
pub struct TcpReceiver(Via);

/// For sessions via TCP.
pub const TCP: TcpReceiver = TcpReceiver(Via::Tcp);
/// For sessions via HTTP.
pub const HTTP: TcpReceiver = TcpReceiver(Via::Http);

impl ReceiveTransport for TcpReceiver {
    fn via(&self) -> Via {
        self.0
    }

    fn prepare(&self, _: PrepareContext<'_, '_>) -> Result<Box<dyn ReceiveSession>> {
        Ok(Box::new(*self))
    }
}

impl ReceiveSession for TcpReceiver {
    fn receive(
        &mut self,
        incoming: &ReceiveContext<'_>,
        lines: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError> {
        let left = incoming.range.end - incoming.range.start;
        if left == 0 {
            return Ok(Received::nothing(clock::now()));
        }
        let method = incoming.config.copy.resolved()?;
        // The first block mostly comes with GO, in one read.
        let mut block = lines.take_buffered(left);
        let mut first = lines.came_at;
        if block.is_empty() {
            (block, first) = self.first_block(incoming, left)?;
        }
        thread::sleep(HOLD * u32::from(incoming.offer.clients));
        lines.write_line(&FromClient::Held.encode())?;
        let copying = Copying {
            slowest: copy::slowest_of(incoming.offer.clients),
            stopped: Some(incoming.stopped),
            ..Copying::new(method, incoming.config.stall, incoming.moved)
        };
        let range = incoming.range.clone();
        let times = copy::receive(incoming.stream, incoming.file, range, &block, copying)
            .map_err(|stop| explain(incoming, stop))?;
        let evidence = Evidence {
            read_us: Some(micros(times.read)),
            write_us: Some(micros(times.write)),
            ..Evidence::default()
        };
        let last = times.end(lines.came_at, first);
        Ok(Received { first: Some(first), last, counts: Counts::default(), evidence })
    }
}

impl TcpReceiver {
    fn first_block(self, incoming: &ReceiveContext<'_>, left: u64) -> Result<(Vec<u8>, Moment)> {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(FIRST_BLOCK);
        let mut block = vec![0; want];
        let deadline = clock::now().after(incoming.config.stall);
        match arrival::read_until(incoming.stream, &mut block, deadline) {
            Ok((0, _)) => Err(explain(incoming, Stop::Peer(io::ErrorKind::UnexpectedEof.into()))),
            Ok((len, came)) => {
                block.truncate(len);
                Ok((block, came))
            }
            Err(error) if Error::is_timeout(&error) => Err(explain(incoming, Stop::Stalled)),
            Err(error) => Err(explain(incoming, Stop::Peer(error))),
        }
    }
}

/// What a copy's end means; a payload that just ended may carry the server's last words.
fn explain(incoming: &ReceiveContext<'_>, stop: Stop) -> Error {
    let peer = incoming
        .stream
        .peer_addr()
        .map_or_else(|_| "the server".to_owned(), |addr| addr.to_string());
    let is_cut = matches!(&stop, Stop::Peer(error) if error.kind() == io::ErrorKind::UnexpectedEof);
    if is_cut && let Some(reason) = last_words(incoming) {
        return Error::SourceChanged { at: peer, what: crate::text::escape(&reason) };
    }
    let moved = incoming.moved.load(Ordering::Relaxed);
    let want = incoming.range.end - incoming.range.start;
    receive::stopped(stop, peer, incoming.config, (moved, want))
}

/// Takes the server's last words off the end of what was written.
fn last_words(incoming: &ReceiveContext<'_>) -> Option<String> {
    let end = incoming.range.start + incoming.moved.load(Ordering::Relaxed);
    let begin = end.saturating_sub(LAST_WORDS_MAX as u64).max(incoming.range.start);
    let mut tail = vec![0; usize::try_from(end - begin).ok()?];
    read_all(incoming.file, &mut tail, begin).ok()?;
    let (words, reason) = decode_last_words(incoming.offer.session, &tail)?;
    incoming.moved.fetch_sub(words as u64, Ordering::Relaxed);
    // A failure leaves bytes behind that the digest of a resumed copy would show.
    let _ = incoming.file.cut(end - words as u64);
    Some(reason)
}
