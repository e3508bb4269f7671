//! How far apart the seats of one release begin, with the fair start and with the bare barrier.
//!
//! Server and clients are the library's own, in two processes, on loopback. The two starts
//! alternate, so that both meet the same machine. The server's peak memory is read from the
//! system. `cargo bench --bench gate [-- --runs K] [25] [1000]`.

mod ground;

use std::{
    fs, io,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use gatecast::internals::{
    client,
    client::{FetchConfig, FetchRun},
    server::{builder::ServerCoreBuilder, catalog::Catalog, config::ServerConfig, sample},
    transport::tcp,
};

/// One kind of start.
struct Start {
    word: &'static str,
    server: Server,
    releases: Vec<Release>,
}

/// The figures of one release.
struct Release {
    wake_ms: f64,
    server_ms: f64,
    client_ms: f64,
    seconds: f64,
    verified: f64,
    whole: usize,
}

/// A server process.
struct Server {
    child: Child,
    addr: SocketAddr,
}

/// The word that makes this program the server.
const SERVE: &str = "serve-one-file";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, file, clients, fair] = &arguments[..]
        && word == SERVE
    {
        return serve(Path::new(file), clients, fair == "fair");
    }
    if !ground::is_bench() {
        return measure(5, 1_000_000, 1);
    }
    ground::stamp();
    let runs = ground::runs(20);
    for (clients, bytes, runs) in [(25, 100_000_000, runs), (1000, 1_000_000, runs.div_ceil(2))] {
        if ground::chosen(&clients.to_string()) {
            measure(clients, bytes, runs);
        }
    }
}

/// Releases `clients` again and again with both starts, and prints what came of it.
fn measure(clients: u16, bytes: u64, runs: usize) {
    let work = ground::scratch("gate");
    let file = work.path().join("sample.bin");
    sample::make(&file, bytes).expect("room for the sample");
    ground::touch(work.path(), bytes * u64::from(clients));
    let mut starts = ["fair", "bare"].map(|word| Start {
        word,
        server: Server::spawn(&file, clients, word),
        releases: Vec::new(),
    });
    let mut dice = ground::Dice::new();
    for _ in 0..runs {
        let mut turn = [0, 1];
        dice.shuffle(&mut turn);
        for which in turn {
            let start = &mut starts[which];
            start.releases.push(release(start.server.addr, clients, work.path()));
        }
    }
    println!("\n{clients} clients x {bytes} bytes, {runs} releases each, load {}", ground::load());
    println!(
        "start  {:>24}  {:>24}  {:>24} {:>7}  {:>22}  {:>22}  {:>10}",
        "wake ms", "server ms", "client ms", "p99", "last byte s", "verified s", "peak MiB"
    );
    for start in &starts {
        let column = |of: fn(&Release) -> f64| start.releases.iter().map(of).collect::<Vec<_>>();
        println!(
            "{:<5}  {:>24}  {:>24}  {:>24} {:>7}  {:>22}  {:>22}  {:>10}",
            start.word,
            ground::spread(&column(|r| r.wake_ms), 2),
            ground::spread(&column(|r| r.server_ms), 2),
            ground::spread(&column(|r| r.client_ms), 2),
            ground::shown(ground::quantile(&column(|r| r.client_ms), 0.99), 2),
            ground::spread(&column(|r| r.seconds), 3),
            ground::spread(&column(|r| r.verified), 3),
            ground::shown(start.server.peak_mib(), 1),
        );
        let whole: usize = start.releases.iter().map(|r| r.whole).sum();
        let wanted = start.releases.len() * usize::from(clients);
        assert_eq!(whole, wanted, "every copy is whole and verified");
    }
    let seconds = |start: &Start| {
        ground::median(&start.releases.iter().map(|r| r.seconds).collect::<Vec<_>>())
    };
    let ratio = seconds(&starts[0]).zip(seconds(&starts[1])).map(|(fair, bare)| fair / bare);
    println!("fair / bare, last byte: {}", ground::shown(ratio, 3));
    starts.into_iter().for_each(|start| start.server.end());
}

/// One release to clients in this process.
fn release(server: SocketAddr, clients: u16, work: &Path) -> Release {
    let order = FetchConfig {
        clients,
        out: work.join("copies"),
        durable: false,
        ..FetchConfig::new(vec![server])
    };
    let ends = FetchRun::new(&order).run(&order, &[&tcp::receive::TCP]).expect("a server is there");
    for error in ends.iter().filter_map(|end| end.error.as_ref()) {
        eprintln!("a client failed: {error}");
    }
    fs::remove_dir_all(&order.out).expect("made by the clients");
    let records = client::records(&ends);
    let [record] = &records[..] else {
        panic!("one session and not {}", records.len());
    };
    let ms = |us: Option<u64>| us.map_or(f64::NAN, |us| us as f64 / 1e3);
    let seconds = |span: Option<Duration>| span.map_or(f64::NAN, |span| span.as_secs_f64());
    // A client dates its digest from its own GO, which came with the first byte.
    let verified = record
        .transfers
        .iter()
        .filter_map(|transfer| Some(transfer.first_server? + transfer.seconds_verified?))
        .max();
    Release {
        wake_ms: ms(record.wake_skew_us()),
        server_ms: ms(record.skew_us()),
        client_ms: ms(record.skew_client_us()),
        seconds: seconds(record.global().seconds),
        verified: seconds(verified),
        whole: record.proven(),
    }
}

impl Server {
    fn spawn(file: &Path, clients: u16, start: &str) -> Self {
        let program = std::env::current_exe().expect("this program is a file");
        let mut child = Command::new(program)
            .arg(SERVE)
            .arg(file)
            .arg(clients.to_string())
            .arg(start)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process for the server");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("the server's address");
        let addr = line.trim().parse().expect("the server's address");
        Self { child, addr }
    }

    /// The most memory it ever had resident, MiB.
    fn peak_mib(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024.0)
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "the server ended with {status}");
    }
}

/// The server process: serves until its standard input ends.
fn serve(file: &Path, clients: &str, fair_start: bool) {
    let settings = ServerConfig {
        clients: Some(clients.parse().expect("a number of clients")),
        fair_start,
        ..ServerConfig::default()
    };
    let host = ServerCoreBuilder::new(Catalog::offer([file]).expect("a file"), settings);
    host.digest(&|_, _, _| {}).expect("a file");
    let server = tcp::serve(host)
        .and_then(|host| host.start(([127, 0, 0, 1], 0).into()))
        .expect("a free port");
    println!("{}", server.addr());
    let records = server.records();
    let reader = thread::spawn(move || records.iter().count());
    let ended = io::stdin().read_to_end(&mut Vec::new());
    server.stop().expect("no log is written");
    reader.join().expect("it only counts");
    ended.expect("a pipe from the parent");
}
