//! Which services this program has: each is registered here and nowhere else.

use std::sync::Arc;

use crate::client::receive::ReceiveTransport;
use crate::error::Result;
use crate::http;
use crate::http::Documents;
use crate::http::connection::Reply;
use crate::report::csv;
use crate::report::json::SessionDocument;
use crate::report::scaling;
use crate::server::builder::ServerCoreBuilder;
use crate::transport::swarm;
use crate::transport::swarm::torrents::Options;
use crate::transport::swarm::torrents::Torrents;
use crate::transport::tcp;
use crate::transport::udp;
use crate::transport::udp::config::UdpConfig;

/// Gives a server every way of sending and every kind of client; `face` says how its HTTP face
/// behaves. Beside it the swarms that it will serve.
///
/// # Errors
/// The settings ask for what this system does not have.
pub fn serve(
    host: ServerCoreBuilder,
    face: http::Options,
    datagrams: UdpConfig,
    swarms: Options,
) -> Result<(ServerCoreBuilder, Arc<Torrents>)> {
    let (host, torrents) = swarm::serve(udp::serve(tcp::serve(host)?, datagrams), swarms);
    let answering = Arc::clone(&torrents);
    let face = http::Options {
        documents: DOCUMENTS,
        extra: Some(Arc::new(move |request, peer, local, lobby| {
            let query = request.query.as_deref().unwrap_or_default();
            let reply = answering.answer(lobby, &request.path, query, peer, local)?;
            Some(Reply {
                status: reply.status,
                kind: reply.kind,
                body: reply.body.into(),
                fields: Vec::new(),
            })
        })),
        ..face
    };
    Ok((http::serve(host, face)?, torrents))
}

/// How this program writes sessions, on every face.
pub const DOCUMENTS: Documents = Documents {
    json: Some(|record| SessionDocument::new(record).to_line()),
    csv: Some(csv::transfers),
    svg: Some(|records| scaling::rates(records).to_svg()),
};

/// Every way of receiving.
pub fn intakes() -> Vec<&'static dyn ReceiveTransport> {
    vec![
        &tcp::take::Tcp,
        &udp::take::UDP,
        &udp::take::RAW,
        &udp::take::MULTICAST,
        &http::way::Take,
        &swarm::peer::Swarm,
    ]
}
