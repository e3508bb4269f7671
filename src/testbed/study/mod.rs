//! The experiment: every way of sending, on the same links, against the same bound.
//!
//! A study is a grid of runs on stars. Each run is real: a `serve` on host 0 and a `fetch` on
//! each other host, processes as a user would start them. What each observed is kept; everything
//! that is shown is computed from that.
//!
//! - [`grid`]: what is measured, in which order
//! - [`bound`], [`stat`]: the least makespan that links allow; medians and their intervals
//! - [`contender`], [`native`], [`nginx`], [`group`], [`foreign`]: what is compared, by one trait
//! - [`run`], [`crew`], [`work`]: the runs, their programs, their folder
//! - [`environment`], [`results`]: where it was made; the document
//! - [`sheet`], [`figure`], [`page`]: tables and CSV, plots, one page with all of it
//! - [`forecast`]: what the bounds and a study say about other numbers, without a network

pub mod bound;
pub mod contender;
pub mod crew;
pub mod environment;
pub mod figure;
pub mod forecast;
pub mod foreign;
pub mod grid;
pub mod group;
pub mod native;
pub mod nginx;
pub mod page;
pub mod results;
pub mod run;
pub mod sheet;
pub mod stat;
pub mod work;
