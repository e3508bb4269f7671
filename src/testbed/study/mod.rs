//! The experiment: every way of sending, on the same links, against the same bound.
//!
//! A study is a grid of runs on stars. Each run is real: a `serve` on host 0 and a `fetch` on
//! each other host, processes as a user would start them. What each observed is kept; everything
//! that is shown is computed from that.
//!
//! - [`grid`]: what is measured, in which order
//! - [`bound`]: the least makespan that links allow
//! - [`contender`]: what is compared, by one trait
//! - [`runner`], [`process_group`], [`work_folder`]: the runs, their programs, their folder
//! - [`environment`], [`results`]: where it was made; the document
//! - [`table`], [`figure`], [`page`]: tables and CSV, plots, one page with all of it

pub mod bound;
pub mod contender;
pub mod environment;
pub mod figure;
pub mod grid;
pub mod page;
pub mod process_group;
pub mod results;
pub mod runner;
pub mod table;
pub mod work_folder;
