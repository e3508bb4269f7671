//! How many connections a member of a swarm has.

/// Connections that a peer wants. A larger swarm is not a full mesh and does not need to be. A
/// peer accepts twice as many: else the first to come would be full, and the last find nobody.
pub const PEER_CONNECTIONS: usize = 55;

/// Connections to other programs at one address; many may share one (NAT). Gatecast peers may be
/// many at one address too, as in a test; they leave half of all connections to other addresses.
pub const EXTERNAL_CONNECTIONS: usize = 64;

/// Connections up to which a seeder dials peers itself.
pub const SEEDER_CONNECTIONS: usize = 1000;
