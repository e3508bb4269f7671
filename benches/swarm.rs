//! The swarm's parts: messages, the picker at ten thousand pieces and two hundred peers, and a
//! whole session of eight clients on loopback.

use std::{fs, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gatecast::internals::{
    client::{FetchConfig, FetchRun},
    http::{self, HttpConfig},
    proto::bt::{
        bitfield::Bitfield,
        layout::PieceLayout,
        piece_picker::PiecePicker,
        random::Random,
        wire,
        wire::{Message, MessageLimits},
    },
    server::{builder::ServerCoreBuilder, catalog::Catalog, config::ServerConfig, sample},
    session::Via,
    transport::{swarm, swarm::torrents::SwarmServerConfig},
    units::Moment,
};

const PIECES: u32 = 10_000;

/// A thousand blocks, written and read.
fn codec(c: &mut Criterion) {
    let block = vec![7; wire::BLOCK_LEN as usize];
    let limits = MessageLimits { pieces: PIECES, fast: true };
    let mut group = c.benchmark_group("swarm codec");
    group.throughput(Throughput::Bytes(1000 * u64::from(wire::BLOCK_LEN)));
    group.bench_function("1000 blocks", |b| {
        let mut bytes = Vec::new();
        b.iter(|| {
            bytes.clear();
            for piece in 0..1000 {
                Message::Piece(piece, 0, &block).encode(&mut bytes);
            }
            let mut at = 0;
            while let Ok(Some(len)) = wire::frame_len(&bytes[at..], limits) {
                let message = Message::decode(&bytes[at + 4..at + len], limits);
                black_box(message.expect("what was written"));
                at += len;
            }
        });
    });
    group.finish();
}

/// Two hundred peers, each with half of ten thousand pieces: filling every pipeline.
fn picker(c: &mut Criterion) {
    let layout = PieceLayout::new(u64::from(PIECES) << 18, 1 << 18);
    let mut random = Random::new(1);
    let halves: Vec<Bitfield> = (0..200)
        .map(|_| {
            let mut half = Bitfield::new(PIECES);
            (0..PIECES).filter(|_| random.below(2) == 0).for_each(|piece| {
                half.set(piece);
            });
            half
        })
        .collect();
    let fresh = || {
        let mut table = PiecePicker::new(layout, Bitfield::new(PIECES), 1);
        for (peer, half) in (0..).zip(&halves) {
            table.add_peer(peer, 250);
            table.add_pieces(peer, half);
            table.set_serving(peer, true);
        }
        table
    };
    c.bench_function("swarm picker, 10000 pieces x 200 peers, 1600 blocks", |b| {
        b.iter_batched(
            fresh,
            |mut table| {
                for peer in 0..200 {
                    black_box(table.next_requests(peer, Moment(1)));
                }
                table
            },
            BatchSize::LargeInput,
        );
    });
}

/// Server and eight clients in this process; 10 MB.
fn session(c: &mut Criterion) {
    let folder = std::env::temp_dir().join(format!("gatecast-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the bench");
    let file = folder.join("10MB.bin");
    sample::make(&file, 10_000_000).expect("room");
    let mut group = c.benchmark_group("swarm session");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(80_000_000));
    group.bench_function("8 clients, 10 MB, loopback", |b| {
        b.iter(|| {
            let settings = ServerConfig { via: Some(Via::Swarm), ..ServerConfig::default() };
            let catalog = Catalog::offer([&file]).expect("made");
            let (host, torrents) = swarm::serve(
                ServerCoreBuilder::new(catalog, settings),
                SwarmServerConfig::default(),
            );
            let config = HttpConfig {
                extra: Some(Arc::new(move |request, peer, local, lobby| {
                    torrents.answer(request, peer, local, lobby)
                })),
                ..HttpConfig::default()
            };
            let host = http::serve(host, config).expect("HTTP");
            let server = host.start(([127, 0, 0, 1], 0).into()).expect("a port");
            let mut order = FetchConfig::new(vec![server.addr()]);
            order.clients = 8;
            order.out = folder.join("copies");
            order.durable = false;
            let ends = FetchRun::new(&order)
                .run(&order, &[&swarm::receive::SwarmReceiveTransport::default()])
                .expect("an order");
            assert!(ends.iter().all(|end| end.path.is_some()));
            server.stop().expect("no log");
        });
    });
    group.finish();
    let _ = fs::remove_dir_all(&folder);
}

criterion_group!(benches, codec, picker, session);
criterion_main!(benches);
