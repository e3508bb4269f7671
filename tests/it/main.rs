//! The integration tests: the library over real sockets, and the program in real processes.
//!
//! They are one binary, so that `common` is compiled and linked once. A test that counts this
//! process's threads or descriptors, lowers its limits, changes its environment or installs an
//! allocator stands beside this folder, as a binary of its own.

mod common;

mod auto;
mod chain;
mod dashboard;
mod doctor;
#[cfg(unix)]
mod faults;
mod figures;
mod gate;
mod hostile;
mod http;
mod key;
mod lab;
mod limits;
mod relay;
mod swarm;
mod testdata;
mod udp;

#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod auto_star;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod calibrate;
#[cfg(feature = "cli")]
mod cli;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod disks;
#[cfg(feature = "cli")]
mod documents;
#[cfg(all(unix, feature = "cli"))]
mod ends;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod errors;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod firewall;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod group_star;
#[cfg(feature = "cli")]
mod help;
#[cfg(feature = "cli")]
mod lab_tcp;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod ladder_star;
#[cfg(all(target_os = "linux", feature = "cli"))]
mod live;
#[cfg(feature = "cli")]
mod names;
#[cfg(feature = "cli")]
mod page;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod processes;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod push;
mod roster;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod standing;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod star;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod study;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod tree;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod why;
