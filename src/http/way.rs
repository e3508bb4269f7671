//! HTTP as a way of sending: TCP's stream with an HTTP head before it.
//!
//! A session `via http` is for clients that ask by HTTP. After the release its bytes are sent by
//! TCP's own carrier, so that the two ways differ in nothing but the words before the payload. A
//! native client that leaves the way to the server gets the same stream after GO.

use std::sync::Arc;

use crate::client::receive::PrepareContext;
use crate::client::receive::ReceiveSession;
use crate::client::receive::ReceiveTransport;
use crate::error::Result;
use crate::net::line_stream::LineStream;
use crate::server::catalog::Source;
use crate::server::config::ServerConfig;
use crate::server::transport::SendSession;
use crate::server::transport::Transport;
use crate::session::Via;
use crate::transport::tcp;
use crate::units::Rate;

/// The way as a server has it.
#[derive(Debug)]
pub struct Http(tcp::send::Tcp);

/// The way as a native client has it.
#[derive(Clone, Copy, Debug)]
pub struct Take;

impl Http {
    /// HTTP as `settings` ask for it.
    ///
    /// # Errors
    /// As [`tcp::send::Tcp::new`].
    pub fn new(settings: &ServerConfig) -> Result<Self> {
        tcp::send::Tcp::new(settings).map(Self)
    }
}

impl Transport for Http {
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

impl ReceiveTransport for Take {
    fn via(&self) -> Via {
        Via::Http
    }

    fn prepare(
        &self,
        arriving: &PrepareContext<'_>,
        lines: &mut LineStream<'_>,
    ) -> Result<Box<dyn ReceiveSession>> {
        tcp::take::Tcp.prepare(arriving, lines)
    }
}
