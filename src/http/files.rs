//! The offered files: the list, a file at once, its digest.

use std::{
    io,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    http::state::RequestContext,
    net::{
        clock,
        copy::{self, Copying},
        http::server::RESPONSE_LIMIT,
        shared_reply::stamp_of_now,
    },
    proto::{
        http::{
            head::HeadBuilder,
            range::{RequestedRange, content_range, requested_range},
            request::HttpRequest,
            response::HttpResponse,
            text,
        },
        json::Json,
    },
    server::{
        catalog::{Source, silent},
        conversation::LIST_INTERVAL,
        lobby::Lobby,
    },
    session::FileInfo,
    text::FileName,
    units::decimal_seconds,
};

/// The part of `file` that `request` wants. With an If-Range that is not this file's own tag it is
/// the whole file (RFC 9110, section 13.1.5: weak tags and dates are no proof).
pub(super) fn range_of(request: &HttpRequest, file: &FileInfo) -> RequestedRange {
    let mut ranges = request.headers.all("range");
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return RequestedRange::Whole;
    };
    match request.headers.get("if-range") {
        Some(tag) if tag != etag(file) => RequestedRange::Whole,
        _ => requested_range(range, file.bytes),
    }
}

/// The answer to a range that `file` does not have.
pub(super) fn unsatisfiable(file: &FileInfo) -> HttpResponse {
    HttpResponse::text(416, format!("the file has {} bytes", file.bytes))
        .field("Content-Range", format!("bytes */{}", file.bytes))
}

/// The tag of a file: its digest, so it is as strong as a tag can be.
fn etag(file: &FileInfo) -> String {
    format!("\"sha1-{}\"", file.sha1)
}

/// Begins the head of a response with `range` of `file`: 200 for the whole file, 206 for a part.
pub(super) fn file_head(
    cx: &RequestContext<'_>,
    status: u16,
    file: &FileInfo,
    range: &Range<u64>,
) -> HeadBuilder {
    let digest = text::base64(file.sha1.as_bytes());
    let part = (status == 206).then(|| content_range(range, file.bytes));
    cx.head(status)
        .field("Content-Type", "application/octet-stream")
        .field("Content-Length", range.end - range.start)
        .maybe("Content-Range", part)
        .field("Content-Disposition", text::disposition(file.name.as_str()))
        .field("Accept-Ranges", "bytes")
        .field("ETag", etag(file))
        // RFC 9530, of the whole file on 206 too; and RFC 3230, where the second name is the one
        // that aria2 knows and checks.
        .field("Repr-Digest", format!("sha=:{digest}:"))
        .field("Digest", format!("SHA={digest}, SHA-1={digest}"))
        .field("Cache-Control", "no-cache")
}

/// The file that a path names, and whether the path asks for its digest only. An offered file whose
/// own name ends in `.sha1` takes precedence.
pub(super) fn find(path: &str, lobby: &Lobby) -> Option<(FileName, bool)> {
    let offered = |path: &str| {
        let name = FileName::new(path).ok()?;
        let mut names = lobby.catalog.names();
        names.any(|known| *known == name).then_some(name)
    };
    if let Some(name) = offered(path) {
        return Some((name, false));
    }
    offered(path.strip_suffix(".sha1")?).map(|name| (name, true))
}

/// The list of offered files: HTML for clients that accept it, else JSON.
pub(super) fn list(cx: &RequestContext<'_>) -> HttpResponse {
    let files = || {
        cx.lobby.files().map_err(|error| {
            log::warn!("{error}");
            HttpResponse::text(500, "an offered file cannot be read")
        })
    };
    let (replies, stamp) = (&cx.server.replies, stamp_of_now(LIST_INTERVAL));
    let accept = cx.request.headers.get("accept").unwrap_or_default();
    if accept.contains("text/html") {
        let html = || files().map(|files| html_list(&files));
        replies
            .get("/files, HTML", "text/html; charset=utf-8", stamp, html)
            .field("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    } else {
        let json = || files().map(|files| json_list(&files));
        replies.get("/files", "application/json", stamp, json)
    }
}

fn json_list(files: &[FileInfo]) -> String {
    Json::object(|json| {
        json.text("schema", "gatecast.files/1");
        json.each("files", files, |json, file| {
            json.text("name", file.name.as_str());
            json.count("bytes", Some(file.bytes));
            json.text("sha1", file.sha1.to_string());
        });
    })
}

fn html_list(files: &[FileInfo]) -> String {
    let mut html = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>gatecast: files</title><h1>Files</h1><table><tr><th>name<th>bytes<th>SHA-1",
    );
    for file in files {
        let path = text::percent_encode(file.name.as_str());
        let (name, bytes, sha1) = (text::html(file.name.as_str()), file.bytes, file.sha1);
        html += &format!(
            "<tr><td><a href='/files/{path}'>{name}</a><td>{bytes}<td><code>{sha1}</code>"
        );
    }
    html += "</table>\n";
    html
}

/// Sends the file `name` at once, or its digest as `sha1sum -c` reads it.
pub(super) fn send(
    cx: &RequestContext<'_>,
    name: &FileName,
    digest_only: bool,
) -> io::Result<Option<HttpResponse>> {
    if cx.lobby.catalog.is_tree(name) {
        let why = format!("'{name}' is a folder, which only gatecast fetch takes");
        return Ok(Some(HttpResponse::text(404, why)));
    }
    let source = match cx.lobby.catalog.open(name, &silent) {
        Ok(source) => source,
        Err(error) => {
            log::warn!("{error}");
            let why = format!("the file '{name}' cannot be read");
            return Ok(Some(HttpResponse::text(500, why)));
        }
    };
    let file = &source.info;
    if digest_only {
        let line = format!("{}  {}\n", file.sha1, name.as_str());
        return Ok(Some(HttpResponse::new(200, "text/plain; charset=utf-8", line)));
    }
    let tag = etag(file);
    let held = cx.request.headers.all("if-none-match");
    let mut held = held.flat_map(|tags| tags.split(',')).map(str::trim);
    if held.any(|held| held == "*" || held.trim_start_matches("W/") == tag) {
        let response = HttpResponse::new(304, "application/octet-stream", "");
        return Ok(Some(response.field("ETag", tag)));
    }
    match range_of(cx.request, file) {
        RequestedRange::Whole => send_range(cx, &source, 200, 0..file.bytes)?,
        RequestedRange::Part(range) => send_range(cx, &source, 206, range)?,
        RequestedRange::Unsatisfiable => return Ok(Some(unsatisfiable(file))),
    }
    Ok(None)
}

/// Sends a part of a file outside of any session: it is counted, and a line for people says it.
fn send_range(
    cx: &RequestContext<'_>,
    source: &Source,
    status: u16,
    range: Range<u64>,
) -> io::Result<()> {
    let head = file_head(cx, status, &source.info, &range);
    cx.connection.send(&head.encode(), RESPONSE_LIMIT)?;
    if cx.wants_head_only() {
        return Ok(());
    }
    let (moved, begun) = (AtomicU64::new(0), clock::now());
    let copying = Copying {
        pacer: cx.server.downloads.pacer.as_deref(),
        ..Copying::new(cx.server.method, cx.server.stall, &moved)
    };
    let sent = copy::send(&source.file, range, cx.stream(), copying);
    let downloads = &cx.server.downloads;
    let bytes = moved.load(Ordering::Relaxed);
    downloads.bytes.fetch_add(bytes, Ordering::Relaxed);
    let (name, seconds) = (&source.info.name, decimal_seconds(clock::now().since(begun)));
    log::info!("{}: {bytes} bytes of {name} in {seconds} s, in no session", cx.connection.peer);
    // The head has announced the length: ending earlier is the only way to say that it is wrong.
    sent.map(drop).map_err(Into::into)
}
