//! An emulated network on one machine: hosts on one switch, or behind one router, each with a
//! link of its own rate.
//!
//! Each host is a network namespace with one virtual Ethernet link to the middle, which has a
//! namespace too. The commands that build a star are data first ([`setup`]): they are shown, or
//! run. Nothing outside the star's own namespaces changes, so that removing those removes all of
//! it: [`Star`](build::Star) does on every way out, and [`cleanup`] removes what a killed process left.
//!
//! - [`layout`]: what is wanted, checked
//! - [`star_id`]: names that have the process that made a namespace
//! - [`setup`], [`step`], [`tool`]: commands as data, and how they are run
//! - [`host`], [`namespace`]: a host, also of a network that was given; acting in one
//! - [`build`]: a star at work, its loss, its end
//! - [`capture`]: what passes its hosts, in files
//! - [`cleanup`]: removing stars whose owner has ended
//! - [`calibrate`]: what the links really carry
//! - [`rootless`]: the same without root

pub mod build;
pub mod calibrate;
pub mod capture;
pub mod cleanup;
pub mod host;
pub mod layout;
pub mod namespace;
pub mod rootless;
pub mod setup;
pub mod star_id;
pub mod step;
pub mod tool;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// The refusal to build or use a star, and why.
pub fn refused(why: impl Into<String>) -> Error {
    Error::refused("the star", why)
}

/// Asks whether to go on.
///
/// # Errors
/// `stop` was set.
pub fn check_stop(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}
