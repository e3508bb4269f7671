//! What a way of sending is to a client: something that takes the bytes in after GO.

use std::any::Any;
use std::cell::Cell;
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

use crate::error::Error;
use crate::proto::native::Offer;
use crate::runtime::control::client::Order;
use crate::runtime::dialogue::Dialogue;
use crate::session::Via;
use crate::transfer::Counts;
use crate::units::Moment;

/// One way of receiving.
pub trait Intake: fmt::Debug + Send + Sync {
    /// Its word.
    fn via(&self) -> Via;

    /// Opens what must be open before the release, before this client says READY; the terms of
    /// the offer, where its way has any, are the next line.
    ///
    /// # Errors
    /// Why this client cannot be sent to.
    fn open(&self, order: &Order, dialogue: &mut Dialogue<'_>) -> Result<Mouth, Error> {
        let _ = (order, dialogue);
        Ok(Mouth::default())
    }

    /// Takes the payload in, after GO was heard.
    ///
    /// # Errors
    /// Why it ended early; `incoming.moved` says how far it came.
    fn receive(&self, incoming: &Incoming<'_>, dialogue: &mut Dialogue<'_>)
    -> Result<Taken, Error>;
}

/// What is to come, and where it goes.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The control connection.
    pub stream: &'a TcpStream,
    /// The seat and the file.
    pub offer: &'a Offer,
    /// What the user asked for.
    pub order: &'a Order,
    /// Where the bytes go, each at its own place.
    pub file: &'a File,
    /// The part that is to come.
    pub range: Range<u64>,
    /// Counts the payload bytes as they move.
    pub moved: &'a AtomicU64,
    /// What [`Intake::open`] opened.
    pub mouth: RefCell<Mouth>,
    /// What is known of a payload that is over and has holes, for a way that ends with an error.
    pub holed: Cell<Option<Holed>>,
}

/// What an intake opened before the release, for itself.
#[derive(Debug, Default)]
pub struct Mouth(pub Option<Box<dyn Any + Send>>);

/// A payload that is over and not whole.
#[derive(Clone, Copy, Debug)]
pub struct Holed {
    /// When it was over, if its sender said so.
    pub last: Option<Moment>,
    /// What this way counted.
    pub counts: Counts,
}

/// A payload that is in.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// When its first byte was read; `None` when there was none.
    pub first: Option<Moment>,
    /// When its last byte was in.
    pub last: Moment,
    /// What this way counts.
    pub counts: Counts,
}
