//! A server: the files, the sessions, the log and the port, put together.
//!
//! The services register with it: a way of sending, a handler for a greeting. It knows none.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crossbeam_channel::Receiver;

use crate::{
    error::Result,
    net::shared_reply::SharedReply,
    proto::greeting::Greeting,
    server::{
        admission::Admission,
        catalog::Catalog,
        config::ServerConfig,
        conversation,
        downloads::Downloads,
        echo::EchoLimits,
        listener::{Connection, ConnectionHandler, Listener},
        lobby::Lobby,
        session_log::{LogHandle, SessionLogger},
        transport::Transport,
    },
    text::debug_fields,
    transfer::Record,
};

/// What serves one kind of client in a server.
pub type GreetingHandler = Arc<dyn Fn(Connection, &Arc<Lobby>) + Send + Sync>;

/// A server being put together.
#[must_use]
pub struct ServerCoreBuilder {
    /// How its sessions will run.
    pub settings: ServerConfig,
    /// The offered files.
    pub catalog: Catalog,
    log_dir: Option<PathBuf>,
    transports: Vec<Box<dyn Transport>>,
    services: Vec<(Greeting, GreetingHandler)>,
    /// What it will send outside of sessions.
    pub downloads: Arc<Downloads>,
}

/// A server at work.
#[derive(Debug)]
pub struct ServerCore {
    lobby: Arc<Lobby>,
    listener: Listener,
    logger: SessionLogger,
}

/// How long connections may take to end after the server was stopped.
const LEAVE: Duration = Duration::from_secs(2);

impl ServerCoreBuilder {
    /// A server of `catalog`'s files that speaks the native protocol, and has no way of sending
    /// yet.
    pub fn new(catalog: Catalog, settings: ServerConfig) -> Self {
        let (offered, echoes) = (SharedReply::default(), EchoLimits::default());
        let native: GreetingHandler = Arc::new(move |connection, lobby| {
            conversation::serve(connection, lobby, &offered, &echoes);
        });
        Self {
            downloads: Downloads::new(settings.rate),
            settings,
            catalog,
            log_dir: None,
            transports: Vec::new(),
            services: vec![(Greeting::Native, native)],
        }
    }

    /// Writes a session log for each session into `folder`.
    pub fn log_to(mut self, folder: impl Into<PathBuf>) -> Self {
        self.log_dir = Some(folder.into());
        self
    }

    /// Adds a way of sending.
    pub fn transport(mut self, transport: Box<dyn Transport>) -> Self {
        self.transports.push(transport);
        self
    }

    /// Adds what serves the clients of `greeting`.
    pub fn handler(mut self, greeting: Greeting, service: GreetingHandler) -> Self {
        self.services.push((greeting, service));
        self
    }

    /// Computes the digest of every file that has none yet, so that no client waits for it.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn digest(&self, progress: crate::server::catalog::HashProgress<'_>) -> Result<()> {
        self.catalog.names().try_for_each(|name| self.catalog.open(name, progress).map(|_| ()))
    }

    /// Starts serving on `addr`.
    ///
    /// # Errors
    /// The address cannot be listened on, or the system refuses a thread.
    pub fn start(self, addr: SocketAddr) -> Result<ServerCore> {
        let logger = SessionLogger::start(self.log_dir)?;
        let (admission, log) = (Admission::of_server(), logger.log_handle());
        let sessions = Arc::clone(&admission);
        let lobby = Lobby::new(self.settings, self.catalog, self.transports, log, sessions);
        let mut handlers: HashMap<Greeting, ConnectionHandler> = HashMap::new();
        for (greeting, service) in self.services {
            let lobby = Arc::clone(&lobby);
            handlers.insert(greeting, Arc::new(move |connection| service(connection, &lobby)));
        }
        let listener = Listener::start_with(addr, handlers, admission)?;
        lobby.listens(listener.addr());
        Ok(ServerCore { lobby, listener, logger })
    }
}

impl ServerCore {
    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// A way to write to its log, for what is served beside its sessions.
    pub fn log_handle(&self) -> LogHandle {
        self.logger.log_handle()
    }

    /// Its sessions.
    pub fn lobby(&self) -> &Arc<Lobby> {
        &self.lobby
    }

    /// The sessions that have ended, each once it is in the log.
    pub fn records(&self) -> Receiver<Record> {
        self.logger.records.clone()
    }

    /// Ends every session and connection, writes the log's last lines, and returns the records
    /// that nobody took.
    ///
    /// # Errors
    /// The session log could not be written; the sessions went on without it.
    pub fn stop(self) -> Result<Vec<Record>> {
        let Self { lobby, mut listener, logger } = self;
        listener.stop();
        lobby.stop();
        if !lobby.wait_idle(LEAVE) {
            log::warn!("some sessions did not end within {} s", LEAVE.as_secs());
        }
        let left = listener.close_all(LEAVE);
        if left > 0 {
            log::warn!("{left} connections did not end within {} s", LEAVE.as_secs());
        }
        drop((lobby, listener));
        let records = logger.records.clone();
        logger.finish()?;
        Ok(records.try_iter().collect())
    }
}

debug_fields!(ServerCoreBuilder, settings);
