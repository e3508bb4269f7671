//! A copy that is complete and has the wrong digest: the client finds which pieces are damaged
//! and has their blocks sent again, to itself alone. Formats in [`pieces`].

use std::fs::File;
use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::client::receive::Damaged;
use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::copy;
use crate::net::line_stream::Dialogue;
use crate::proto::native::ErrorCode;
use crate::proto::native::FromServer;
use crate::proto::udp::control::Listen;
use crate::proto::udp::control::window;
use crate::proto::udp::packet::block_len;
use crate::proto::udp::pieces;
use crate::proto::udp::pieces::Pieces;
use crate::proto::udp::receiver::Heard;
use crate::proto::udp::receiver::Receiver;
use crate::proto::udp::receiver::block_count;
use crate::proto::udp::receiver::place;
use crate::session::Via;
use crate::transfer::Counts;
use crate::transport::udp::reception;
use crate::transport::udp::socket::Inlet;
use crate::units::Moment;

/// The slowest hash that is waited for, bytes a second.
const SLOWEST_HASH: u64 = 20_000_000;

/// How long one side may take to hash a file of `bytes`, and to answer.
pub(super) fn patience(bytes: u64) -> Duration {
    Duration::from_secs(30 + bytes / SLOWEST_HASH)
}

/// The digest of each piece of a file.
///
/// # Errors
/// The file cannot be read, or is shorter.
pub(super) fn digests(
    file: &File,
    bytes: u64,
    block_len: usize,
    cut: Pieces,
) -> std::result::Result<Vec<Digest>, copy::Stop> {
    let blocks = block_count(bytes, block_len);
    let mut buffer = vec![0; crate::digest::HASH_BUF];
    let piece = |number: u32| {
        let piece = cut.piece(number, blocks);
        let mut at = place(bytes, block_len, piece.start).0;
        let (last, len) = place(bytes, block_len, piece.end - 1);
        let end = last + len as u64;
        let mut hasher = Hasher::default();
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX);
            let want = want.min(buffer.len());
            let read = copy::read_at(file, &mut buffer[..want], at)?;
            hasher.update(&buffer[..read]);
            at += read as u64;
        }
        Ok(hasher.finish())
    };
    (0..cut.count).map(piece).collect()
}

/// Mends a copy; `None` when no piece of it is damaged, or the server does not know how.
///
/// # Errors
/// The server, the disk or the datagrams failed.
pub(super) fn mend(
    via: Via,
    damaged: &Damaged<'_>,
    dialogue: &mut Dialogue<'_>,
) -> Result<Option<Counts>> {
    let bytes = damaged.offer.file.bytes;
    let deadline = clock::now().after(patience(bytes));
    dialogue.say(format!("{}\n", pieces::DAMAGED).as_bytes())?;
    let peer = dialogue.peer();
    let wrong = |what: String| Error::protocol(peer, what);
    let line = hear(dialogue, deadline)?;
    let cut = Pieces::decode(&line).map_err(|error| wrong(error.to_string()))?;
    let block_len = block_len(cut.datagram, via == Via::Multicast);
    let blocks = block_count(bytes, block_len);
    if cut != Pieces::of(blocks, cut.datagram) {
        return Err(wrong("pieces that are not this file's".to_owned()));
    }
    let mut right: Vec<Digest> = Vec::with_capacity(cut.count as usize);
    while right.len() < cut.count as usize {
        let line = hear(dialogue, deadline)?;
        right.extend(pieces::decode_list(&line).map_err(|error| wrong(error.to_string()))?);
    }
    let own = digests(damaged.file, bytes, block_len, cut).map_err(|stop| disk(damaged, stop))?;
    let bad: Vec<Range<u32>> = (0..cut.count)
        .filter(|&n| own[n as usize] != right[n as usize])
        .map(|n| cut.piece(n, blocks))
        .collect();
    if bad.is_empty() {
        dialogue.say(format!("{}\n", pieces::NOTHING).as_bytes())?;
        return Ok(None);
    }
    log::warn!(
        "seat {}: {} of {} pieces are damaged, asked for again",
        damaged.offer.seat,
        bad.len(),
        cut.count
    );
    let mut inlet = Inlet::open(dialogue.local()?.ip().to_canonical())?;
    let (port, room) = (inlet.port()?, inlet.room());
    let listen = Listen { port, buffer: room };
    dialogue.say(&pieces::encode_mend(&listen))?;
    let mut receiver = Receiver::lacking(
        (damaged.offer.session.0 as u32).wrapping_add(damaged.number),
        bytes,
        block_len,
        &bad,
        (window(room, cut.datagram) / 4).max(1),
        clock::now(),
    );
    let (delivered, replaced) = receive(damaged, dialogue, &mut inlet, &mut receiver)?;
    dialogue.say(format!("{}\n", pieces::MENDED).as_bytes())?;
    let mended = reception::counts(receiver.account(), delivered, inlet.drops());
    Ok(Some(merged(damaged.counts, mended, replaced)))
}

/// Takes in what is missing; how many datagrams came, and how many blocks were other than before.
fn receive(
    damaged: &Damaged<'_>,
    dialogue: &mut Dialogue<'_>,
    inlet: &mut Inlet,
    receiver: &mut Receiver,
) -> Result<(u64, u64)> {
    let server = dialogue.peer().ip().to_canonical();
    let (mut delivered, mut replaced) = (0, 0);
    let mut quiet_since = clock::now();
    let deadline = copy::deadline(damaged.offer.file.bytes, damaged.stall);
    let mut port = None;
    let mut old = Vec::new();
    while !receiver.is_whole() {
        let came = inlet
            .gather(true)
            .map_err(Error::io("receive datagrams", server))?;
        let now = clock::now();
        if let Some((from, segment, bytes)) = came {
            let foreign =
                from.ip().to_canonical() != server || port.is_some_and(|port| port != from.port());
            let known = delivered - receiver.strange();
            let datagrams = bytes.chunks(segment);
            for datagram in datagrams.chain(bytes.is_empty().then_some(bytes)) {
                delivered += 1;
                if foreign {
                    receiver.handle_foreign();
                } else if let Heard::Block { offset, payload } = receiver.handle(datagram, now) {
                    port.get_or_insert_with(|| from.port());
                    old.resize(payload.len(), 0);
                    let mut read = 0;
                    while read < old.len() {
                        let at = offset + read as u64;
                        read += copy::read_at(damaged.file, &mut old[read..], at)
                            .map_err(|stop| disk(damaged, stop))?;
                    }
                    if old != payload {
                        replaced += 1;
                        copy::write_at(damaged.file, payload, offset)
                            .map_err(|stop| disk(damaged, stop))?;
                    }
                }
            }
            if delivered - receiver.strange() > known {
                quiet_since = now;
            }
        }
        for report in receiver.poll_reports(now) {
            dialogue.say(&report.encode().0)?;
        }
        let late = now >= deadline;
        let stopped = damaged.stopped.load(std::sync::atomic::Ordering::SeqCst);
        if stopped || late || now.since(quiet_since) > damaged.stall {
            return Err(Error::TimedOut {
                phase: Phase::Transfer,
                at: dialogue.peer().to_string(),
                after: damaged.stall,
            });
        }
    }
    Ok((delivered, replaced))
}

/// All that came, in both streams. A datagram whose block had to be replaced was a damaged one,
/// and what was sent in its place was lost on the way.
fn merged(first: Counts, second: Counts, replaced: u64) -> Counts {
    // How many datagrams there were is what the server says.
    let sum = |a: Option<u64>, b: Option<u64>| a?.checked_add(b?);
    let bad = first.unique.map_or(0, |unique| unique.min(replaced));
    Counts {
        lost: sum(first.lost, second.lost).and_then(|lost| lost.checked_add(bad)),
        unique: sum(first.unique, second.unique).map(|unique| unique - bad),
        corrupt: sum(first.corrupt, second.corrupt).and_then(|corrupt| corrupt.checked_add(bad)),
        duplicate: sum(first.duplicate, second.duplicate),
        reordered: sum(first.reordered, second.reordered),
        offered: sum(first.offered, second.offered),
        host_rx_drop: sum(first.host_rx_drop, second.host_rx_drop),
        delivered: sum(first.delivered, second.delivered),
        foreign: sum(first.foreign, second.foreign),
        late: sum(first.late, second.late),
        ..first
    }
}

fn hear(dialogue: &mut Dialogue<'_>, deadline: Moment) -> Result<String> {
    let line = dialogue.hear(deadline, Phase::Receipt)?;
    match FromServer::decode(&line) {
        Ok(FromServer::Error { code, reason }) => {
            let (at, reason) = (dialogue.peer(), crate::text::escape(&reason));
            Err(match code {
                ErrorCode::Changed => Error::source_changed(at, &reason),
                _ => Error::refused(at, reason),
            })
        }
        _ => Ok(line),
    }
}

fn disk(damaged: &Damaged<'_>, stop: copy::Stop) -> Error {
    let name = &damaged.offer.file.name;
    let what = format!("mend the copy of '{name}'");
    match stop {
        copy::Stop::Disk(error) | copy::Stop::Peer(error) => Error::io("mend a copy", what)(error),
        copy::Stop::Short | copy::Stop::Stalled => {
            Error::io("mend a copy", what)(io::ErrorKind::UnexpectedEof.into())
        }
    }
}
