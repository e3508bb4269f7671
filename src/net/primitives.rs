//! What the threads of a session block on and share, all in one place. `schedules/` compiles the gate,
//! the lobby, the log and TCP's sending once more over another module of this name, whose threads,
//! sockets and clock stand still until a scheduler moves them.

pub use std::{
    net::TcpStream,
    sync::{Barrier, Condvar, Mutex, MutexGuard, atomic},
    thread,
};

pub use crossbeam_channel as channel;
