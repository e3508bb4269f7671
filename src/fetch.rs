//! The front door of a client: one or more clients of one process, whatever way they fetch by.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    client::{
        self, ClientReport, FetchConfig, FetchRun, config::OverwritePolicy,
        receive::ReceiveTransport,
    },
    error::{Error, Result},
    http,
    http::client::HttpTarget,
    net::{address, key_file},
    report::{session::SessionReport, verdict::Verdict},
    session::Via,
    text::{FileName, choice},
    transport::{chain, swarm::receive::SwarmReceiveTransport, tcp, udp},
    units::InvalidValue,
};

/// What is to be fetched, and how. [`Fetch::run`] does it.
///
/// Where nothing else is said, one client fetches the server's file into `./received`, by the way
/// that the server chooses.
///
/// ```no_run
/// use gatecast::Fetch;
///
/// let report = Fetch::from("127.0.0.1:8080").clients(25).out("received").run()?;
/// for client in report.clients() {
///     match client.result() {
///         Ok(path) => println!("{}", path.display()),
///         Err(error) => println!("{error}"),
///     }
/// }
/// # Ok::<(), gatecast::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Fetch {
    config: FetchConfig,
    file: Option<String>,
    sha1: Option<String>,
    key: Option<PathBuf>,
    overwrite: bool,
    /// Why the server's name could not be resolved.
    unresolved: Option<String>,
}

/// How a fetch ended for each client of this process. Its `Display` is the table of each session.
#[derive(Debug)]
pub struct FetchReport {
    clients: Vec<ClientReport>,
    sessions: Vec<SessionReport>,
}

/// How a fetch ended for one client.
#[derive(Clone, Copy, Debug)]
pub struct ClientResult<'a> {
    number: usize,
    report: &'a ClientReport,
}

/// The port of a server that names none.
pub(crate) const PORT: u16 = 8080;

impl Fetch {
    /// A fetch from the server at this address: `"host:port"`, or anything else that resolves.
    pub fn from(server: impl ToSocketAddrs) -> Self {
        let found = server.to_socket_addrs().map(Iterator::collect);
        Self::new(found.map_err(|error| format!("cannot find the server: {error}")))
    }

    /// A fetch from the server on this host: `"host"`, or `"host:port"` where the port is not 8080.
    pub fn host(server: &str) -> Self {
        Self::new(address::resolve(server, PORT).map_err(|error| error.to_string()))
    }

    fn new(found: Result<Vec<SocketAddr>, String>) -> Self {
        let (addrs, unresolved) = match found {
            Ok(addrs) => (addrs, None),
            Err(what) => (Vec::new(), Some(what)),
        };
        let config = FetchConfig::new(addrs);
        Self { config, file: None, sha1: None, key: None, overwrite: false, unresolved }
    }

    /// The file; the server's own choice unless given.
    pub fn file(mut self, name: impl Into<String>) -> Self {
        self.file = Some(name.into());
        self
    }

    /// How many clients this process starts.
    pub fn clients(mut self, clients: u16) -> Self {
        self.config.clients = clients;
        self
    }

    /// How many clients the whole session has, where other processes start some too.
    pub fn group(mut self, clients: u16) -> Self {
        self.config.group = Some(clients);
        self
    }

    /// The way the bytes travel; the server's choice unless given.
    pub fn via(mut self, via: Via) -> Self {
        self.config.via = Some(via);
        self
    }

    /// What the clients call themselves.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// The folder for the copies, which is made where it is missing. A file in it is replaced only
    /// if it has the name that [`file`](Self::file) gave, or with [`overwrite`](Self::overwrite).
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config.out = folder.into();
        self.config.overwrite = OverwritePolicy::UsersFolder;
        self
    }

    /// Replaces a file that has the name of the copy, also where the server chose that name.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Goes on with what an earlier fetch left unfinished.
    pub fn resume(mut self, resume: bool) -> Self {
        self.config.resume = resume;
        self
    }

    /// How long a server that is not there yet is waited for.
    pub fn retry(mut self, patience: Duration) -> Self {
        self.config.retry = patience;
        self
    }

    /// The SHA-1 that the file must have, 40 hexadecimal digits.
    pub fn sha1(mut self, digest: impl Into<String>) -> Self {
        self.sha1 = Some(digest.into());
        self
    }

    /// Proves the key in this file to the server, and fetches only from a server that proves it too.
    pub fn key(mut self, file: impl Into<PathBuf>) -> Self {
        self.key = Some(file.into());
        self
    }

    /// Runs the clients until each has come to its end.
    ///
    /// # Errors
    /// The fetch cannot be begun: a name that does not resolve or is not one, a key that cannot be
    /// read, a folder that cannot be written, a number of clients out of range, too few file
    /// descriptors. What happens to a client after that is in its [`ClientResult`].
    pub fn run(self) -> Result<FetchReport> {
        let mut config = self.config;
        if let Some(what) = self.unresolved {
            return Err(Error::usage(what));
        }
        if let Some(name) = self.file {
            config.file = Some(FileName::new(&name).map_err(Error::usage)?);
        }
        if let Some(digest) = self.sha1 {
            let invalid = |_| InvalidValue::new("SHA-1", &digest, "40 hexadecimal digits");
            config.sha1 = Some(digest.parse().map_err(invalid).map_err(Error::usage)?);
        }
        config.key = self.key.map(|path| key_file::read(&path)).transpose()?;
        if self.overwrite {
            config.overwrite = OverwritePolicy::Always;
        }
        FetchTask::new(config)?.run().map(FetchReport::new)
    }
}

/// A fetch that may be watched and stopped from other threads while it runs.
#[derive(Debug)]
pub(crate) struct FetchTask {
    /// The running clients.
    pub(crate) run: FetchRun,
    config: FetchConfig,
    /// What is fetched by HTTP instead of the native conversation.
    target: Option<HttpTarget>,
    /// The server speaks the lab's TCP protocol.
    pub(crate) lab: bool,
    /// For a session that is a swarm.
    pub(crate) swarm: SwarmReceiveTransport,
    /// For a session by multicast: the address of the interface on which the group is joined.
    pub(crate) multicast_interface: Option<Ipv4Addr>,
}

impl FetchTask {
    /// A fetch by the client that `config.via` asks for.
    ///
    /// # Errors
    /// What no client could do, before any connects. By HTTP, no file was named and the server offers
    /// several.
    pub(crate) fn new(config: FetchConfig) -> Result<Self> {
        let target = match config.via {
            // HTTP cannot prove a key: the same bytes come after GO on the control connection.
            Some(Via::Http) if config.key.is_none() => {
                config.check()?;
                Some(http_target(&config)?)
            }
            _ => None,
        };
        Self::with_target(config, target)
    }

    /// A fetch of what stands at `target`, or, without one, by a native conversation.
    ///
    /// # Errors
    /// What no client could do.
    pub(crate) fn with_target(config: FetchConfig, target: Option<HttpTarget>) -> Result<Self> {
        config.check()?;
        Ok(Self {
            run: FetchRun::new(&config),
            config,
            target,
            lab: false,
            swarm: SwarmReceiveTransport::default(),
            multicast_interface: None,
        })
    }

    /// Runs every client to its end.
    ///
    /// # Errors
    /// The fetch cannot be begun.
    pub(crate) fn run(&self) -> Result<Vec<ClientReport>> {
        if let Some(target) = &self.target {
            return http::client::run(&self.run, &self.config, target);
        }
        if self.lab {
            return tcp::lab_client::run(&self.run, &self.config);
        }
        let transports: [&dyn ReceiveTransport; 7] = [
            &tcp::receive::TCP,
            &udp::receive::UDP,
            &udp::receive::RAW,
            &udp::receive::MULTICAST.on_interface(self.multicast_interface),
            &tcp::receive::HTTP,
            &self.swarm,
            &chain::receive::ChainReceiver,
        ];
        self.run.run(&self.config, &transports)
    }
}

/// Where the server's file is for HTTP.
fn http_target(config: &FetchConfig) -> Result<HttpTarget> {
    let no_address = || Error::usage("the server's name has no address");
    let addr = config.server.first().ok_or_else(no_address)?;
    // A name that a browser may ask by; an address is always one.
    let host = addr.to_string();
    if let Some(file) = &config.file {
        return Ok(HttpTarget::file(&host, file));
    }
    // HTTP has no word for the server's choice; its own protocol lists what there is.
    match &client::list(&config.server, None)?.0[..] {
        [(file, false)] => Ok(HttpTarget::file(&host, &file.name)),
        [(file, true)] => {
            let reason = format!("'{}' is a folder, which does not go by HTTP", file.name);
            Err(Error::refused(addr, reason))
        }
        files => {
            let names = choice(files.iter().map(|(file, _)| &file.name));
            let reason = format!("it offers {} files, so name one: {names}", files.len());
            Err(Error::refused(addr, reason))
        }
    }
}

impl FetchReport {
    fn new(clients: Vec<ClientReport>) -> Self {
        let records = client::records(&clients);
        let sessions = records.into_iter().map(SessionReport::of_clients).collect();
        Self { clients, sessions }
    }

    /// The clients of this process, in the order of their numbers.
    pub fn clients(&self) -> impl Iterator<Item = ClientResult<'_>> {
        (1..).zip(&self.clients).map(|(number, report)| ClientResult { number, report })
    }

    /// The sessions that the clients had seats in, as this process knows them.
    pub fn sessions(&self) -> &[SessionReport] {
        &self.sessions
    }

    /// Writes a line for each kind of failure, with the clients that it struck, to standard error.
    pub fn print_failures(&self) {
        for line in client::failures(&self.clients) {
            eprintln!("{line}");
        }
    }

    /// What the program returns: 0 if every client of this process proved its copy.
    pub fn exit_code(&self) -> u8 {
        Verdict::of_clients(&self.clients).exit_code()
    }
}

impl fmt::Display for FetchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for session in &self.sessions {
            writeln!(f, "{session}")?;
        }
        Ok(())
    }
}

impl<'a> ClientResult<'a> {
    /// The client's number in this process, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its seat in the session; `None` if it never had one.
    pub fn seat(&self) -> Option<u16> {
        self.report.offer.as_ref().map(|offer| offer.seat.0)
    }

    /// The path of the whole, verified copy.
    ///
    /// # Errors
    /// What stopped the client.
    pub fn result(&self) -> Result<&'a Path, &'a Error> {
        match (&self.report.path, &self.report.error) {
            (Some(path), None) => Ok(path),
            (_, Some(error)) => Err(error),
            (None, None) => unreachable!("a client without a copy has the error that stopped it"),
        }
    }
}
