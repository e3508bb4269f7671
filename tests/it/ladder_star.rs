//! A viewer behind a link that becomes narrow goes down to the lower encoding and up again, and one
//! beside it notices nothing.
//!
//! It takes root, `ip`, `tc`, `nft`, `ethtool` and ffmpeg, and is skipped without them.

use crate::common::{
    have, installed,
    program::GATECAST,
    star::{relay_on_star, turn_with_stars},
};

/// Two encodings of one picture, and two viewers of 40 s, one of whose links is narrow for 10 s.
const SCRIPT: &str = r#"
$G star exec 0 -- $G relay -v --input 127.0.0.1:65534 --input 127.0.0.1:65533 >relay.txt 2>&1 &
relay=$!
until grep -q relaying relay.txt; do sleep 0.1; done
$G star exec 0 -- ffmpeg -v error -re -f lavfi -i testsrc2=size=320x180:rate=25 -t 90 \
    -map 0 -c:v mpeg2video -g 25 -b:v 4M -minrate 4M -maxrate 4M -bufsize 1M \
    -f mpegts 'udp://127.0.0.1:65534?pkt_size=1316' \
    -map 0 -c:v mpeg2video -g 25 -b:v 600k -maxrate 600k -bufsize 500k \
    -f mpegts 'udp://127.0.0.1:65533?pkt_size=1316' &
source=$!
$G star exec 1 -- $G watch 10.77.0.1 --for 45s >1.txt 2>&1 &
narrow=$!
$G star exec 2 -- $G watch 10.77.0.1 --for 45s >2.txt 2>&1 &
wide=$!
sleep 5
tc -n $GATECAST_STAR-switch qdisc replace dev p1 root tbf rate 1500kbit burst 5kb limit 20kb
until grep -q 'gets input 2' relay.txt || ! kill -0 $narrow; do sleep 0.1; done
tc -n $GATECAST_STAR-switch qdisc replace dev p1 root tbf rate 100mbit burst 31250 limit 625000
wait $narrow $wide
kill $source
kill -INT $relay
wait $relay
"#;

#[test]
fn viewer_on_narrow_link_goes_down_and_up_again() {
    if !have("ffmpeg", installed("ffmpeg")) {
        return;
    }
    let Some(_turn) = turn_with_stars("star") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!("cd {}\nG={GATECAST}\n{SCRIPT}", folder.path().display());
    let (said, records) = relay_on_star(folder.path(), "3", &script);
    let of_host = |host: u8| {
        let ip = format!("10.77.0.{}", host + 1);
        records.iter().find(|record| record.to.ip().to_string() == ip).expect("it watched")
    };
    let (narrow, wide) = (of_host(1), of_host(2));
    assert_eq!(narrow.reason.as_deref(), Some("input 1 after 2 changes"), "{said}");
    assert!(narrow.sent.network_lost(narrow.received.as_ref()) > Some(0), "{said}");
    assert_eq!(wide.reason, None, "{said}");
    assert_eq!(wide.received.expect("ours tells").cc, 0, "{said}");
    let why: Vec<&str> = said
        .lines()
        .filter_map(|line| line.rsplit_once("is to have "))
        .map(|(_, why)| why)
        .collect();
    assert_eq!(why, ["input 2: it loses", "input 1: it has lost nothing for long"], "{said}");
}
