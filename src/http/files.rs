//! The offered files: the list, a file at once, its digest.

use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::http::Face;
use crate::http::connection::Line;
use crate::http::connection::REPLY_LIMIT;
use crate::http::connection::Reply;
use crate::http::connection::send_by;
use crate::net::clock;
use crate::net::copy;
use crate::net::copy::Copying;
use crate::net::copy::Stop;
use crate::proto::http::range::Ranged;
use crate::proto::http::range::content_range;
use crate::proto::http::range::ranged;
use crate::proto::http::request::Request;
use crate::proto::http::response::ResponseHead;
use crate::proto::http::text;
use crate::proto::json::Json;
use crate::server::catalog::Source;
use crate::server::lobby::Lobby;
use crate::session::FileInfo;
use crate::text::FileName;

/// A file that goes out at once.
pub(super) struct Download {
    source: Source,
    ranged: Ranged,
    unchanged: bool,
}

impl Download {
    pub(super) fn new(source: Source, request: &Request) -> Self {
        let tag = etag(&source.info);
        let unchanged = request
            .fields
            .all("if-none-match")
            .flat_map(|value| value.split(','))
            .any(|held| held.trim() == "*" || held.trim().trim_start_matches("W/") == tag);
        Self {
            ranged: part(request, &source.info),
            source,
            unchanged,
        }
    }
}

/// The part of `file` that `request` wants: with an If-Range that is not this very file's tag
/// (RFC 9110, section 13.1.5: weak tags and dates are no proof) it is all of it.
pub(super) fn part(request: &Request, file: &FileInfo) -> Ranged {
    let mut ranges = request.fields.all("range");
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Ranged::Whole;
    };
    match request.fields.get("if-range") {
        Some(tag) if tag != etag(file) => Ranged::Whole,
        _ => ranged(range, file.bytes),
    }
}

/// The tag of a file: its digest, so it is as strong as a tag can be.
pub(super) fn etag(file: &FileInfo) -> String {
    format!("\"sha1-{}\"", file.sha1)
}

/// The fields of an answer that has `file` in it, or a part of it.
pub(super) fn describe(head: ResponseHead, file: &FileInfo, range: &Range<u64>) -> ResponseHead {
    let digest = text::base64(file.sha1.as_bytes());
    let partial = head.status == 206;
    head.field("Content-Type", "application/octet-stream")
        .field("Content-Length", range.end - range.start)
        .maybe(
            "Content-Range",
            partial.then(|| content_range(range, file.bytes)),
        )
        .field("Content-Disposition", text::disposition(file.name.as_str()))
        .field("Accept-Ranges", "bytes")
        .field("ETag", etag(file))
        // RFC 9530, of the whole file on 206 too; and RFC 3230, where the second name is the one
        // that aria2 knows and checks.
        .field("Repr-Digest", format!("sha=:{digest}:"))
        .field("Digest", format!("SHA={digest}, SHA-1={digest}"))
        .field("Cache-Control", "no-cache")
}

/// The name that a path asks for, and whether it asks for the file's digest only. An offered file
/// whose own name ends in `.sha1` comes first.
pub(super) fn offered(path: &str, lobby: &Lobby) -> Option<(FileName, bool)> {
    let find = |path: &str| {
        let name = FileName::new(path).ok()?;
        lobby
            .catalog
            .names()
            .any(|known| *known == name)
            .then_some(name)
    };
    if let Some(name) = find(path) {
        return Some((name, false));
    }
    find(path.strip_suffix(".sha1")?).map(|name| (name, true))
}

/// The digest as `sha1sum -c` reads it; a name with a backslash cannot be offered.
pub(super) fn digest(file: &FileInfo) -> Reply {
    let line = format!("{}  {}\n", file.sha1, file.name.as_str());
    Reply::new(200, "text/plain; charset=utf-8", line)
}

/// What is offered: HTML for whoever prefers it, else JSON.
pub(super) fn list(request: &Request, lobby: &Lobby) -> Reply {
    let files = match lobby.files() {
        Ok(files) => files,
        Err(error) => {
            log::warn!("{error}");
            return Reply::say(500, "an offered file cannot be read");
        }
    };
    let accept = request.fields.get("accept").unwrap_or_default();
    if !accept.contains("text/html") {
        return Reply::json(Json::object(|json| {
            json.text("schema", "gatecast.files/1");
            json.list("files", |json| {
                for file in &files {
                    json.item(|json| {
                        json.text("name", file.name.as_str());
                        json.count("bytes", Some(file.bytes));
                        json.text("sha1", file.sha1.to_string());
                    });
                }
            });
        }));
    }
    let mut html = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>gatecast: files</title><h1>Files</h1><table><tr><th>name<th>bytes<th>SHA-1",
    );
    for file in &files {
        let path = text::percent_encode(file.name.as_str());
        html += &format!(
            "<tr><td><a href='/files/{path}'>{}</a><td>{}<td><code>{}</code>",
            text::html(file.name.as_str()),
            file.bytes,
            file.sha1
        );
    }
    html += "</table>\n";
    Reply::new(200, "text/html; charset=utf-8", html).field(
        "Content-Security-Policy",
        "default-src 'none'; frame-ancestors 'none'",
    )
}

impl Face {
    /// Sends a file outside of any session; nothing of it is logged, it is only counted.
    pub(super) fn send_file(
        &self,
        download: &Download,
        line: &mut Line<'_>,
        without_body: bool,
    ) -> io::Result<()> {
        let info = &download.source.info;
        let (status, range) = match &download.ranged {
            _ if download.unchanged => {
                let reply = Reply::new(304, "application/octet-stream", String::new());
                self.reply(line, reply.field("ETag", etag(info)), true);
                return Ok(());
            }
            Ranged::Unsatisfiable => {
                let reply = Reply::say(416, format!("the file has {} bytes", info.bytes))
                    .field("Content-Range", format!("bytes */{}", info.bytes));
                self.reply(line, reply, without_body);
                return Ok(());
            }
            Ranged::Whole => (200, 0..info.bytes),
            Ranged::Part(range) => (206, range.clone()),
        };
        let head = describe(self.head(status, line.closes), info, &range);
        send_by(line.stream, &head.encode(), clock::now().after(REPLY_LIMIT))?;
        if without_body {
            return Ok(());
        }
        let moved = AtomicU64::new(0);
        let copying = Copying {
            method: self.method,
            buffer: copy::COPY_BUF,
            stall: self.stall,
            pacer: self.pacer.as_ref(),
            moved: &moved,
        };
        let sent = copy::send(&download.source.file, range, line.stream, copying);
        self.counts
            .bytes_at_once
            .fetch_add(moved.load(Ordering::Relaxed), Ordering::Relaxed);
        // The length is said already: an end before it is the only way to say that it is wrong.
        sent.map_err(|stop| match stop {
            Stop::Peer(error) | Stop::Disk(error) => error,
            Stop::Stalled => io::ErrorKind::TimedOut.into(),
            Stop::Short => io::Error::new(io::ErrorKind::UnexpectedEof, "the file was truncated"),
        })
    }
}
