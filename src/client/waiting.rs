//! A client at the gate, from READY to GO: it hears how the muster goes, and may be measured.

use std::{
    collections::BTreeSet,
    net::{IpAddr, TcpStream},
    time::Duration,
};

use crate::{
    client::{
        listen::TrainListener,
        messages::{read_message, server_error},
        receive::ReceiveTransport,
        shared::Client,
    },
    error::{Error, Phase, Result},
    net::{clock, line_stream::LineStream, socket, tcp_info},
    proto::native::{FromClient, FromServer, Offer},
    session::Via,
    transfer::auto::AUTO_WAYS,
};

/// How a client's wait at the gate ends.
pub(super) enum WaitEnd {
    /// GO; where the session's clients are, if the server said so.
    Go(BTreeSet<IpAddr>),
    /// Another way was chosen.
    Offer(Offer),
}

/// How long the gate may be silent; it sends WAIT every second.
const GATE_SILENCE: Duration = Duration::from_secs(10);

/// Those of `transports` of which the server may choose one.
pub(super) fn ways(transports: &[&dyn ReceiveTransport]) -> Vec<Via> {
    let knows = |via: &Via| transports.iter().any(|transport| transport.via() == *via);
    AUTO_WAYS.into_iter().filter(knows).collect()
}

/// At the gate: until GO, or another offer. A measurement is taken part in meanwhile.
pub(super) fn wait(
    (client, transports): (&Client, &[&dyn ReceiveTransport]),
    stream: &TcpStream,
    lines: &mut LineStream<'_>,
    (offer, offset): (&Offer, u64),
) -> Result<WaitEnd> {
    tcp_info::shorten_rto(stream);
    let mut others = BTreeSet::new();
    let mut listener = None;
    let (peer, missing) = (lines.peer, offer.file.bytes - offset);
    loop {
        match read_message(lines, clock::now().after(GATE_SILENCE), Phase::Muster)? {
            FromServer::Wait { ready, clients } => client.set_muster(ready, clients),
            FromServer::Peers(at) if others.len() <= usize::from(offer.clients) => {
                others.extend(at);
            }
            FromServer::Go { bytes } if bytes == missing => return Ok(WaitEnd::Go(others)),
            FromServer::Probe(probe) => {
                let interface = transports.iter().find_map(|way| way.interface());
                listener = TrainListener::join(&probe, interface, lines);
            }
            FromServer::Burst { bytes: 0 } => {
                listener.iter_mut().try_for_each(|train| train.listen(stream, lines))?;
            }
            FromServer::Burst { bytes } => pass_over(bytes, stream, lines)?,
            FromServer::Probed => {
                let datagrams = listener.as_ref().map_or(0, |listener| listener.total);
                lines.write_line(&FromClient::Probed { datagrams }.encode())?;
            }
            FromServer::Offer(new)
                if is_same(&new, offer) && offer.via == Via::Tcp && new.via != Via::Tcp =>
            {
                return Ok(WaitEnd::Offer(new));
            }
            FromServer::Go { bytes } => {
                let what = format!("GO with {bytes} bytes of the {missing} that are missing");
                return Err(Error::protocol(peer, what));
            }
            FromServer::Error { code, reason } => return Err(server_error(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no message for a client at the gate")),
        }
    }
}

/// Whether an offer differs from the first one in its way alone.
fn is_same(new: &Offer, first: &Offer) -> bool {
    *new == Offer { via: new.via, ..first.clone() }
}

/// Reads bytes that are there to be measured.
fn pass_over(bytes: u32, stream: &TcpStream, lines: &mut LineStream<'_>) -> Result<()> {
    let deadline = clock::now().after(GATE_SILENCE);
    let mut left = bytes as usize - lines.take_buffered(bytes.into()).len();
    let mut buffer = [0; 4096];
    while left > 0 {
        let most = left.min(buffer.len());
        let read = socket::read_until(stream, &mut buffer[..most], deadline);
        match read.map_err(Error::io("hear from the other side", lines.peer))? {
            0 => return Err(Error::protocol(lines.peer, "the end of the connection in a burst")),
            read => left -= read,
        }
    }
    Ok(())
}
