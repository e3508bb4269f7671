//! HTTP as a way of sending: TCP's stream with an HTTP head before it.
//!
//! A session `via http` is for clients that ask by HTTP. After the release its bytes are sent by
//! TCP's own carrier, so that the two ways differ in nothing but the words before the payload. A
//! native client that leaves the way to the server gets the same stream after GO.

use std::sync::Arc;

use crate::client::receive::Armed;
use crate::client::receive::Arriving;
use crate::client::receive::Intake;
use crate::error::Result;
use crate::net::line_stream::Dialogue;
use crate::server::catalog::Source;
use crate::server::lobby::Settings;
use crate::server::transport::Carrier;
use crate::server::transport::Way;
use crate::session::Via;
use crate::transport::tcp;

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
    pub fn new(settings: &Settings) -> Result<Self> {
        tcp::send::Tcp::new(settings).map(Self)
    }
}

impl Way for Http {
    fn via(&self) -> Via {
        Via::Http
    }

    fn prepare(
        &self,
        source: &Arc<Source>,
        clients: u16,
        settings: &Settings,
    ) -> Result<Box<dyn Carrier>> {
        self.0.prepare(source, clients, settings)
    }
}

impl Intake for Take {
    fn via(&self) -> Via {
        Via::Http
    }

    fn arm(&self, arriving: &Arriving<'_>, dialogue: &mut Dialogue<'_>) -> Result<Box<dyn Armed>> {
        tcp::take::Tcp.arm(arriving, dialogue)
    }
}
