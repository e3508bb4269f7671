//! The UDP family: one packet format, and the state machines of three transports over it.
//!
//! `raw` measures and repairs nothing; `udp` is reliable to each client; `multicast` is reliable
//! to all clients at once. Datagrams carry only payload ([`packet`]). A receiver reports
//! ([`control`]) on its TCP connection, which proves its address and loses nothing. So a client
//! sends no datagram at all, and a forged address triggers nothing.
//!
//! - [`packet`]: datagrams to values and back
//! - [`control`]: the lines on the control connection
//! - [`ranges`]: lists of missing blocks, in few bytes
//! - [`blocks`]: how a file is cut into blocks, and which of them are held
//! - [`stats`]: what became of each datagram (loss, order, RFC 3550 jitter)
//! - [`sender`]: to one client, reliable or raw
//! - [`group_sender`]: to a group, with repair by XOR ([`xor`]); `group_member`: one of its clients
//! - [`liveness`]: when a client is given up; `stall_detector`: whether it makes progress
//! - `end_timer`: when a sender asks what is missing
//! - [`receiver`]: at every client; [`reports`]: when and what it reports
//! - [`probe`]: the rate, where the user gave none; [`rate_controller`]: its input, from reports
//!
//! The machines get the time as an argument and never wait: the same code runs over sockets and,
//! in the tests, over a simulated link in virtual time.

pub mod blocks;
pub mod control;
mod end_timer;
mod group_member;
pub mod group_sender;
pub mod liveness;
pub mod packet;
pub mod probe;
pub mod ranges;
pub mod rate_controller;
pub mod receiver;
pub mod reports;
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
    /// The end of what was sent so far: asks what is missing.
    End {
        /// The datagrams numbered so far.
        pkts: u32,
        /// Blocks below this have been sent.
        upto: u32,
        /// The number of this question.
        round: u32,
    },
}

/// A client that sends no report for this long is given up: datagrams go only to a client that
/// shows that it wants them.
pub const CONSENT: Duration = Duration::from_secs(5);

/// A client all of whose reports were impossible for this long is given up. A single one is only
/// ignored: an honest client may send it after it received a forged datagram.
pub const DOUBT: Duration = Duration::from_secs(2);

/// Datagrams that may overtake one before it counts as missing (RFC 9002, section 6.1.1).
pub const REORDER: u32 = 3;

/// True when number `a` comes before `b`, of numbers that wrap (RFC 1982).
pub fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}
