//! The clients of one process as they run, a thread each.

use std::{
    net::TcpStream,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    client::{
        config::FetchConfig,
        download::Download,
        messages::CONNECT_LIMIT,
        part::{EarlySync, PublishedCopy},
        report::ClientReport,
        shared::{Client, ClientView},
    },
    error::{Error, Result},
    net::{STACK, clock, lock, socket},
    proto::manifest::Manifest,
    text::debug_fields,
    units::Moment,
};

/// The clients of one fetch as they run.
#[derive(Debug)]
pub struct FetchRun {
    clients: Vec<Arc<Client>>,
    /// Set when the user wants it to end.
    pub stopped: AtomicBool,
    receiving: Mutex<ReceivingClients>,
    none_receives: Condvar,
    /// The manifest of the folder that the clients fetch: one for all who were sent the same.
    manifest: Mutex<Option<Arc<Manifest>>>,
}

/// Those that are receiving.
#[derive(Default)]
struct ReceivingClients {
    /// How many there are.
    count: usize,
    /// How their copies come to the disk meanwhile.
    syncs: Vec<EarlySync>,
    /// All clients are through.
    are_over: bool,
}

debug_fields!(ReceivingClients, count);

/// A client that is receiving, until this is dropped.
pub(super) struct Receiving<'a> {
    run: &'a FetchRun,
    sync: Option<EarlySync>,
}

/// Ends [`FetchRun::sync_early`] when it is dropped, by a panic too.
struct EndOfSync<'a>(&'a FetchRun);

/// While copies come, what has come is written to the disk so often, so that the sync at the end
/// has little left. A transfer that is over sooner is left alone.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

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
        let mut receiving = lock(&self.run.receiving);
        receiving.count -= 1;
        if let Some(own) = &self.sync {
            receiving.syncs.retain(|sync| !Arc::ptr_eq(sync, own));
        }
        if receiving.count == 0 {
            self.run.none_receives.notify_all();
        }
    }
}

impl Drop for EndOfSync<'_> {
    fn drop(&mut self) {
        lock(&self.0.receiving).are_over = true;
        self.0.none_receives.notify_all();
    }
}

impl FetchRun {
    /// Clients for `config`, not yet started.
    pub fn new(config: &FetchConfig) -> Self {
        let clients = (0..config.clients).map(|_| Arc::new(Client::new())).collect();
        Self {
            clients,
            stopped: AtomicBool::new(false),
            receiving: Mutex::default(),
            none_receives: Condvar::new(),
            manifest: Mutex::default(),
        }
    }

    /// `manifest`, or the same one that another client was sent.
    pub(super) fn shared(&self, manifest: Arc<Manifest>) -> Arc<Manifest> {
        let mut known = lock(&self.manifest);
        Arc::clone(match &mut *known {
            Some(known) if *known == manifest => known,
            known => known.insert(manifest),
        })
    }

    /// A client begins to receive; `sync` writes to the disk what it has.
    pub(super) fn begin_receiving(&self, sync: Option<EarlySync>) -> Receiving<'_> {
        let mut receiving = lock(&self.receiving);
        receiving.count += 1;
        receiving.syncs.extend(sync.clone());
        Receiving { run: self, sync }
    }

    /// Syncs the copies that have been coming for a while, until all clients are through.
    fn sync_early(&self) {
        let mut known: Vec<EarlySync> = Vec::new();
        loop {
            let receiving = lock(&self.receiving);
            let wait =
                self.none_receives.wait_timeout_while(receiving, SYNC_PERIOD, |now| !now.are_over);
            let now = wait.unwrap_or_else(PoisonError::into_inner).0;
            if now.are_over {
                return;
            }
            let due =
                now.syncs.iter().filter(|sync| known.iter().any(|old| Arc::ptr_eq(old, sync)));
            let due: Vec<_> = due.cloned().collect();
            known.clone_from(&now.syncs);
            drop(now);
            for sync in due {
                if let Err(error) = sync() {
                    log::debug!("a copy was not written to the disk early: {error}");
                }
            }
        }
    }

    /// Waits until no client of this process receives, for [`HASH_PAUSE`] at most: the digests of
    /// those that are done would take the processor from those that are not.
    pub(super) fn wait_for_receivers(&self) {
        let receiving = lock(&self.receiving);
        drop(self.none_receives.wait_timeout_while(receiving, HASH_PAUSE, |now| now.count > 0));
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
            let syncing = thread::Builder::new().name("sync".to_owned()).stack_size(STACK);
            if config.durable
                && let Err(error) = syncing.spawn_scoped(scope, || self.sync_early())
            {
                log::debug!("no copy is written to the disk early: {error}");
            }
            let _ending = EndOfSync(self);
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

    /// # Errors
    /// Every client is to end.
    pub(crate) fn may_go_on(&self) -> Result<()> {
        if self.is_stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// True when every client is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Verifies the copy of a client from disk, gives it its name, and says in `end` what it is and
    /// when, from `released` on. Returns where it is.
    ///
    /// # Errors
    /// It is another file, or cannot be read or named.
    pub(crate) fn prove(
        &self,
        download: Download,
        config: &FetchConfig,
        released: Moment,
        end: &mut ClientReport,
    ) -> Result<PathBuf> {
        let transfer = end.transfer.as_mut().expect("it has a row while it receives");
        let file = &mut end.offer.as_mut().expect("it has an offer while it receives").file;
        let checked = download.verify(|_| self.may_go_on())?;
        transfer.seconds_verified = Some(clock::now().since(released));
        let verified =
            checked.whole(&file.name).inspect_err(|_| transfer.verified = Some(false))?;
        file.sha1 = verified.sha1;
        transfer.verified = verified.is_proven().then_some(true);
        if config.durable {
            verified.sync()?;
        }
        let PublishedCopy { path, is_durable } = verified.publish(config.durable)?;
        transfer.seconds_durable = is_durable.then(|| clock::now().since(released));
        Ok(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lasting_transfers_are_synced_early() {
        let run = FetchRun::new(&FetchConfig::new(Vec::new()));
        let (early, synced) = crossbeam_channel::bounded(1);
        let sync = |name: &'static str| -> EarlySync {
            let early = early.clone();
            Arc::new(move || {
                let _ = early.try_send(name);
                Ok(())
            })
        };
        thread::scope(|scope| {
            scope.spawn(|| run.sync_early());
            drop(run.begin_receiving(Some(sync("short"))));
            let lasting = run.begin_receiving(Some(sync("lasting")));
            let first = synced.recv_timeout(Duration::from_secs(20)).expect("a sync");
            assert_eq!(first, "lasting");
            drop(lasting);
            assert!(lock(&run.receiving).syncs.is_empty());
            drop(EndOfSync(&run));
        });
    }
}
