//! How fast the library's copies are on one host: the pair that this build uses, for the lab's
//! numbers of clients and file sizes, and every other pair beside it at 25 x 100 MB.
//!
//! `null` throws the bytes away, `file` writes them to files in memory. Connections and files are
//! made before the clock starts. `cargo bench --bench copy`.

mod ground;

use std::{path::Path, time::Duration};

use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use gatecast::internals::{
    net::{copy, copy::Method},
    server::sample,
};

use crate::ground::{wire, wire::Wire};

fn copies(criterion: &mut Criterion) {
    ground::stamp();
    let work = ground::scratch("copy");
    let source = |megabytes: u64| {
        let path = work.path().join(format!("{megabytes}MB.bin"));
        sample::make(&path, megabytes * 1_000_000).expect("room for the sample");
        path
    };
    let (small, large) = (source(100), source(250));
    ground::touch(work.path(), 25 * 250_000_000);
    let places = [("null", None), ("file", Some(work.path()))];

    for (source, megabytes) in [(&small, 100), (&large, 250)] {
        for clients in [1, 5, 10, 25] {
            let mut group =
                group(criterion, &format!("{clients} x {megabytes} MB"), clients, megabytes);
            for (place, into) in places {
                let auto = Wire { clients, send: wire::usual(), receive: wire::usual(), into };
                let plain = (Method::Buffered, copy::COPY_BUF);
                let buffered = Wire { send: plain, receive: plain, ..auto };
                time(&mut group, &format!("{place}/auto"), auto, source);
                time(&mut group, &format!("{place}/buffered"), buffered, source);
            }
            group.finish();
        }
    }

    let mut group = group(criterion, "pairs", 25, 100);
    for (place, into) in places {
        for (name, send, receive) in pairs() {
            let wire = Wire { clients: 25, send, receive, into };
            time(&mut group, &format!("{place}/{name}"), wire, &small);
        }
    }
    group.finish();
}

type Way = (Method, usize);

/// Sender and receiver, each by name.
fn pairs() -> Vec<(String, Way, Way)> {
    let buffered = |kib: usize| (format!("{kib}K"), (Method::Buffered, kib * 1024));
    let mut senders: Vec<_> = [16, 64, 256].map(buffered).into();
    let mut receivers: Vec<_> = [16, 64, 256].map(buffered).into();
    if Method::Sendfile.resolved().is_ok() {
        senders.push(("sendfile".to_owned(), (Method::Sendfile, 0)));
        receivers.push(("splice".to_owned(), (Method::Sendfile, 0)));
    }
    let mut pairs = Vec::new();
    for (sender, send) in &senders {
        for (receiver, receive) in &receivers {
            pairs.push((format!("{sender} to {receiver}"), *send, *receive));
        }
    }
    // Equal buffers, the kernel's way at one end, and at both; the rest is between these.
    pairs.retain(|(_, send, receive)| {
        send == receive || send.0 == Method::Sendfile || receive.0 == Method::Sendfile
    });
    pairs
}

fn group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    clients: usize,
    megabytes: u64,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .throughput(Throughput::BytesDecimal(clients as u64 * megabytes * 1_000_000));
    group
}

fn time(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, wire: Wire<'_>, source: &Path) {
    group.bench_function(name, |bench| {
        bench.iter_custom(|times| (0..times).map(|_| wire.run(source)).sum());
    });
}

criterion_group!(benches, copies);
criterion_main!(benches);
