//! Blocking plumbing that every service stands on: clock, sockets, copies, files, the gate, the
//! control connection, the session log, the port.
//!
//! - [`clock`]: one monotonic clock, and wall time as a label
//! - [`socket`]: bind, connect, the few kernel settings
//! - [`copy`], [`pace`]: bytes between disk and socket, at a rate or as fast as it goes
//! - [`catalog`]: the offered files and their digests
//! - [`gate`], [`lobby`]: muster and release of one session; all sessions of a server
//! - [`dialogue`], [`control`]: lines under deadlines; the native conversation at both ends
//! - [`datagrams`]: UDP in batches
//! - [`way`]: what a way of sending is to the gate
//! - [`journal`], [`ledger`]: the one logger thread; what it has written, for every face
//! - [`logfile`]: a file that grows by whole lines
//! - [`sample`]: files to send where there are none
//! - [`listener`], [`host`]: the one port; a server put together

pub mod catalog;
pub mod clock;
pub mod control;
pub mod copy;
pub mod datagrams;
pub mod dialogue;
pub mod gate;
pub mod host;
pub mod journal;
pub mod ledger;
pub mod listener;
pub mod lobby;
pub mod logfile;
pub mod pace;
pub mod sample;
pub mod socket;
pub mod way;
