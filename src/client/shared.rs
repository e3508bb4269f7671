//! One client as its thread and the faces share it.

use std::{
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use crate::net::lock;

/// One client of this process: how far it is, and its connection.
#[derive(Debug)]
pub struct Client {
    stage: AtomicU8,
    /// Where payload bytes are counted.
    pub(crate) moved: AtomicU64,
    bytes: AtomicU64,
    /// Ready clients in the upper half, wanted ones in the lower; zero before the first WAIT.
    muster: AtomicU64,
    stream: Mutex<Option<Arc<TcpStream>>>,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientStage {
    /// Looking for the server.
    Connecting,
    /// Getting a seat, and ready to receive.
    Joining,
    /// At the gate.
    Waiting,
    /// Receiving.
    Receiving,
    /// Computing the digest of the copy.
    Verifying,
    /// Done, one way or the other.
    Ended,
}

/// A client as a face shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// What it is doing.
    pub stage: ClientStage,
    /// Payload bytes received.
    pub moved: u64,
    /// Payload bytes to come in all; 0 until it is known.
    pub bytes: u64,
    /// Clients ready at the gate, as the server said last, and how many it waits for.
    pub muster: Option<(u16, u16)>,
}

impl Client {
    pub(super) fn new() -> Self {
        Self {
            stage: AtomicU8::new(ClientStage::Connecting as u8),
            moved: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            muster: AtomicU64::new(0),
            stream: Mutex::new(None),
        }
    }

    /// Goes on to `stage`.
    pub(crate) fn set_stage(&self, stage: ClientStage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// So many payload bytes are to come.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// The server says how many clients of its muster are ready.
    pub(super) fn set_muster(&self, ready: u16, clients: u16) {
        let both = u64::from(ready) << 16 | u64::from(clients);
        self.muster.store(both, Ordering::Relaxed);
    }

    /// The connection that [`Client::shut`] ends; `None` once the conversation is over.
    pub(super) fn set_stream(&self, stream: Option<Arc<TcpStream>>) {
        *lock(&self.stream) = stream;
    }

    /// Ends what it reads; it can still tell the server why it ends.
    pub(super) fn shut(&self) {
        if let Some(stream) = &*lock(&self.stream) {
            // A connection that is gone already needs no closing.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    pub(super) fn view(&self) -> ClientView {
        let stage = self.stage.load(Ordering::Relaxed);
        let muster = self.muster.load(Ordering::Relaxed);
        let half = |bits: u64| u16::try_from(bits & 0xffff).expect("sixteen bits");
        ClientView {
            stage: ClientStage::ALL[usize::from(stage)].0,
            moved: self.moved.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            muster: (muster != 0).then(|| (half(muster >> 16), half(muster))),
        }
    }
}

impl ClientStage {
    /// All stages in their order, and their words in documents.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Connecting, "connecting"),
        (Self::Joining, "joining"),
        (Self::Waiting, "waiting"),
        (Self::Receiving, "receiving"),
        (Self::Verifying, "verifying"),
        (Self::Ended, "ended"),
    ];

    /// Its word in documents.
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}
