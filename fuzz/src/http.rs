//! HTTP as our server reads it and as our client reads it.

use gatecast::internals::{
    digest::Digest,
    http::client::target::HttpTarget,
    proto::{
        http::{
            BODY_MAX, HEADERS_MAX, LINE_MAX,
            head::HeadBuilder,
            range::{RequestedRange, content_range, decode_content_range, requested_range},
            request::{HttpRequest, RequestBuf},
            response::ResponseHead,
            text::{self, PAIRS_MAX, QueryPairs},
            url::{URL_MAX, Url},
        },
        percent,
    },
};

use crate::{heap::bounded, input::pieces};

/// Requests come out the same however the stream is cut, with a host, plain names, values without
/// control characters, and no body that is too long; a range is a part of its file.
pub fn request(data: &[u8]) {
    let (stream, parts) = pieces(data);
    let whole = bounded(2 * stream.len(), || requests([stream].into_iter()));
    assert_eq!(requests(parts), whole);
    for request in whole.iter().flatten() {
        assert!(request.minor == 0 || request.host.is_some());
        let host = request.host.as_deref().unwrap_or("h");
        assert!(!host.is_empty() && host.bytes().all(|byte| !byte.is_ascii_uppercase()));
        assert!(request.headers.iter().count() <= HEADERS_MAX);
        for (name, value) in request.headers.iter() {
            assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(!value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f));
        }
        assert!(request.body_length().is_ok_and(|length| length <= BODY_MAX));
        assert!(request.headers.get("transfer-encoding").is_none());
        let _ = request.query_pairs();
        for range in request.headers.all("range") {
            a_range(range);
        }
    }
    let text = String::from_utf8_lossy(stream);
    a_range(&text);
    let pairs = bounded(2 * text.len(), || QueryPairs::parse(&text));
    assert!(pairs.is_none() || text.split('&').filter(|p| !p.is_empty()).count() <= PAIRS_MAX);
}

/// All requests, and the status of the refusal that ended them.
fn requests<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<Result<HttpRequest, u16>> {
    let (mut buf, mut all) = (RequestBuf::default(), Vec::new());
    for part in parts {
        buf.push(part);
        loop {
            match buf.next_request() {
                Ok(Some(request)) => all.push(Ok(request)),
                Ok(None) => break,
                Err(error) => {
                    assert!((400..600).contains(&error.status), "{error:?}");
                    all.push(Err(error.status));
                    return all;
                }
            }
        }
    }
    all
}

fn a_range(value: &str) {
    for size in [0, 1, 100, 1 << 40, u64::MAX] {
        if let RequestedRange::Part(range) = requested_range(value, size) {
            assert!(range.start < range.end && range.end <= size, "{range:?} of {size}");
            let shown = content_range(&range, size);
            assert_eq!(decode_content_range(&shown), Some((range, size)));
        }
    }
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    let heads = [
        "GET /files/a%20b.bin?gate=3&x HTTP/1.1\r\nHost: Room:8080\r\nRange: bytes=1-\r\n\r\nrest",
        "HEAD http://Room.local:80/a?b#c HTTP/1.1\r\nHost: other\r\nRange: bytes=-5\r\n\r\n",
        "POST /receipts?key=1f HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Length: 4\r\n\r\nsha1",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\n\r\n",
        "GET /announce?info_hash=%00%ff%20+x&a&&b= HTTP/1.0\n\n",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        "bytes=0-18446744073709551615",
        "bytes=1-2,4-5",
    ];
    let mut all: Vec<Vec<u8>> = heads.map(|head| format!("\x05{head}").into_bytes()).to_vec();
    all.push(format!("\x7fGET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(3000)).into_bytes());
    all.push(format!("\x7fGET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(66)).into_bytes());
    all
}

/// A response's head needs all its bytes and no more; a value of ours ends in its own field; codes
/// and URLs are read as they are written.
pub fn response(data: &[u8]) {
    if let Ok(Some((head, len))) = bounded(2 * data.len(), || ResponseHead::decode(data)) {
        assert!(len <= data.len() && (100..600).contains(&head.status));
        assert_eq!(ResponseHead::decode(&data[..len]), Ok(Some((head, len))));
        assert_eq!(ResponseHead::decode(&data[..len - 1]), Ok(None));
    }
    let text = String::from_utf8_lossy(data);
    if text.len() < LINE_MAX {
        let bytes = HeadBuilder::response(200).field("X", &text).field("Y", 1).encode();
        let (head, len) = ResponseHead::decode(&bytes).expect("ours").expect("whole");
        assert_eq!((len, head.headers.iter().count()), (bytes.len(), 2));
        let plain: String = text.chars().filter(|ch| !ch.is_control()).collect();
        assert_eq!(head.headers.get("x"), Some(plain.trim_matches(' ')));
    }
    if let Some((range, size)) = decode_content_range(&text) {
        assert!(range.start < range.end && range.end <= size);
        assert_eq!(decode_content_range(&content_range(&range, size)), Some((range, size)));
    }
    let digest = Digest::of(data);
    assert_eq!(text::base64_digest(&text::base64(digest.as_bytes())), Some(digest));
    let _ = bounded(data.len(), || text::digest_of_field(&text));
    assert_eq!(percent::decode(&text::percent_encode(&text)), Some(text.as_bytes().to_vec()));
    let name = text::disposition(&text);
    assert!(name.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{name}");
    assert!(!text::html(&text).contains(['<', '>', '"', '\'']));
    if let Ok(url) = bounded(2 * data.len(), || Url::parse(&text)) {
        assert!(text.len() <= URL_MAX && !url.host.is_empty() && !url.host.contains('@'));
        assert!(url.target.starts_with('/') && !url.path().contains('?'));
        let again = format!("http://{}{}", url.host, url.target);
        if again.len() <= URL_MAX {
            assert_eq!(Url::parse(&again).ok(), Some(url));
        }
    }
    if let Ok(target) = HttpTarget::url(&text) {
        assert!(!target.name.as_str().contains(['/', '\\', '\0']));
        let same = HttpTarget::file(&target.host, &target.name);
        let last = same.path.rsplit('/').next().and_then(percent::decode);
        assert_eq!(last.as_deref(), Some(target.name.as_str().as_bytes()));
    }
}

pub fn response_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-99/100\r\nContent-Length: 95\r\n\r\nx",
        "HTTP/1.0 404\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "bytes 5-99/100",
        "md5=:AAAA:, sha=:qZk+NkcGgWq6PiVxeFDCbJzQ2J0=:",
        "http://h:1/x/a%20b.bin?q#f",
        "http://[::1]:80/a",
        "a\r\nSet-Cookie: b\u{1b}\u{85}<b>&\"'",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
