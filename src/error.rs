//! The one error of the crate: what was being done, where, and what stopped it.
//!
//! `Err` means that a session or a client cannot go on. One seat's failure inside a running
//! session is an [`Outcome`](crate::transfer::Outcome), and a broken invariant is a panic.

use std::{fmt, io, time::Duration};

use crate::text::excerpt;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    Io {
        /// What was being done, as a clause: `open the file`.
        doing: &'static str,
        /// The path or address.
        at: String,
        /// The system's own word.
        source: io::Error,
    },
    /// A peer said something that the protocol does not allow.
    Protocol {
        /// Whose message, an address or a path.
        from: String,
        /// What was wrong, with the value.
        what: String,
    },
    /// A deadline passed.
    TimedOut {
        /// What was waited for.
        phase: &'static str,
        /// The address.
        at: String,
        /// How long it was waited.
        after: Duration,
    },
    /// The other side, or a rule of ours, said no.
    Refused {
        /// Who refused, an address or a path.
        by: String,
        /// Its reason, as one clause.
        reason: String,
    },
    /// The muster ended without enough clients.
    NotEnough {
        /// How many were ready and how many were wanted.
        reason: String,
    },
    /// The file on disk is not the file that was offered any more.
    SourceChanged {
        /// The file.
        at: String,
        /// What changed, as a clause: `the source changed: written to`.
        what: String,
    },
    /// The received bytes have another digest.
    Corrupt {
        /// The file and the digests.
        what: String,
    },
    /// The copy is complete, and there is no digest to prove it by.
    Unproven {
        /// The server, which gave none.
        from: String,
        /// The path of the copy.
        copy: String,
        /// The copy's SHA-1.
        sha1: String,
    },
    /// Invalid arguments.
    Usage {
        /// What is wrong, with the value.
        what: String,
    },
    /// The user stopped it.
    Interrupted,
}

/// A stretch of a conversation that has its own deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reaching the server.
    Connect,
    /// The first bytes of a connection.
    Greet,
    /// JOIN to OFFER.
    Offer,
    /// OFFER to READY.
    Ready,
    /// Waiting at the gate.
    Muster,
    /// Release to last byte.
    Transfer,
    /// Last byte to receipt.
    Receipt,
}

impl Error {
    /// Makes an [`Error::Io`], for `map_err`.
    #[doc(hidden)]
    pub fn io(doing: &'static str, at: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, at: at.to_string(), source }
    }

    /// Makes an [`Error::TimedOut`].
    #[doc(hidden)]
    pub fn timed_out(phase: Phase, at: impl fmt::Display, after: Duration) -> Self {
        Self::TimedOut { phase: phase.name(), at: at.to_string(), after }
    }

    /// Makes an [`Error::Protocol`].
    #[doc(hidden)]
    pub fn protocol(from: impl fmt::Display, what: impl Into<String>) -> Self {
        Self::Protocol { from: from.to_string(), what: what.into() }
    }

    /// The [`Error::Io`] of the bytes that came where a server of ours was to answer. `doing` is such
    /// as `find a gatecast server`.
    pub(crate) fn wrong_server(doing: &'static str, at: impl fmt::Display, answer: &[u8]) -> Self {
        let what = format!("another program answers, '{}'; is the port right?", excerpt(answer));
        Self::io(doing, at)(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// Adds to an [`Error::Io`] what the user can do about it.
    #[must_use]
    pub(crate) fn advise(self, step: impl fmt::Display) -> Self {
        match self {
            Self::Io { doing, at, source } => {
                let source = io::Error::new(source.kind(), format!("{source}; {step}"));
                Self::Io { doing, at, source }
            }
            other => other,
        }
    }

    /// Makes an [`Error::Refused`].
    #[doc(hidden)]
    pub fn refused(by: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Refused { by: by.to_string(), reason: reason.into() }
    }

    /// Makes an [`Error::Usage`], for `map_err` too.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        let what = what.to_string();
        Self::Usage { what }
    }

    /// Reading with a deadline fails with one of two kinds, by platform; both mean the deadline.
    #[doc(hidden)]
    pub fn is_timeout(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, at, source } => write!(f, "cannot {doing} ({at}): {source}"),
            Self::Protocol { from, what } => write!(f, "{from} broke the protocol: {what}"),
            Self::TimedOut { phase, at, after } => {
                write!(f, "no {phase} from {at} within {} s", after.as_secs_f64())
            }
            Self::Refused { by, reason } => write!(f, "{by} refused: {reason}"),
            Self::NotEnough { reason } => {
                write!(f, "the muster ended without enough clients: {reason}")
            }
            Self::SourceChanged { at, what } => write!(f, "{at}: {what}"),
            Self::Corrupt { what } => write!(f, "the copy is not the file: {what}"),
            Self::Unproven { from, copy, sha1 } => write!(
                f,
                "{from} gave no digest and --sha1 was not given: the copy is whole and unproven, {copy} with the SHA-1 {sha1}"
            ),
            Self::Usage { what } => f.write_str(what),
            Self::Interrupted => f.write_str("the client was interrupted"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // `Display` prints the system's word; a chain of causes goes on behind it.
            Self::Io { source, .. } => source.source(),
            _ => None,
        }
    }
}

impl Phase {
    /// What is waited for in this phase.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connection",
            Self::Greet => "greeting",
            Self::Offer => "offer",
            Self::Ready => "READY",
            Self::Muster => "sign of life at the gate",
            Self::Transfer => "progress of the transfer",
            Self::Receipt => "receipt",
        }
    }
}
