use super::{
    head::HeadBuilder,
    range::{RequestedRange, content_range, decode_content_range, requested_range},
    request::{HttpMethod, HttpRequest, RequestBuf},
    response::{HttpResponse, ResponseHead},
    url::{URL_MAX, Url},
    *,
};
use crate::{digest::Digest, proto::percent};

fn parse(bytes: &[u8]) -> Result<Option<HttpRequest>, HeadError> {
    let mut buf = RequestBuf::default();
    buf.push(bytes);
    buf.next_request()
}

fn whole(text: &str) -> HttpRequest {
    parse(text.as_bytes()).expect("a request").expect("a whole request")
}

fn status(bytes: &[u8]) -> u16 {
    match parse(bytes) {
        Err(error) => error.status,
        Ok(Some(_)) => 200,
        Ok(None) => 0,
    }
}

#[test]
fn request_is_read_from_any_pieces_of_the_stream() {
    let text =
        b"GET /files/a%20b.bin?gate=3&x HTTP/1.1\r\nHost: Room:8080\r\nRange: bytes=1-\r\n\r\nrest";
    let expected = parse(text).expect("valid").expect("whole");
    assert_eq!(expected.method, HttpMethod::Get);
    assert_eq!(expected.path, "/files/a b.bin");
    assert_eq!(expected.query.as_deref(), Some("gate=3&x"));
    assert_eq!(expected.host.as_deref(), Some("room"));
    assert_eq!(expected.headers.get("range"), Some("bytes=1-"));
    assert!(expected.keeps_alive());
    for cut in 0..text.len() - 4 {
        let mut buf = RequestBuf::default();
        buf.push(&text[..cut]);
        assert_eq!(buf.next_request(), Ok(None), "cut at {cut}");
        buf.push(&text[cut..]);
        assert_eq!(buf.next_request(), Ok(Some(expected.clone())), "cut at {cut}");
        assert_eq!(buf.take(10), b"rest");
    }
    let mut buf = RequestBuf::default();
    let mut found = None;
    for &byte in text {
        buf.push(&[byte]);
        found = found.or_else(|| buf.next_request().expect("valid"));
    }
    assert_eq!(found, Some(expected));
}

#[test]
fn pipelined_requests_are_returned_in_order() {
    let mut buf = RequestBuf::default();
    for n in 0..100 {
        buf.push(format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    }
    for n in 0..100 {
        let request = buf.next_request().expect("valid").expect("whole");
        assert_eq!(request.path, format!("/{n}"));
    }
    assert_eq!(buf.next_request(), Ok(None));
    assert_eq!(buf.held(), 0);
}

#[test]
fn hostile_head_is_refused_with_its_status() {
    let with = |line: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n").into_bytes();
    let first = |line: &str| format!("{line}\r\nHost: h\r\n\r\n").into_bytes();
    let cases: Vec<(Vec<u8>, u16)> = vec![
        (first("GET /"), 400),
        (first("GET / HTTP/0.9"), 505),
        (first("GET / HTTP/9.9"), 505),
        (first("GET / HTTP/1.1 x"), 400),
        (first("GET  / HTTP/1.1"), 400),
        (first("GET\t/ HTTP/1.1"), 400),
        (first("GET / HTP/1.1"), 400),
        (first(" / HTTP/1.1"), 400),
        (first("G(T / HTTP/1.1"), 400),
        (first("GET files HTTP/1.1"), 400),
        (first("GET ftp://h/ HTTP/1.1"), 400),
        (first("GET http://h?x HTTP/1.1"), 400),
        (first("GET * HTTP/1.1"), 400),
        (first("GET /\0 HTTP/1.1"), 400),
        (first("GET /\u{e9} HTTP/1.1"), 400),
        (first("GET /%zz HTTP/1.1"), 400),
        (first("GET /%2 HTTP/1.1"), 400),
        (first("GET /%+1 HTTP/1.1"), 400),
        (first("GET /%ff HTTP/1.1"), 400),
        (first("GET /\r HTTP/1.1"), 400),
        (with("no colon"), 400),
        (with("Name : x"), 400),
        (with(": x"), 400),
        (with("N\u{e9}: x"), 400),
        (with(" folded: x"), 400),
        (with("a: b\r\n\tfolded"), 400),
        (with("a: \0"), 400),
        (with("a: b\rc"), 400),
        (with("a: \u{7f}"), 400),
        (with("Host: second"), 400),
        (with("Content-Length: 5"), 400),
        (with("Content-Length: 0\r\nContent-Length: 0"), 400),
        (with("Content-Length: +1"), 400),
        (with("Content-Length: 18446744073709551616"), 400),
        (with("Transfer-Encoding: chunked"), 501),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 0"), 400),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".to_vec(), 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1025\r\n\r\n".to_vec(), 413),
        (first(&format!("GET /{} HTTP/1.1", "x".repeat(1 << 20))), 414),
        (vec![b'G'; LINE_MAX], 414),
        (with(&format!("a: {}", "x".repeat(1 << 20))), 431),
        (with(&"a: b\r\n".repeat(10_000)), 431),
        (with(&"a: b\r\n".repeat(HEADERS_MAX)), 431),
    ];
    for (bytes, expected) in cases {
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(60).collect();
        assert_eq!(status(&bytes), expected, "{shown:?}");
    }
}

#[test]
fn largest_allowed_head_is_read() {
    let path = "x".repeat(LINE_MAX - "GET / HTTP/1.1\r\n".len());
    assert_eq!(
        whole(&format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n")).path.len(),
        path.len() + 1
    );
    let fields = "a: b\r\n".repeat(HEADERS_MAX - 1);
    let request = whole(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    assert_eq!(request.headers.iter().count(), HEADERS_MAX);
    let start = "GET / HTTP/1.1\r\nHost: h\r\na: ";
    let value = "x".repeat(HEAD_MAX - start.len() - 4);
    assert_eq!(whole(&format!("{start}{value}\r\n\r\n")).headers.get("a"), Some(&*value));
    assert_eq!(status(format!("{start}{value}x\r\n\r\n").as_bytes()), 431);
    let body = whole("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1024\r\n\r\n");
    assert_eq!(body.body_length(), Ok(BODY_MAX));
}

#[test]
fn unusual_legal_request_is_read() {
    let request = whole("GET http://Room.local:80/a?b#c HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(request.host.as_deref(), Some("room.local"));
    assert_eq!((&*request.path, request.query.as_deref()), ("/a", Some("b#c")));
    assert_eq!(whole("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n").path, "/");
    assert_eq!(whole("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").path, "*");
    assert_eq!(whole("GET / HTTP/1.0\n\n").host, None);
    assert!(!whole("GET / HTTP/1.0\n\n").keeps_alive());
    assert!(whole("GET / HTTP/1.0\nConnection: Keep-Alive\n\n").keeps_alive());
    assert!(!whole("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\n\r\n").keeps_alive());
    assert_eq!(whole("\r\n\r\nGET / HTTP/1.1\r\nHost: h:\r\n\r\n").host.as_deref(), Some("h"));
    let v6 = whole("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n");
    assert_eq!(v6.host.as_deref(), Some("::1"));
    // Decoded once: what is left is a name that no route has.
    assert_eq!(whole("GET /%2e%2e/%252e//x HTTP/1.1\r\nHost: h\r\n\r\n").path, "/../%2e//x");
    assert_eq!(whole("GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n").path, "/\0");
    let other = whole("BREW / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(other.method, HttpMethod::Other("BREW".to_owned()));
    let pairs = whole("GET /announce?info_hash=%00%ff%20+x&a&&b= HTTP/1.1\r\nHost: h\r\n\r\n");
    let expected = vec![
        ("info_hash".to_owned(), b"\x00\xff  x".to_vec()),
        ("a".to_owned(), Vec::new()),
        ("b".to_owned(), Vec::new()),
    ];
    assert_eq!(pairs.query_pairs().map(|pairs| pairs.0), Ok(expected));
    let many = format!("GET /?{} HTTP/1.1\r\nHost: h\r\n\r\n", "a&".repeat(text::PAIRS_MAX + 1));
    assert!(whole(&many).query_pairs().is_err());
    let most = format!("GET /?{} HTTP/1.1\r\nHost: h\r\n\r\n", "a&".repeat(text::PAIRS_MAX));
    assert_eq!(whole(&most).query_pairs().map(|pairs| pairs.0.len()), Ok(text::PAIRS_MAX));
}

#[test]
fn range_field_gives_the_requested_part() {
    let part = |from, to| RequestedRange::Part(from..to);
    for (value, expected) in [
        ("bytes=0-", part(0, 100)),
        ("bytes=0-0", part(0, 1)),
        ("bytes=99-", part(99, 100)),
        ("bytes=5-4000", part(5, 100)),
        ("bytes=5-18446744073709551615", part(5, 100)),
        ("bytes=-1", part(99, 100)),
        ("bytes=-4000", part(0, 100)),
        ("bytes=-99999999999999999999999", part(0, 100)),
        ("Bytes= 1-2 ", part(1, 3)),
        ("bytes=100-", RequestedRange::Unsatisfiable),
        ("bytes=18446744073709551616-", RequestedRange::Unsatisfiable),
        ("bytes=18446744073709551615-18446744073709551615", RequestedRange::Unsatisfiable),
        ("bytes=-0", RequestedRange::Unsatisfiable),
        ("bytes=", RequestedRange::Whole),
        ("bytes=-", RequestedRange::Whole),
        ("bytes=--1", RequestedRange::Whole),
        ("bytes=5-4", RequestedRange::Whole),
        ("bytes=alpha", RequestedRange::Whole),
        ("bytes=+1-2", RequestedRange::Whole),
        ("bytes=1-2,4-5", RequestedRange::Whole),
        ("bytes=-17208,-9223372036854758792", RequestedRange::Whole),
        ("lines=1-2", RequestedRange::Whole),
        ("bytes", RequestedRange::Whole),
        ("é=1-2", RequestedRange::Whole),
        ("", RequestedRange::Whole),
    ] {
        assert_eq!(requested_range(value, 100), expected, "{value}");
    }
    let many = format!("bytes={}", "0-,".repeat(1000));
    assert_eq!(requested_range(&many, 100), RequestedRange::Whole);
    assert_eq!(requested_range("bytes=0-", 0), RequestedRange::Unsatisfiable);
    assert_eq!(requested_range("bytes=-5", 0), RequestedRange::Whole);
    let shown = content_range(&(5..100), 100);
    assert_eq!(shown, "bytes 5-99/100");
    assert_eq!(decode_content_range(&shown), Some((5..100, 100)));
    for wrong in ["bytes 5-4/9", "bytes 0-9/9", "bytes */9", "bytes 0-8/*", "5-6/9", "bytes 0-/9"] {
        assert_eq!(decode_content_range(wrong), None, "{wrong}");
    }
}

#[test]
fn response_head_is_read_back_without_controls() {
    let bytes = HeadBuilder::response(206)
        .field("Content-Length", 5)
        .field("X", "a\r\nSet-Cookie: b\u{1b}\u{85}")
        .maybe("Y", None::<u8>)
        .encode();
    let (response, len) = ResponseHead::decode(&bytes).expect("valid").expect("whole");
    assert_eq!(len, bytes.len());
    assert_eq!(response.status, 206);
    assert_eq!(response.headers.content_length(), Ok(Some(5)));
    assert_eq!(response.headers.get("x"), Some("aSet-Cookie: b"));
    assert_eq!(response.headers.get("y"), None);
    for cut in 0..bytes.len() {
        assert_eq!(ResponseHead::decode(&bytes[..cut]), Ok(None), "{cut}");
    }
    for wrong in [
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 2000 x\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
    ] {
        assert!(ResponseHead::decode(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(ResponseHead::decode(b"HTTP/1.1 200\r\n\r\n").expect("valid").is_some());
    assert!(ResponseHead::decode(&vec![b'x'; LINE_MAX]).is_err());
}

#[test]
fn encodings_match_their_rfcs() {
    for (plain, coded) in
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
    {
        assert_eq!(text::base64(plain.as_bytes()), coded);
    }
    let digest = Digest::of(b"abc");
    let coded = text::base64(digest.as_bytes());
    assert_eq!(coded, "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=");
    assert_eq!(text::base64_digest(&coded), Some(digest));
    for field in [
        format!("sha=:{coded}:"),
        format!("SHA={coded}"),
        format!("md5=:AAAA:, sha=:{coded}:"),
        format!("sha-256=:AAAA:,SHA={coded}"),
    ] {
        assert_eq!(text::digest_of_field(&field), Some(digest), "{field}");
    }
    for field in [
        "sha=",
        "sha=:x:",
        "sha-256=:qZk+NkcGgWq6PiVxeFDCbJzQ2J0=:",
        "",
        "sha=:qZk+NkcGgWq6PiVxeFDCbJzQ2J0",
    ] {
        assert_eq!(text::digest_of_field(field), None, "{field}");
    }
    let at = time::OffsetDateTime::from_unix_timestamp(784_111_777).expect("a time");
    assert_eq!(text::date(at), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(text::event("state", 7, "a\nb"), "event: state\nid: 7\ndata: a\ndata: b\n\n");
    assert_eq!(
        text::disposition("a\"\r\n;é.bin"),
        "attachment; filename=\"a___;_.bin\"; filename*=UTF-8''a%22%0D%0A%3B%C3%A9.bin"
    );
    assert_eq!(text::html("<b>&\"'\u{1b}[2J"), "&lt;b&gt;&amp;&quot;&#39;\\u{1b}[2J");
    assert_eq!(text::percent_encode("a b/é%"), "a%20b%2F%C3%A9%25");
    assert_eq!(percent::decode("a%20b%2F"), Some(b"a b/".to_vec()));
}

#[test]
fn response_is_encoded_with_its_length_and_fields() {
    let response = HttpResponse::text(404, "no\r\nfile").field("Allow", "GET");
    let head = || HeadBuilder::response(response.status);
    let bytes = response.encode(head(), false);
    let (read, len) = ResponseHead::decode(&bytes).expect("valid").expect("whole");
    assert_eq!(read.headers.get("allow"), Some("GET"));
    assert_eq!(bytes[len..], *response.body);
    assert_eq!(read.headers.content_length(), Ok(Some(response.body.len() as u64)));
    assert_eq!(response.encode(head(), true), bytes[..len]);
}

#[test]
fn url_is_read_in_its_parts() {
    for (text, host, target, last) in [
        ("http://h", "h", "/", ""),
        ("http://h:1/", "h:1", "/", ""),
        ("http://h?q", "h", "/?q", ""),
        ("http://h/x/announce?k=a/b#f", "h", "/x/announce?k=a/b", "announce"),
        ("http://[::1]:80/a%20b", "[::1]:80", "/a%20b", "a%20b"),
    ] {
        let url = Url::parse(text).expect(text);
        assert_eq!((&*url.host, &*url.target), (host, target), "{text}");
        assert_eq!(url.last_segment(), last, "{text}");
    }
    let long = format!("http://h/{}", "x".repeat(URL_MAX));
    for text in [
        "https://h/a",
        "ftp://h/a",
        "http:///a",
        "http://?q",
        "http://u@h/a",
        "http://h/a b",
        "http://h/é",
        "h/a",
        "",
        &long,
    ] {
        let error = Url::parse(text).expect_err(text).to_string();
        assert!(error.contains("invalid URL"), "{error}");
    }
}

/// Inputs of the differential test: enough that each rule below is met thousands of times.
const INPUTS: u32 = 300_000;

#[test]
fn request_parser_agrees_with_httparse() {
    let mut random = 0x6761_7465_u64;
    let mut counts = [0_u32; 4];
    for _ in 0..INPUTS {
        let bytes = head(&mut random);
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut theirs = httparse::Request::new(&mut fields);
        let judged = theirs.parse(&bytes);
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        match (parse(&bytes), judged) {
            (Ok(Some(ours)), Ok(httparse::Status::Complete(_))) => {
                counts[0] += 1;
                compare(&ours, &theirs, &shown());
            }
            (Ok(None), Ok(httparse::Status::Partial)) => counts[1] += 1,
            // httparse stops at the first fault, where we wait for the head's end.
            (Err(_), Err(_)) | (Ok(None), Err(_)) => counts[2] += 1,
            (Err(error), Ok(_)) => {
                counts[3] += 1;
                assert!(is_ours_alone(&error), "{error}: {:?}", shown());
            }
            (ours, judged) => panic!("{ours:?} and {judged:?}: {:?}", shown()),
        }
    }
    let [both, partial, neither, stricter] = counts;
    println!(
        "{INPUTS} inputs: both read {both}, both want more {partial}, both refuse {neither}, only we refuse {stricter}"
    );
    assert!(counts.iter().all(|&count| count > 2_000), "{counts:?}");
}

/// What httparse leaves to its caller.
fn is_ours_alone(error: &HeadError) -> bool {
    [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "version other",
        "percent code",
        "a target that",
        "a body",
        "no plain ASCII",
        "not plain ASCII",
        "without a path",
        "empty lines",
    ]
    .iter()
    .any(|part| error.why.contains(part))
}

fn compare(ours: &HttpRequest, theirs: &httparse::Request<'_, '_>, shown: &str) {
    let method = match &ours.method {
        HttpMethod::Get => "GET",
        HttpMethod::Head => "HEAD",
        HttpMethod::Post => "POST",
        HttpMethod::Options => "OPTIONS",
        HttpMethod::Other(word) => word,
    };
    assert_eq!(Some(method), theirs.method, "{shown:?}");
    assert_eq!(Some(ours.minor), theirs.version, "{shown:?}");
    let target = theirs.path.expect("a target");
    if target.starts_with('/') {
        let path = target.split('?').next().expect("a path");
        assert_eq!(Some(ours.path.clone().into_bytes()), percent::decode(path), "{shown:?}");
    }
    let headers: Vec<(String, String)> = theirs
        .headers
        .iter()
        .map(|field| {
            let value = String::from_utf8_lossy(field.value.trim_ascii()).into_owned();
            (field.name.to_ascii_lowercase(), value)
        })
        .collect();
    let held: Vec<(String, String)> =
        ours.headers.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    assert_eq!(held, headers, "{shown:?}");
}

/// A head put together from honest and strange pieces, then sometimes bent or cut.
fn head(random: &mut u64) -> Vec<u8> {
    const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "BREW", "G T", ""];
    const TARGETS: [&str; 9] =
        ["/", "/files/a%20b?gate=2", "http://h/x", "*", "/%zz", "//", "/%2e%2e", "x", "/a|b"];
    const VERSIONS: [&str; 5] = ["HTTP/1.1", "HTTP/1.0", "HTTP/1.1", "HTTP/9.9", "HTTP/1.1 "];
    const NAMES: [&str; 8] =
        ["Host", "Host", "Range", "a", "X-Y", "Content-Length", "Transfer-Encoding", "b c"];
    const VALUES: [&str; 8] = ["h", "127.0.0.1:80", "bytes=0-", "0", "", "é", "x\ty", "chunked"];
    let mut pick = |len: usize| {
        *random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*random >> 33).expect("31 bits") % len
    };
    // Mostly honest first pieces, so that the rest is looked at too.
    let mut honest = |list: &[&'static str]| match pick(6) {
        0 => list[pick(list.len())],
        _ => list[0],
    };
    let end = ["\r\n", "\n"];
    let mut text = format!("{} {} {}", honest(&METHODS), honest(&TARGETS), honest(&VERSIONS));
    text += end[pick(8) / 7];
    text += ["Host: h\r\n", ""][pick(4) / 3];
    for _ in 0..pick(4) {
        let colon = [": ", ":", " : ", ""][[0, 0, 0, 1, 1, 2, 3, 0][pick(8)]];
        text += &format!("{}{colon}{}", NAMES[pick(8)], VALUES[pick(8)]);
        text += end[pick(8) / 7];
    }
    text += end[pick(8) / 7];
    let mut bytes = text.into_bytes();
    match pick(6) {
        0 => {
            let at = pick(bytes.len());
            bytes[at] = u8::try_from(pick(256)).expect("a byte");
        }
        1 => bytes.truncate(pick(bytes.len())),
        2 => {
            let at = pick(bytes.len());
            bytes.insert(at, b"\0\r\n \t:\x7f\xff"[pick(8)]);
        }
        _ => {}
    }
    bytes
}

proptest::proptest! {
    #[test]
    fn parser_takes_any_bytes_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
        let _ = ResponseHead::decode(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = requested_range(&text, 1000);
        let _ = text::QueryPairs::parse(&text);
        let _ = text::digest_of_field(&text);
    }
}
