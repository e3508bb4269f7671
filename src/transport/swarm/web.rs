//! The little HTTP that a peer needs: one GET, one bounded answer.
//!
//! No redirects: a tracker that sends its peers elsewhere could send them to an address that only
//! they can reach. No encodings: a small answer could unpack to a huge one.

use std::io;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Error, Phase, Result};
use crate::net::{clock, copy, socket};
use crate::proto::http::HEAD_MAX;
use crate::proto::http::response::Response;
use crate::units::Moment;

/// An `http://` address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host, with its port where there is one.
    pub host: String,
    /// Path and query, from the first `/` on.
    pub target: String,
}

/// How long a whole exchange may take.
pub const LIMIT: Duration = Duration::from_secs(10);

impl Url {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// Another scheme than http, a user name, or characters that do not belong in an address.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::refused(
                "gatecast",
                format!("'{}': {why}", crate::text::escape(text)),
            )
        };
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| wrong("only http:// addresses are taken"))?;
        if text.len() > 2048 || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(
                "it is too long or holds characters that no address has",
            ));
        }
        let (host, target) = match rest.find(['/', '?']) {
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, String::new()),
        };
        if host.is_empty() || host.contains('@') {
            return Err(wrong("it names no plain host"));
        }
        let target = match target.strip_prefix('/') {
            Some(_) => target,
            None => format!("/{target}"),
        };
        Ok(Self {
            host: host.to_owned(),
            target,
        })
    }

    /// True when its path ends as a tracker's does: nothing else on a private network should be
    /// asked because a torrent says so.
    pub fn is_announce(&self) -> bool {
        let path = self.target.split('?').next().unwrap_or_default();
        matches!(path.rsplit('/').next(), Some("announce" | "announce.php"))
    }

    /// Its addresses.
    ///
    /// # Errors
    /// The name is unknown.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>> {
        socket::resolve(&self.host, 80)
    }
}

/// Gets `target` from the first of `addrs` that answers; the body must be at most `max` bytes.
///
/// # Errors
/// Nobody answers within [`LIMIT`], or with anything but 200 and a plain body.
pub fn get(addrs: &[SocketAddr], host: &str, target: &str, max: usize) -> Result<Vec<u8>> {
    let deadline = clock::now().after(LIMIT);
    let stream = socket::connect(addrs, deadline)?;
    let at = stream.peer_addr().map_err(Error::io("connect", host))?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gatecast/{}\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    copy::send_all(&stream, request.as_bytes(), deadline).map_err(|stop| match stop {
        copy::Stop::Peer(error) => Error::io("ask the server", at)(error),
        _ => late(at),
    })?;
    let mut bytes = Vec::new();
    let (response, head) = loop {
        match Response::decode(&bytes) {
            Ok(Some(found)) => break found,
            Ok(None) if bytes.len() > HEAD_MAX => {
                return Err(Error::protocol(at, "an answer without an end of its head"));
            }
            Ok(None) => {}
            Err(error) => return Err(Error::protocol(at, error.to_string())),
        }
        if read(&stream, at, &mut bytes, deadline)? == 0 {
            return Err(Error::protocol(at, "it closed before it answered"));
        }
    };
    bytes.drain(..head);
    if response.status != 200 {
        return Err(Error::refused(at, format!("status {}", response.status)));
    }
    for name in ["transfer-encoding", "content-encoding"] {
        if let Some(value) = response
            .fields
            .get(name)
            .filter(|value| *value != "identity")
        {
            let what = format!("{name} {}, and none is taken", crate::text::escape(value));
            return Err(Error::protocol(at, what));
        }
    }
    let length = response
        .fields
        .content_length()
        .map_err(|error| Error::protocol(at, error.to_string()))?;
    let too_long = || Error::protocol(at, format!("an answer longer than {max} bytes"));
    if length.is_some_and(|length| length > max as u64) {
        return Err(too_long());
    }
    let wanted = length.and_then(|length| usize::try_from(length).ok());
    while wanted.is_none_or(|wanted| bytes.len() < wanted) {
        if bytes.len() > max {
            return Err(too_long());
        }
        if read(&stream, at, &mut bytes, deadline)? == 0 {
            if wanted.is_some() {
                return Err(Error::protocol(at, "it closed in the middle of its answer"));
            }
            break;
        }
    }
    if let Some(wanted) = wanted {
        bytes.truncate(wanted);
    }
    match bytes.len() > max {
        true => Err(too_long()),
        false => Ok(bytes),
    }
}

fn read(
    mut stream: &TcpStream,
    at: SocketAddr,
    bytes: &mut Vec<u8>,
    deadline: Moment,
) -> Result<usize> {
    let failed = Error::io("hear the server's answer", at);
    loop {
        match socket::bound_read(stream, deadline) {
            Ok(true) => {}
            Ok(false) => return Err(late(at)),
            Err(error) => return Err(failed(error)),
        }
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer) {
            Ok(len) => {
                bytes.extend_from_slice(&buffer[..len]);
                return Ok(len);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if Error::is_timeout(&error) => return Err(late(at)),
            Err(error) => return Err(failed(error)),
        }
    }
}

fn late(at: SocketAddr) -> Error {
    Error::TimedOut {
        phase: Phase::Connect,
        at: at.to_string(),
        after: LIMIT,
    }
}
