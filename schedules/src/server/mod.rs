//! The room `server`: the files of the gate and of everything that it meets, as they are.

#[path = "../../../src/server/admission.rs"]
pub mod admission;
#[path = "../../../src/server/budget.rs"]
mod budget;
#[path = "../../../src/server/config.rs"]
pub mod config;
#[path = "../../../src/server/conversation.rs"]
pub mod conversation;
pub mod echo;
#[path = "../../../src/server/gate/mod.rs"]
pub mod gate;
#[path = "../../../src/server/history.rs"]
pub mod history;
pub mod listener;
#[path = "../../../src/server/lobby.rs"]
pub mod lobby;
#[path = "../../../src/server/patience.rs"]
mod patience;
#[path = "../../../src/server/places.rs"]
mod places;
#[path = "../../../src/server/receipt.rs"]
mod receipt;
#[path = "../../../src/server/session_log.rs"]
#[rustfmt::skip] // Its tests are not found from here.
pub mod session_log;
#[path = "../../../src/server/transport.rs"]
pub mod transport;

pub use gatecast::internals::server::catalog;
