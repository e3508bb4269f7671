//! What the tests that build stars share. They take root, `ip`, `tc`, `nft` and `ethtool`, and
//! pass by where these are missing.

use gatecast::internals::testbed::star::{rootless, tool};

use crate::common::{
    have,
    turn::{Turn, turn},
};

/// The turn of a test that builds stars; `None` where no star can be built.
pub(crate) fn turn_with_stars(kind: &'static str) -> Option<Turn> {
    let tools = ["ip", "tc", "nft", "ethtool"].map(|name| tool::find(name).is_some());
    have("root, ip, tc, nft and ethtool", rootless::is_root() && tools == [true; 4])
        .then(|| turn(kind))
}
