//! Threads with a name and a bounded stack.

use std::{
    io,
    thread::{self, JoinHandle},
};

use crate::net::STACK;

/// Starts a thread.
///
/// # Errors
/// The system refuses it.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(body)
}
