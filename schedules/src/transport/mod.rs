//! The room `transport`: TCP's sending with its fair start, as it is.

#[path = "../../../src/transport/tcp/send.rs"]
pub mod tcp;
