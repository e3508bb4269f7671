//! The relay's control conversation, the networking lab's and ours: what a viewer says over TCP and
//! what it is told. Lines end with `\n`; `\r\n` is accepted.
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
//! A viewer of ours says one thing more, every second: that it lives and what it received. From
//! its first such line on, [silence](SILENCE_MAX) ends it. The answer tells what was sent to it.
//! A relay that does not know the word says `ERROR`, and the viewer leaves it at that.
//!
//! ```text
//! ALIVE datagrams=570 bytes=750120 cc=0 jitter_us=12 host_drop=0
//!                        <-  OK sent=570 bytes=750120 dropped=0 paused=0 cc=0 p50_us=210 ...
//! ```
//!
//! | limit | value |
//! |---|---|
//! | line | [`COMMAND_MAX`] bytes; the rest of a longer one is skipped |
//! | bytes skipped in a row | [`SKIP_MAX`], then the connection is closed |
//! | commands in a second | [`COMMANDS_MAX`], then the connection is closed |
//! | silence before CONECTAR | [`OPENING_MAX`], then the connection is closed |
//! | port | [`PORT_MIN`] to 65535 |

pub mod log;
pub mod reports;

use std::time::Duration;

use self::reports::ReceiverReport;
use self::reports::SenderReport;
use crate::proto::line::DecodeError;
use crate::proto::line::Fields;
use crate::proto::line::decimal;
use crate::units::Moment;

/// What a viewer wants.
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
    /// To be known alive, and what it received.
    Alive(ReceiverReport),
}

/// Where a viewer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewerState {
    /// It has not said where to send.
    #[default]
    Unconnected,
    /// It gets every datagram.
    Running,
    /// It keeps its place and gets none.
    Paused,
}

/// What a viewer is told.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlReply {
    /// Done.
    Ok,
    /// Heard, and this is what was sent.
    Statement(SenderReport),
    /// Not done, and why.
    Error(String),
}

/// Makes commands of what was read.
#[derive(Debug, Default)]
pub struct CommandReader {
    bytes: Vec<u8>,
    /// Bytes skipped of a line that was too long; `None` in any other line.
    skipped: Option<usize>,
}

/// Longest line, bytes, its end included: `ALIVE` with every field it can have takes half.
pub const COMMAND_MAX: usize = 512;

/// Most bytes of one line that are read and thrown away, after `ERROR` was said.
pub const SKIP_MAX: usize = 16 * 1024 * 1024;

/// Least port that datagrams go to: below are services that never asked for any.
pub const PORT_MIN: u16 = 1024;

/// A viewer of ours that says nothing for so long is gone. It must not be sent to for 5 s, and on
/// a busy machine the last of them goes by in noticing.
pub const SILENCE_MAX: Duration = Duration::from_secs(4);

/// A client that has no viewer yet and says nothing for so long is let go. A student who types by
/// hand has a minute for each line; a wrong one counts as a word too.
pub const OPENING_MAX: Duration = Duration::from_secs(60);

/// Most commands of a connection in one second: many times what a program that plays with its
/// pauses says, and nothing that keeps the relay from its work.
pub const COMMANDS_MAX: u32 = 256;

/// Longest reason in an `ERROR`, characters.
const REASON_MAX: usize = 200;

/// Counts a connection's commands.
#[derive(Debug)]
pub struct CommandRate {
    since: Moment,
    spent: u32,
}

impl CommandRate {
    /// Nothing is spent at `now`.
    pub fn new(now: Moment) -> Self {
        Self {
            since: now,
            spent: 0,
        }
    }

    /// Whether one more command may be said at `now`.
    pub fn allow(&mut self, now: Moment) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= COMMANDS_MAX
    }
}

/// How long a client may be silent: one that has a viewer of ours (`Some(true)`), one of the lab's,
/// which `bound` is for, and one that has none yet.
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
    /// It is no command; says why, for the viewer.
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
            _ => return Err(DecodeError::value("no such command", line)),
        };
        match rest {
            None => Ok(command),
            Some(rest) => Err(DecodeError::value(
                &format!("{word} takes nothing more"),
                rest,
            )),
        }
    }

    /// The line that says it.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Connect(port) => format!("CONECTAR {port}\n").into_bytes(),
            Self::Interrupt => b"INTERRUMPIR\n".to_vec(),
            Self::Continue => b"CONTINUAR\n".to_vec(),
            Self::Disconnect => b"DESCONECTAR\n".to_vec(),
            Self::Alive(receipt) => receipt.encode(),
        }
    }
}

/// Reads a port, bare or in angle brackets.
fn decode_port(text: &str) -> Result<u16, DecodeError> {
    let bare = text
        .strip_prefix('<')
        .map_or(Some(text), |rest| rest.strip_suffix('>'));
    let port = bare
        .and_then(decimal)
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| DecodeError::value("no port", text))?;
    match port {
        PORT_MIN.. => Ok(port),
        _ => Err(DecodeError(format!(
            "port {port} is below {PORT_MIN}; nothing is sent there"
        ))),
    }
}

impl ViewerState {
    /// Where a viewer stands after `command`.
    ///
    /// # Errors
    /// The command has no place here; says why, for the viewer.
    pub fn after(self, command: &ControlCommand) -> Result<Self, &'static str> {
        match (self, command) {
            (Self::Unconnected, ControlCommand::Connect(_))
            | (Self::Paused, ControlCommand::Continue) => Ok(Self::Running),
            (Self::Running, ControlCommand::Interrupt) => Ok(Self::Paused),
            (_, ControlCommand::Disconnect) => Ok(Self::Unconnected),
            (_, ControlCommand::Alive(_)) => Ok(self),
            (_, ControlCommand::Connect(_)) => Err("connected already"),
            (Self::Unconnected, _) => Err("not connected"),
            (Self::Paused, ControlCommand::Interrupt) => Err("interrupted already"),
            (Self::Running, ControlCommand::Continue) => Err("not interrupted"),
        }
    }
}

impl ControlReply {
    /// The line that says it.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ok => b"OK\n".to_vec(),
            Self::Statement(statement) => statement.encode(),
            Self::Error(reason) => {
                let shown = crate::text::escape(reason);
                let reason: String = shown.chars().take(REASON_MAX).collect();
                format!("ERROR {reason}\n").into_bytes()
            }
        }
    }

    /// Reads `line`, which has no end.
    ///
    /// # Errors
    /// It is no reply.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.split_once(' ') {
            None if line == "OK" => Ok(Self::Ok),
            None if line == "ERROR" => Ok(Self::Error(String::new())),
            Some(("OK", _)) => SenderReport::decode(&Fields::parse(line)?).map(Self::Statement),
            // Ours escapes what it tells; another's is taken as it is, and is not safe to show.
            Some(("ERROR", reason)) => Ok(Self::Error(
                crate::text::unescape(reason).unwrap_or_else(|| reason.to_owned()),
            )),
            _ => Err(DecodeError::value("neither OK nor ERROR", line)),
        }
    }
}

impl CommandReader {
    /// Takes what a read returned; [`next`](Self::next) is to be called until it has no more.
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
