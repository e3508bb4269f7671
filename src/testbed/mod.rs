//! Experiments: an emulated star of hosts, studies that are run on it, and what to expect of each
//! way without a network.

pub mod plan;
pub mod star;
pub mod study;
