//! Blocking plumbing that every room above stands on: clock, sockets, lines, copies, datagrams.

pub mod address;
pub mod arrival;
pub mod clock;
pub mod copy;
pub mod datagrams;
pub mod disk;
pub mod files;
pub mod host_name;
pub mod hosts_file;
pub mod http;
pub mod key_file;
pub mod line_stream;
pub mod link_queue;
pub mod logfile;
pub mod machine;
pub mod pacing;
pub mod plain_file;
pub mod primitives;
pub mod shared_reply;
pub mod socket;
pub mod storage;
mod sync;
pub mod tcp_info;
pub mod text_file;
mod thread;

pub use sync::lock;
pub use thread::{cpu_times, cpu_times_since, lower_priority, raise_priority, spawn};

/// The stack of a session's or connection's thread, bytes. Buffers are on the heap.
pub const STACK: usize = 256 * 1024;
