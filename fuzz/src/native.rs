//! The lines of the native protocol, and the lab's clients.

use gatecast::internals::{
    digest::Digest,
    proto::{
        greeting::{GREETING_MAX, Recognised, recognise},
        lab,
        lab::udp::LabRequest,
        line::{LINE_MAX, LineBuf},
        native::{
            ClientHello, ErrorCode, FromClient, FromServer, Join, LAST_WORDS_MAX, ListEnd, Offer,
            Receipt, Summary, decode_last_words,
            echo::{EchoOrder, EchoResult, EchoTerms},
            encode_last_words,
            probe::{GroupProbe, TrainHead},
        },
    },
    session::{FileInfo, SeatId, SessionId, Via},
    text::{ClientName, FileName},
    transfer::{ClockId, Counts, Evidence, Outcome, auto::HeardStep},
    units::Moment,
};
use std::time::Duration;

use crate::{
    heap::bounded,
    input::{lines, pieces, reread},
};

/// Lines come out the same however the stream is cut; a message that is accepted is read again as
/// it is written, in a line that the other side takes; a greeting once recognised stays so.
pub fn native(data: &[u8]) {
    let (stream, parts) = pieces(data);
    let whole = bounded(stream.len(), || split([stream].into_iter()));
    assert_eq!(split(parts), whole);
    for line in whole.0.iter().map(String::as_str).chain(lines(stream)) {
        let hello = reread(line, ClientHello::decode, ClientHello::encode);
        let said = reread(line, FromClient::decode, FromClient::encode);
        for bytes in hello.map(|(_, bytes)| bytes).into_iter().chain(said.map(|(_, bytes)| bytes)) {
            assert!(bytes.len() <= LINE_MAX, "{} bytes", bytes.len());
        }
        reread(line, EchoTerms::decode, EchoTerms::encode);
        reread(line, EchoResult::decode, EchoResult::encode);
        if let Some((order, bytes)) = reread(line, EchoOrder::decode, EchoOrder::encode) {
            assert!(2 * order.digits().len() < bytes.len(), "more is sent than was received");
        }
        let Some((answer, bytes)) = reread(line, FromServer::decode, FromServer::encode) else {
            continue;
        };
        let ours = match &answer {
            // What our server says of itself is a few words.
            FromServer::Summary(summary) => summary.sender.len() <= 32,
            _ => true,
        };
        assert!(!ours || bytes.len() <= LINE_MAX, "{} bytes", bytes.len());
    }
    TrainHead::decode(stream, 7);
    greeting(stream);
    last_words(stream);
}

/// All lines, whether one was refused, and what is left.
fn split<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, bool, Vec<u8>) {
    let (mut buf, mut lines) = (LineBuf::default(), Vec::new());
    for part in parts {
        buf.push(part);
        loop {
            match buf.next_line() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(_) => return (lines, true, Vec::new()),
            }
        }
        assert!(buf.held() < LINE_MAX, "a line without end is refused");
    }
    (lines, false, buf.take_payload(usize::MAX))
}

fn greeting(first: &[u8]) {
    let mut before = Recognised::More;
    for cut in 0..=first.len().min(GREETING_MAX) {
        let now = recognise(&first[..cut]);
        assert!(before == Recognised::More || before == now, "{before:?} {now:?}");
        before = now;
    }
    if first.len() >= GREETING_MAX {
        assert_ne!(before, Recognised::More);
    }
}

fn last_words(tail: &[u8]) {
    let session = SessionId(7);
    let _ = bounded(tail.len(), || decode_last_words(session, tail));
    let reason = String::from_utf8_lossy(tail);
    let words = encode_last_words(session, &reason);
    assert!(words.len() <= LAST_WORDS_MAX);
    let payload = [b"payload\nGATECAST/1 LASTWORDS ", &words[..]].concat();
    let (taken, read) = decode_last_words(session, &payload).expect("our own");
    assert_eq!(taken, words.len());
    assert!(reason.starts_with(&read));
}

fn file() -> FileInfo {
    let name = FileName::new("f \u{e9}.bin").expect("a name");
    FileInfo { name, bytes: 100_000_000, sha1: Digest::of(b"f") }
}

fn counts() -> Counts {
    let mut values = Counts::default().values();
    values.fill(Some(7));
    Counts::from_values(values)
}

fn evidence() -> Evidence {
    Evidence::from_values([Some(7); Evidence::NAMES.len()])
}

fn name(text: &str) -> ClientName {
    ClientName::new(text).expect("a name")
}

fn client_messages() -> Vec<Vec<u8>> {
    let receipt = Receipt {
        bytes: 9,
        sha1: Digest::of(b"f"),
        last: Duration::from_micros(7),
        hashed: Duration::from_micros(8),
        durable: Some(Duration::from_micros(9)),
        first: Some((ClockId(1), Moment(2))),
        counts: counts(),
        evidence: evidence(),
    };
    let fail = FromClient::Fail {
        outcome: Outcome::TimedOut,
        bytes: 5,
        reason: "no room".to_owned(),
        last: Some(Duration::from_micros(3)),
        counts: Counts::default(),
    };
    let said = [
        FromClient::Ready { offset: 0 },
        FromClient::Held,
        FromClient::Heard(HeardStep { step: 3, datagrams: 9, span_us: 8, tail: 4, tail_us: 3 }),
        FromClient::Probed { datagrams: 9 },
        FromClient::Alive { bytes: 5 },
        FromClient::Last { bytes: 5 },
        FromClient::Hashed { sha1: Digest::of(b"f") },
        FromClient::Receipt(receipt),
        fail,
    ];
    let join = Join {
        file: Some(file().name),
        group: 25,
        via: Some(Via::Tcp),
        name: name("PC-07"),
        takes_trees: true,
        ways: vec![Via::Tcp, Via::Multicast, Via::Swarm],
        auto: true,
    };
    let hello = [ClientHello::Join(join), ClientHello::List, ClientHello::Echo];
    let order = EchoOrder { udp: 40_000, tcp: 40_001, random: 7 };
    let said = said.iter().map(FromClient::encode).chain([order.encode()]);
    hello.iter().map(ClientHello::encode).chain(said).collect()
}

fn server_messages() -> Vec<Vec<u8>> {
    let run = Some(9);
    let offer = Offer {
        session: SessionId(7),
        seat: SeatId(3),
        clients: 25,
        run,
        via: Via::Udp,
        file: file(),
        tree: Some(3),
    };
    let summary = Summary {
        outcome: Outcome::Complete,
        reason: Some("the source has changed since".to_owned()),
        bytes: 9,
        last: Some(Duration::from_micros(7)),
        woke: Duration::from_micros(1),
        first: Some(Duration::from_micros(2)),
        sender: "sendfile, bbr".to_owned(),
        counts: counts(),
        evidence: evidence(),
    };
    let said = [
        FromServer::Offer(offer),
        FromServer::File { file: file(), is_tree: true },
        FromServer::End(ListEnd { run, clients: Some(25), file: Some(file().name) }),
        FromServer::Wait { ready: 1, clients: 25 },
        FromServer::Probe(GroupProbe { group: "239.255.1.2:5000".parse().ok(), random: 7 }),
        FromServer::Burst { bytes: 9 },
        FromServer::Probed,
        FromServer::Go { bytes: 9 },
        FromServer::Summary(summary),
        FromServer::Error { code: ErrorCode::Muster, reason: "not enough".to_owned() },
    ];
    let group = "239.255.1.2:5000".parse().ok();
    let terms = EchoTerms { via: Some(Via::Multicast), port: 40_002, group };
    let result = EchoResult { heard: true, at_us: 1_763_000_000_000_000 };
    let echo = [terms.encode(), result.encode()];
    said.iter().map(FromServer::encode).chain(echo).collect()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = [client_messages(), server_messages()].concat();
    all.push(all.concat());
    all.extend([&b"GET / HTTP/1.1"[..], b"Preparado", b"\x13BitTorrent protocol"].map(Vec::from));
    all.push(encode_last_words(SessionId(7), "truncated"));
    all.into_iter().map(|bytes| [&[40][..], &bytes].concat()).collect()
}

/// What the lab's clients say. A request that is understood is read again as it is written; so is a
/// list of files; an elapsed time is at most a year, in whole microseconds.
pub fn lab(data: &[u8]) {
    if let Some(request) = bounded(data.len(), || LabRequest::decode(data)) {
        let bytes = request.encode();
        if bytes.len() <= lab::udp::REQUEST_MAX {
            assert_eq!(LabRequest::decode(&bytes), Some(request));
        }
    }
    let text = String::from_utf8_lossy(data);
    if let Some(names) = bounded(data.len(), || lab::udp::decode_list(&text)) {
        let list = lab::udp::encode_list(names.iter().map(String::as_str));
        assert_eq!(lab::udp::decode_list(&list), Some(names));
    }
    for line in lines(data) {
        if let Ok(elapsed) = bounded(line.len(), || lab::tcp::decode_elapsed(line)) {
            assert!(elapsed <= Duration::from_secs(365 * 86_400));
            assert_eq!(elapsed.subsec_nanos() % 1000, 0);
            let start = lab::tcp::encode_start(elapsed);
            let start = std::str::from_utf8(&start).expect("ASCII");
            let again = lab::tcp::decode_elapsed(start).expect("our own");
            assert!(again.abs_diff(elapsed) <= Duration::from_micros(1), "{again:?} {elapsed:?}");
        }
    }
    let stray = data.iter().filter(|&&byte| lab::tcp::is_stray(byte));
    assert!(
        stray.count() + data.iter().filter(|b| b.is_ascii_alphanumeric()).count() <= data.len()
    );
}

pub fn lab_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "LIST",
        "TRANSFER",
        "DISCONNECT",
        "!CONFIG :100mb.mp4 :5",
        "!CONFIG : a:b c : 25 ",
        "['100mb.mp4', \"it's\", 'a\\\\b']",
        "0.482",
        "5.1e-05",
        "31536000",
        "Preparado",
        "\n\r-Recibido",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
