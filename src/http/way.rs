//! HTTP as a way of sending: TCP's stream with an HTTP head before it.
//!
//! A session `via http` is for clients that ask by HTTP. After the release its bytes are sent by
//! TCP's own carrier, so that the two ways differ in nothing but the words before the payload. A
//! native client that leaves the way to the server gets the same stream after GO.

use std::sync::Arc;

use crate::error::Result;
use crate::runtime::catalog::Source;
use crate::runtime::control::intake::Armed;
use crate::runtime::control::intake::Arriving;
use crate::runtime::control::intake::Intake;
use crate::runtime::dialogue::Dialogue;
use crate::runtime::lobby::Settings;
use crate::runtime::way::Carrier;
use crate::runtime::way::Way;
use crate::session::Via;
use crate::tcp;

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
