//! Experiments: an emulated star of hosts, and studies that are run on it.

pub mod star;
#[cfg(feature = "cli")]
pub mod study;
