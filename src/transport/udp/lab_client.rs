//! The client of a server that speaks the lab's UDP protocol: list, configure, transfer.
//!
//! The protocol has neither length nor digest, so what was received is counted and kept under a
//! name that says it is not proven.

use std::{
    fs,
    fs::File,
    io,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::{STACK, clock, copy, datagrams, files, storage::FileStorage},
    proto::{lab, lab::udp::LabRequest},
    session::SeatId,
    text::FileName,
    transfer::{Outcome, Transfer},
    transport::udp::socket::RecvSocket,
    units::Moment,
};

/// A conversation with such a server.
#[derive(Debug)]
pub struct LabClient {
    socket: UdpSocket,
    server: SocketAddr,
}

/// What one sub-client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabDownload {
    /// Bytes received.
    pub bytes: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Bytes of the largest of them.
    pub largest: u64,
    /// Datagrams that its machine dropped for want of room; `None` where nobody tells.
    pub dropped: Option<u64>,
    /// First to last datagram.
    pub duration: Duration,
    /// Where they came to.
    pub client: SocketAddr,
    /// Where they are.
    pub path: PathBuf,
}

/// How long an answer is waited for, and how often the question is asked.
const ANSWER: Duration = Duration::from_secs(2);
const TRIES: u32 = 3;

/// The part of the free room on the disk that stays free, one in so many: the protocol says no size,
/// and a server may never end.
const ROOM_KEPT: u64 = 16;

/// Most bytes of all sub-clients where nobody tells how much room there is: forty times the lab's
/// largest file for each of a hundred.
const BYTES_MAX: u64 = 1_000_000_000_000;

impl LabDownload {
    /// The bytes and the datagrams that it lacks of a file of `size`, as far as these are known: every
    /// datagram but the last of a file is full, and of two one is.
    pub fn lost(&self, size: u64) -> (Option<u64>, Option<u64>) {
        let bytes = size.checked_sub(self.bytes);
        let lost = bytes.map(|lost| lost.div_ceil(self.largest.max(1)));
        let adds_up = |lost: u64| lost + self.datagrams == size.div_ceil(self.largest.max(1));
        let is_known = |lost: &u64| *lost == 0 || (self.datagrams > 1 && adds_up(*lost));
        (bytes, lost.filter(is_known))
    }

    /// The row of this client in a session of a file of `size`.
    pub fn transfer(&self, seat: SeatId, server: SocketAddr, size: u64) -> Transfer {
        let mut transfer = Transfer::new(seat, "lab", Outcome::Complete);
        (transfer.client, transfer.server) = (Some(self.client), Some(server));
        (transfer.bytes_client, transfer.seconds_client) = (Some(self.bytes), Some(self.duration));
        let lost = self.lost(size).1;
        (transfer.counts.lost, transfer.counts.unique) = (lost, lost.map(|_| self.datagrams));
        transfer.counts.offered = lost.map(|lost| lost + self.datagrams);
        if self.bytes != size {
            transfer.fail(Outcome::Cut, format!("{} of {size} bytes came", self.bytes));
        }
        transfer
    }
}

impl LabClient {
    /// A conversation with the server at `server`.
    ///
    /// # Errors
    /// The system's.
    pub fn open(server: SocketAddr) -> Result<Self> {
        let failed = || Error::io("open a UDP socket", server);
        let any = (datagrams::unspecified(server.ip()), 0);
        let socket = UdpSocket::bind(any).map_err(failed())?;
        socket.connect(server).map_err(failed())?;
        Ok(Self { socket, server })
    }

    /// The files that it offers.
    ///
    /// # Errors
    /// No answer, or one that is no list.
    pub fn list(&self) -> Result<Vec<String>> {
        let answer = self.ask(&LabRequest::List)?;
        lab::udp::decode_list(&answer).ok_or_else(|| {
            let said = crate::text::escape(&answer);
            Error::protocol(self.server, format!("'{said}' is not a list of files"))
        })
    }

    /// Chooses the file for the next transfers.
    ///
    /// # Errors
    /// No answer, or one that is not `Config set`.
    pub fn configure(&self, file: &str, clients: u16) -> Result<()> {
        let request = LabRequest::Config { file: file.to_owned(), clients };
        let answer = self.ask(&request)?;
        if answer == lab::udp::CONFIG_SET {
            Ok(())
        } else {
            Err(Error::refused(self.server, crate::text::escape(&answer)))
        }
    }

    /// Says that this client is done.
    ///
    /// # Errors
    /// The system's.
    pub fn disconnect(&self) -> Result<()> {
        let failed = Error::io("speak to the server", self.server);
        let sent = self.socket.send(&LabRequest::Disconnect.encode());
        sent.map(|_| ()).map_err(failed)
    }

    fn ask(&self, request: &LabRequest) -> Result<String> {
        let failed = || Error::io("ask the server", self.server);
        self.socket.set_read_timeout(Some(ANSWER)).map_err(failed())?;
        let mut buffer = vec![0; 65_536];
        for _ in 0..TRIES {
            self.socket.send(&request.encode()).map_err(failed())?;
            match self.socket.recv(&mut buffer) {
                Ok(len) => return Ok(String::from_utf8_lossy(&buffer[..len]).into_owned()),
                Err(error) if Error::is_timeout(&error) => {}
                Err(error) => return Err(failed()(error)),
            }
        }
        Err(Error::timed_out(Phase::Offer, self.server, ANSWER * TRIES))
    }

    /// Starts `clients` sub-clients at once, each with a port of its own, and waits for all.
    pub fn transfer(&self, name: &FileName, clients: u16, out: &Path) -> Vec<Result<LabDownload>> {
        if let Err(error) = fs::create_dir_all(out) {
            return vec![Err(Error::io("make the folder", out.display())(error))];
        }
        let room = files::free_space(out).map_or(BYTES_MAX, |free| free - free / ROOM_KEPT);
        let most = room / u64::from(clients.max(1));
        thread::scope(|scope| {
            let running: Vec<_> = (1..=clients)
                .map(|number| {
                    thread::Builder::new()
                        .name(format!("lab-{number}"))
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || {
                            let path = out.join(format!("C{number}-{}.unproven", name.as_str()));
                            self.receive(path, most, copy::slowest_of(clients))
                        })
                        .map_err(Error::io("start the client's thread", number))
                })
                .collect();
            let ended = |thread: Result<thread::ScopedJoinHandle<'_, Result<LabDownload>>>| {
                let joined = thread?.join();
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            running.into_iter().map(ended).collect()
        })
    }

    /// Receives into a new file at `path`: at most `most` bytes, and `slowest` a second at least.
    fn receive(&self, path: PathBuf, most: u64, slowest: u64) -> Result<LabDownload> {
        let shown = crate::text::escape_path(&path);
        let file = create(&path).map_err(Error::io("make the file", &shown))?;
        let received = self.receive_into(&file.into(), &shown, most, slowest);
        if received.is_err()
            && let Err(error) = fs::remove_file(&path)
        {
            log::warn!("cannot remove {shown}: {error}");
        }
        received.map(|got| LabDownload { path, ..got })
    }

    fn receive_into(
        &self,
        file: &FileStorage,
        shown: &str,
        most: u64,
        slowest: u64,
    ) -> Result<LabDownload> {
        let refused = |what: String| Error::refused(self.server, what);
        let here = self.socket.local_addr().map_err(Error::io("look at the socket", shown))?;
        let begun = clock::now();
        let mut inlet = RecvSocket::open(here.ip())?;
        let client = SocketAddr::new(here.ip(), inlet.port()?);
        inlet.send_to(&LabRequest::Transfer.encode(), self.server)?;
        let (mut bytes, mut datagrams, mut largest) = (0, 0, 0);
        let (mut first, mut last): (Option<Moment>, Moment) = (None, clock::now());
        loop {
            let came = inlet.receive().map_err(Error::io("receive datagrams", self.server))?;
            let now = clock::now();
            match came {
                Some((from, segment, payload, _)) if from == self.server => {
                    if bytes + payload.len() as u64 > most {
                        return Err(refused(format!("it sends more than {most} bytes")));
                    }
                    let patience = lab::udp::SILENCE * 2 + Duration::from_secs(bytes / slowest);
                    if now.since(begun) > patience {
                        return Err(refused(format!(
                            "it sends less than {slowest} bytes a second"
                        )));
                    }
                    let written = copy::write_at(file, payload, bytes);
                    written.map_err(|_| Error::refused(shown, "the disk is full or fails"))?;
                    bytes += payload.len() as u64;
                    datagrams += payload.len().div_ceil(segment) as u64;
                    largest = largest.max(segment.min(payload.len()) as u64);
                    first.get_or_insert(now);
                    last = now;
                }
                // Strangers do not keep it waiting.
                _ if now.since(last) > lab::udp::SILENCE => break,
                _ => {}
            }
        }
        Ok(LabDownload {
            bytes,
            datagrams,
            largest,
            dropped: inlet.drops(),
            duration: first.map_or(Duration::ZERO, |first| last.since(first)),
            client,
            path: PathBuf::new(),
        })
    }
}

/// Makes a file, in the place of one that an earlier transfer left. A link is not followed.
fn create(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|old| old.is_file()) {
        fs::remove_file(path)?;
    }
    File::create_new(path)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn endless_server_is_left_at_the_limit() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let client = LabClient::open(server.local_addr().expect("bound")).expect("a port");
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("C1-f.unproven");
        let over = AtomicBool::new(false);
        let ended = thread::scope(|scope| {
            scope.spawn(|| {
                let (_, from) = server.recv_from(&mut [0; 100]).expect("TRANSFER");
                while !over.load(Ordering::Relaxed) {
                    server.send_to(&[7; 1000], from).expect("sent");
                    thread::sleep(Duration::from_micros(100));
                }
            });
            let ended = client.receive(path.clone(), 50_000, 1);
            over.store(true, Ordering::Relaxed);
            ended
        });
        let error = ended.expect_err("it never ends").to_string();
        assert!(error.contains("more than 50000 bytes"), "{error}");
        assert!(!path.exists(), "nothing is left of it");
    }

    /// What came of a file in `datagrams` of `largest` bytes at most.
    fn download(bytes: u64, datagrams: u64, largest: u64) -> LabDownload {
        let client = ([127, 0, 0, 1], 9).into();
        let (dropped, duration, path) = (Some(1), Duration::from_secs(1), PathBuf::new());
        LabDownload { bytes, datagrams, largest, dropped, duration, client, path }
    }

    #[test]
    fn loss_is_what_the_file_lacks() {
        // A file of 10 full datagrams and one of 50 bytes.
        for ((bytes, datagrams, largest), lost) in [
            ((1050, 11, 100), (Some(0), Some(0))),
            ((1000, 10, 100), (Some(50), Some(1))),
            ((850, 9, 100), (Some(200), Some(2))),
            ((800, 8, 100), (Some(250), Some(3))),
            ((200, 2, 100), (Some(850), Some(9))),
            // One that may be the short one, none, and one that came twice.
            ((50, 1, 50), (Some(1000), None)),
            ((0, 0, 0), (Some(1050), None)),
            ((550, 7, 100), (Some(500), None)),
            ((1150, 12, 100), (None, None)),
        ] {
            assert_eq!(download(bytes, datagrams, largest).lost(1050), lost, "{bytes}");
        }
        assert_eq!(download(1, 1, 1).lost(1), (Some(0), Some(0)));
    }

    #[test]
    fn row_of_a_client_says_what_came() {
        let server = ([127, 0, 0, 1], 8).into();
        let row =
            |bytes, datagrams| download(bytes, datagrams, 100).transfer(SeatId(2), server, 1050);
        let whole = row(1050, 11);
        assert_eq!((whole.outcome, whole.verified), (Outcome::Complete, None));
        assert_eq!((whole.counts.lost, whole.counts.unique), (Some(0), Some(11)));
        let cut = row(850, 9);
        assert_eq!(cut.reason.as_deref(), Some("850 of 1050 bytes came"));
        assert_eq!((cut.outcome, cut.counts.lost), (Outcome::Cut, Some(2)));
        assert_eq!((cut.counts.offered, cut.counts.loss_percent()), (Some(11), Some(200.0 / 11.0)));
        assert_eq!((cut.bytes_client, cut.client.map(|at| at.port())), (Some(850), Some(9)));
    }

    #[test]
    fn file_of_the_most_bytes_is_received() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let client = LabClient::open(server.local_addr().expect("bound")).expect("a port");
        let folder = tempfile::tempdir().expect("room");
        thread::scope(|scope| {
            scope.spawn(|| {
                let (_, from) = server.recv_from(&mut [0; 100]).expect("TRANSFER");
                for _ in 0..50 {
                    server.send_to(&[7; 1000], from).expect("sent");
                }
            });
            let got =
                client.receive(folder.path().join("f"), 50_000, 1024).expect("the whole file");
            assert_eq!((got.bytes, got.datagrams), (50_000, 50));
        });
    }
}
