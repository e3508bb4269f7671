//! What a user types, names that peers give, and files of hosts.

use gatecast::internals::{
    cli::{RateLimit, clients, datagram, group, positive_duration, share, token},
    digest::Digest,
    proto::hosts::{HostList, LINE_MAX, NAMES_MAX},
    session::{MAX_SEATS, SessionId, Via},
    testbed::{
        star::{
            host,
            layout::{HOSTS_MAX, LinkRates, parse_loss},
        },
        study::grid::ClientCounts,
    },
    text::{CLIENT_NAME_MAX, ClientName, FILE_NAME_MAX, FileName, escape, is_unsafe, unescape},
    units::{Bytes, Rate, parse_duration},
};
use std::{collections::BTreeSet, fmt, path::Path};

use crate::{heap::bounded, input::lines};

/// What is accepted is in its range and is read again as it is written; what is refused is told
/// without a character that moves a cursor; a name is one path component.
pub fn values(data: &[u8]) {
    for line in lines(data) {
        numbers(line);
        words(line);
        names(line);
    }
    let text = String::from_utf8_lossy(data);
    assert_eq!(unescape(&escape(&text)).as_deref(), Some(&*text));
    assert!(!escape(&text).chars().any(|ch| is_unsafe(ch) || ch == '|'));
    hosts(&text);
    host_list(&text);
}

/// The value, if it was accepted; an error must be harmless to show.
fn accepted<T, E: fmt::Display>(read: Result<T, E>) -> Option<T> {
    read.map_err(|error| {
        let error = error.to_string();
        assert!(!error.is_empty() && !error.chars().any(is_unsafe), "{error:?}");
    })
    .ok()
}

fn numbers(text: &str) {
    if let Some(size) = accepted(text.parse::<Bytes>()) {
        assert_eq!(format!("{}B", size.0).parse(), Ok(size));
        assert!(!size.to_string().is_empty());
    }
    if let Some(rate) = accepted(text.parse::<Rate>()) {
        assert!(rate.0 > 0);
        assert_eq!(format!("{}bit", rate.0).parse(), Ok(rate));
        assert!(rate.bytes_per_second() > 0.0 && !rate.to_string().is_empty());
        let _ = rate.time_for(u64::MAX);
    }
    if let Some(span) = accepted(parse_duration(text)) {
        assert!(span.as_secs() <= 10 * 365 * 86_400);
        assert_eq!(accepted(positive_duration(text)).is_some(), !span.is_zero());
        if span.subsec_nanos() % 1000 == 0 {
            assert_eq!(parse_duration(&format!("{}us", span.as_micros())), Ok(span));
        }
    }
    if let Some(share) = accepted(share(text)) {
        assert!(share.is_finite() && share >= 0.0);
    }
    if let Some(millionths) = accepted(parse_loss(text)) {
        assert!(millionths < 1_000_000);
        let (whole, part) = (millionths / 10_000, millionths % 10_000);
        assert_eq!(parse_loss(&format!("{whole}.{part:04}%")), Ok(millionths));
    }
    if let Some(clients) = accepted(clients(text)) {
        assert!((1..=MAX_SEATS).contains(&clients) && clients.to_string() == text);
    }
    if let Some(datagram) = accepted(datagram(text)) {
        assert_eq!(datagram.to_string(), text);
    }
}

fn words(text: &str) {
    let _ = accepted(text.parse::<RateLimit>());
    if let Some(group) = accepted(group(text)) {
        assert!(group.ip().is_multicast() && group.port() >= 1024);
    }
    if let Some(token) = accepted(token(text)) {
        assert!(token == text && token.len() >= 8);
    }
    if let Some(via) = accepted(text.parse::<Via>()) {
        assert_eq!(via.to_string(), text);
    }
    if let Some(session) = accepted(text.parse::<SessionId>()) {
        assert_eq!(session.to_string(), text);
    }
    if let Some(digest) = accepted(text.parse::<Digest>()) {
        assert_eq!(digest.to_string(), text.to_ascii_lowercase());
    }
    let _ = accepted(text.parse::<LinkRates>());
    // Two numbers stand for a list of thousands; the user who types it has the memory.
    if text.len() < 64
        && let Some(ClientCounts(counts)) = accepted(text.parse::<ClientCounts>())
    {
        assert!(counts.len() >= text.split(',').count());
    }
}

fn names(text: &str) {
    if let Some(name) = accepted(FileName::new(text)) {
        assert!(name.as_str() == text && (1..=FILE_NAME_MAX).contains(&text.len()));
        assert_eq!(Path::new("folder").join(text).parent(), Some(Path::new("folder")));
        assert_eq!(Path::new(text).components().count(), 1);
        assert!(Path::new(text).file_name().is_some_and(|name| name == text));
    }
    if let Some(name) = accepted(ClientName::new(text)) {
        assert!((1..=CLIENT_NAME_MAX).contains(&name.as_str().len()));
        assert!(!name.to_string().chars().any(is_unsafe));
    }
    if let Some(plain) = unescape(text) {
        assert_eq!(unescape(&escape(&plain)), Some(plain));
    }
}

fn hosts(text: &str) {
    let link: LinkRates = "10mbit/50mbit".parse().expect("a link");
    let read = bounded(text.len(), || host::parse(text, "hosts", link));
    if let Some(hosts) = accepted(read) {
        assert!((2..=HOSTS_MAX).contains(&hosts.len()));
        let addresses: BTreeSet<_> = hosts.iter().map(|host| host.address).collect();
        assert_eq!(addresses.len(), hosts.len());
        assert!(hosts.iter().all(|host| !host.device.is_empty()));
    }
}

/// A roster: what is accepted is one name a line, each once, and is read again as it is written.
fn host_list(text: &str) {
    let read = bounded(text.len(), || HostList::parse(text, "hosts"));
    let Some(list) = accepted(read) else {
        return;
    };
    assert!((1..=NAMES_MAX).contains(&list.entries().len()));
    let names: BTreeSet<_> = list.entries().iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names.len(), list.entries().len());
    assert!(names.iter().all(|name| name.len() <= LINE_MAX && !name.contains(['#', '\n'])));
    let line = |name: &str, address: Option<std::net::IpAddr>| match address {
        Some(address) => format!(" {name}\t{address} # again\r\n"),
        None => format!("  {name}\n"),
    };
    let lines = list.entries().iter().map(|host| line(host.name.as_str(), host.address));
    assert_eq!(HostList::parse(&lines.collect::<String>(), "again").ok(), Some(list.clone()));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "100MB\n64KiB\n1.5GB\n0B\n18446744073709551615B",
        "100mbit\n1gbit\n9600bit\n1.5GBIT\nauto",
        "60s\n250ms\n2m\n1h\n1.5s\n43800h\n1us",
        "5%\n0.05\n0.1%\n99.9999%\n0.999999",
        "1\n25\n10000\n548\n65507",
        "239.255.1.2:5000\ntoken-12\ntcp\nmulticast\n00abcdef01234567",
        "10mbit/50mbit\n1,2,4\n1-13\n1,3-5",
        "3c5b492776742690efb6a0f1fd8508693400e2cc",
        "a b.bin\n..\n.\na/b\n\u{202e}evil\n\\u{1b}[2J\nPC-07",
        "# server\n4711 10.0.0.1 h1-eth0\n\n /run/x 10.0.0.2 eth0 # c\n",
        "# room\npc-01\npc-02 10.0.0.2 # window\n\npc-03 fd00::3\npc-03\n",
        "pc-01 10.0.0.1\r\npc-02\r\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
