//! A client of this server, and of any other HTTP server: `fetch --via http`.
//!
//! It asks for the file's head first. A gatecast server names itself there and has a gate: the
//! client takes a seat, and posts a receipt for its copy. Any other server sends at once. The copy
//! is verified from disk against the server's digest or the user's. Without either it is complete
//! but unproven, and never gets the file's own name.

use std::{
    fmt::Write as _,
    net::{Shutdown, TcpStream},
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    client::{
        Client, ClientReport, ClientStage, FetchConfig, FetchRun,
        config::OverwritePolicy,
        download::{Download, DownloadSpec, Proof},
        part::{ByteOrder, PartSpec},
        receive,
    },
    digest::Digest,
    error::{Error, Phase, Result},
    http::client::remote::{RemoteFile, number, refused},
    net::{
        clock,
        copy::{self, Copying},
        http::client::{IncomingResponse, closed, exchange},
        socket,
        storage::FileStorage,
    },
    proto::{
        http::{head::HeadBuilder, text},
        native::Offer,
    },
    session::{FileInfo, SeatId, SessionId, Via},
    text::escape_path,
    transfer::{Outcome, Transfer},
    units::Moment,
};

mod remote;
pub mod target;

pub use target::HttpTarget;

/// How long a server may take to answer at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// How long a gate may stay closed. HTTP has no sign of life in that time; a server that
/// vanished is found by TCP's own probes.
const GATE_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// One client's fetch by HTTP.
struct HttpFetch<'a> {
    fetch: &'a FetchRun,
    order: &'a FetchConfig,
    target: &'a HttpTarget,
    client: &'a Client,
    /// The client's number in this process, from 1.
    number: u16,
    /// The session of a server that has none: all clients of this process are one.
    own_session: SessionId,
}

/// Runs every client of `order` to its end.
///
/// # Errors
/// As [`FetchRun::run`].
pub fn run(
    fetch: &FetchRun,
    order: &FetchConfig,
    target: &HttpTarget,
) -> Result<Vec<ClientReport>> {
    let own_session = SessionId(clock::random());
    fetch.run_each(order, &|client, number| {
        let mut end = ClientReport::default();
        let http = HttpFetch { fetch, order, target, client, number, own_session };
        let result = http.run(&mut end);
        end.close(result, fetch.is_stopped());
        client.set_stage(ClientStage::Ended);
        end
    })
}

impl HttpFetch<'_> {
    fn run(&self, end: &mut ClientReport) -> Result<()> {
        let file = self.find_file()?;
        let (host, name) = (&self.target.host, &self.target.name);
        self.order.check_sha1(host, name, file.sha1)?;
        self.order.check_name(host, name)?;
        let sha1 = self.order.sha1.or(file.sha1);
        let mut download = self.open_download(&file, sha1)?;
        // At least one byte is asked for, because an empty range cannot be.
        let start = download.resumed().min(file.bytes.saturating_sub(1));
        self.client.expect(file.bytes - start);

        let stream = self.connect()?;
        socket::keep_alive(&stream);
        let request = self.request(&file, start)?;
        self.client.set_stage(ClientStage::Waiting);
        let limit = if file.has_gate { GATE_LIMIT } else { ANSWER_LIMIT };
        let deadline = clock::now().after(limit);
        let response = exchange(&stream, &request, deadline, Phase::Muster)?;
        let start = file.check(&response, start)?;
        self.client.set_stage(ClientStage::Receiving);
        end.released_at = Some(clock::wall());
        let offer = self.offer(&response, &file, sha1);
        let name = self.order.name_of(self.number)?;
        self.order.compare_group(self.number, offer.clients);
        let mut transfer = Transfer::new(offer.seat, name.as_str(), Outcome::Complete);
        transfer.client = stream.local_addr().ok();
        transfer.server = Some(response.peer);
        transfer.bytes_resumed = start;
        end.transfer = Some(transfer);
        let copy_name = self.order.copy_name(offer.seat, &self.target.name);
        end.offer = Some(offer);
        if self.order.clients > 1 {
            download.set_name(&copy_name?)?;
        }
        let transfer = end.transfer.as_mut().expect("set above");
        let range = start..file.bytes;
        let received = self.receive(&response, &stream, download.file(), range, transfer);
        // Without a digest nothing says of which file a part is.
        let is_found = sha1.is_some() && !self.order.is_in_place();
        end.is_kept = received.is_err() && is_found && transfer.bytes_client > Some(0);
        received?;
        self.client.set_stage(ClientStage::Verifying);
        self.prove(download, response.head_at, end)?;
        self.give_receipt(&response, end);
        Ok(())
    }

    fn connect(&self) -> Result<Arc<TcpStream>> {
        self.fetch.connect(self.client, self.order)
    }

    /// Asks where the file is, and what the server says of it.
    fn find_file(&self) -> Result<RemoteFile> {
        let stream = self.connect()?;
        let response = self.head(&stream, &self.target.path)?;
        let is_gatecast = response.head.headers.get("gatecast").is_some();
        match &self.target.other_path {
            Some(other) if response.head.status == 404 && !is_gatecast => {
                let stream = self.connect()?;
                RemoteFile::new(other, &self.head(&stream, other)?)
            }
            _ => RemoteFile::new(&self.target.path, &response),
        }
    }

    fn head<'a>(&self, stream: &'a TcpStream, path: &str) -> Result<IncomingResponse<'a>> {
        self.client.set_stage(ClientStage::Joining);
        let request = self.begin_request("HEAD", path).encode();
        let deadline = clock::now().after(ANSWER_LIMIT);
        exchange(stream, &request, deadline, Phase::Offer)
    }

    fn begin_request(&self, method: &str, path: &str) -> HeadBuilder {
        HeadBuilder::request(method, path, &self.target.host).field("Accept", "*/*")
    }

    /// The request for the file itself, from `start` on.
    fn request(&self, file: &RemoteFile, start: u64) -> Result<Vec<u8>> {
        let mut path = file.path.clone();
        if file.has_gate {
            let group = self.order.group.unwrap_or(self.order.clients);
            let name = text::percent_encode(self.order.name_of(self.number)?.as_str());
            let _ = write!(path, "?gate={group}&receipt&via=http&name={name}");
        }
        let resumes = start > 0;
        let tag = file.strong_tag.as_ref().filter(|_| resumes);
        Ok(self
            .begin_request("GET", &path)
            .maybe("Range", resumes.then(|| format!("bytes={start}-")))
            .maybe("If-Range", tag)
            .encode())
    }

    /// Opens the part. It is resumed only if the digest or a tag says of which file it is.
    fn open_download(&self, file: &RemoteFile, sha1: Option<Digest>) -> Result<Download> {
        let is_known = sha1.is_some() || file.strong_tag.is_some();
        let spec = DownloadSpec {
            part: PartSpec {
                folder: &self.order.out,
                name: &self.target.name,
                bytes: file.bytes,
                identity: sha1.unwrap_or_else(|| self.identity(file)),
                client: self.number,
                order: ByteOrder::Sequential,
                resume: self.order.resume && is_known,
                // A file whose name says that nothing proves it may be the only one there is.
                replace: match sha1 {
                    Some(_) => self.order.replaces(),
                    None => self.order.overwrite == OverwritePolicy::Always,
                },
                in_place: self.order.is_in_place(),
            },
            proof: sha1.map_or(Proof::Nothing, Proof::Sha1),
            clients: self.order.clients,
        };
        Download::open(&spec, |_| Ok(()))
    }

    /// Stands for the digest of a file that has none: by it its part is found again.
    fn identity(&self, file: &RemoteFile) -> Digest {
        let (host, path, bytes) = (&self.target.host, &file.path, file.bytes);
        let tag = file.strong_tag.as_deref().unwrap_or_default();
        Digest::of(format!("{host}{path}\n{tag}\n{bytes}").as_bytes())
    }

    /// The offer that a native server would have made.
    fn offer(
        &self,
        response: &IncomingResponse<'_>,
        file: &RemoteFile,
        sha1: Option<Digest>,
    ) -> Offer {
        let session = response.head.headers.get("gatecast-session");
        let clients = number(response, "gatecast-clients");
        Offer {
            session: session.and_then(|id| id.parse().ok()).unwrap_or(self.own_session),
            seat: SeatId(number(response, "gatecast-seat").unwrap_or(self.number)),
            clients: clients.or(self.order.group).unwrap_or(self.order.clients),
            run: None,
            via: Via::Http,
            file: FileInfo {
                name: self.target.name.clone(),
                bytes: file.bytes,
                sha1: sha1.unwrap_or_else(|| self.identity(file)),
            },
            tree: None,
        }
    }

    /// Receives `range` of the file into the same place of `file`.
    fn receive(
        &self,
        response: &IncomingResponse<'_>,
        stream: &TcpStream,
        file: &FileStorage,
        range: Range<u64>,
        transfer: &mut Transfer,
    ) -> Result<()> {
        let peer = response.peer;
        let want = range.end - range.start;
        self.client.expect(want);
        let mut first = response.body_start.clone();
        if first.len() as u64 > want {
            return Err(Error::protocol(peer, "more bytes than it announced"));
        }
        let method = self.order.copy.resolved()?;
        let copying = Copying {
            stopped: Some(&self.fetch.stopped),
            ..Copying::new(method, self.order.stall, &self.client.moved)
        };
        // A server that begins anew sends what the part holds already.
        file.cut(range.start).map_err(Error::io("shorten the part", &self.target.name))?;
        let mut first_at = response.head_at;
        if first.is_empty() && want > 0 {
            let deadline = clock::now().after(self.order.stall);
            first = response.read_some(deadline, Phase::Transfer)?;
            if first.is_empty() {
                return Err(closed(peer, "it closed before the first byte"));
            }
            first.truncate(usize::try_from(want).unwrap_or(usize::MAX));
            first_at = clock::now();
        }
        let received = copy::receive(stream, file, range, &first, copying);
        let bytes = self.client.moved.load(Ordering::Relaxed);
        transfer.bytes_client = Some(bytes);
        let times =
            received.map_err(|stop| receive::stopped(stop, peer, self.order, (bytes, want)))?;
        // By this the server knows that the last byte was read; one that is gone knows it too.
        let _ = stream.shutdown(Shutdown::Both);
        transfer.first_client = (want > 0).then(|| (clock::id(), first_at));
        transfer.seconds_client =
            Some(times.end(response.head_at, first_at).since(response.head_at));
        Ok(())
    }

    /// Verifies the copy from disk, and gives it its name.
    fn prove(&self, download: Download, released: Moment, end: &mut ClientReport) -> Result<()> {
        let path = self.fetch.prove(download, self.order, released, end)?;
        let (transfer, offer) = (&end.transfer, end.offer.as_ref().expect("made before"));
        if transfer.as_ref().is_some_and(|transfer| transfer.verified != Some(true)) {
            return Err(Error::Unproven {
                from: self.target.host.clone(),
                copy: escape_path(&path),
                sha1: offer.file.sha1.to_string(),
            });
        }
        end.path = Some(path);
        Ok(())
    }

    /// Attests the copy, if the server asked for that. The copy is proven without it: only the
    /// server's row would lack the proof.
    fn give_receipt(&self, response: &IncomingResponse<'_>, end: &ClientReport) {
        let path = response.head.headers.get("gatecast-receipt");
        if let (Some(path), Some(transfer), Some(offer)) = (path, &end.transfer, &end.offer)
            && let Err(error) = self.post_receipt(path, offer.file.sha1, transfer)
        {
            log::warn!("seat {}: the receipt was not accepted: {error}", offer.seat);
        }
    }

    fn post_receipt(&self, path: &str, sha1: Digest, transfer: &Transfer) -> Result<()> {
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = "a place for the receipt that is not a path";
            return Err(Error::protocol(&self.target.host, what));
        }
        let mut body = format!("sha1={sha1}");
        if let Some(bytes) = transfer.bytes_client {
            let _ = write!(body, "&bytes={bytes}");
        }
        if let Some(span) = transfer.seconds_client {
            let _ = write!(body, "&seconds={:.6}", span.as_secs_f64());
        }
        let mut request = self
            .begin_request("POST", path)
            .field("Content-Type", "application/x-www-form-urlencoded")
            .field("Content-Length", body.len())
            .encode();
        request.extend(body.into_bytes());
        let stream = self.connect()?;
        let deadline = clock::now().after(ANSWER_LIMIT);
        let response = exchange(&stream, &request, deadline, Phase::Receipt)?;
        if response.head.status == 200 { Ok(()) } else { Err(refused(&response)) }
    }
}
