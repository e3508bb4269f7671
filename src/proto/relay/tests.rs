use proptest::prelude::*;

use super::*;
use crate::proto::histogram::Delay;

/// What comes of `parts`, read one after the other: a command, or the error as text.
fn heard(parts: &[&[u8]]) -> Vec<Result<ControlCommand, String>> {
    let mut commands = CommandReader::default();
    let mut heard = Vec::new();
    for part in parts {
        commands.push(part);
        while let Some(command) = commands.next() {
            heard.push(command.map_err(|error| error.to_string()));
        }
    }
    heard
}

const TALK: &[u8] = b"CONECTAR 5000\nINTERRUMPIR\r\nCONTINUAR\nDESCONECTAR\n";

fn talk() -> Vec<Result<ControlCommand, String>> {
    vec![
        Ok(ControlCommand::Connect(5000)),
        Ok(ControlCommand::Interrupt),
        Ok(ControlCommand::Continue),
        Ok(ControlCommand::Disconnect),
    ]
}

#[test]
fn commands_are_read_however_the_stream_is_cut() {
    for cut in 0..=TALK.len() {
        assert_eq!(heard(&[&TALK[..cut], &TALK[cut..]]), talk(), "cut at {cut}");
    }
    let single: Vec<&[u8]> = TALK.chunks(1).collect();
    assert_eq!(heard(&single), talk());
}

#[test]
fn commands_are_read_in_both_languages() {
    let english = b"CONNECT <65535>\nINTERRUPT\nCONTINUE\nDISCONNECT\n";
    let mut wanted = talk();
    wanted[0] = Ok(ControlCommand::Connect(65_535));
    assert_eq!(heard(&[english]), wanted);
    for command in [
        ControlCommand::Connect(1024),
        ControlCommand::Interrupt,
        ControlCommand::Continue,
        ControlCommand::Disconnect,
        ControlCommand::Alive(ReceiverReport {
            rtp_lost: Some(u64::MAX),
            ..ReceiverReport::default()
        }),
        ControlCommand::Group,
    ] {
        assert_eq!(heard(&[&command.encode()]), [Ok(command)]);
    }
}

#[test]
fn hostile_commands_are_errors_and_the_next_one_is_read() {
    let digits = format!("CONECTAR {}", "9".repeat(480));
    for line in [
        &b"CONECTAR 0"[..],
        b"CONECTAR 65536",
        b"CONECTAR -1",
        b"CONECTAR +5000",
        b"CONECTAR 05000",
        b"CONECTAR 5000 x",
        b"CONECTAR 5000 ",
        b"CONECTAR  5000",
        b"CONECTAR\t5000",
        b"CONECTAR 1023",
        b"CONECTAR 80",
        b"CONECTAR",
        b"CONECTAR ",
        b"CONECTAR <5000",
        b"CONECTAR 5000>",
        b"CONECTAR <>",
        b"CONECTAR 0x1388",
        b"CONECTAR 5e3",
        b"CONECTAR 10.0.0.9:5000",
        b"CONECTAR 5000@10.0.0.9",
        b"CONECTAR example.org",
        "CONECTAR \u{665}\u{660}\u{660}\u{660}".as_bytes(),
        "CONECTAR \u{ff15}\u{ff10}\u{ff10}\u{ff10}".as_bytes(),
        digits.as_bytes(),
        b"conectar 5000",
        b"Conectar 5000",
        b"CONECTAR\0 5000",
        b"\xff\xf4\xff\xfd\x06CONECTAR 5000",
        b"CONTINUAR now",
        b"INTERRUMPIR ",
        b" CONTINUAR",
        b"CONTINUAR\rX",
        b"",
        b"\r",
        b"\xc3\x28",
        b"ALIVE",
        b"ALIVE datagrams=1 bytes=1",
        b"ALIVE datagrams=-1 bytes=1 cc=0",
        b"ALIVE datagrams=1 datagrams=1 bytes=1 cc=0",
        b"ALIVE datagrams=18446744073709551616 bytes=1 cc=0",
        b"MULTICAST ",
        b"MULTICAST 239.255.1.2:5000",
        b"GET / HTTP/1.1",
    ] {
        let stream = [line, b"\nCONTINUAR\n"].concat();
        let found = heard(&[&stream]);
        let shown = String::from_utf8_lossy(line).into_owned();
        assert!(matches!(&found[..], [Err(_), Ok(ControlCommand::Continue)]), "{shown}: {found:?}");
        let Err(reason) = &found[0] else { continue };
        let reply = ControlReply::Error(reason.clone()).encode();
        let text = String::from_utf8(reply).expect("escaped");
        assert!(text.starts_with("ERROR ") && text.ends_with('\n'), "{text:?}");
        assert!(!text[..text.len() - 1].chars().any(char::is_control), "{text:?}");
        assert!(text.len() <= 4 * REASON_MAX, "{text:?}");
    }
}

#[test]
fn endless_line_is_one_error_and_takes_no_memory() {
    let mut commands = CommandReader::default();
    let mut errors = 0;
    for _ in 0..1_000 {
        commands.push(&[b'x'; 1_000]);
        while let Some(command) = commands.next() {
            assert!(command.is_err());
            errors += 1;
        }
        assert!(commands.bytes.len() < 2 * COMMAND_MAX);
    }
    assert_eq!(errors, 1);
    assert!(!commands.is_hopeless());
    commands.push(b"\nCONTINUAR\n");
    assert_eq!(commands.next(), Some(Ok(ControlCommand::Continue)));
    for _ in 0..=SKIP_MAX / 1_000_000 {
        commands.push(&[b'x'; 1_000_000]);
        while commands.next().is_some() {}
    }
    assert!(commands.is_hopeless());
}

#[test]
fn longest_line_is_read_and_a_longer_one_is_not() {
    let padding = |length: usize| {
        let mut line = b"CONECTAR 5000".to_vec();
        line.resize(length - 1, b' ');
        line.push(b'\n');
        heard(&[&line])
    };
    let longest = padding(COMMAND_MAX);
    let Some(Err(why)) = longest.first() else { panic!("{longest:?}") };
    assert!(why.starts_with("no port"), "read as a line: {why}");
    let longer = padding(COMMAND_MAX + 1);
    let Some(Err(why)) = longer.first() else { panic!("{longer:?}") };
    assert!(why.contains("longer"), "{why}");
    let most = ReceiverReport {
        datagrams: u64::MAX,
        bytes: u64::MAX,
        cc: u64::MAX,
        rtp_lost: Some(u64::MAX),
        jitter_us: Some(u64::MAX),
        host_drop: Some(u64::MAX),
    };
    let line = ControlCommand::Alive(most).encode();
    assert!(line.len() <= COMMAND_MAX, "{}", line.len());
    assert_eq!(heard(&[&line]), [Ok(ControlCommand::Alive(most))]);
}

#[test]
fn misplaced_command_changes_nothing() {
    use ViewerState::{Paused, Running, Unconnected};
    let connect = ControlCommand::Connect(5000);
    let alive = ControlCommand::Alive(ReceiverReport::default());
    let (interrupt, go_on, leave) =
        (ControlCommand::Interrupt, ControlCommand::Continue, ControlCommand::Disconnect);
    for (standing, command, after) in [
        (Unconnected, &connect, Some(Running)),
        (Unconnected, &interrupt, None),
        (Unconnected, &go_on, None),
        (Unconnected, &leave, Some(Unconnected)),
        (Unconnected, &alive, Some(Unconnected)),
        (Running, &connect, None),
        (Running, &interrupt, Some(Paused)),
        (Running, &go_on, None),
        (Running, &leave, Some(Unconnected)),
        (Running, &alive, Some(Running)),
        (Paused, &connect, None),
        (Paused, &interrupt, None),
        (Paused, &go_on, Some(Running)),
        (Paused, &leave, Some(Unconnected)),
        (Paused, &alive, Some(Paused)),
    ] {
        assert_eq!(standing.after(command).ok(), after, "{standing:?} {command:?}");
    }
}

#[test]
fn replies_come_back() {
    let statement = SenderReport {
        sent: 7,
        bytes: 9212,
        delay: Delay { p50_us: Some(200), ..Delay::default() },
        ..SenderReport::default()
    };
    for reply in [
        ControlReply::Ok,
        ControlReply::Report(statement),
        ControlReply::Error("not connected".to_owned()),
        ControlReply::Error("no such command '\u{1b}[2J\\'".to_owned()),
    ] {
        let line = String::from_utf8(reply.encode()).expect("text");
        let line = line.strip_suffix('\n').expect("ended");
        assert_eq!(ControlReply::decode(line), Ok(reply));
    }
    assert_eq!(ControlReply::decode("OK\r"), Ok(ControlReply::Ok), "another relay's");
    let strange = ControlReply::Error("\\u{zz}".to_owned());
    assert_eq!(ControlReply::decode("ERROR \\u{zz}"), Ok(strange));
    for line in ["", "ok", "OKAY", "OK sent=x", "HTTP/1.1 400"] {
        assert!(ControlReply::decode(line).is_err(), "{line}");
    }
}

#[test]
fn network_loss_is_sent_less_received_and_dropped() {
    let sent = SenderReport { sent: 100, ..SenderReport::default() };
    let got =
        |datagrams, host_drop| ReceiverReport { datagrams, host_drop, ..ReceiverReport::default() };
    assert_eq!(sent.network_lost(None), None);
    assert_eq!(sent.network_lost(Some(&got(90, None))), None);
    assert_eq!(sent.network_lost(Some(&got(90, Some(4)))), Some(6));
    assert_eq!(sent.network_lost(Some(&got(101, Some(0)))), None);
    assert_eq!(sent.network_lost(Some(&got(100, Some(1)))), None);
}

#[test]
fn command_rate_is_limited_per_second() {
    let at = |ms: u64| Moment(7_000_000 + ms * 1_000);
    let mut budget = CommandRate::new(at(0));
    // As fast as may be, for ever.
    for second in 0..10 {
        for _ in 0..COMMANDS_MAX {
            assert!(budget.allow(at(1_000 * second)), "second {second}");
        }
    }
    assert!(!budget.allow(at(9_000)));
    assert!(!budget.allow(at(9_999)), "the same second");
    assert!(budget.allow(at(10_000)));
}

#[test]
fn client_without_viewer_may_be_silent_for_a_minute() {
    let hours = Duration::from_secs(4 * 3600);
    assert_eq!(silence(Some(false), hours), hours);
    assert_eq!(silence(Some(true), hours), SILENCE_MAX);
    assert_eq!(silence(None, hours), OPENING_MAX);
    let second = Duration::from_secs(1);
    assert_eq!(silence(None, second), second);
}

#[test]
fn impossible_receiver_report_is_not_allowed() {
    let sent = SenderReport { sent: 1_000_000, ..SenderReport::default() };
    let honest = ReceiverReport {
        datagrams: 1_000_000,
        bytes: 1_316_000_000,
        cc: 12,
        rtp_lost: Some(70_000),
        jitter_us: Some(u64::MAX),
        host_drop: Some(1_000_000),
    };
    assert!(sent.allows(&honest));
    assert!(sent.allows(&ReceiverReport::default()));
    // Each doubled on its way, and a round of the relay's that it has not counted yet.
    let most = ReceiverReport { datagrams: 2_001_024, ..honest };
    assert!(sent.allows(&most));
    assert!(SenderReport::default().allows(&ReceiverReport {
        datagrams: 128,
        bytes: 128 * 65_507,
        ..ReceiverReport::default()
    }));
    for lie in [
        ReceiverReport { datagrams: u64::MAX, ..honest },
        ReceiverReport { datagrams: 2_001_025, ..honest },
        ReceiverReport { bytes: u64::MAX, ..honest },
        ReceiverReport { cc: u64::MAX, ..honest },
        ReceiverReport { rtp_lost: Some(u64::MAX), ..honest },
        ReceiverReport { host_drop: Some(u64::MAX), ..honest },
    ] {
        assert!(!sent.allows(&lie), "{lie:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_commands_or_errors(parts in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..700), 0..8
    )) {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        heard(&parts);
    }
}
