//! What a server sends outside of sessions, by whatever face.

use std::sync::{Arc, atomic::AtomicU64};

use crate::{net::pacing::Pacer, units::Rate};

/// What is sent outside of sessions: counted together, and together no faster than the server's
/// rate.
#[derive(Debug, Default)]
pub struct Downloads {
    /// Payload bytes.
    pub bytes: AtomicU64,
    /// Holds the server's rate, if it has one.
    pub pacer: Option<Arc<Pacer>>,
}

impl Downloads {
    /// Nothing was sent yet; from now on at `rate` in all.
    pub fn new(rate: Option<Rate>) -> Arc<Self> {
        let pacer = rate.map(|rate| Arc::new(Pacer::new(rate)));
        Arc::new(Self { bytes: AtomicU64::new(0), pacer })
    }
}
