//! HTTP as a transport: TCP's stream with an HTTP head before it.
//!
//! A session `via http` is for clients that ask by HTTP. After the release TCP's own send session
//! moves its bytes, so that the two transports differ only in the head before the payload. A
//! native client that leaves the transport to the server gets the same stream after GO.

use std::sync::Arc;

use crate::{
    client::receive::{PrepareContext, ReceiveSession, ReceiveTransport},
    error::Result,
    net::line_stream::LineStream,
    server::{
        catalog::Source,
        config::ServerConfig,
        transport::{SendSession, Transport},
    },
    session::Via,
    transport::tcp,
    units::Rate,
};

/// The transport of a server.
#[derive(Debug)]
pub struct HttpTransport(tcp::send::TcpTransport);

/// The transport of a native client.
#[derive(Clone, Copy, Debug)]
pub struct HttpReceive;

impl HttpTransport {
    /// HTTP with the given settings.
    ///
    /// # Errors
    /// As [`tcp::send::TcpTransport::new`].
    pub fn new(settings: &ServerConfig) -> Result<Self> {
        tcp::send::TcpTransport::new(settings).map(Self)
    }
}

impl Transport for HttpTransport {
    fn via(&self) -> Via {
        Via::Http
    }

    fn prepare(
        &self,
        source: &Arc<Source>,
        clients: u16,
        rate: Option<Rate>,
    ) -> Result<Box<dyn SendSession>> {
        self.0.prepare(source, clients, rate)
    }

    fn serves_http(&self) -> bool {
        true
    }
}

impl ReceiveTransport for HttpReceive {
    fn via(&self) -> Via {
        Via::Http
    }

    fn prepare(
        &self,
        arriving: &PrepareContext<'_>,
        lines: &mut LineStream<'_>,
    ) -> Result<Box<dyn ReceiveSession>> {
        tcp::receive::TcpReceiver.prepare(arriving, lines)
    }
}
