//! What the user wants of one process's clients.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::{copy, disk, files},
    proto::key::Key,
    session::{MAX_SEATS, SeatId, Via},
    text::{ClientName, FileName},
    units::InvalidValue,
};

/// What the user wants fetched, and how.
// Over 15 fields because each is one thing that a user may ask for.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// The server's addresses, tried in order.
    pub server: Vec<SocketAddr>,
    /// The file; `None` takes the server's.
    pub file: Option<FileName>,
    /// How many clients this process starts.
    pub clients: u16,
    /// How many the group has; `None` is as many as this process starts.
    pub group: Option<u16>,
    /// The way; `None` takes the server's.
    pub via: Option<Via>,
    /// Ask for the fastest way; with it `via` is `None`.
    pub auto: bool,
    /// What the clients call themselves; with more than one, a number follows.
    pub name: String,
    /// The folder for the copies; or the disk or file that [`OverwritePolicy::InPlace`] overwrites.
    pub out: PathBuf,
    /// Take up parts that an earlier session left.
    pub resume: bool,
    /// How long a server that is not there yet is waited for.
    pub retry: Duration,
    /// The digest that the user knows the file to have.
    pub sha1: Option<Digest>,
    /// How bytes are copied from the socket.
    pub copy: copy::Method,
    /// A server that makes no progress for this long is given up.
    pub stall: Duration,
    /// Sync copies to disk before they count as received.
    pub durable: bool,
    /// What the server must prove, and is proven to it; `None` asks for nothing.
    pub key: Option<Key>,
    /// Whether a file that has the copy's name already is replaced.
    pub overwrite: OverwritePolicy,
    /// The run of the server that is to offer the seat; `None` takes any.
    pub run: Option<u64>,
}

/// When a copy replaces a file that has its name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverwritePolicy {
    /// In a folder of our own, whoever chose the name.
    OwnFolder,
    /// In a folder of the user's, where the user named the file too.
    UsersFolder,
    /// Always: the user said so.
    Always,
    /// There is no folder: a disk, or an existing file, is itself overwritten.
    InPlace,
    /// In a folder that is removed once the copy went to standard output.
    Spool,
}

impl FetchConfig {
    /// One client that fetches the server's file into `received`.
    pub fn new(server: Vec<SocketAddr>) -> Self {
        Self {
            server,
            file: None,
            clients: 1,
            group: None,
            via: None,
            auto: false,
            name: "client".to_owned(),
            out: PathBuf::from("received"),
            resume: false,
            retry: Duration::ZERO,
            sha1: None,
            copy: copy::Method::Auto,
            stall: Duration::from_secs(30),
            durable: true,
            key: None,
            overwrite: OverwritePolicy::OwnFolder,
            run: None,
        }
    }

    /// Refuses what no client could do, before any connects: a number, a name, a method, a folder.
    ///
    /// # Errors
    /// What is wrong, with the value.
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=MAX_SEATS).contains(&self.clients) {
            let expected = format!("1 to {MAX_SEATS}");
            let number = self.clients.to_string();
            return Err(Error::usage(InvalidValue::new("number of clients", &number, expected)));
        }
        self.copy.resolved()?;
        self.name_of(self.clients)?;
        if self.is_in_place() {
            return disk::check(&self.out);
        }
        files::check_folder(&self.out, "--out")
    }

    /// Tells the user, once, that the session has another number of clients than was asked for.
    pub(crate) fn compare_group(&self, client: u16, clients: u16) {
        if let Some(group) = self.group.filter(|&group| group != clients && client == 1) {
            log::warn!(
                "the session has {clients} clients, as the server says, not {group} (--group)"
            );
        }
    }

    /// Whether a disk or a file is written in place.
    pub(crate) fn is_in_place(&self) -> bool {
        self.overwrite == OverwritePolicy::InPlace
    }

    /// Whether the copy may be a folder: neither a disk nor a pipe takes one.
    pub(crate) fn takes_trees(&self) -> bool {
        !self.is_in_place() && self.overwrite != OverwritePolicy::Spool
    }

    /// Whether a proven copy replaces a file that has its name already.
    pub(crate) fn replaces(&self) -> bool {
        self.overwrite != OverwritePolicy::UsersFolder || self.file.is_some()
    }

    /// Whether a proven folder replaces one that has its name already: only where the user said so, as
    /// what that holds beside would be gone.
    pub(crate) fn replaces_folder(&self) -> bool {
        self.overwrite == OverwritePolicy::Always
    }

    /// Refuses a name that the server chose and that begins with a dot: it hides the copy, and is how
    /// the settings of programs are called.
    ///
    /// # Errors
    /// It is such a name.
    pub(crate) fn check_name(&self, server: impl fmt::Display, name: &FileName) -> Result<()> {
        if self.file.is_some() || !name.is_hidden() {
            return Ok(());
        }
        let reason =
            format!("it chose the name '{name}', which begins with a dot; ask for it by name");
        Err(Error::refused(server, reason))
    }

    /// What client `number` calls itself.
    ///
    /// # Errors
    /// A name that is empty or too long.
    pub(crate) fn name_of(&self, number: u16) -> Result<ClientName> {
        let name = match self.clients {
            1 => self.name.clone(),
            _ => format!("{}-{number}", self.name),
        };
        ClientName::new(&name).map_err(|error| Error::usage(format_args!("--name: {error}")))
    }

    /// What the copy of the client in `seat` is called.
    ///
    /// # Errors
    /// A name that becomes too long by the seat before it.
    pub(crate) fn copy_name(&self, seat: SeatId, file: &FileName) -> Result<FileName> {
        match self.clients {
            1 => Ok(file.clone()),
            _ => FileName::new(&format!("C{seat}-{}", file.as_str()))
                .map_err(|error| Error::refused("gatecast", error.to_string())),
        }
    }

    /// Refuses a file with another SHA-1 than the one that the user knows it to have. A server may
    /// give none.
    ///
    /// # Errors
    /// The two differ.
    pub(crate) fn check_sha1(
        &self,
        server: impl fmt::Display,
        file: &FileName,
        offered: Option<Digest>,
    ) -> Result<()> {
        match (self.sha1, offered) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let reason = format!("it offers '{file}' with the SHA-1 {theirs}, not {ours}");
                Err(Error::refused(server, reason))
            }
            _ => Ok(()),
        }
    }
}
