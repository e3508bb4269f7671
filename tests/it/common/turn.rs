//! Tests that would disturb each other take turns.
//!
//! All tests are one process, and as many run at a time as there are processors. Most of them do
//! not mind. Some do: a star of network namespaces counts the links of this host, a player keeps a
//! processor busy for seconds, ten thousand connections leave few descriptors for others.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::common::within;

/// The kind of the heavy tests that run now, and how many of them run.
static RUNNING: Mutex<(&str, usize)> = Mutex::new(("", 0));
static ENDED: Condvar = Condvar::new();

/// The right of a heavy test to run, as long as this value lives.
#[must_use = "the turn is over when this is dropped"]
#[derive(Debug)]
pub(crate) struct Turn(());

/// Waits until no heavy test of another kind runs.
///
/// Heavy tests of one kind run beside each other, and light tests beside them.
pub(crate) fn turn(kind: &'static str) -> Turn {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let others_run = |running: &mut (&str, usize)| running.1 > 0 && running.0 != kind;
    let mut running = ENDED.wait_while(running, others_run).unwrap_or_else(PoisonError::into_inner);
    *running = (kind, running.1 + 1);
    Turn(())
}

/// Runs a heavy test in its turn. The time that it waits for its turn does not count.
pub(crate) fn in_turn(kind: &'static str, limit: Duration, body: impl FnOnce() + Send + 'static) {
    let _turn = turn(kind);
    within(limit, body);
}

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).1 -= 1;
        ENDED.notify_all();
    }
}
