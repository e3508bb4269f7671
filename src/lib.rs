//! gatecast sends one file, or one live stream, to many machines at the same instant, proves that
//! every copy is right, and shows exactly what each one got.
//!
//! Modules stand in floors; imports go down only.

// Floor 0: the shared words.
pub mod units;

pub mod digest;

pub mod text;

pub mod session;

pub mod transfer;

pub mod error;

// Floor 1: bytes to messages and back.
pub mod proto;

// Floor 2: blocking plumbing.
pub mod runtime;

// Floor 3: services, which never import each other.
pub mod relay;
pub mod swarm;

pub mod tcp;
pub mod udp;

// Floor 4: faces and experiments.
pub mod http;

pub mod report;

#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub mod star;

#[cfg(all(target_os = "linux", feature = "sockopt", feature = "cli"))]
pub mod study;

// Floor 5: words on a command line.
#[cfg(feature = "cli")]
pub mod cli;
