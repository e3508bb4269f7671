//! What strangers, browsers and torrents must not get from a swarm: a disk read, a false fact, the
//! place of a file.

use std::time::Duration;

use gatecast::internals::{
    proto::bt::{
        bitfield::Bitfield,
        wire::{BLOCK_LEN, Block, ExtendedHandshake, Message},
    },
    transport::{swarm, swarm::peer_id::seated_id},
};

use crate::common::{
    http::get,
    swarm::{Raw, held_back, metainfo, server},
    until, within,
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

#[test]
fn word_of_stranger_is_no_fact_and_hides_no_piece() {
    within(LIMIT, || {
        let server = server(2_000_000, |_| {});
        let mut peer = server.joined(1, "x");
        let torrent = metainfo(&server);
        let pieces = torrent.pieces.len();
        let page = || String::from_utf8(get(server.addr, "/swarm")).expect("text");
        let mut stranger = Raw::join(server.addr, &torrent, *b"-XX0001-has-it-all--");
        stranger.send(&Message::HaveAll);
        until("its word to come", || page().contains(&format!("\"pieces\":{pieces},")));
        assert_eq!(held_back(&server), pieces, "{}", page());
        assert_eq!(page().matches("\"copies\":1}").count(), pieces, "only the server's copy");
        let views = server.running().lobby().views();
        let id = seated_id(views[0].session, views[0].seats[0].seat);
        let mut seated = Raw::join(server.addr, &torrent, id);
        seated.send(&Message::HaveNone);
        peer.send("READY offset=0\n");
        assert_eq!(seated.read_until(&[4, 14]), 4, "it is shown pieces one by one");
        seated.send(&Message::Have(3));
        until("a client's word to come", || {
            page().contains("{\"chunk\":3,\"first\":\"C1\",\"copies\":2}")
        });
        drop((seated, peer));
        server.record();
        server.stop();
    });
}
