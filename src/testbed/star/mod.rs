//! An emulated network on one machine: hosts on one switch, or behind one router, each with a
//! link of its own rate.
//!
//! Each host is a network namespace with one virtual Ethernet link to the middle, which has a
//! namespace too. The commands that build a star are data first ([`plan`]): they are shown, or
//! run. Nothing outside the star's own namespaces changes, so that removing those removes all of
//! it: [`Star`](build::Star) does on every way out, and [`sweep`] removes what a killed process left.
//!
//! - [`layout`]: what is wanted, checked
//! - [`name`]: names that say whose a namespace is
//! - [`plan`], [`step`], [`tool`]: commands as data, and how they are run
//! - [`host`], [`inside`]: a host, also of a star that somebody else built; acting in one
//! - [`build`]: a star at work, its loss, its end
//! - [`sweep`]: what is left of dead owners
//! - [`calibrate`]: what the links really carry
//! - [`rootless`]: the same without root

pub mod build;
pub mod calibrate;
pub mod host;
pub mod inside;
pub mod layout;
pub mod name;
pub mod plan;
pub mod rootless;
pub mod step;
pub mod sweep;
pub mod tool;
