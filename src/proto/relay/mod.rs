//! The relay's control protocol, the networking lab's and ours: what a viewer sends over TCP and
//! what it is answered. Lines end with `\n`; `\r\n` is accepted.
//!
//! ```text
//! viewer                               relay
//! CONECTAR 5000          ->                       or CONECTAR <5000>; alias CONNECT
//!                        <-  OK                   datagrams now go to port 5000 of its address
//! INTERRUMPIR            ->                       alias INTERRUPT
//!                        <-  OK                   none after this
//! CONTINUAR              ->                       alias CONTINUE
//!                        <-  OK
//! DESCONECTAR            ->                       alias DISCONNECT
//!                        <-  OK                   and the connection is closed
//! anything else          ->
//!                        <-  ERROR <reason>       nothing has changed
//! ```
//!
//! A viewer of ours sends one line more, every second: that it is alive and what it received. From
//! its first such line on, [silence](SILENCE_MAX) ends it. The answer says what was sent to it. A
//! relay that does not know the word answers `ERROR`, and the viewer does not send it again.
//!
//! ```text
//! ALIVE datagrams=570 bytes=750120 cc=0 jitter_us=12 host_drop=0
//!                        <-  OK sent=570 bytes=750120 dropped=0 paused=0 cc=0 p50_us=210 ...
//! ```
//!
//! A relay may send the stream to a group too, in RTP with numbers of its own. A viewer of ours asks
//! for it, joins it, connects, and when it hears the group says so. From the datagram `next` on the
//! relay sends to it by the group alone. `CONTINUAR` is the way back to its own port, `INTERRUMPIR` a
//! pause; what answers either says in `next` which datagram of the group is no longer its own.
//!
//! ```text
//! MULTICAST              ->
//!                        <-  OK group=239.255.1.2:5000 from=192.0.2.1:40000 next=570
//! CONECTAR 5000          ->
//!                        <-  OK
//! MULTICAST              ->
//!                        <-  OK group=239.255.1.2:5000 from=192.0.2.1:40000 next=840
//! ```
//!
//! | limit | value |
//! |---|---|
//! | line | [`COMMAND_MAX`] bytes; the rest of a longer one is skipped |
//! | bytes skipped in a row | [`SKIP_MAX`], then the connection is closed |
//! | commands in a second | [`COMMANDS_MAX`], then the connection is closed |
//! | silence before CONECTAR | [`OPENING_MAX`], then the connection is closed |
//! | port | [`PORT_MIN`] to 65535 |

pub mod events;
pub mod hearing;
pub mod ladder;
pub mod log;
pub mod metrics;
pub mod reports;
pub mod status;

use std::{fmt, net::SocketAddr, time::Duration};

use crate::{
    proto::{
        line::{DecodeError, Fields, LineWriter, decimal},
        relay::reports::{ReceiverReport, SenderReport},
    },
    text::{escape, unescape},
    units::Moment,
};

/// What a viewer asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlCommand {
    /// Datagrams, to this port of its own address.
    Connect(u16),
    /// None until it continues.
    Interrupt,
    /// Datagrams again.
    Continue,
    /// To leave.
    Disconnect,
    /// That it is alive, and what it received.
    Alive(ReceiverReport),
    /// Which group the relay sends to, and once it is connected: the stream by that alone.
    Group,
}

/// A relay's group, as its viewers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayGroup {
    /// Where the stream goes.
    pub group: SocketAddr,
    /// Who sends it; what others send there is not of the stream.
    pub from: SocketAddr,
    /// The number of the first datagram that the answer is about.
    pub next: u64,
}

/// Whether a viewer gets the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewerState {
    /// It has not said where to send.
    #[default]
    Unconnected,
    /// It gets every datagram.
    Running,
    /// It keeps its place and gets none.
    Paused,
    /// It gets what the relay's group gets, and nothing to its own port.
    Grouped,
}

/// What a viewer is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlReply {
    /// Done.
    Ok,
    /// Done, and this is what was sent.
    Report(SenderReport),
    /// Done, and this is the group.
    Group(RelayGroup),
    /// Not done, and why.
    Error(String),
}

/// Reads commands from the bytes of a connection.
#[derive(Debug, Default)]
pub struct CommandReader {
    bytes: Vec<u8>,
    /// Bytes skipped of a line that was too long; `None` in any other line.
    skipped: Option<usize>,
}

/// Longest line, bytes, its end included: `ALIVE` with every field it can have takes half.
pub const COMMAND_MAX: usize = 512;

/// Most bytes of one line that are read and thrown away, after `ERROR` was sent.
pub const SKIP_MAX: usize = 16 * 1024 * 1024;

/// Least port that datagrams go to: below are services that never asked for any.
pub const PORT_MIN: u16 = 1024;

/// A viewer of ours that sends nothing for so long is gone. Nothing may be sent to a vanished viewer
/// for more than 5 s, and a busy machine may take the last second to notice.
pub const SILENCE_MAX: Duration = Duration::from_secs(4);

/// A client that has no viewer yet and sends nothing for so long is let go. A student who types by
/// hand has a minute for each line; a wrong line counts too.
pub const OPENING_MAX: Duration = Duration::from_secs(60);

/// Most commands of a connection in one second: many more than any honest program sends, and too
/// few to keep the relay from its work.
pub const COMMANDS_MAX: u32 = 256;

/// Longest reason in an `ERROR`, characters.
const REASON_MAX: usize = 200;

/// Limits a connection's commands to [`COMMANDS_MAX`] in a second.
#[derive(Debug)]
pub struct CommandRate {
    since: Moment,
    count: u32,
}

impl CommandRate {
    /// No command was sent before `now`.
    pub fn new(now: Moment) -> Self {
        let (since, count) = (now, 0);
        Self { since, count }
    }

    /// Whether one more command is allowed at `now`.
    pub fn allow(&mut self, now: Moment) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        self.count <= COMMANDS_MAX
    }
}

/// How long a client may be silent: one with a viewer that reports (`Some(true)`), one with a lab
/// viewer (`Some(false)`, for which `bound` is set), and one that has no viewer yet.
pub fn silence(native: Option<bool>, bound: Duration) -> Duration {
    match native {
        Some(true) => SILENCE_MAX,
        Some(false) => bound,
        None => bound.min(OPENING_MAX),
    }
}

impl ControlCommand {
    /// Reads `line`, which has no end.
    ///
    /// # Errors
    /// It is not a command; says why, for the viewer.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let (word, rest) = match line.split_once(' ') {
            Some((word, rest)) => (word, Some(rest)),
            None => (line, None),
        };
        let command = match word {
            "CONECTAR" | "CONNECT" => {
                let port = rest.ok_or_else(|| DecodeError(format!("{word} without a port")))?;
                return decode_port(port).map(Self::Connect);
            }
            "ALIVE" => return ReceiverReport::decode(&Fields::parse(line)?).map(Self::Alive),
            "INTERRUMPIR" | "INTERRUPT" => Self::Interrupt,
            "CONTINUAR" | "CONTINUE" => Self::Continue,
            "DESCONECTAR" | "DISCONNECT" => Self::Disconnect,
            "MULTICAST" => Self::Group,
            _ => return Err(DecodeError::value("no such command", line)),
        };
        match rest {
            None => Ok(command),
            Some(rest) => Err(DecodeError::value(&format!("{word} takes nothing more"), rest)),
        }
    }

    /// The line.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Connect(port) => format!("CONECTAR {port}\n").into_bytes(),
            Self::Interrupt => b"INTERRUMPIR\n".to_vec(),
            Self::Continue => b"CONTINUAR\n".to_vec(),
            Self::Disconnect => b"DESCONECTAR\n".to_vec(),
            Self::Alive(report) => report.encode(),
            Self::Group => b"MULTICAST\n".to_vec(),
        }
    }
}

/// Reads a port, bare or in angle brackets.
fn decode_port(text: &str) -> Result<u16, DecodeError> {
    let bare = text.strip_prefix('<').map_or(Some(text), |rest| rest.strip_suffix('>'));
    let port = bare
        .and_then(decimal)
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| DecodeError::value("no port", text))?;
    if port < PORT_MIN {
        let why = format!("port {port} is below {PORT_MIN}; nothing is sent there");
        return Err(DecodeError(why));
    }
    Ok(port)
}

impl ViewerState {
    /// The state after `command`.
    ///
    /// # Errors
    /// The command cannot be given in this state; says why, for the viewer.
    pub fn after(self, command: &ControlCommand) -> Result<Self, &'static str> {
        match (self, command) {
            (Self::Unconnected, ControlCommand::Connect(_))
            | (Self::Paused | Self::Grouped, ControlCommand::Continue) => Ok(Self::Running),
            (Self::Running | Self::Grouped, ControlCommand::Interrupt) => Ok(Self::Paused),
            (_, ControlCommand::Disconnect) => Ok(Self::Unconnected),
            (_, ControlCommand::Alive(_)) | (Self::Unconnected, ControlCommand::Group) => Ok(self),
            (Self::Running, ControlCommand::Group) => Ok(Self::Grouped),
            (_, ControlCommand::Connect(_)) => Err("connected already"),
            (Self::Unconnected, _) => Err("not connected"),
            (Self::Paused, _) => Err("interrupted already"),
            (Self::Grouped, _) => Err("by the group already"),
            (Self::Running, ControlCommand::Continue) => Err("not interrupted"),
        }
    }
}

impl fmt::Display for ViewerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unconnected => "out",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Grouped => "group",
        })
    }
}

impl ControlReply {
    /// The line.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ok => b"OK\n".to_vec(),
            Self::Report(report) => report.encode(),
            Self::Group(RelayGroup { group, from, next }) => {
                let line = LineWriter::new("OK").field("group", group).field("from", from);
                line.field("next", next).finish()
            }
            Self::Error(reason) => {
                let shown = escape(reason);
                let reason: String = shown.chars().take(REASON_MAX).collect();
                format!("ERROR {reason}\n").into_bytes()
            }
        }
    }

    /// Reads `line`, which has no end.
    ///
    /// # Errors
    /// It is not a reply.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.split_once(' ') {
            None if line == "OK" => Ok(Self::Ok),
            None if line == "ERROR" => Ok(Self::Error(String::new())),
            Some(("OK", _)) => {
                let fields = Fields::parse(line)?;
                let Some(group) = fields.group()? else {
                    return SenderReport::decode(&fields).map(Self::Report);
                };
                let (from, next) = (fields.parsed("from", str::parse)?, fields.number("next")?);
                Ok(Self::Group(RelayGroup { group, from, next }))
            }
            // Our relay escapes its reasons; another's is taken as it is, and is not safe to show.
            Some(("ERROR", reason)) => {
                Ok(Self::Error(unescape(reason).unwrap_or_else(|| reason.to_owned())))
            }
            _ => Err(DecodeError::value("neither OK nor ERROR", line)),
        }
    }
}

impl CommandReader {
    /// Adds the bytes of a read; [`next`](Self::next) is to be called until it has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next command, or what is wrong with it; `None` until more bytes come.
    #[allow(clippy::should_implement_trait)] // It goes on after `None`.
    pub fn next(&mut self) -> Option<Result<ControlCommand, DecodeError>> {
        loop {
            let end = self.bytes.iter().position(|&byte| byte == b'\n');
            let length = end.map_or(self.bytes.len(), |end| end + 1);
            if let Some(skipped) = self.skipped {
                self.bytes.drain(..length);
                self.skipped = match end {
                    Some(_) => None,
                    None => Some(skipped + length),
                };
                end?;
                continue;
            }
            if length > COMMAND_MAX || end.is_none() && length == COMMAND_MAX {
                self.skipped = Some(0);
                let why = format!("a line longer than {COMMAND_MAX} bytes");
                return Some(Err(DecodeError(why)));
            }
            let end = end?;
            let line: Vec<u8> = self.bytes.drain(..=end).take(end).collect();
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            let text = std::str::from_utf8(line);
            let text = text.map_err(|_| DecodeError("a line that is not UTF-8".to_owned()));
            return Some(text.and_then(ControlCommand::decode));
        }
    }

    /// True when more was skipped than any mistake explains.
    pub fn is_hopeless(&self) -> bool {
        self.skipped.is_some_and(|skipped| skipped > SKIP_MAX)
    }
}

#[cfg(test)]
mod tests;
