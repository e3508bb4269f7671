//! How fast this build's SHA-1 is, on one core and on all at once.
//!
//! The two differ where cores share a body (hyper-threads), and the bound on verified time is
//! made of the second. `cargo bench --bench digest`, and again with `GATECAST_SHA1=sha1_smol`.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gatecast::internals::{
    digest,
    digest::{Digest, Hasher},
};

/// Bytes hashed in one iteration; more than any cache holds.
const BYTES: usize = 64 << 20;

fn digests(criterion: &mut Criterion) {
    let data: Vec<u8> = (0..BYTES).map(|n| (n ^ (n >> 9)) as u8).collect();
    let mut group = criterion.benchmark_group(digest::engine());
    group.sample_size(10).measurement_time(Duration::from_secs(5));

    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("1 core", |bench| {
        bench.iter(|| black_box(of(black_box(&data))));
    });

    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    group.throughput(Throughput::Bytes((BYTES * cores) as u64));
    group.bench_function(format!("{cores} cores at once"), |bench| {
        bench.iter_custom(|times| {
            let start = Barrier::new(cores);
            let took = thread::scope(|scope| {
                let running: Vec<_> = (0..cores)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            let begun = Instant::now();
                            for _ in 0..times {
                                black_box(of(black_box(&data)));
                            }
                            begun.elapsed()
                        })
                    })
                    .collect();
                running.into_iter().map(|one| one.join().expect("hashing does not fail")).max()
            });
            took.expect("one core at least")
        });
    });
    group.finish();
}

/// The digest of `data`, fed as the library feeds a file.
fn of(data: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    data.chunks(digest::HASH_BUF).for_each(|block| hasher.update(block));
    hasher.finish()
}

criterion_group!(benches, digests);
criterion_main!(benches);
