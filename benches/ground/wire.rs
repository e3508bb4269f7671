//! The copies alone: the library's own send and receive on loopback, a thread each, with no gate,
//! no digest and no control connection.

use std::{
    fs,
    fs::{File, OpenOptions},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::net::{
    copy,
    copy::{Copying, Method, SLOWEST},
    storage::FileStorage,
};

/// How bytes go from one file to many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a> {
    /// How many receive at once.
    pub(crate) clients: usize,
    /// The sender's method and buffer.
    pub(crate) send: (Method, usize),
    /// The receiver's method and buffer.
    pub(crate) receive: (Method, usize),
    /// The folder for the copies; `None` throws every byte away.
    pub(crate) into: Option<&'a Path>,
}

/// What this build does by itself, at both ends.
pub(crate) fn usual() -> (Method, usize) {
    let method = Method::Auto.resolved().expect("auto is always possible");
    (method, copy::COPY_BUF)
}

impl Wire<'_> {
    /// Moves `source` to every client; from the start of all threads to the last byte in.
    pub(crate) fn run(&self, source: &Path) -> Duration {
        let file = File::open(source).expect("a source");
        let bytes = file.metadata().expect("a file").len();
        let file = file.into();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let start = Barrier::new(2 * self.clients + 1);
        let ends: Vec<_> = (0..self.clients)
            .map(|number| {
                let receiving = TcpStream::connect(addr).expect("we listen");
                let (sending, _) = listener.accept().expect("somebody has connected");
                (sending, receiving, self.sink(number))
            })
            .collect();
        let took = thread::scope(|scope| {
            let mut receivers = Vec::new();
            for (sending, receiving, sink) in &ends {
                let (file, start) = (&file, &start);
                scope.spawn(move || {
                    start.wait();
                    let moved = AtomicU64::new(0);
                    copy::send(file, 0..bytes, sending, copying(self.send, &moved))
                        .expect("the receiver stays");
                });
                receivers.push(scope.spawn(move || {
                    start.wait();
                    let moved = AtomicU64::new(0);
                    let how = copying(self.receive, &moved);
                    copy::receive(receiving, sink, 0..bytes, &[], how).expect("the sender stays");
                    assert_eq!(moved.load(Ordering::Relaxed), bytes);
                    Instant::now()
                }));
            }
            start.wait();
            let begun = Instant::now();
            receivers
                .into_iter()
                .map(|one| one.join().expect("copies do not panic").duration_since(begun))
                .max()
        });
        drop(ends);
        (0..self.clients)
            .filter_map(|number| self.place(number))
            .for_each(|path| fs::remove_file(path).expect("written above"));
        took.expect("one client at least")
    }

    fn sink(&self, number: usize) -> FileStorage {
        let sink = match self.place(number) {
            Some(path) => File::create_new(path),
            None => OpenOptions::new().write(true).open("/dev/null"),
        };
        sink.expect("a place for the copy").into()
    }

    fn place(&self, number: usize) -> Option<std::path::PathBuf> {
        Some(self.into?.join(format!("copy-{number}")))
    }
}

fn copying((method, buffer): (Method, usize), moved: &AtomicU64) -> Copying<'_> {
    let stall = Duration::from_secs(60);
    Copying { method, buffer, stall, slowest: SLOWEST, pacer: None, moved, stopped: None }
}
