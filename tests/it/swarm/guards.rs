//! What strangers, browsers and torrents must not get from a swarm: a disk read, a false fact, the
//! place of a file.

use std::time::Duration;

use gatecast::internals::proto::bt::{
    bitfield::Bitfield,
    wire::{BLOCK_LEN, Block, ExtendedHandshake, Message},
};

use crate::common::{
    swarm::{Raw, metainfo, server},
    within,
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn bitfield_counts_only_as_first_message() {
    within(LIMIT, || {
        let server = server(2_000_000, |settings| settings.via = None);
        let torrent = metainfo(&server);
        let pieces = u32::try_from(torrent.pieces.len()).expect("few");
        let bits = Bitfield::full(pieces).encode();
        // What some programs send before it changes nothing.
        let mut honest = Raw::join(server.addr, &torrent, *b"-XX0001-honesthonest");
        honest.send(&Message::KeepAlive);
        honest.send(&Message::Extended(0, &ExtendedHandshake::default().encode()));
        honest.send(&Message::Bitfield(&bits));
        honest.send(&Message::Request(Block { piece: 0, begin: 0, len: BLOCK_LEN }));
        assert_eq!(honest.read_until(&[7]), 7, "it is served");
        let mut flood = Raw::join(server.addr, &torrent, *b"-XX0001-bits-andbits");
        for _ in 0..1000 {
            flood.send(&Message::Bitfield(&bits));
        }
        flood.until_closed();
        let mut late = Raw::join(server.addr, &torrent, *b"-XX0001-bits-toolate");
        late.send(&Message::Have(0));
        late.send(&Message::Bitfield(&bits));
        late.until_closed();
        server.stop();
    });
}
