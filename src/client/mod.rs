//! The client's end of a control connection: one or more clients in this process, a thread each.
//!
//! A client joins, waits at the gate, takes the payload into a `.part`, verifies what is on disk,
//! makes it durable, gives it its name and sends its receipt. Its failure is its own: the others
//! go on.

pub mod config;
mod conversation;
mod copy_part;
pub mod download;
pub mod echo;
mod listen;
pub(crate) mod messages;
mod opening;
pub mod part;
mod part_file;
pub mod receive;
mod report;
mod run;
mod shared;
pub mod standing;
pub mod tree_part;
mod waiting;

pub use config::FetchConfig;
pub use messages::list;
pub(crate) use report::failures;
pub use report::{ClientReport, log, records};
pub use run::{FetchRun, descriptors};
pub use shared::{Client, ClientStage, ClientView};
