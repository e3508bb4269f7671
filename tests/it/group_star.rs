//! A room of eight on a star that watches by the relay's group, one host that the group does not
//! reach, and one that it stops reaching, beside a client of the lab's, which knows nothing of groups.
//!
//! It takes root, `ip`, `tc`, `nft`, `ethtool` and Python, and is skipped without them.

use std::{fmt::Write, fs};

use gatecast::internals::proto::relay::log::ViewerRecord;

use crate::common::{
    installed,
    program::GATECAST,
    star::{relay_on_star, turn_with_stars},
};

/// What keeps a group from a host.
const DROP: &str = "nft add table inet m; \
                    nft add chain inet m i { type filter hook input priority 0 \\; }; \
                    nft add rule inet m i ip daddr 239.255.1.2 drop";

/// Sends 250 datagrams of seven packets a second, 2.6 Mbit/s, for as long as it is told.
const SOURCE: &str = "
import socket, sys, time
out, begun, n = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), time.monotonic(), 0
while time.monotonic() < begun + float(sys.argv[1]):
    packets = [bytes([0x47, 1, 0, 0x10 | (7 * n + k) % 16]) + bytes(184) for k in range(7)]
    out.sendto(b''.join(packets), ('127.0.0.1', 65534))
    n += 1
    time.sleep(max(0, begun + n / 250 - time.monotonic()))
";

/// The lab's client: watches for 10 s, pauses, goes on for a second, leaves, and prints what it got.
const LAB: &str = "
import socket, sys
sys.path.insert(0, sys.argv[1])
import relay_client as lab
control = lab.Control('10.77.0.1', 7000)
media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
media.bind((control.socket.getsockname()[0], 0))
def say(command):
    control.send(command + b'\\n')
    assert control.line() == 'OK', command
say(b'CONECTAR %d' % media.getsockname()[1])
got = lab.take(media, sys.maxsize, 10)[0]
say(b'INTERRUMPIR')
got += lab.take(media, sys.maxsize, 0.5)[0]
assert lab.take(media, sys.maxsize, 0.5)[0] == 0
say(b'CONTINUAR')
got += lab.take(media, sys.maxsize, 1)[0]
say(b'DESCONECTAR')
print(got + lab.take(media, sys.maxsize, 0.5)[0])
";

/// The viewer at `10.77.0.host`'s record.
fn of_host(records: &[ViewerRecord], host: u8) -> &ViewerRecord {
    let ip = format!("10.77.0.{}", host + 1);
    let found = records.iter().find(|record| record.to.ip().to_string() == ip);
    found.unwrap_or_else(|| panic!("{ip}: {records:?}"))
}

/// How many datagrams the group got for a viewer.
fn by_group(record: &ViewerRecord) -> u64 {
    let words = record.reason.as_deref().unwrap_or("0 by the group");
    words.strip_suffix(" by the group").and_then(|count| count.parse().ok()).expect(words)
}

#[test]
fn room_watches_by_group_and_unreached_hosts_by_unicast() {
    if !installed("python3") {
        return;
    }
    let Some(_turn) = turn_with_stars("star") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().display();
    fs::write(folder.path().join("source.py"), SOURCE).expect("room");
    fs::write(folder.path().join("lab.py"), LAB).expect("room");
    let on = |host: u8| format!("{GATECAST} star exec {host} -- ");
    let mut script = format!(
        "cd {at}\n{}{GATECAST} relay --multicast-group 239.255.1.2:5000 --multicast-interface \
         10.77.0.1 >relay.txt 2>&1 &\nrelay=$!\n{}python3 source.py 30 &\nsource=$!\n\
         until grep -q relaying relay.txt; do sleep 0.1; done\n{}sh -ec '{DROP}'\nviewers=\n",
        on(0),
        on(0),
        on(3),
    );
    for host in 1..=8 {
        let _ = writeln!(
            script,
            "{}{GATECAST} watch 10.77.0.1 --for 12s --loss-report >client-{host}.txt 2>&1 &\n\
             viewers=\"$viewers $!\"",
            on(host)
        );
    }
    let _ = writeln!(
        script,
        "{}python3 lab.py {}/tests/peers >lab.txt 2>&1 &\nviewers=\"$viewers $!\"",
        on(9),
        env!("CARGO_MANIFEST_DIR")
    );
    let _ = writeln!(
        script,
        "sleep 6\n{}sh -ec '{DROP}'\nwait $viewers\nkill $source\nkill -INT $relay\nwait $relay",
        on(5)
    );
    let (said, records) = relay_on_star(folder.path(), "10", &script);
    assert_eq!(records.len(), 9, "{said}");
    let lab = fs::read_to_string(folder.path().join("lab.txt")).expect("it has run");
    let record = of_host(&records, 9);
    assert_eq!(lab.trim().parse(), Ok(record.sent.sent), "{lab}{said}");
    assert!(record.sent.paused > 0 && record.received.is_none(), "{said}");
    assert!(said.contains("group 239.255.1.2:5000: "), "{said}");
    for host in 1..=8 {
        let record = of_host(&records, host);
        let (sent, got) = (record.sent, record.received.expect("ours tells"));
        let lost = sent.network_lost(Some(&got));
        assert_eq!(sent.sent - got.datagrams, lost.expect("told") + got.host_drop.expect("told"));
        match host {
            3 => assert_eq!((by_group(record), lost), (0, Some(0)), "not reached: {said}"),
            5 => {
                let lost = lost.expect("told");
                let missed = "until it noticed, and nothing since";
                assert!(lost > 0 && lost < sent.sent / 2, "{lost} {missed}: {said}");
                assert!((1..sent.sent).contains(&by_group(record)), "{said}");
            }
            _ => {
                assert_eq!(lost, Some(0), "{said}");
                assert!(by_group(record) > sent.sent * 9 / 10, "{said}");
            }
        }
    }
}
