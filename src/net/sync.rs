//! Locks that outlive a panic.

use std::sync::PoisonError;

use crate::net::primitives::{Mutex, MutexGuard};

/// Locks `mutex`, even where a thread has panicked with it: what our locks guard is changed one
/// field at a time, and the panicked thread's own part of it is given back when it unwinds.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
