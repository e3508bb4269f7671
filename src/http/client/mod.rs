//! A client of this face, and of any other HTTP server: `fetch --via http`.
//!
//! It asks for the file's head first. A server that says it is a gatecast has a gate: the client
//! takes a seat there, and gives a receipt for its copy. Any other server sends at once. What is
//! received is verified from disk against the server's digest or the user's; without either the
//! copy is whole, unproven, and never gets the file's own name.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use crate::client;
use crate::client::Client;
use crate::client::ClientReport;
use crate::client::ClientStage;
use crate::client::FetchConfig;
use crate::client::FetchRun;
use crate::client::part::Part;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::http::client::ask::ANSWER_LIMIT;
use crate::http::client::ask::About;
use crate::http::client::ask::Answer;
use crate::http::client::ask::about;
use crate::http::client::ask::ask;
use crate::http::client::ask::digest;
use crate::http::client::ask::number;
use crate::http::client::ask::read_some;
use crate::http::client::ask::reason;
use crate::net::clock;
use crate::net::copy;
use crate::net::copy::Copying;
use crate::net::copy::Stop;
use crate::net::socket;
use crate::proto::http::range::decode_content_range;
use crate::proto::http::response::Response;
use crate::proto::http::text;
use crate::proto::native::Offer;
use crate::server::catalog::digest_of;
use crate::session::FileInfo;
use crate::session::SeatId;
use crate::session::SessionId;
use crate::session::Via;
use crate::text::FileName;
use crate::transfer::Outcome;
use crate::transfer::Transfer;
use crate::units::Moment;

mod ask;
pub mod target;

pub use target::Target;

/// How long a gate may stay closed. HTTP has no sign of life in that time; a server that
/// vanished is found by TCP's own probes.
const GATE_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Runs every client of `order` to its end.
///
/// # Errors
/// As [`Fetch::run`].
pub fn run(fetch: &FetchRun, order: &FetchConfig, target: &Target) -> Result<Vec<ClientReport>> {
    // A server without sessions: its clients in this process are one.
    let alone = SessionId(clock::random());
    fetch.run_each(order, &|client, number| {
        let mut end = ClientReport::before_the_seat(Error::Interrupted);
        let visit = Visit {
            fetch,
            order,
            target,
            client,
            number,
            alone,
        };
        end.error = visit.run(&mut end).err();
        if fetch.is_stopped() && end.path.is_none() {
            end.error = Some(Error::Interrupted);
        }
        if let (Some(transfer), Some(error)) = (&mut end.transfer, &end.error)
            && !(transfer.outcome == Outcome::Complete
                && transfer.verified.is_none()
                && is_unproven(error))
        {
            transfer.fail(client::outcome_of(error), error.to_string());
        }
        client.set_stage(ClientStage::Ended);
        end
    })
}

/// A copy that is whole and cannot be proven is complete, and still no success.
fn is_unproven(error: &Error) -> bool {
    matches!(error, Error::Refused { reason, .. } if reason.starts_with(UNPROVEN))
}

const UNPROVEN: &str = "it gave no digest and --sha1 was not given";

/// One client's way through one fetch.
struct Visit<'a> {
    fetch: &'a FetchRun,
    order: &'a FetchConfig,
    target: &'a Target,
    client: &'a Client,
    number: u16,
    alone: SessionId,
}

impl Visit<'_> {
    fn run(&self, end: &mut ClientReport) -> Result<()> {
        let order = self.order;
        let (path, about) = self.look()?;
        let sha1 = match (order.sha1, about.sha1) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let reason = format!(
                    "it offers '{}' with the SHA-1 {theirs}, not {ours}",
                    self.target.name
                );
                return Err(Error::refused(&self.target.host, reason));
            }
            (ours, theirs) => ours.or(theirs),
        };
        // A part is taken up only where it is known of which file it is.
        let strong = about.tag.as_deref().filter(|tag| tag.starts_with('"'));
        let resume = order.resume && (sha1.is_some() || strong.is_some());
        let identity = sha1.unwrap_or_else(|| {
            let tag = strong.unwrap_or_default();
            Digest::of(format!("{}{path}\n{tag}\n{}", self.target.host, about.bytes).as_bytes())
        });
        let mut part = Part::open(
            &order.out,
            &self.target.name,
            about.bytes,
            identity,
            self.number,
            resume,
        )?;
        // At least one byte is asked for, because a range of none cannot be.
        let start = part.resumed().min(about.bytes.saturating_sub(1));
        if let Err(error) = order.needs_room(about.bytes - start) {
            if start == 0 {
                part.discard();
            }
            return Err(error);
        }
        self.client.expect(about.bytes - start);

        let stream = self.client.connect(self.fetch, order)?;
        socket::keep_alive(&stream);
        let peer = stream
            .peer_addr()
            .map_err(Error::io("connect", "the server"))?;
        let request = self.request(&path, &about, start, strong)?;
        self.client.set_stage(ClientStage::Waiting);
        let limit = if about.gate { GATE_LIMIT } else { ANSWER_LIMIT };
        let answer = ask(
            &stream,
            peer,
            &request,
            clock::now().after(limit),
            Phase::Muster,
        )?;
        let start = self.accept(&answer, &stream, peer, &about, start)?;
        self.client.set_stage(ClientStage::Receiving);
        end.released_at = Some(clock::wall());

        let seat = number(&answer, "gatecast-seat").map_or(SeatId(self.number), SeatId);
        let session = answer
            .head
            .fields
            .get("gatecast-session")
            .and_then(|id| id.parse().ok());
        let mut transfer = Transfer::new(
            seat,
            order.name_of(self.number)?.as_str(),
            Outcome::Complete,
        );
        transfer.client = stream.local_addr().ok();
        transfer.server = Some(peer);
        transfer.bytes_resumed = start;
        end.transfer = Some(transfer);
        end.offer = Some(Offer {
            session: session.unwrap_or(self.alone),
            seat,
            clients: number(&answer, "gatecast-clients")
                .unwrap_or_else(|| order.group.unwrap_or(order.clients)),
            via: Via::Http,
            file: FileInfo {
                name: self.target.name.clone(),
                bytes: about.bytes,
                sha1: sha1.unwrap_or(identity),
            },
        });
        part.rename_to(&order.copy_name(seat, &self.target.name)?)?;
        self.receive(&answer, &stream, peer, part.file(), start..about.bytes, end)?;
        self.client.set_stage(ClientStage::Verifying);
        self.prove(part, sha1, answer.at, end)?;
        let receipt = answer.head.fields.get("gatecast-receipt");
        if let (Some(path), Some(transfer), Some(offer)) = (receipt, &end.transfer, &end.offer)
            && let Err(error) = self.give_receipt(path, offer.file.sha1, transfer)
        {
            // The copy is proven; the server's row only lacks the proof.
            log::warn!("seat {seat}: no receipt was taken: {error}");
        }
        Ok(())
    }

    /// Asks for the head of the file, where it is.
    fn look(&self) -> Result<(String, About)> {
        let path = &self.target.path;
        let (peer, head) = self.head(path)?;
        let is_ours = head.fields.get("gatecast").is_some();
        if head.status == 404
            && !is_ours
            && let Some(other) = &self.target.other_path
        {
            let (peer, head) = self.head(other)?;
            return Ok((other.clone(), about(peer, &head)?));
        }
        Ok((path.clone(), about(peer, &head)?))
    }

    fn head(&self, path: &str) -> Result<(SocketAddr, Response)> {
        let stream = self.client.connect(self.fetch, self.order)?;
        self.client.set_stage(ClientStage::Joining);
        let peer = stream
            .peer_addr()
            .map_err(Error::io("connect", "the server"))?;
        let request = self.lines("HEAD", path) + "\r\n";
        let deadline = clock::now().after(ANSWER_LIMIT);
        let answer = ask(&stream, peer, &request, deadline, Phase::Offer)?;
        Ok((peer, answer.head))
    }

    fn lines(&self, method: &str, path: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: gatecast/{}\r\nAccept: */*\r\nConnection: close\r\n",
            self.target.host,
            env!("CARGO_PKG_VERSION")
        )
    }

    /// The request for the file itself, from `start` on.
    fn request(&self, path: &str, about: &About, start: u64, tag: Option<&str>) -> Result<String> {
        let mut path = path.to_owned();
        if about.gate {
            let group = self.order.group.unwrap_or(self.order.clients);
            let name = text::percent_encode(self.order.name_of(self.number)?.as_str());
            let _ = write!(path, "?gate={group}&receipt&via=http&name={name}");
        }
        let mut request = self.lines("GET", &path);
        if start > 0 {
            let _ = write!(request, "Range: bytes={start}-\r\n");
            if let Some(tag) = tag {
                let _ = write!(request, "If-Range: {tag}\r\n");
            }
        }
        Ok(request + "\r\n")
    }

    /// Checks the answer's head, and says where its body begins in the file.
    fn accept(
        &self,
        answer: &Answer,
        stream: &TcpStream,
        peer: SocketAddr,
        about: &About,
        start: u64,
    ) -> Result<u64> {
        let fields = &answer.head.fields;
        let length = fields
            .content_length()
            .map_err(|error| Error::protocol(peer, error.to_string()))?;
        let (begin, size) = match answer.head.status {
            200 => (0, length),
            206 => match fields.get("content-range").and_then(decode_content_range) {
                Some((range, size)) if range.start == start && range.end == size => {
                    (start, Some(size))
                }
                _ => {
                    return Err(Error::protocol(
                        peer,
                        "a part of the file that was not asked for",
                    ));
                }
            },
            503 => {
                return Err(Error::NotEnough {
                    reason: reason(answer, stream),
                });
            }
            status => {
                let reason = format!("{status}: {}", reason(answer, stream));
                return Err(Error::refused(peer, reason));
            }
        };
        if fields.get("transfer-encoding").is_some() || fields.get("content-encoding").is_some() {
            return Err(Error::protocol(
                peer,
                "an encoded body, which was not asked for",
            ));
        }
        let gone = (about.sha1, digest(&answer.head));
        if size != Some(about.bytes)
            || length != Some(about.bytes - begin)
            || matches!(gone, (Some(a), Some(b)) if a != b)
        {
            return Err(Error::SourceChanged {
                at: peer.to_string(),
                what: "the file is another one than a moment before".to_owned(),
            });
        }
        Ok(begin)
    }

    fn receive(
        &self,
        answer: &Answer,
        stream: &TcpStream,
        peer: SocketAddr,
        file: &File,
        range: std::ops::Range<u64>,
        end: &mut ClientReport,
    ) -> Result<()> {
        let transfer = end.transfer.as_mut().expect("made before");
        let want = range.end - range.start;
        self.client.expect(want);
        let held = answer.rest.len() as u64;
        if held > want {
            return Err(Error::protocol(peer, "more bytes than it announced"));
        }
        let method = self
            .order
            .copy
            .resolved()
            .map_err(|why| Error::refused("gatecast", why))?;
        // A server that begins anew sends what the part holds already.
        file.set_len(range.start)
            .map_err(Error::io("shorten the part", &self.target.name))?;
        let mut first = answer.rest.clone();
        let mut at = answer.at;
        if first.is_empty() && want > 0 {
            let deadline = clock::now().after(self.order.stall);
            first = read_some(stream, peer, deadline, Phase::Transfer)?;
            first.truncate(usize::try_from(want).unwrap_or(usize::MAX));
            at = clock::now();
        }
        let copying = Copying {
            method,
            buffer: copy::COPY_BUF,
            stall: self.order.stall,
            pacer: None,
            moved: self.client.moved(),
        };
        let received = copy::receive(stream, file, range, &first, copying);
        let last = clock::now();
        let bytes = self
            .client
            .moved()
            .load(std::sync::atomic::Ordering::Relaxed);
        transfer.bytes_client = Some(bytes);
        received.map_err(|stop| match stop {
            Stop::Stalled => Error::TimedOut {
                phase: Phase::Transfer,
                at: peer.to_string(),
                after: self.order.stall,
            },
            Stop::Disk(error) => Error::io("write the copy", self.order.out.display())(error),
            Stop::Short => Error::Corrupt {
                what: "the copy is shorter than what was written".to_owned(),
            },
            Stop::Peer(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let what = format!("the connection ended at byte {bytes} of {want}");
                Error::io("receive the file", peer)(io::Error::new(error.kind(), what))
            }
            Stop::Peer(error) => Error::io("receive the file", peer)(error),
        })?;
        transfer.first_client = (want > 0).then(|| (clock::id(), at));
        transfer.seconds_client = Some(last.since(answer.at));
        Ok(())
    }

    /// Hashes what is on disk, and gives it its name where it is what it should be.
    fn prove(
        &self,
        mut part: Part,
        sha1: Option<Digest>,
        released: Moment,
        end: &mut ClientReport,
    ) -> Result<()> {
        let transfer = end.transfer.as_mut().expect("made before");
        let offer = end.offer.as_mut().expect("made before");
        let found =
            digest_of(part.file(), offer.file.bytes, |_| {}).map_err(|stop| match stop {
                Stop::Disk(error) => Error::io("read the copy back", part.shown())(error),
                _ => Error::Corrupt {
                    what: format!("{} was truncated by another program", part.shown()),
                },
            })?;
        transfer.seconds_verified = Some(clock::now().since(released));
        if let Some(sha1) = sha1.filter(|&sha1| sha1 != found) {
            transfer.verified = Some(false);
            part.discard();
            return Err(Error::Corrupt {
                what: format!("'{}': its SHA-1 is {found}, not {sha1}", self.target.name),
            });
        }
        offer.file.sha1 = found;
        if sha1.is_none() {
            let name = self.order.copy_name(offer.seat, &self.target.name)?;
            let name = FileName::new(&format!("{}.unproven", name.as_str()))
                .map_err(|error| Error::refused("gatecast", error.to_string()))?;
            part.rename_to(&name)?;
        } else {
            transfer.verified = Some(true);
        }
        if self.order.durable {
            part.sync()?;
            transfer.seconds_durable = Some(clock::now().since(released));
        }
        let path = part.publish(self.order.durable)?;
        if sha1.is_none() {
            let reason = format!(
                "{UNPROVEN}: the copy is whole and unproven, {} with the SHA-1 {found}",
                crate::text::escape(&path.display().to_string())
            );
            return Err(Error::refused(&self.target.host, reason));
        }
        end.path = Some(path);
        Ok(())
    }

    /// Attests the copy.
    fn give_receipt(&self, path: &str, sha1: Digest, transfer: &Transfer) -> Result<()> {
        let stream = self.client.connect(self.fetch, self.order)?;
        let peer = stream
            .peer_addr()
            .map_err(Error::io("connect", "the server"))?;
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::protocol(
                peer,
                "a place for the receipt that is no path",
            ));
        }
        let mut body = format!("sha1={sha1}");
        if let Some(bytes) = transfer.bytes_client {
            let _ = write!(body, "&bytes={bytes}");
        }
        if let Some(span) = transfer.seconds_client {
            let _ = write!(body, "&seconds={:.6}", span.as_secs_f64());
        }
        let request = format!(
            "{}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.lines("POST", path),
            body.len()
        );
        let deadline = clock::now().after(ANSWER_LIMIT);
        let answer = ask(&stream, peer, &request, deadline, Phase::Receipt)?;
        match answer.head.status {
            200 => Ok(()),
            status => Err(Error::refused(
                peer,
                format!("{status}: {}", reason(&answer, &stream)),
            )),
        }
    }
}
