//! What this machine can and cannot do for each way of sending, with what mends it.
//!
//! [`facts`] asks the system and, where one is named, a server. [`diagnosis`] judges what they say,
//! and knows no system.

pub mod calibrate;
pub mod diagnosis;
pub mod facts;
