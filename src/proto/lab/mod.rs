//! The protocols of the networking labs' own clients.

pub mod tcp;
pub mod udp;
