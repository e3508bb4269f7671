//! Our client at the lab's TCP server: `fetch --lab-tcp` (`proto/lab/tcp.rs` has the wire format).
//!
//! The protocol has no session and no way to resume; the server's four lines are the whole offer.

use std::{
    net::{SocketAddr, TcpStream},
    sync::atomic::Ordering,
    time::Duration,
};

use crate::{
    client::{
        Client, ClientReport, ClientStage, FetchConfig, FetchRun,
        download::{Download, DownloadSpec, Proof},
        part::{ByteOrder, PartSpec},
        receive,
    },
    error::{Error, Phase, Result},
    net::{
        clock,
        copy::{self, Copying},
        line_stream::{LineStream, WRITE_LIMIT},
        socket,
    },
    proto::{lab::tcp, native::Offer},
    session::{FileInfo, SeatId, SessionId, Via},
    transfer::{Outcome, Transfer},
    units::Moment,
};

/// One client's fetch.
struct LabFetch<'a> {
    fetch: &'a FetchRun,
    order: &'a FetchConfig,
    client: &'a Client,
    /// The client's number in this process, from 1.
    number: u16,
    /// All clients of this process are one session.
    session: SessionId,
}

/// How long the server may keep its gate closed; it gives no sign of life meanwhile.
const GATE_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// How long its start time is waited for; without it the copy is no less proven.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Runs every client of `order` to its end.
///
/// # Errors
/// As [`FetchRun::run_each`].
pub fn run(fetch: &FetchRun, order: &FetchConfig) -> Result<Vec<ClientReport>> {
    let session = SessionId(clock::random());
    fetch.run_each(order, &|client, number| {
        let mut end = ClientReport::default();
        let result = LabFetch { fetch, order, client, number, session }.run(&mut end);
        end.close(result, fetch.is_stopped());
        client.set_stage(ClientStage::Ended);
        end
    })
}

impl LabFetch<'_> {
    fn run(&self, end: &mut ClientReport) -> Result<()> {
        let stream = self.fetch.connect(self.client, self.order)?;
        let peer = stream.peer_addr().map_err(Error::io("look at", "the connection"))?;
        socket::keep_alive(&stream);
        self.send_word(&stream, peer, tcp::READY)?;
        self.client.set_stage(ClientStage::Waiting);
        let mut lines = LineStream::new(&stream, peer, b"");
        let (seat, file) = read_offer(&mut lines, self.order.stall)?;
        let released = lines.came_at;
        end.released_at = Some(clock::wall());
        self.order.check_sha1(peer, &file.name, Some(file.sha1))?;
        self.order.check_name(peer, &file.name)?;
        let name = self.order.name_of(self.number)?;
        let mut transfer = Transfer::new(seat, name.as_str(), Outcome::Complete);
        (transfer.client, transfer.server) = (stream.local_addr().ok(), Some(peer));
        end.transfer = Some(transfer);
        end.offer = Some(Offer {
            session: self.session,
            seat,
            clients: self.order.clients,
            run: None,
            via: Via::Tcp,
            file: file.clone(),
            tree: None,
        });
        let download = self.open_download(seat, &file)?;
        self.client.expect(file.bytes);
        self.client.set_stage(ClientStage::Receiving);
        let transfer = end.transfer.as_mut().expect("set above");
        let received = self.receive(&mut lines, &stream, &download, (&file, released), transfer);
        if received.is_err() {
            download.discard();
            return received;
        }
        let took = transfer.seconds_client.unwrap_or_default();
        self.client.set_stage(ClientStage::Verifying);
        let path = self.fetch.prove(download, self.order, released, end)?;
        end.path = Some(path);
        let told = self.send_word(&stream, peer, tcp::RECEIVED).and_then(|()| {
            lines.read_line(clock::now().after(START_LIMIT), Phase::Receipt)?;
            lines.write_line(&tcp::encode_elapsed(took))
        });
        if let Err(error) = told {
            log::warn!("seat {seat}: the server may not know of the copy: {error}");
        }
        Ok(())
    }

    /// Sends a word that has no end.
    fn send_word(&self, stream: &TcpStream, peer: SocketAddr, word: &[u8]) -> Result<()> {
        let said = copy::send_all(stream, word, clock::now().after(WRITE_LIMIT));
        said.map_err(|stop| receive::stopped(stop, peer, self.order, (0, word.len() as u64)))
    }

    fn open_download(&self, seat: SeatId, file: &FileInfo) -> Result<Download> {
        Download::open(
            &DownloadSpec {
                part: PartSpec {
                    folder: &self.order.out,
                    name: &self.order.copy_name(seat, &file.name)?,
                    bytes: file.bytes,
                    identity: file.sha1,
                    client: self.number,
                    order: ByteOrder::Sequential,
                    resume: false,
                    replace: self.order.replaces(),
                    in_place: self.order.is_in_place(),
                },
                proof: Proof::Sha1(file.sha1),
                clients: self.order.clients,
            },
            |_| self.fetch.may_go_on(),
        )
    }

    fn receive(
        &self,
        lines: &mut LineStream<'_>,
        stream: &TcpStream,
        download: &Download,
        (file, released): (&FileInfo, Moment),
        transfer: &mut Transfer,
    ) -> Result<()> {
        let first = lines.take_buffered(file.bytes);
        let copying = Copying {
            stopped: Some(&self.fetch.stopped),
            slowest: copy::slowest_of(self.order.clients),
            ..Copying::new(self.order.copy.resolved()?, self.order.stall, &self.client.moved)
        };
        let received = copy::receive(stream, download.file(), 0..file.bytes, &first, copying);
        let bytes = self.client.moved.load(Ordering::Relaxed);
        transfer.bytes_client = Some(bytes);
        let moved = (bytes, file.bytes);
        let times =
            received.map_err(|stop| receive::stopped(stop, lines.peer, self.order, moved))?;
        transfer.seconds_client = Some(times.end(released, lines.came_at).since(released));
        Ok(())
    }
}

/// The four lines, of which the first comes when the gate opens.
fn read_offer(lines: &mut LineStream<'_>, stall: Duration) -> Result<(SeatId, FileInfo)> {
    let mut offer = [const { String::new() }; 4];
    let mut limit = GATE_LIMIT;
    for line in &mut offer {
        *line = lines.read_line(clock::now().after(limit), Phase::Muster)?;
        limit = stall;
    }
    tcp::decode_offer(&offer).map_err(|error| Error::protocol(lines.peer, error.to_string()))
}
