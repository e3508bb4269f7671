//! Finds the muster that a client belongs to, and begins one where there is none.
//!
//! There is at most one open muster for a file. A client that asks for another number or another
//! way than the muster's is refused with the reason; one too many begins the next session, or is
//! refused where there is to be only one. Sessions that have been released run on side by side.
//! One lock, held only to look and to add; files are opened and hashed outside it.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock, PoisonError},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{
        STACK, address, clock, lock,
        primitives::{Condvar, Mutex, MutexGuard, thread},
    },
    server::{
        admission::Admission,
        catalog,
        catalog::{Catalog, TREE_OPEN_MAX},
        config::{AutoMode, ServerConfig},
        gate::{
            AutoSetup, ClientKind, Gate, GateView, MusterConfig, PendingClient, SEAT_WAIT, Seat,
            SessionInfo,
        },
        history::History,
        session_log::LogHandle,
        transport::{GroupRoute, SendPlan, Transport},
    },
    session::{FileInfo, SessionId, Via},
    text::{FileName, choice, escape},
    transfer::{Record, auto::is_of_auto},
};

/// What a client asks for; what it leaves open the server decides.
#[derive(Clone, Debug, Default)]
pub struct SeatRequest {
    /// The file.
    pub file: Option<FileName>,
    /// How many clients its group has.
    pub group: Option<u16>,
    /// The way.
    pub via: Option<Via>,
    /// It can take a folder.
    pub takes_trees: bool,
    /// It asks for the fastest way.
    pub auto: bool,
}

/// All sessions of one server.
#[derive(Debug)]
pub struct Lobby {
    /// This run of the server, by a random number.
    pub run: u64,
    /// How they run.
    pub settings: ServerConfig,
    /// What they may send.
    pub catalog: Catalog,
    transports: Vec<Box<dyn Transport>>,
    log: LogHandle,
    admission: Arc<Admission>,
    state: Mutex<LobbyState>,
    ended: Condvar,
    listening: OnceLock<SocketAddr>,
}

#[derive(Debug, Default)]
struct LobbyState {
    gates: Vec<Arc<Gate>>,
    begun: u64,
    stopping: bool,
}

/// What a client can do that asked for another way.
const WITHOUT: &str = "; without --via the client takes that way";

impl Lobby {
    /// A server's sessions, none yet.
    pub fn new(
        settings: ServerConfig,
        catalog: Catalog,
        transports: Vec<Box<dyn Transport>>,
        log: LogHandle,
        admission: Arc<Admission>,
    ) -> Arc<Self> {
        let (state, ended) = (Mutex::default(), Condvar::new());
        Arc::new(Self {
            run: clock::random(),
            settings,
            catalog,
            transports,
            log,
            admission,
            state,
            ended,
            listening: OnceLock::new(),
        })
    }

    /// Gives the client a seat in the session that it wishes for.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, as one clause that the client is told.
    pub fn seat(self: &Arc<Self>, wish: &SeatRequest, mut client: PendingClient) -> Result<Seat> {
        let (file, clients, via) = self.resolve(wish)?;
        if let Some(roster) = &self.settings.roster {
            let seat = roster.seat_of(&client.name, client.peer.ip());
            seat.map_err(|why| Error::refused("the server", why))?;
        }
        if !self.admission.join(client.peer) {
            let ip = client.peer.ip().to_canonical();
            let reason = format!("too many clients of {ip} came and were not ready; try later");
            return Err(Error::refused("the server", reason));
        }
        let until = clock::now().after(SEAT_WAIT);
        let mut patient = true;
        loop {
            patient &= clock::left(until).is_some();
            if let Some(gate) = self.open_muster(&file, clients, via, client.kind, patient)? {
                gate.send_session().prepare_connection(&client.stream)?;
                match Seat::take_until(&gate, client, until) {
                    Ok(seat) => {
                        gate.send_session().on_seated(&seat);
                        return Ok(seat);
                    }
                    // Full, or released a moment ago: the next session.
                    Err(back) => client = back,
                }
                if gate.is_mustering() {
                    if self.settings.roster.is_some() {
                        let reason = format!("'{}' is here already", escape(&client.name));
                        return Err(Error::refused("the server", reason));
                    }
                    patient = false;
                } else if patient {
                    continue;
                }
            }
            let (is_auto, via) = match self.settings.auto {
                AutoMode::Always => (true, None),
                AutoMode::Unsaid if via.is_none() && client.may_be_measured() => (true, None),
                AutoMode::Asked | AutoMode::Unsaid => (wish.auto && via.is_none(), via),
            };
            self.begin(&file, clients, (via.unwrap_or(Via::Tcp), is_auto), &client)?;
        }
    }

    /// The file, the number of clients, and the way where anybody has chosen one.
    fn resolve(&self, wish: &SeatRequest) -> Result<(FileName, u16, Option<Via>)> {
        let refuse = |reason: String| Err(Error::refused("the server", reason));
        let Some(file) = wish.file.as_ref().or_else(|| self.default_file()) else {
            let names = choice(self.catalog.names());
            return refuse(format!(
                "several files are offered, and this client named none: name one of {names}"
            ));
        };
        if self.catalog.is_tree(file) && !wish.takes_trees {
            return refuse(format!("'{file}' is a folder, and this client takes files only"));
        }
        let Some(clients) = self.settings.clients.or(wish.group) else {
            return refuse("neither side says how many clients the group has".to_owned());
        };
        let via = match (self.settings.via, wish.via) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                return refuse(format!("this server sends via {ours}, not via {theirs}{WITHOUT}"));
            }
            (_, Some(theirs)) if self.settings.auto == AutoMode::Always && !is_of_auto(theirs) => {
                return refuse(format!(
                    "this server chooses among its ways, not via {theirs}{WITHOUT}"
                ));
            }
            (ours, theirs) => ours.or(theirs),
        };
        let begun = via.unwrap_or(Via::Tcp);
        if !self.transports.iter().any(|transport| transport.via() == begun) {
            return refuse(format!("this server cannot send via {begun}"));
        }
        Ok((file.clone(), clients, via))
    }

    /// The file for clients that name none.
    pub fn default_file(&self) -> Option<&FileName> {
        self.settings.file.as_ref().or_else(|| self.catalog.only())
    }

    /// The open muster of `file` that has a seat left; for a client that is `patient` also one in which
    /// a seat may become free, as all clients of a group are to come together.
    fn open_muster(
        &self,
        file: &FileName,
        clients: u16,
        via: Option<Via>,
        kind: ClientKind,
        patient: bool,
    ) -> Result<Option<Arc<Gate>>> {
        let state = self.lock();
        let is_ours = |gate: &&Arc<Gate>| {
            let session = &gate.session;
            session.source.info.name == *file
                && (gate.has_room()
                    || patient
                        && session.clients == clients
                        && via.is_none_or(|via| gate.is_undecided() || via == session.via())
                        && gate.may_have_room())
        };
        let refuse = |reason| Err(Error::refused("the server", reason));
        if state.stopping {
            return refuse("it is ending".to_owned());
        }
        let Some(gate) = state.gates.iter().find(is_ours) else {
            return Ok(None);
        };
        let session = &gate.session;
        if session.clients != clients {
            return refuse(format!(
                "the group for '{file}' has {} clients, not {clients}",
                session.clients
            ));
        }
        // An HTTP client is sent to over its own connection, whether or not it says so.
        let is_http = kind == ClientKind::Http && via == Some(Via::Http);
        let fits = |via| via == session.via() || is_http || gate.is_undecided() && is_of_auto(via);
        if let Some(via) = via.filter(|&via| !fits(via)) {
            return refuse(format!(
                "the group for '{file}' goes via {}, not via {via}{WITHOUT}",
                session.via()
            ));
        }
        self.serves(file, session.via(), kind)?;
        Ok(Some(Arc::clone(gate)))
    }

    /// Refuses an HTTP client where no HTTP client can be sent to.
    fn serves(&self, file: &FileName, via: Via, kind: ClientKind) -> Result<()> {
        if kind == ClientKind::Http && !self.transport(via).serves_http() {
            let reason = format!("the group for '{file}' goes via {via}, which no HTTP client can");
            return Err(Error::refused("the server", reason));
        }
        Ok(())
    }

    /// Whether a session of `file` may begin; false where another thread has just begun one.
    fn may_begin(&self, state: &LobbyState, file: &FileName) -> Result<bool> {
        let refuse = |reason| Err(Error::refused("the server", reason));
        if state.stopping {
            return refuse("it is ending");
        }
        // Another first client may have begun it since: then there is room after all.
        let is_of = |gate: &Arc<Gate>| gate.session.source.info.name == *file;
        if state.gates.iter().any(|gate| is_of(gate) && gate.has_room()) {
            return Ok(false);
        }
        if self.settings.one_off && state.begun > 0 {
            return refuse("all seats of this server's only session are taken");
        }
        Ok(true)
    }

    /// Begins a session for its first `client`, unless another thread has just done so. What can
    /// be refused is refused before: a session that nobody can join would wait for its deadline.
    fn begin(
        self: &Arc<Self>,
        file: &FileName,
        clients: u16,
        (via, is_auto): (Via, bool),
        client: &PendingClient,
    ) -> Result<()> {
        self.serves(file, via, client.kind)?;
        if !self.may_begin(&self.lock(), file)? {
            return Ok(());
        }
        let is_tree = self.catalog.is_tree(file);
        let files = if is_tree { TREE_OPEN_MAX + usize::from(clients) } else { 0 };
        let Some(descriptors) = self.admission.hold(files) else {
            let reason = "it has no file descriptors left for another session";
            return Err(Error::refused("the server", reason));
        };
        let source = Arc::new(self.catalog.open(file, &catalog::silent)?);
        let plan = SendPlan { source, clients, rate: self.settings.rate };
        let send_session = self.transport(via).prepare(&plan)?;
        send_session.prepare_connection(&client.stream)?;
        let auto = is_auto.then(|| AutoSetup::new(&self.transports, &plan));
        let session = SessionInfo {
            id: SessionId(clock::random()),
            via,
            chosen: OnceLock::new(),
            source: plan.source,
            clients,
            roster: self.settings.roster.clone(),
            stall: self.settings.stall,
        };
        let muster = MusterConfig {
            quorum: self.settings.quorum.unwrap_or(clients).clamp(1, clients),
            max_wait: self.settings.max_wait,
            lasting: self.settings.clients.is_some(),
        };
        // Looked at again under the lock that adds: two first clients make one session, and none
        // begins once all are told to end.
        let mut state = self.lock();
        if !self.may_begin(&state, file)? {
            return Ok(());
        }
        let (file, key) = (session.source.info.clone(), self.settings.key.is_some());
        let session_id = session.id;
        let record = Record { key, ..Record::new(session_id, via, file, clients) };
        let admission = Arc::clone(&self.admission);
        let gate = Gate::new(session, (send_session, auto), muster, self.log.clone(), admission);
        self.log.open(record);
        let (lobby, running) = (Arc::clone(self), Arc::clone(&gate));
        let started = thread::Builder::new()
            .name(format!("session-{:04x}", session_id.0 >> 48))
            .stack_size(STACK)
            .spawn(move || {
                running.run();
                lobby.forget(&running);
                drop(descriptors);
            });
        if let Err(error) = started {
            self.log.close(session_id);
            return Err(Error::io("start the session's thread", session_id)(error));
        }
        state.gates.push(gate);
        state.begun += 1;
        Ok(())
    }

    /// The transport for `via`, which [`Lobby::resolve`] has found to be there.
    fn transport(&self, via: Via) -> &dyn Transport {
        let found = self.transports.iter().find(|transport| transport.via() == via);
        &**found.expect("a session has a transport that is registered")
    }

    /// Where multicast goes, where a client can have it.
    pub(super) fn group_route(&self) -> Option<GroupRoute> {
        let is_sent = |via| self.settings.via.is_none_or(|ours| ours == via);
        let mut sent = self.transports.iter().filter(|transport| is_sent(transport.via()));
        sent.find_map(|transport| transport.group_route())
    }

    fn forget(&self, gate: &Arc<Gate>) {
        self.lock().gates.retain(|other| !Arc::ptr_eq(other, gate));
        self.ended.notify_all();
    }

    /// What is offered, with digests.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn files(&self) -> Result<Vec<FileInfo>> {
        self.catalog
            .names()
            .map(|name| Ok(self.catalog.open(name, &catalog::silent)?.info))
            .collect()
    }

    /// The connection of `peer` belongs to a seat: it is not closed to make room.
    pub fn keep(&self, peer: SocketAddr) {
        self.admission.set_ready(peer);
    }

    /// The sessions that have not ended, for every face that shows them.
    pub fn views(&self) -> Vec<GateView> {
        let gates: Vec<_> = self.lock().gates.clone();
        gates.iter().map(|gate| gate.view()).collect()
    }

    /// The server listens here now.
    pub(crate) fn listens(&self, addr: SocketAddr) {
        let _ = self.listening.set(addr);
    }

    /// An address by which other machines reach this server; `None` where only this one can, or
    /// it cannot be told.
    pub fn address(&self) -> Option<SocketAddr> {
        let addr = *self.listening.get()?;
        let ip = match addr.ip() {
            ip if ip.is_unspecified() => address::outward()?,
            ip => ip,
        };
        (!ip.is_loopback()).then(|| SocketAddr::new(ip, addr.port()))
    }

    /// The results that are in the log, for every face that shows them.
    pub fn history(&self) -> &Arc<History> {
        &self.log.history
    }

    /// Opens the gate of `session` for the clients that are ready; `false` where there is no such
    /// session that has not ended.
    pub fn release(&self, session: SessionId) -> bool {
        let gates: Vec<_> = self.lock().gates.clone();
        let gate = gates.iter().find(|gate| gate.session.id == session);
        gate.inspect(|gate| gate.release_now()).is_some()
    }

    /// Opens every gate that musters, for the clients that are ready.
    pub fn release_now(&self) {
        self.lock().gates.iter().for_each(|gate| gate.release_now());
    }

    /// Ends every session: musters end, transfers are cut, and each leaves its rows in the log.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        state.gates.iter().for_each(|gate| gate.stop());
    }

    /// True when no session is open.
    pub fn is_idle(&self) -> bool {
        self.lock().gates.is_empty()
    }

    /// Waits until no session is open, or until `patience` is over.
    pub fn wait_idle(&self, patience: Duration) -> bool {
        let state = self.lock();
        let waited =
            self.ended.wait_timeout_while(state, patience, |state| !state.gates.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.gates.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, LobbyState> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::server::{session_log::SessionLogger, transport::SendSession};

    #[derive(Debug)]
    struct Nothing;

    impl Transport for Nothing {
        fn via(&self) -> Via {
            Via::Tcp
        }

        fn prepare(&self, _: &SendPlan) -> Result<Box<dyn SendSession>> {
            Ok(Box::new(Self))
        }
    }

    impl SendSession for Nothing {
        fn prepare_connection(&self, _: &std::net::TcpStream) -> Result<()> {
            Ok(())
        }

        fn description(&self, _: &std::net::TcpStream) -> String {
            String::new()
        }

        fn send(
            &self,
            _: &crate::server::gate::SeatConnection,
            _: crate::server::transport::SendJob<'_>,
        ) -> crate::server::transport::SendResult {
            unreachable!("nobody is ready")
        }
    }

    fn client() -> PendingClient {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let stream = Arc::new(std::net::TcpStream::connect(addr).expect("listening"));
        let (name, ways) = ("c".to_owned(), Vec::new());
        PendingClient { name, kind: ClientKind::Native, stream, peer: addr, ways }
    }

    /// A client that has found no open muster begins one; the server may have been stopped since.
    #[test]
    fn no_session_begins_once_the_server_stops() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        std::fs::write(&path, b"abc").expect("room");
        let name = FileName::new("f").expect("plain");
        let logger = SessionLogger::start(None).expect("a thread");
        let lobby = Lobby::new(
            ServerConfig::default(),
            Catalog::offer([path]).expect("there"),
            vec![Box::new(Nothing)],
            logger.log_handle(),
            Admission::of_server(),
        );
        lobby.begin(&name, 2, (Via::Tcp, false), &client()).expect("it runs");
        lobby.stop();
        assert!(lobby.wait_idle(Duration::from_secs(20)));
        let error =
            lobby.begin(&name, 2, (Via::Tcp, false), &client()).expect_err("stopped").to_string();
        assert!(error.contains("it is ending"), "{error}");
        assert!(lobby.is_idle());
    }
}
