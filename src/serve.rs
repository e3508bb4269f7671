//! The front door of a server: everything that gatecast can send by, registered in one place.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    http::{self, Documents, HttpConfig},
    net::{files, key_file},
    proto::greeting::Greeting,
    report::{csv, json, session::SessionReport},
    server::{
        builder::{ServerCore, ServerCoreBuilder},
        catalog::{self, Catalog, HashProgress},
        config::ServerConfig,
    },
    session::{FileInfo, MAX_SEATS, Via},
    text::{FileName, choice, escape_path},
    transport::{
        chain, swarm,
        swarm::torrents::{SwarmServerConfig, Torrents},
        tcp, udp,
        udp::{config::UdpConfig, lab_server::LabServer},
    },
    units::{InvalidValue, Rate},
};

/// A server being put together. [`ServerBuilder::bind`] starts it.
///
/// Where nothing else is said, the clients choose the file, their number and the way, a session
/// waits 60 s for its clients, and no log is written.
#[derive(Debug, Default)]
#[must_use]
pub struct ServerBuilder {
    pub(crate) paths: Vec<PathBuf>,
    /// Folders that are offered as one thing each.
    pub(crate) trees: Vec<PathBuf>,
    pub(crate) config: ServerConfig,
    pub(crate) log_dir: Option<PathBuf>,
    pub(crate) http: HttpConfig,
    pub(crate) udp: UdpConfig,
    pub(crate) swarm: SwarmServerConfig,
    /// Serve the lab's UDP clients at loopback and these addresses.
    pub(crate) lab_udp: Option<Vec<IpAddr>>,
    /// The name given to [`ServerBuilder::file`], not yet checked.
    pub(crate) file: Option<String>,
    /// The file with the key, not yet read.
    pub(crate) key: Option<PathBuf>,
    /// What the file of clients that name none must be.
    pub(crate) again: Option<FileInfo>,
}

/// A running server: it holds each session's clients until all are ready, releases them together
/// and sends them the file.
///
/// ```no_run
/// use gatecast::{Server, Via};
///
/// let server = Server::builder()
///     .offer("image.iso")
///     .clients(25)
///     .via(Via::Multicast)
///     .log_dir("logs")
///     .bind("0.0.0.0:8080")?;
/// println!("http://{}/", server.local_addr());
/// for session in server.sessions() {
///     println!("{session}");
/// }
/// # Ok::<(), gatecast::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    // Dropped before the core: it writes into the same log.
    lab: Option<LabServer>,
    pub(crate) core: ServerCore,
    /// What the program shows of swarms.
    #[cfg_attr(not(feature = "cli"), expect(dead_code))]
    pub(crate) torrents: Arc<Torrents>,
}

/// A file that a server offers.
#[derive(Clone, Debug)]
pub struct OfferedFile(FileInfo);

impl OfferedFile {
    /// Its name.
    pub fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Its SHA-1, 40 hexadecimal digits.
    pub fn sha1(&self) -> String {
        self.0.sha1.to_string()
    }
}

/// How this crate writes sessions, on every face.
pub(crate) const DOCUMENTS: Documents = Documents {
    json: Some(|record| json::session(record, None)),
    csv: Some(csv::transfers),
    #[cfg(feature = "cli")]
    svg: Some(|records| crate::report::scaling::rates(records).to_svg()),
    #[cfg(not(feature = "cli"))]
    svg: None,
};

impl ServerBuilder {
    /// Offers a file, or the files of a folder without its subfolders. May be called again.
    pub fn offer(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Offers a folder as one thing, under its last name, with its subfolders and hidden files. Links,
    /// devices and pipes in it are left out, with a warning. May be called again.
    pub fn tree(mut self, folder: impl Into<PathBuf>) -> Self {
        self.trees.push(folder.into());
        self
    }

    /// How many clients a session has, 1 to 10,000, whatever they say themselves.
    pub fn clients(mut self, clients: u16) -> Self {
        self.config.clients = Some(clients);
        self
    }

    /// The file for clients that name none.
    pub fn file(mut self, name: impl Into<String>) -> Self {
        self.file = Some(name.into());
        self
    }

    /// The way the bytes travel, whatever the clients say.
    pub fn via(mut self, via: Via) -> Self {
        self.config.via = Some(via);
        self
    }

    /// How long a session waits for its clients, from the first one.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.config.max_wait = wait;
        self
    }

    /// Releases so many ready clients when that time is over, instead of none.
    pub fn quorum(mut self, clients: u16) -> Self {
        self.config.quorum = Some(clients);
        self
    }

    /// The payload rate of a whole session in bit/s, shared by its clients; unlimited unless given.
    pub fn rate(mut self, bits_per_second: u64) -> Self {
        self.config.rate = Some(Rate(bits_per_second));
        self
    }

    /// Serves only clients that prove the key in this file, at least 16 bytes that nobody but the
    /// file's owner may read. Programs that cannot prove it (curl, BitTorrent clients, the lab's) get
    /// nothing. Nothing is encrypted.
    pub fn key(mut self, file: impl Into<PathBuf>) -> Self {
        self.key = Some(file.into());
        self
    }

    /// Writes a log for each session into this folder.
    pub fn log_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.log_dir = Some(folder.into());
        self
    }

    /// Computes the digests of the files, and listens: native clients, HTTP, BitTorrent peers and
    /// the lab's TCP clients on this one port.
    ///
    /// # Errors
    /// A path or a key that cannot be read, two files of one name, settings that contradict each
    /// other or are out of range, a folder for logs that cannot be written, an address that cannot
    /// be listened on.
    pub fn bind(self, addr: impl ToSocketAddrs) -> Result<Server> {
        let at = addr
            .to_socket_addrs()
            .map_err(Error::io("resolve the address", "to listen on"))?
            .next()
            .ok_or_else(|| Error::usage("the address to listen on names no host"))?;
        self.bind_with(at, &catalog::silent)
    }

    /// The same; `progress` is told how far each file's digest is.
    pub(crate) fn bind_with(self, addr: SocketAddr, progress: HashProgress<'_>) -> Result<Server> {
        let Self { paths, trees, mut config, log_dir, http, udp, swarm, lab_udp, file, key, again } =
            self;
        if let Some(path) = key {
            config.key = Some(key_file::read(&path)?);
        }
        if lab_udp.is_some() && config.closes(Greeting::Lab) {
            return Err(Error::usage("the lab's UDP clients cannot prove a key: add --open lab"));
        }
        if let Some(name) = file {
            config.file = Some(FileName::new(&name).map_err(Error::usage)?);
        }
        let mut catalog = Catalog::offer(&paths)?;
        trees.iter().try_for_each(|folder| catalog.offer_tree(folder))?;
        if catalog.names().next().is_none() {
            return Err(nothing_to_offer(&paths));
        }
        check(&catalog, &config)?;
        if let Some(wanted) = again {
            config.file = Some(check_again(&catalog, config.file.as_ref(), &wanted, progress)?);
        }
        if let Some(folder) = &log_dir {
            files::check_folder(folder, "--log-dir")?;
        }
        if let Some(folder) = swarm.tracker_file.as_deref().and_then(Path::parent) {
            files::check_folder(folder, "--tracker-file")?;
        }
        let mut core = ServerCoreBuilder::new(catalog, config);
        if let Some(folder) = log_dir {
            core = core.log_to(folder);
        }
        core.digest(progress)?;
        let (core, torrents) = register(core, http, udp, swarm)?;
        let core = core.start(addr)?;
        let lab = lab_udp
            .map(|allowed| {
                let log = core.log_handle();
                LabServer::start(core.addr(), core.lobby(), log, allowed, udp.size)
            })
            .transpose()?;
        Ok(Server { lab, core, torrents })
    }
}

/// The error of `paths` without a file.
fn nothing_to_offer(paths: &[PathBuf]) -> Error {
    let shown: Vec<_> = paths.iter().map(|path| escape_path(path)).collect();
    Error::usage(format_args!(
        "no file to offer in '{}': files in subfolders and hidden files are not taken; name them \
         to offer them",
        shown.join("', '")
    ))
}

/// Refuses to send another file than `wanted` to those who lack that. Returns what the offered one is
/// called: `name`, or the only one, or as it was.
pub(crate) fn check_again(
    catalog: &Catalog,
    name: Option<&FileName>,
    wanted: &FileInfo,
    progress: HashProgress<'_>,
) -> Result<FileName> {
    let name = name.or_else(|| catalog.only()).unwrap_or(&wanted.name);
    let sha1 = catalog.open(name, progress)?.info.sha1;
    if sha1 == wanted.sha1 {
        return Ok(name.clone());
    }
    let FileInfo { name: then, sha1: theirs, .. } = wanted;
    let what = format!("the session in the log sent '{then}' with the SHA-1 {theirs}");
    Err(Error::usage(what + &format!(", and '{name}' has {sha1}: it is another file")))
}

/// Refuses settings that are out of range or contradict each other.
fn check(catalog: &Catalog, config: &ServerConfig) -> Result<()> {
    let invalid = |what, value: &dyn fmt::Display, expected: String| {
        let error = InvalidValue::new(what, &value.to_string(), expected);
        Err(Error::usage(error))
    };
    let out_of_range = |count: &u16| !(1..=MAX_SEATS).contains(count);
    if let Some(clients) = config.clients.filter(out_of_range) {
        return invalid("number of clients", &clients, format!("1 to {MAX_SEATS}"));
    }
    let most = config.clients.unwrap_or(MAX_SEATS);
    if let Some(quorum) = config.quorum.filter(|quorum| !(1..=most).contains(quorum)) {
        return invalid("quorum", &quorum, format!("1 to {most}, the clients of a session"));
    }
    if config.rate == Some(Rate(0)) {
        return invalid("rate", &0, "at least 1 bit/s".to_owned());
    }
    if let Some(file) = &config.file
        && !catalog.names().any(|name| name == file)
    {
        let names = choice(catalog.names());
        return invalid("file", file, format!("one of the offered files: {names}"));
    }
    Ok(())
}

/// Gives a server every way of sending and every kind of client.
fn register(
    core: ServerCoreBuilder,
    http: HttpConfig,
    udp: UdpConfig,
    swarm: SwarmServerConfig,
) -> Result<(ServerCoreBuilder, Arc<Torrents>)> {
    let core = chain::serve(udp::serve(tcp::serve(core)?, udp));
    let (core, torrents) = swarm::serve(core, swarm);
    let tracker = Arc::clone(&torrents);
    let http = HttpConfig {
        documents: DOCUMENTS,
        extra: Some(Arc::new(move |request, peer, local, lobby| {
            tracker.answer(request, peer, local, lobby)
        })),
        ..http
    };
    Ok((http::serve(core, http)?, torrents))
}

impl Server {
    /// A server of no files yet.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.core.addr()
    }

    /// The offered files.
    ///
    /// # Errors
    /// A file that changed and cannot be read any more.
    pub fn files(&self) -> Result<Vec<OfferedFile>> {
        let files = self.core.lobby().files()?;
        Ok(files.into_iter().map(OfferedFile).collect())
    }

    /// The sessions as they end, each once its results are in the log. Waits for the next one, and
    /// goes on for as long as the server lives. Of sessions that nobody takes the newest 64 are kept.
    pub fn sessions(&self) -> impl Iterator<Item = SessionReport> {
        self.core.records().into_iter().map(SessionReport::new)
    }

    /// Releases the clients that are ready now, without waiting for the others.
    pub fn release_now(&self) {
        self.core.lobby().release_now();
    }

    /// Ends every session and connection and writes the last lines of the log. Returns the
    /// sessions that [`Server::sessions`] has not handed out.
    ///
    /// # Errors
    /// The session log could not be written; the sessions went on without it.
    pub fn shutdown(self) -> Result<Vec<SessionReport>> {
        drop(self.lab);
        let records = self.core.stop()?;
        Ok(records.into_iter().map(SessionReport::new).collect())
    }
}

#[cfg(feature = "cli")]
impl Server {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_that_cannot_be_is_refused_with_its_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f.bin");
        std::fs::write(&file, "abc").expect("room");
        let error = |set: fn(ServerBuilder) -> ServerBuilder| {
            let builder = set(Server::builder().offer(&file));
            let error = builder.bind("127.0.0.1:0").expect_err("refused");
            assert_eq!(error.exit_code(), 2, "{error}");
            error.to_string()
        };
        assert_eq!(
            error(|builder| builder.clients(0)),
            "invalid number of clients '0': expected 1 to 10000"
        );
        assert_eq!(
            error(|builder| builder.clients(2).quorum(3)),
            "invalid quorum '3': expected 1 to 2, the clients of a session"
        );
        assert_eq!(
            error(|builder| builder.quorum(0)),
            "invalid quorum '0': expected 1 to 10000, the clients of a session"
        );
        assert_eq!(error(|builder| builder.rate(0)), "invalid rate '0': expected at least 1 bit/s");
        assert_eq!(
            error(|builder| builder.file("g.bin")),
            "invalid file 'g.bin': expected one of the offered files: f.bin"
        );
        assert!(error(|builder| builder.file("a/b")).contains("a path separator"));
    }
}
