//! What is counted for one seat by the thread that sends to it.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use crate::runtime::way::Failure;

/// What is counted for one seat, read by its thread.
#[derive(Debug, Default)]
pub struct Tally {
    /// Payload bytes.
    pub payload: AtomicU64,
    /// Payload bytes that had been sent before.
    pub again: AtomicU64,
    /// Datagrams.
    pub offered: AtomicU64,
    /// Datagrams that the client has not got, as it said last.
    pub lost: AtomicU64,
    /// Datagrams that this host refused.
    pub refused: AtomicU64,
    /// When the first went out, microseconds; zero before.
    pub first_us: AtomicU64,
    /// Why the client is not sent to any more.
    pub failure: OnceLock<Failure>,
}
