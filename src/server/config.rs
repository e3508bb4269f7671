//! How a server runs its sessions.

use std::{sync::Arc, time::Duration};

use crate::{
    net::copy,
    proto::{greeting::Greeting, hosts::HostList, key::Key},
    session::Via,
    text::FileName,
    units::Rate,
};

/// How a server runs its sessions.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The number of seats; `None` leaves it to the clients.
    pub clients: Option<u16>,
    /// Who has these seats, a client each; `None` seats whoever comes.
    pub roster: Option<Arc<HostList>>,
    /// The file for clients that name none.
    pub file: Option<FileName>,
    /// The way; `None` leaves it to the clients, and is TCP when they do not care either.
    pub via: Option<Via>,
    /// Which sessions go the way that is measured to be the fastest.
    pub auto: AutoMode,
    /// How long a muster may last, from its first seat.
    pub max_wait: Duration,
    /// How many ready clients are enough at its end; `None` is all of them.
    pub quorum: Option<u16>,
    /// The rate of payload of a whole session, shared by its seats; `None` is as fast as it goes.
    pub rate: Option<Rate>,
    /// A client that makes no progress for this long is given up.
    pub stall: Duration,
    /// How bytes are copied to a socket.
    pub copy: copy::Method,
    /// The TCP congestion control; `None` leaves the system's.
    pub congestion: Option<String>,
    /// Only one session.
    pub one_off: bool,
    /// Let the seats meet after their first block; off, the barrier alone starts them.
    pub fair_start: bool,
    /// What native clients must prove; `None` serves everybody.
    pub key: Option<Key>,
    /// What is served all the same to clients that cannot prove it.
    pub open: Vec<Greeting>,
}

/// Which sessions go the way that is measured to be the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoMode {
    /// Those whose first client asks for it.
    Asked,
    /// Those too for which neither side names a way, where the first client is gatecast's own and on
    /// another machine.
    Unsaid,
    /// All; `via` is `None` then.
    Always,
}

impl ServerConfig {
    /// Whether these clients are turned away, since they cannot prove the key.
    pub fn closes(&self, clients: Greeting) -> bool {
        self.key.is_some() && !self.open.contains(&clients)
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            clients: None,
            roster: None,
            file: None,
            via: None,
            auto: AutoMode::Asked,
            max_wait: Duration::from_secs(60),
            quorum: None,
            rate: None,
            stall: Duration::from_secs(30),
            copy: copy::Method::Auto,
            congestion: None,
            one_off: false,
            fair_start: true,
            key: None,
            open: Vec::new(),
        }
    }
}
