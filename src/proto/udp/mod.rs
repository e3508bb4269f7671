//! The UDP family: one packet format and the state machines of three ways over it.
//!
//! `raw` measures and repairs nothing; `udp` is reliable to each client; `multicast` is reliable
//! to all at once. Only payload travels in datagrams ([`packet`]); what a receiver has to say
//! ([`control`]) travels on its TCP connection, which proves its address and loses nothing, so
//! there is no datagram from a client at all and nothing that a forged address could trigger.
//!
//! - [`packet`]: datagrams to values and back
//! - [`control`]: the lines on the control connection
//! - [`ranges`]: lists of missing blocks, in few bytes
//! - [`blocks`]: which blocks are held
//! - [`stats`]: what became of each datagram (loss, order, RFC 3550 jitter)
//! - [`sender`]: to one client, reliable or raw
//! - [`receiver`]: at every client
//! - `advance`: whether a client gets on while it is sent to
//! - [`probe`]: the rate, where nobody gave one; [`watch`]: what clients tell of it
//! - [`cast`]: to a group, with repair by XOR ([`xor`])
//!
//! Machines are fed with the time and never wait: the same code runs over sockets and, in the
//! tests, over a simulated link in virtual time.

pub mod blocks;
pub mod control;
pub mod group_sender;
pub mod packet;
pub mod probe;
pub mod ranges;
pub mod rate_controller;
pub mod receiver;
pub mod sender;
mod stall_detector;
pub mod stats;
pub mod xor;

#[cfg(test)]
mod simulation;

use std::time::Duration;

/// What a sending machine wants sent next; it has taken the datagram's number already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// One block.
    Data {
        /// The datagram's number.
        pkt: u32,
        /// The block.
        block: u32,
        /// It was sent before.
        again: bool,
    },
    /// The XOR of several blocks.
    Xor {
        /// The datagram's number.
        pkt: u32,
        /// The blocks, in rising order.
        blocks: Vec<u32>,
    },
    /// All so far: asks what is missing.
    End {
        /// The datagrams numbered so far.
        pkts: u32,
        /// Blocks below this have been sent.
        upto: u32,
        /// Which asking this is.
        round: u32,
    },
}

/// A client from which nothing is heard for this long is given up: nothing is sent to somebody
/// who does not say that it wants it.
pub const CONSENT: Duration = Duration::from_secs(5);

/// A client that says nothing but what cannot be true for this long is given up. One such word may
/// be an honest client's to whom somebody forged a datagram: it is not used, and no more.
pub const DOUBT: Duration = Duration::from_secs(2);

/// Datagrams that may overtake one before it counts as missing (RFC 9002, section 6.1.1).
pub const REORDER: u32 = 3;

/// True when number `a` comes before `b`, of numbers that wrap (RFC 1982).
pub fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}
