//! What the two ends say in datagrams where there is no TCP connection between them.
//!
//! Each begins with [`HEADER`] bytes, big-endian: the magic and version of
//! [`packet`](crate::proto::udp::packet), a kind, and the client's number, `u64`, which it has
//! chosen at random and which everything to it and from it carries. Then, by kind:
//!
//! | kind | from | what |
//! |---|---|---|
//! | 8 HELLO | client | cookie, 16 bytes, zeros before it has one; receive buffer `u32`; file: length `u8`, name, none at all is the server's choice; zeros up to [`HELLO`] bytes in all |
//! | 9 COOKIE | server | cookie, 16 bytes |
//! | 10 WELCOME | server | session `u64`, bytes `u64`, datagram `u16`, SHA-1 20 bytes, then the file's name |
//! | 11 REFUSED | server | the reason, text |
//! | 12 LINE | both | one line of the native protocol, without its end |
//! | 13 HEARD | server | nothing: the client's last word was heard and need not be said again |
//!
//! HELLO is as long as the longest answer to it would be and more, so that a server that answers
//! each with at most one datagram never sends anybody more than came from there. COOKIE is the
//! only answer to a HELLO without a cookie that this server made for its address.

use crate::digest::Digest;
use crate::proto::line::LINE_MAX;
use crate::proto::udp::cookie::COOKIE;
use crate::proto::udp::cookie::Cookie;
use crate::proto::udp::packet::DATAGRAM_MAX;
use crate::proto::udp::packet::DATAGRAM_MIN;
use crate::proto::udp::packet::MAGIC;
use crate::proto::udp::packet::PacketError;
use crate::proto::udp::packet::VERSION;
use crate::session::FileInfo;
use crate::session::SessionId;
use crate::text::FILE_NAME_MAX;
use crate::text::FileName;

/// One datagram's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greet<'a> {
    /// The client's number.
    pub nonce: u64,
    /// What is said.
    pub word: Word<'a>,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// A client wants a file.
    Hello {
        /// What the server gave it for its address; zeros before.
        cookie: Cookie,
        /// Its socket's receive buffer, bytes as the kernel counts them.
        buffer: u32,
        /// The file; `None` takes the server's choice.
        file: Option<FileName>,
    },
    /// Who can say this can be sent to.
    Cookie(Cookie),
    /// The client is proven, and may say that it is ready.
    Welcome(Welcome),
    /// It gets nothing, and why.
    Refused(&'a str),
    /// A line of the native protocol.
    Line(&'a str),
    /// The client's last word was heard.
    Heard,
}

/// What a proven client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The session; its lower half numbers the stream.
    pub session: SessionId,
    /// Most bytes of a datagram.
    pub datagram: u16,
    /// The file.
    pub file: FileInfo,
}

/// Bytes before what is said.
pub const HEADER: usize = 12;

/// The length of every HELLO (RFC 9000, section 8.1 for the number).
pub const HELLO: usize = 1200;

/// The longest reason that is given, bytes.
pub const REASON_MAX: usize = 400;

const HELLO_KIND: u8 = 8;
const COOKIE_KIND: u8 = 9;
const WELCOME_KIND: u8 = 10;
const REFUSED_KIND: u8 = 11;
const LINE_KIND: u8 = 12;
const HEARD_KIND: u8 = 13;

impl<'a> Greet<'a> {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO);
        out.extend(MAGIC.to_be_bytes());
        out.push(VERSION);
        out.push(match self.word {
            Word::Hello { .. } => HELLO_KIND,
            Word::Cookie(_) => COOKIE_KIND,
            Word::Welcome(_) => WELCOME_KIND,
            Word::Refused(_) => REFUSED_KIND,
            Word::Line(_) => LINE_KIND,
            Word::Heard => HEARD_KIND,
        });
        out.extend(self.nonce.to_be_bytes());
        match &self.word {
            Word::Hello {
                cookie,
                buffer,
                file,
            } => {
                out.extend(cookie);
                out.extend(buffer.to_be_bytes());
                let name = file.as_ref().map_or("", FileName::as_str);
                out.push(u8::try_from(name.len()).expect("a file's name is at most 255 bytes"));
                out.extend(name.as_bytes());
                out.resize(HELLO, 0);
            }
            Word::Cookie(cookie) => out.extend(cookie),
            Word::Welcome(welcome) => {
                out.extend(welcome.session.0.to_be_bytes());
                out.extend(welcome.file.bytes.to_be_bytes());
                out.extend(welcome.datagram.to_be_bytes());
                out.extend(welcome.file.sha1.as_bytes());
                out.extend(welcome.file.name.as_str().as_bytes());
            }
            Word::Refused(reason) => {
                let mut end = reason.len().min(REASON_MAX);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                out.extend(&reason.as_bytes()[..end]);
            }
            Word::Line(line) => out.extend(line.trim_end_matches('\n').as_bytes()),
            Word::Heard => {}
        }
        out
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// Whatever [`Greet::encode`] does not write.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let foreign = PacketError::Foreign;
        let short = PacketError::Damaged("shorter than its header");
        let (magic, rest) = bytes.split_first_chunk::<2>().ok_or(foreign)?;
        let (&version, rest) = rest.split_first().ok_or(foreign)?;
        if u16::from_be_bytes(*magic) != MAGIC || version != VERSION {
            return Err(foreign);
        }
        let (&kind, rest) = rest.split_first().ok_or(short)?;
        let (nonce, body) = rest.split_first_chunk::<8>().ok_or(short)?;
        let word = match kind {
            HELLO_KIND => hello(bytes.len(), body)?,
            COOKIE_KIND => Word::Cookie(
                body.try_into()
                    .map_err(|_| PacketError::Damaged("a cookie of another length"))?,
            ),
            WELCOME_KIND => Word::Welcome(welcome(body)?),
            REFUSED_KIND => Word::Refused(text(body, REASON_MAX)?),
            LINE_KIND => Word::Line(text(body, LINE_MAX)?),
            HEARD_KIND if body.is_empty() => Word::Heard,
            HEARD_KIND => return Err(PacketError::Damaged("bytes after its end")),
            _ => return Err(PacketError::Damaged("an unknown kind")),
        };
        Ok(Self {
            nonce: u64::from_be_bytes(*nonce),
            word,
        })
    }
}

fn hello(len: usize, body: &[u8]) -> Result<Word<'static>, PacketError> {
    let short = PacketError::Damaged("a HELLO of another length");
    if len != HELLO {
        return Err(short);
    }
    let (cookie, body) = body.split_first_chunk::<COOKIE>().ok_or(short)?;
    let (buffer, body) = body.split_first_chunk::<4>().ok_or(short)?;
    let (&named, body) = body.split_first().ok_or(short)?;
    let (name, padding) = body
        .split_at_checked(usize::from(named))
        .ok_or(PacketError::Damaged("a name beyond its end"))?;
    if padding.iter().any(|&byte| byte != 0) {
        return Err(PacketError::Damaged("something else than zeros"));
    }
    let file = match name {
        [] => None,
        name => Some(file_name(name)?),
    };
    Ok(Word::Hello {
        cookie: *cookie,
        buffer: u32::from_be_bytes(*buffer),
        file,
    })
}

fn welcome(body: &[u8]) -> Result<Welcome, PacketError> {
    let short = PacketError::Damaged("shorter than its header");
    let (session, body) = body.split_first_chunk::<8>().ok_or(short)?;
    let (bytes, body) = body.split_first_chunk::<8>().ok_or(short)?;
    let (datagram, body) = body.split_first_chunk::<2>().ok_or(short)?;
    let (sha1, name) = body.split_first_chunk::<{ Digest::LEN }>().ok_or(short)?;
    let datagram = u16::from_be_bytes(*datagram);
    if !(DATAGRAM_MIN..=DATAGRAM_MAX).contains(&datagram) {
        return Err(PacketError::Damaged("datagrams of an impossible length"));
    }
    Ok(Welcome {
        session: SessionId(u64::from_be_bytes(*session)),
        datagram,
        file: FileInfo {
            name: file_name(name)?,
            bytes: u64::from_be_bytes(*bytes),
            sha1: Digest::from_bytes(*sha1),
        },
    })
}

/// The only way to a name: what opens no file but its own.
fn file_name(bytes: &[u8]) -> Result<FileName, PacketError> {
    let wrong = PacketError::Damaged("no name of a file");
    if bytes.len() > FILE_NAME_MAX {
        return Err(wrong);
    }
    let name = std::str::from_utf8(bytes).map_err(|_| wrong)?;
    FileName::new(name).map_err(|_| wrong)
}

fn text(bytes: &[u8], max: usize) -> Result<&str, PacketError> {
    if bytes.len() > max {
        return Err(PacketError::Damaged("a text that is too long"));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|_| PacketError::Damaged("a text that is none"))?;
    match text.contains(['\n', '\0']) {
        true => Err(PacketError::Damaged("a text of several lines")),
        false => Ok(text),
    }
}
