//! How a client and a server meet by datagrams alone: [`Knock`] at the client, [`Door`] at the
//! server. Formats in [`greet`](crate::proto::udp::greet).
//!
//! The door keeps nothing about anybody: whoever has no cookie for its address gets one, in a
//! datagram far shorter than the one that asked, and everything else from there is not answered
//! at all. So nobody is sent more than came from its address, forged or not, and nobody's memory
//! fills with strangers. Who has a cookie is told of to the caller, which keeps guests and
//! answers each of their datagrams with one, until they say that they are ready to be sent to.

use std::net::SocketAddr;
use std::time::Duration;

use crate::proto::udp::cookie::COOKIE;
use crate::proto::udp::cookie::Cookie;
use crate::proto::udp::cookie::Cookies;
use crate::proto::udp::greet::Greet;
use crate::proto::udp::greet::Welcome;
use crate::proto::udp::greet::Word;
use crate::text::FileName;
use crate::units::Moment;

/// The server's end.
#[derive(Debug)]
pub struct Door {
    cookies: Cookies,
}

/// What came to the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comes<'a> {
    /// Nothing that is answered.
    Nobody,
    /// Somebody without a cookie: it is sent this, and not remembered.
    Stranger(Vec<u8>),
    /// A client that receives at its address wants a file, maybe once more.
    Guest {
        /// Its number.
        nonce: u64,
        /// Its socket's receive buffer, bytes as the kernel counts them.
        buffer: u32,
        /// The file; `None` takes the server's choice.
        file: Option<FileName>,
    },
    /// A line, of a guest if the caller has one of that number at that address.
    Line {
        /// Its number.
        nonce: u64,
        /// The line.
        line: &'a str,
    },
}

impl Door {
    /// A door whose cookies are made with `cookies`.
    pub fn new(cookies: Cookies) -> Self {
        Self { cookies }
    }

    /// Looks who comes with a datagram.
    pub fn handle<'a>(&self, datagram: &'a [u8], from: SocketAddr, now: Moment) -> Comes<'a> {
        let Ok(Greet { nonce, word }) = Greet::decode(datagram) else {
            return Comes::Nobody;
        };
        match word {
            Word::Hello {
                cookie,
                buffer,
                file,
            } => match self.cookies.is_good(&cookie, from, nonce, now) {
                true => Comes::Guest {
                    nonce,
                    buffer,
                    file,
                },
                false => {
                    let word = Word::Cookie(self.cookies.make(from, nonce, now));
                    Comes::Stranger(Greet { nonce, word }.encode())
                }
            },
            Word::Line(line) => Comes::Line { nonce, line },
            Word::Cookie(_) | Word::Welcome(_) | Word::Refused(_) | Word::Heard => Comes::Nobody,
        }
    }
}

/// The client's end, until it is welcome.
#[derive(Clone, Debug)]
pub struct Knock {
    nonce: u64,
    buffer: u32,
    file: Option<FileName>,
    cookie: Cookie,
    due: Moment,
    pause: Duration,
}

/// First and longest pause between two HELLOs.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(250)..Duration::from_secs(2);

impl Knock {
    /// A client with the random number `nonce`, for `file` or the server's choice, with a receive
    /// buffer of `buffer` bytes.
    pub fn new(nonce: u64, file: Option<FileName>, buffer: u64, now: Moment) -> Self {
        Self {
            nonce,
            buffer: u32::try_from(buffer).unwrap_or(u32::MAX),
            file,
            cookie: [0; COOKIE],
            due: now,
            pause: PAUSE.start,
        }
    }

    /// What to send now, if anything: a HELLO, again and again until it is answered.
    pub fn poll_transmit(&mut self, now: Moment) -> Option<Vec<u8>> {
        if now < self.due {
            return None;
        }
        self.due = now.after(self.pause);
        self.pause = (self.pause * 2).min(PAUSE.end);
        let word = Word::Hello {
            cookie: self.cookie,
            buffer: self.buffer,
            file: self.file.clone(),
        };
        let nonce = self.nonce;
        Some(Greet { nonce, word }.encode())
    }

    /// When [`Knock::poll_transmit`] has something again.
    pub fn poll_timeout(&self) -> Moment {
        self.due
    }

    /// Takes a datagram of the server's; the welcome when that is what it is.
    ///
    /// # Errors
    /// The server refuses; its words.
    pub fn handle(&mut self, datagram: &[u8], now: Moment) -> Result<Option<Welcome>, String> {
        let Ok(Greet { nonce, word }) = Greet::decode(datagram) else {
            return Ok(None);
        };
        if nonce != self.nonce {
            return Ok(None);
        }
        match word {
            // The same one again is the answer to a HELLO that crossed the one with it.
            Word::Cookie(cookie) if cookie != self.cookie => {
                self.cookie = cookie;
                (self.due, self.pause) = (now, PAUSE.start);
                Ok(None)
            }
            Word::Welcome(welcome) => Ok(Some(welcome)),
            Word::Refused(reason) => Err(reason.to_owned()),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
