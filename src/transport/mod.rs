//! How bytes travel. None of these imports another.

pub mod chain;
pub mod swarm;
pub mod tcp;
pub mod udp;
