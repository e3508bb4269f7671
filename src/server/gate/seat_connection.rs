//! What a transport needs of a seat: its client's connection, its session and its counter.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    net::{
        lock,
        primitives::{
            Mutex, TcpStream,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        tcp_info,
    },
    proto::hosts::HostList,
    server::{
        catalog::Source,
        gate::{
            pending::{ClientKind, PendingClient},
            release::Release,
        },
    },
    session::{SeatId, SessionId, Via},
    transfer::{Evidence, Outcome, Transfer},
};

/// What a session sends, and to how many; fixed when it begins to muster.
#[derive(Debug)]
pub struct SessionInfo {
    /// Its number.
    pub id: SessionId,
    /// The way the bytes travel, unless another is chosen.
    pub via: Via,
    /// The way that was chosen.
    pub chosen: OnceLock<Via>,
    /// The file.
    pub source: Arc<Source>,
    /// How many seats there are.
    pub clients: u16,
    /// Who has them, in their order; `None` seats whoever comes.
    pub roster: Option<Arc<HostList>>,
    /// How long a ready or moving client may be silent.
    pub stall: Duration,
}

/// One seat's client and session, without the gate.
#[derive(Debug)]
pub struct SeatConnection {
    /// Its number.
    pub id: SeatId,
    /// The kind of its client.
    pub kind: ClientKind,
    name: String,
    /// Its client's address.
    pub peer: SocketAddr,
    /// Its client's connection.
    pub stream: Arc<TcpStream>,
    /// Counts the payload bytes sent to it.
    pub moved: Arc<AtomicU64>,
    /// Its session.
    pub session: Arc<SessionInfo>,
    /// The release that it went through; `None` before.
    release: Option<Arc<Release>>,
    /// Set when the server is ending.
    pub stopping: Arc<AtomicBool>,
    /// What its sender saw of it.
    evidence: Mutex<Evidence>,
}

impl SessionInfo {
    /// The way the bytes travel, as far as is known.
    pub fn via(&self) -> Via {
        self.chosen.get().copied().unwrap_or(self.via)
    }
}

impl SeatConnection {
    pub(super) fn new(
        id: SeatId,
        client: &PendingClient,
        moved: Arc<AtomicU64>,
        session: Arc<SessionInfo>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self {
            id,
            kind: client.kind,
            name: client.name.clone(),
            peer: client.peer,
            stream: Arc::clone(&client.stream),
            moved,
            session,
            release: None,
            stopping,
            evidence: Mutex::default(),
        }
    }

    pub(super) fn set_release(&mut self, release: Arc<Release>) {
        self.release = Some(release);
    }

    pub(super) fn is_released(&self) -> bool {
        self.release.is_some()
    }

    /// The release that it went through.
    ///
    /// # Panics
    /// Before the release: bytes are sent, and receipts read, only behind the gate.
    pub fn release(&self) -> &Release {
        self.release.as_deref().expect("this seat went through the gate")
    }

    /// The server is ending: a thread that waits for more of this client goes on without it.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Keeps what its sender saw of it.
    pub fn note(&self, evidence: Evidence) {
        let mut known = lock(&self.evidence);
        *known = known.or(evidence);
    }

    /// What its sender saw, and the system where the payload `fills_control`, its own connection.
    pub fn evidence(&self, fills_control: bool) -> Evidence {
        let noted = *lock(&self.evidence);
        if fills_control { noted.or(tcp_info::evidence(&self.stream)) } else { noted }
    }

    /// A row for the log with what is known of this client.
    pub fn transfer(&self) -> Transfer {
        let mut transfer = Transfer::new(self.id, self.name.clone(), Outcome::Complete);
        transfer.client = Some(self.peer);
        transfer.server = self.stream.local_addr().ok();
        transfer
    }
}
