//! Lines over a blocking connection, each wait under an absolute deadline.

use std::{borrow::Cow, io, net::SocketAddr, time::Duration};

use crate::{
    error::{Error, Phase, Result},
    net::{arrival, clock, copy, primitives::TcpStream, socket},
    proto::{
        key::{LineSeal, SEAL_LEN},
        line::{DecodeError, LineBuf},
    },
    units::Moment,
};

/// One end of a conversation in lines.
#[derive(Debug)]
pub struct LineStream<'a> {
    stream: &'a TcpStream,
    /// Who is at the other end.
    pub peer: SocketAddr,
    buf: LineBuf,
    /// When the last line, and what was read with it, came.
    pub came_at: Moment,
    /// What both ends mark their lines with, where they have proven a key.
    seal: Option<LineSeal>,
    /// How lines begin that came too late to mean anything.
    passed_over: &'static [&'static str],
}

/// How long a peer may take to accept a line, which its buffer holds hundreds of; a longer text has
/// more, by its length.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);

impl<'a> LineStream<'a> {
    /// A conversation of which `first` has been read already.
    pub fn new(stream: &'a TcpStream, peer: SocketAddr, first: &[u8]) -> Self {
        let mut buf = LineBuf::default();
        buf.push(first);
        arrival::stamp(stream);
        Self { stream, peer, buf, came_at: clock::now(), seal: None, passed_over: &[] }
    }

    /// Marks every line with `seal` from now on, and takes none that is not marked.
    pub fn seal(&mut self, seal: LineSeal) {
        self.buf.expect_seal(SEAL_LEN);
        self.seal = Some(seal);
    }

    /// Whether both ends have proven a key.
    pub fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// These lines as they go over the wire, which they must do next and once.
    pub fn sealed<'l>(&self, lines: &'l [u8]) -> Cow<'l, [u8]> {
        self.seal.as_ref().map_or(Cow::Borrowed(lines), |seal| Cow::Owned(seal.seal(lines)))
    }

    /// This end's own address.
    ///
    /// # Errors
    /// The system's.
    pub fn local(&self) -> Result<SocketAddr> {
        let failed = Error::io("look at the connection", self.peer);
        self.stream.local_addr().map_err(failed)
    }

    /// From now on [`LineStream::read_line`] passes over lines that begin so.
    pub fn pass_over(&mut self, words: &'static [&'static str]) {
        self.passed_over = words;
    }

    /// The next line that is not passed over, by `deadline`.
    ///
    /// # Errors
    /// As [`LineStream::read_any`].
    pub fn read_line(&mut self, deadline: Moment, phase: Phase) -> Result<String> {
        loop {
            let line = self.read_any(deadline, phase)?;
            if !self.passed_over.iter().any(|word| line.starts_with(word)) {
                return Ok(line);
            }
        }
    }

    /// The next line, by `deadline`.
    ///
    /// # Errors
    /// [`Error::TimedOut`] in `phase`; `UnexpectedEof` when the peer closed; `Protocol` for a line
    /// that is malformed or whose seal is wrong.
    pub fn read_any(&mut self, deadline: Moment, phase: Phase) -> Result<String> {
        let begun = clock::now();
        loop {
            let broken = |error: DecodeError| Error::protocol(self.peer, error.to_string());
            if let Some(line) = self.buf.next_line().map_err(broken)? {
                return match &mut self.seal {
                    Some(seal) => seal.open(line).map_err(broken),
                    None => Ok(line),
                };
            }
            let timed_out = || {
                let waited = deadline.since(begun).as_millis();
                let waited = Duration::from_millis(u64::try_from(waited).unwrap_or(u64::MAX));
                Error::timed_out(phase, self.peer, waited)
            };
            let failed = Error::io("hear from the other side", self.peer);
            let mut bytes = [0; 2048];
            match arrival::read_until(self.stream, &mut bytes, deadline) {
                Ok((0, _)) => {
                    let closed =
                        io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
                    return Err(failed(closed));
                }
                Ok((len, came)) => {
                    self.came_at = came;
                    self.buf.push(&bytes[..len]);
                }
                Err(error) if Error::is_timeout(&error) => return Err(timed_out()),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Whether more was read together with the last line.
    pub fn has_buffered(&self) -> bool {
        self.buf.held() > 0
    }

    /// Up to `max` bytes that were read together with the last line.
    pub fn take_buffered(&mut self, max: u64) -> Vec<u8> {
        self.buf.take_payload(usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// Says `line`.
    ///
    /// # Errors
    /// The peer is gone or does not read.
    pub fn write_line(&self, line: &[u8]) -> Result<()> {
        let line = &*self.sealed(line);
        let deadline = copy::deadline(line.len() as u64, WRITE_LIMIT);
        copy::send_all(self.stream, line, deadline).map_err(|stop| match stop {
            copy::Stop::Peer(error) => Error::io("speak to the other side", self.peer)(error),
            _ => Error::timed_out(Phase::Transfer, self.peer, WRITE_LIMIT),
        })
    }

    /// Ends the conversation, as [`socket::close`].
    pub fn close(self) {
        socket::close(self.stream);
    }
}
