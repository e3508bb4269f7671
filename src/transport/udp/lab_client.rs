//! The client of a server that speaks the lab's UDP protocol: list, configure, transfer.
//!
//! The protocol has neither length nor digest, so what was received is counted and kept under a
//! name that says it is not proven.

use std::{
    fs::File,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::{STACK, clock, copy},
    proto::{lab, lab::udp::LabRequest},
    text::FileName,
    transport::udp::socket::RecvSocket,
    units::Moment,
};

/// A conversation with such a server.
#[derive(Debug)]
pub struct LabClient {
    socket: UdpSocket,
    server: SocketAddr,
}

/// What one sub-client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabDownload {
    /// Bytes received.
    pub bytes: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Datagrams that its machine dropped for want of room; `None` where nobody tells.
    pub dropped: Option<u64>,
    /// First to last datagram.
    pub duration: Duration,
    /// Where they are.
    pub path: PathBuf,
}

/// How long an answer is waited for, and how often the question is asked.
const ANSWER: Duration = Duration::from_secs(2);
const TRIES: u32 = 3;

impl LabClient {
    /// A conversation with the server at `server`.
    ///
    /// # Errors
    /// The system's.
    pub fn open(server: SocketAddr) -> Result<Self> {
        let failed = || Error::io("open a UDP socket", server);
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).map_err(failed())?;
        socket.connect(server).map_err(failed())?;
        Ok(Self { socket, server })
    }

    /// The files that it offers.
    ///
    /// # Errors
    /// No answer, or one that is no list.
    pub fn list(&self) -> Result<Vec<String>> {
        let answer = self.ask(&LabRequest::List)?;
        lab::udp::decode_list(&answer).ok_or_else(|| {
            let said = crate::text::escape(&answer);
            Error::protocol(self.server, format!("'{said}' is not a list of files"))
        })
    }

    /// Chooses the file for the next transfers.
    ///
    /// # Errors
    /// No answer, or one that is not `Config set`.
    pub fn configure(&self, file: &str, clients: u16) -> Result<()> {
        let request = LabRequest::Config { file: file.to_owned(), clients };
        let answer = self.ask(&request)?;
        if answer == lab::udp::CONFIG_SET {
            Ok(())
        } else {
            Err(Error::refused(self.server, crate::text::escape(&answer)))
        }
    }

    /// Says that this client is done.
    ///
    /// # Errors
    /// The system's.
    pub fn disconnect(&self) -> Result<()> {
        let failed = Error::io("speak to the server", self.server);
        let sent = self.socket.send(&LabRequest::Disconnect.encode());
        sent.map(|_| ()).map_err(failed)
    }

    fn ask(&self, request: &LabRequest) -> Result<String> {
        let failed = || Error::io("ask the server", self.server);
        self.socket.set_read_timeout(Some(ANSWER)).map_err(failed())?;
        let mut buffer = vec![0; 65_536];
        for _ in 0..TRIES {
            self.socket.send(&request.encode()).map_err(failed())?;
            match self.socket.recv(&mut buffer) {
                Ok(len) => return Ok(String::from_utf8_lossy(&buffer[..len]).into_owned()),
                Err(error) if Error::is_timeout(&error) => {}
                Err(error) => return Err(failed()(error)),
            }
        }
        Err(Error::TimedOut {
            phase: Phase::Offer.name(),
            at: self.server.to_string(),
            after: ANSWER * TRIES,
        })
    }

    /// Starts `clients` sub-clients at once, each with a port of its own, and waits for all.
    pub fn transfer(&self, name: &FileName, clients: u16, out: &Path) -> Vec<Result<LabDownload>> {
        thread::scope(|scope| {
            let running: Vec<_> = (1..=clients)
                .map(|number| {
                    thread::Builder::new()
                        .name(format!("lab-{number}"))
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || self.receive(name, number, out))
                        .map_err(Error::io("start the client's thread", number))
                })
                .collect();
            let ended = |thread: Result<thread::ScopedJoinHandle<'_, Result<LabDownload>>>| {
                let joined = thread?.join();
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            running.into_iter().map(ended).collect()
        })
    }

    fn receive(&self, name: &FileName, number: u16, out: &Path) -> Result<LabDownload> {
        let path = out.join(format!("C{number}-{}.unproven", name.as_str()));
        let shown = || crate::text::escape(&path.display().to_string());
        std::fs::create_dir_all(out).map_err(Error::io("make the folder", out.display()))?;
        let file = File::create(&path).map_err(Error::io("make the file", shown()))?;
        let here = self.socket.local_addr().map_err(Error::io("look at the socket", number))?;
        let mut inlet = RecvSocket::open(here.ip())?;
        inlet.send_to(&LabRequest::Transfer.encode(), self.server)?;
        let (mut bytes, mut datagrams) = (0, 0);
        let (mut first, mut last): (Option<Moment>, Moment) = (None, clock::now());
        loop {
            let came = inlet.receive().map_err(Error::io("receive datagrams", self.server))?;
            let now = clock::now();
            match came {
                Some((from, segment, payload)) if from == self.server => {
                    let written = copy::write_at(&file, payload, bytes);
                    written.map_err(|_| Error::refused(shown(), "the disk is full or fails"))?;
                    bytes += payload.len() as u64;
                    datagrams += payload.len().div_ceil(segment) as u64;
                    first.get_or_insert(now);
                    last = now;
                }
                // Strangers do not keep it waiting.
                _ if now.since(last) > lab::udp::SILENCE => break,
                _ => {}
            }
        }
        Ok(LabDownload {
            bytes,
            datagrams,
            dropped: inlet.drops(),
            duration: first.map_or(Duration::ZERO, |first| last.since(first)),
            path,
        })
    }
}
