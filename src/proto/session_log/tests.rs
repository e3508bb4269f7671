use std::net::SocketAddr;

use proptest::{option, prelude::*};
use time::OffsetDateTime;

use super::{cells::MISSING, *};
use crate::{
    digest::Digest,
    session::{SessionId, Via},
    text::CLIENT_NAME_MAX,
};

fn written(line: &Record) -> String {
    encode(line, &line.transfers[0])
}

fn line(transfer: Transfer) -> Record {
    Record {
        session: SessionId(0x00ab_cdef_0123_4567),
        via: Via::Tcp,
        file: FileInfo {
            name: FileName::new("100MB.bin").expect("plain"),
            bytes: 100_000_000,
            sha1: Digest::of(b"gate"),
        },
        clients: 25,
        released_at: OffsetDateTime::from_unix_timestamp(1_790_000_000).ok(),
        sender: Some("sendfile, bbr".to_owned()),
        key: true,
        auto: None,
        machine: Some("gatecast 0.1.0; Linux 6.1".to_owned()),
        transfers: vec![transfer],
    }
}

fn full() -> Transfer {
    let mut transfer = Transfer::new(SeatId(3), "PC-07", Outcome::Complete);
    transfer.client = "10.0.0.4:50123".parse().ok();
    transfer.server = "[fe80::1%2]:8080".parse().ok();
    transfer.verified = Some(true);
    transfer.bytes_client = Some(100_000_000);
    transfer.bytes_server = Some(100_000_000);
    transfer.seconds_client = Some(Duration::from_micros(8_000_001));
    transfer.seconds_server = Some(Duration::from_secs(16));
    transfer.woke = Some(Duration::from_micros(12));
    transfer.first_client = Some((ClockId(7), Moment(u64::MAX)));
    transfer.counts.lost = Some(0);
    (transfer.evidence.read_us, transfer.evidence.queued_bytes) = (Some(1_700_000), Some(0));
    transfer
}

/// The columns of a line by name.
fn column<'a>(line: &'a str, name: &str) -> &'a str {
    let place = COLUMNS.iter().position(|&column| column == name);
    line.trim_end_matches('\n')
        .split(SEPARATOR)
        .nth(place.expect("a column"))
        .expect("as many as the header has")
}

#[test]
fn line_reads_as_the_lab_expects() {
    insta::assert_snapshot!(header() + &written(&line(full())), @r#"
    session | seat | date | time | via | file | size | client_bytes | client_s | client_mbit | client_port | server_bytes | server_s | server_mbit | server_port | verdict | verified | reason | name | client | server | clients | sha1 | resumed | verified_s | durable_s | woke_us | first_server_us | first_client_us | clock | sender | lost | duplicate | reordered | jitter_us | retransmitted | bytes_from_server | bytes_from_peers | offered | local_drop | network_lost | host_rx_drop | delivered | unique | corrupt | foreign | late | unheard | reorder_extent | loss_burst | jitter_p50_us | jitter_p95_us | jitter_p99_us | delay_us | delay_max_us | key | read_us | write_us | hash_us | sync_us | cpu_us | cpu_wait_us | busy_us | rwnd_limited_us | sndbuf_limited_us | segments | segments_again | min_rtt_us | rtt_us | delivery_rate | queued_bytes | paced_us | server_link_us | buffer_full_us | repair_us | rate_cuts | client_link_us | buffer_bytes | auto | auto_server_up_bit_s | auto_least_down_bit_s | auto_group_bit_s | auto_group_lost_permille | auto_measured_us | auto_tcp_us | auto_swarm_us | auto_multicast_us | samples | machine
    00abcdef01234567 | 3 | 2026-09-21 | 14:13:20.000000 | tcp | 100MB.bin | 100000000 | 100000000 | 8.000001 | 100.000 | 50123 | 100000000 | 16.000000 | 50.000 | 8080 | complete | yes | - | PC-07 | 10.0.0.4:50123 | [fe80::1%2]:8080 | 25 | 3c5b492776742690efb6a0f1fd8508693400e2cc | 0 | - | - | 12 | - | 18446744073709551615 | 7 | sendfile, bbr | 0 | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | yes | 1700000 | - | - | - | - | - | - | - | - | - | - | - | - | - | 0 | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | [gatecast 0.1.0; Linux 6.1]
    "#);
}

#[test]
fn forged_text_stays_in_its_column() {
    let forged = [
        "",
        "-",
        " ",
        "  two  ",
        "a | b",
        " | ",
        "|",
        "\n1 | 2\n",
        "\\u{7c}",
        "\u{9b}2J\u{202e}",
        "\u{3000}wide\u{a0}",
        "\r",
    ];
    for text in forged {
        let mut transfer = full();
        transfer.name = text.to_owned();
        transfer.reason = Some(text.to_owned());
        let mut line = line(transfer);
        (line.sender, line.machine) = (Some(text.to_owned()), Some(text.to_owned()));
        let encoded = written(&line);
        assert_eq!(encoded.matches('\n').count(), 1, "{encoded:?}");
        assert_eq!(encoded.matches('|').count(), COLUMNS.len() - 1);
        for name in ["name", "reason", "sender", "machine"] {
            let cell = column(&encoded, name);
            assert_eq!(cell, cell.trim(), "{text:?}");
            assert_ne!(cell, MISSING, "{text:?}");
        }
        assert_eq!(decode(&encoded), Ok(line), "{text:?}");
    }
}

#[test]
fn longest_texts_make_a_readable_line() {
    let mut transfer = full();
    transfer.name = "\u{1b}".repeat(CLIENT_NAME_MAX);
    transfer.reason = Some("\u{1b}".repeat(REASON_MAX));
    (0..64)
        .rev()
        .for_each(|less| samples::push(&mut transfer.samples, u64::MAX - less, u64::MAX - less));
    let mut line = line(transfer);
    line.file.name = FileName::new(&"|".repeat(255)).expect("no control");
    line.sender = Some("\u{1b}".repeat(SENDER_MAX));
    line.machine = Some("\u{1b}".repeat(MACHINE_MAX));
    let encoded = written(&line);
    assert!(encoded.len() < LINE_MAX - 1024, "{}", encoded.len());
    assert_eq!(decode(&encoded), Ok(line.clone()));

    line.transfers[0].reason = Some("ñ".repeat(5000));
    let kept = decode(&written(&line)).expect("cut to fit");
    let reason = kept.transfers[0].reason.clone().expect("some");
    assert!(reason.starts_with("ññ") && reason.ends_with("ñ..."), "{reason}");
    assert!(reason.len() <= REASON_MAX);
}

#[test]
fn times_between_microseconds_are_cut_and_their_line_is_read() {
    let mut transfer = full();
    transfer.seconds_client = Some(Duration::from_nanos(999));
    transfer.seconds_server = Some(Duration::from_nanos(1_999));
    let mut line = line(transfer);
    line.released_at = OffsetDateTime::from_unix_timestamp_nanos(1_999_999_999).ok();
    let encoded = written(&line);
    assert_eq!(column(&encoded, "time"), "00:00:01.999999");
    assert_eq!(column(&encoded, "client_s"), "0.000000");
    assert_eq!(column(&encoded, "client_mbit"), MISSING);
    assert_eq!(column(&encoded, "server_s"), "0.000001");
    assert_eq!(decode(&encoded).map(|line| written(&line)), Ok(encoded));
}

#[test]
fn cut_line_is_an_error_wherever_it_is_cut() {
    let encoded = written(&line(full()));
    for end in 0..encoded.len() {
        assert_eq!(decode(&encoded[..end]), Err(cut()), "{end}");
        // The same with an end put to it: either a column is missing or one is damaged.
        let ended = encoded[..end].to_owned() + "\n";
        let whole = end == encoded.len() - 1;
        assert_eq!(decode(&ended).is_ok(), whole, "{ended}");
    }
    let long = "x".repeat(LINE_MAX) + "\n";
    assert_eq!(decode(&long), Err(too_long()));
}

#[test]
fn changed_figure_is_named_with_its_column() {
    let encoded = written(&line(full()));
    let too_many = (1..=33).map(|at| format!("{at}:{at}")).collect::<Vec<_>>().join(" ");
    for (name, forged) in [
        ("session", "00ABCDEF01234567"),
        ("seat", "03"),
        ("seat", "70000"),
        ("date", "2026-02-30"),
        ("date", "-"),
        ("time", "24:00:00.000000"),
        ("via", "TCP"),
        ("file", "a/b"),
        ("size", "+5"),
        ("client_bytes", "90000000"),
        ("client_s", "8.1"),
        ("client_mbit", "100.001"),
        ("client_port", "50124"),
        ("server_port", "-"),
        ("verdict", "won"),
        ("verified", "true"),
        ("reason", "\\n"),
        ("reason", "\\u{41}"),
        ("name", "-"),
        ("name", " x"),
        ("client", "10.0.0.4"),
        ("sha1", "12"),
        ("resumed", "-"),
        ("clock", "-"),
        ("lost", "-1"),
        ("bytes_from_peers", "18446744073709551616"),
        ("key", "no"),
        ("samples", ""),
        ("samples", "1:2 3"),
        ("samples", "1:2 2:1"),
        ("samples", "2:1 1:2"),
        ("samples", &too_many),
    ] {
        let place = COLUMNS.iter().position(|&c| c == name).expect("a column");
        let mut cells: Vec<&str> = encoded.trim_end().split(SEPARATOR).collect();
        cells[place] = forged;
        let error = decode(&(cells.join(SEPARATOR) + "\n")).expect_err(name);
        // A changed size shows in the rate that follows from it, half a pair in the other.
        let shown = match (name, forged) {
            ("client_bytes", _) => "client_mbit",
            ("date", "-") => "time",
            ("clock", _) => "first_client_us",
            _ => name,
        };
        assert!(error.to_string().starts_with(&format!("column {shown} holds")), "{error}");
    }
}

fn whole_micros() -> impl Strategy<Value = Option<Duration>> {
    option::of(any::<u64>().prop_map(Duration::from_micros))
}

fn address() -> impl Strategy<Value = Option<SocketAddr>> {
    option::of(any::<(std::net::IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip, port)))
}

fn figures() -> impl Strategy<Value = Transfer> {
    let bytes = || option::of(any::<u64>());
    (
        (any::<u16>(), "(?s).{0,16}", 0..Outcome::ALL.len(), option::of("(?s).{0,40}")),
        (address(), address(), any::<Option<bool>>(), bytes(), bytes(), any::<u64>()),
        (whole_micros(), whole_micros(), whole_micros(), whole_micros()),
        (whole_micros(), whole_micros(), any::<Option<(u64, u64)>>()),
        proptest::array::uniform24(bytes()),
        proptest::array::uniform22(bytes()),
        proptest::collection::vec(any::<(u64, u64)>(), 0..40),
    )
        .prop_map(|(who, bytes, times, firsts, counts, evidence, samples)| {
            let mut transfer = Transfer::new(SeatId(who.0), who.1, Outcome::ALL[who.2]);
            transfer.reason = who.3;
            transfer.client = bytes.0;
            transfer.server = bytes.1;
            transfer.verified = bytes.2;
            transfer.bytes_client = bytes.3;
            transfer.bytes_server = bytes.4;
            transfer.bytes_resumed = bytes.5;
            transfer.seconds_client = times.0;
            transfer.seconds_server = times.1;
            transfer.seconds_verified = times.2;
            transfer.seconds_durable = times.3;
            transfer.woke = firsts.0;
            transfer.first_server = firsts.1;
            transfer.first_client = firsts.2.map(|(id, at)| (ClockId(id), Moment(at)));
            transfer.counts = Counts::from_values(counts);
            transfer.evidence = Evidence::from_values(evidence);
            samples
                .into_iter()
                .for_each(|(us, bytes)| samples::push(&mut transfer.samples, us, bytes));
            transfer
        })
}

proptest! {
    #[test]
    fn transfer_comes_back_exactly(
        transfer in figures(),
        session in any::<u64>(),
        via in 0..Via::ALL.len(),
        at in option::of(0..253_402_300_799_999_999_i64),
        clients in any::<u16>(),
    ) {
        let mut line = line(transfer);
        line.session = SessionId(session);
        line.via = Via::ALL[via];
        line.clients = clients;
        line.released_at = at.map(|us| {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000).expect("in range")
        });
        let encoded = written(&line);
        prop_assert!(encoded.len() <= LINE_MAX);
        prop_assert_eq!(decode(&encoded), Ok(line));
    }

    #[test]
    fn damage_is_an_error_or_the_same_text_and_never_a_panic(
        place in any::<proptest::sample::Index>(),
        byte in any::<char>(),
    ) {
        let mut damaged: Vec<char> = written(&line(full())).chars().collect();
        let place = place.index(damaged.len());
        damaged[place] = byte;
        let damaged: String = damaged.into_iter().collect();
        if let Ok(line) = decode(&damaged) {
            prop_assert_eq!(written(&line), damaged);
        }
    }

    #[test]
    fn nothing_at_all_makes_it_panic(text in "(?s).{0,200}") {
        prop_assert!(decode(&text).is_err());
    }
}
