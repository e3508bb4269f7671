//! The clients of one process as they run, a thread each.

use std::{
    net::TcpStream,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    client::{
        config::FetchConfig,
        messages::CONNECT_LIMIT,
        report::ClientReport,
        shared::{Client, ClientView},
    },
    error::{Error, Result},
    net::{STACK, clock, lock, socket},
};

/// The clients of one fetch as they run.
#[derive(Debug)]
pub struct FetchRun {
    clients: Vec<Arc<Client>>,
    pub(super) stopped: AtomicBool,
    /// How many of them are receiving.
    receiving: Mutex<usize>,
    none_receives: Condvar,
}

/// A client that is receiving, until this is dropped.
pub(super) struct Receiving<'a>(&'a FetchRun);

/// How long a client that is done waits for the others of its process before it hashes: longer
/// than clients of one host take to end after each other, and no more than its sign of life.
const HASH_PAUSE: Duration = Duration::from_secs(1);

/// Pause between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Open files that a process with so many clients needs.
pub fn descriptors(clients: u16) -> u64 {
    // A socket and a file each, and a pipe's two reports.
    u64::from(clients) * 4 + 64
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        let mut receiving = lock(&self.0.receiving);
        *receiving -= 1;
        if *receiving == 0 {
            self.0.none_receives.notify_all();
        }
    }
}

impl FetchRun {
    /// Clients for `config`, not yet started.
    pub fn new(config: &FetchConfig) -> Self {
        let clients = (0..config.clients).map(|_| Arc::new(Client::new())).collect();
        Self {
            clients,
            stopped: AtomicBool::new(false),
            receiving: Mutex::new(0),
            none_receives: Condvar::new(),
        }
    }

    pub(super) fn begin_receiving(&self) -> Receiving<'_> {
        *lock(&self.receiving) += 1;
        Receiving(self)
    }

    /// Waits until no client of this process receives, for [`HASH_PAUSE`] at most: the digests of
    /// those that are done would take the processor from those that are not.
    pub(super) fn wait_for_receivers(&self) {
        let receiving = lock(&self.receiving);
        drop(self.none_receives.wait_timeout_while(receiving, HASH_PAUSE, |count| *count > 0));
    }

    /// Runs every client to its end, each by `work`, which gets the client and its number from 1.
    ///
    /// # Errors
    /// The fetch cannot be begun: too few file descriptors. What happens to
    /// a client after that is in its [`ClientReport`].
    pub fn run_each(
        &self,
        config: &FetchConfig,
        work: &(dyn Fn(&Client, u16) -> ClientReport + Sync),
    ) -> Result<Vec<ClientReport>> {
        let wanted = descriptors(config.clients);
        if let Some(limit) = socket::descriptors(wanted).filter(|&limit| limit < wanted) {
            let reason = format!(
                "{} clients need {wanted} open files and the limit is {limit} (ulimit -n)",
                config.clients
            );
            return Err(Error::refused("the system", reason));
        }
        let reports = thread::scope(|scope| {
            let running: Vec<_> = (1..)
                .zip(&self.clients)
                .map(|(number, client)| {
                    thread::Builder::new()
                        .name(format!("client-{number}"))
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || work(client, number))
                        .map_err(Error::io("start the client's thread", number))
                })
                .collect();
            let ended = |result: Result<thread::ScopedJoinHandle<'_, ClientReport>>| match result {
                Ok(thread) => {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                }
                Err(error) => ClientReport::before_the_seat(error),
            };
            running.into_iter().map(ended).collect()
        });
        Ok(reports)
    }

    /// Stops every client; each comes to its end by itself.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for client in &self.clients {
            client.shut();
        }
    }

    /// What a face shows.
    pub fn views(&self) -> Vec<ClientView> {
        self.clients.iter().map(|client| client.view()).collect()
    }

    /// True when every client is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Set when every client is to end.
    pub(crate) fn stop_flag(&self) -> &AtomicBool {
        &self.stopped
    }

    /// Connects `client`, again and again while the server is not there yet and `config.retry`
    /// lasts; [`FetchRun::stop`] reports the connection.
    ///
    /// # Errors
    /// The server cannot be reached, or the user stopped it.
    pub(crate) fn connect(&self, client: &Client, config: &FetchConfig) -> Result<Arc<TcpStream>> {
        let patience = clock::now().after(config.retry);
        let stream = loop {
            let error = match socket::connect(&config.server, clock::now().after(CONNECT_LIMIT)) {
                Ok(stream) => break Arc::new(stream),
                Err(error) => error,
            };
            let Some(left) = clock::left(patience).filter(|_| !self.is_stopped()) else {
                let step = "is the server (gatecast serve) running there? --retry 30s waits for it";
                let waited = config.retry > Duration::ZERO;
                let step = if waited { "is that the server's port?" } else { step };
                return Err(socket::advise(error, step));
            };
            thread::sleep(left.min(RETRY_PAUSE));
        };
        client.set_stream(Some(Arc::clone(&stream)));
        if self.is_stopped() {
            return Err(Error::Interrupted);
        }
        Ok(stream)
    }
}
