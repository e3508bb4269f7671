//! The ways over UDP on one host: datagrams and bytes a second through real sockets, and what the
//! machines cost without any.
//!
//! `cargo bench --bench udp`. A figure of throughput is that of the whole session, all clients
//! together, on loopback, where sender and receivers share the processors.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gatecast::internals::{
    client::{FetchConfig, FetchRun},
    proto::udp::{
        blocks::Blocks,
        packet::{Body, Packet},
        ranges,
        stats::StreamStats,
        xor,
    },
    server::{builder::ServerCoreBuilder, catalog::Catalog, config::ServerConfig, sample},
    session::Via,
    transport::{
        udp,
        udp::{
            config::UdpConfig,
            socket::{RecvSocket, SendSocket},
        },
    },
    units::Moment,
};

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet");
    for len in [1448, 65_483] {
        let payload = vec![7; len];
        let packet = |payload| Packet {
            stream: 1,
            pkt: 2,
            sent_us: 3,
            body: Body::Data { block: 4, again: false, payload },
        };
        let mut bytes = Vec::with_capacity(65_536);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("encode", len), |bencher| {
            bencher.iter(|| {
                bytes.clear();
                packet(&payload[..]).encode(&mut bytes);
                bytes.len()
            });
        });
        group.bench_function(BenchmarkId::new("decode", len), |bencher| {
            bencher.iter(|| Packet::decode(std::hint::black_box(&bytes)).is_ok());
        });
    }
    group.finish();
}

fn machines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machines");
    group.bench_function("blocks, 71023 inserted, 1 % missing, listed", |bencher| {
        bencher.iter(|| {
            let mut blocks = Blocks::new(71_023);
            for block in (0..71_023).filter(|block| block % 100 != 3) {
                blocks.insert(block);
            }
            let missing = blocks.missing(71_023, usize::MAX);
            let mut rest = &missing[..];
            let mut lists = 0;
            while !rest.is_empty() {
                let (_, count) = ranges::encode(0, rest);
                rest = &rest[count..];
                lists += 1;
            }
            lists
        });
    });
    group.bench_function("statistics of 71023 datagrams", |bencher| {
        bencher.iter(|| {
            let mut stats = StreamStats::starting_at(0);
            for pkt in 0..71_023 {
                stats.record(pkt, pkt, Moment(u64::from(pkt) + 300));
            }
            stats.finish(71_023).unique
        });
    });
    for percent in [1, 5] {
        // Thirteen clients that each miss another part.
        let lacked: Vec<(u32, u128)> = (0..71_023_u32)
            .map(|block| {
                let lacks = |client: u32| {
                    let mixed =
                        (block ^ client.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
                    u128::from((mixed >> 8) % 100 < percent) << client
                };
                (block, (0..13).map(lacks).sum())
            })
            .collect();
        group.bench_function(
            BenchmarkId::new("xor groups, 13 clients, loss %", percent),
            |bencher| {
                bencher.iter(|| xor::group(lacked.clone()).len());
            },
        );
    }
    group.finish();
}

/// One socket to another, unpaced, as fast as the receiver takes it: what is lost is not counted.
fn sockets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sockets");
    group.sample_size(10);
    for (size, many) in [(1472, false), (1472, true), (65_507, false)] {
        let mut inlet = RecvSocket::open(Ipv4Addr::LOCALHOST.into()).expect("a port");
        let to = (Ipv4Addr::LOCALHOST, inlet.port().expect("bound")).into();
        let outlet = SendSocket::open(Ipv4Addr::LOCALHOST.into(), many, None).expect("a socket");
        let burst = vec![7; size * if size < 60_000 { 44 } else { 1 }];
        let name = if many { format!("{size}, cut by the kernel") } else { size.to_string() };
        group.throughput(Throughput::Bytes(burst.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let begun = Instant::now();
                for _ in 0..rounds {
                    outlet.send(&burst, size, to);
                    let mut got = 0;
                    while got < burst.len() {
                        match inlet.receive().expect("a socket") {
                            Some((.., bytes, _)) => got += bytes.len(),
                            None => break,
                        }
                    }
                }
                begun.elapsed()
            });
        });
    }
    group.finish();
}

/// Whole sessions, by the server's clock, verification not counted.
fn sessions(criterion: &mut Criterion) {
    const BYTES: u64 = 20_000_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("20MB.bin");
    sample::make(&path, BYTES).expect("room");
    let mut group = criterion.benchmark_group("sessions of 20 MB");
    group.sample_size(10);
    for (via, take) in [(Via::Udp, udp::receive::UDP), (Via::Multicast, udp::receive::MULTICAST)] {
        for datagram in [1472, 65_507] {
            for clients in [1, 25] {
                let once = || -> Duration {
                    let settings = ServerConfig {
                        clients: Some(clients),
                        via: Some(via),
                        one_off: true,
                        ..ServerConfig::default()
                    };
                    let host =
                        ServerCoreBuilder::new(Catalog::offer([&path]).expect("there"), settings);
                    host.digest(&|_, _, _| {}).expect("readable");
                    let server =
                        udp::serve(host, UdpConfig { size: datagram, ..UdpConfig::default() })
                            .start(([127, 0, 0, 1], 0).into())
                            .expect("a port");
                    let mut order = FetchConfig::new(vec![server.addr()]);
                    order.clients = clients;
                    order.durable = false;
                    order.out = folder.path().join("out");
                    let ends = FetchRun::new(&order).run(&order, &[&take]).expect("begun");
                    assert!(ends.iter().all(|end| end.error.is_none()), "{ends:?}");
                    let record = server.records().recv().expect("a session");
                    server.stop().expect("no log");
                    record.global().seconds.expect("all complete")
                };
                group.throughput(Throughput::Bytes(BYTES * u64::from(clients)));
                let name = format!("{via}, {datagram}, {clients} clients");
                group.bench_function(name, |bencher| {
                    bencher.iter_custom(|rounds| (0..rounds).map(|_| once()).sum());
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, codec, machines, sockets, sessions);
criterion_main!(benches);
