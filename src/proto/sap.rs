//! Announcements of a live stream in a group: SAP (RFC 2974) around SDP (RFC 4566). VLC lists what
//! is announced, `ffmpeg -i sap://` plays it.
//!
//! ```text
//! offset  bits  field
//! 0       3     version, 1
//! 0       1     A: 0, the source is an IPv4 address
//! 0       1     reserved, 0
//! 0       1     T: 1 takes the announcement back
//! 0       2     E and C: neither encrypted nor compressed
//! 1       8     length of the authentication data, 0
//! 2       16    hash: with the source it names the session
//! 4       32    the source
//! 8             "application/sdp", a zero byte, the description
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

/// The port of announcements (RFC 2974, section 3).
const PORT: u16 = 9875;

/// How often a stream is announced. The RFC's 300 s are for a directory of all networks; in a room
/// nobody waits so long, and 300 bytes each time are an eighth of the 4000 bit/s that it allows.
pub const EVERY: Duration = Duration::from_secs(5);

/// Where what a group gets is announced: at the highest address of the group's scope (RFC 2974,
/// section 3; the scopes are those of RFC 2365), or at that of all networks.
pub fn address(group: Ipv4Addr) -> SocketAddr {
    let address = match group.octets() {
        [224, 0, 0, _] => [224, 0, 0, 255],
        [239, 255, ..] => [239, 255, 255, 255],
        [239, 192..=195, ..] => [239, 195, 255, 255],
        _ => [224, 2, 127, 254],
    };
    (address, PORT).into()
}

/// The datagram that announces a transport stream in RTP, which `from` sends to `group` past as many
/// routers as `ttl` says less one; or one that takes this back. `session` is a random number.
pub fn announcement(
    from: Ipv4Addr,
    group: SocketAddrV4,
    ttl: u32,
    session: u64,
    takes_back: bool,
) -> Vec<u8> {
    let mut bytes = vec![0x20 | u8::from(takes_back) << 2, 0];
    bytes.extend_from_slice(&session.to_be_bytes()[..2]);
    bytes.extend(from.octets());
    let (ip, port) = (group.ip(), group.port());
    let description = format!(
        "application/sdp\0v=0\r\no=- {session} 1 IN IP4 {from}\r\ns=gatecast relay\r\n\
         c=IN IP4 {ip}/{ttl}\r\nt=0 0\r\na=recvonly\r\na=type:broadcast\r\n\
         m=video {port} RTP/AVP 33\r\na=rtpmap:33 MP2T/90000\r\n"
    );
    bytes.extend(description.into_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(takes_back: bool) -> Vec<u8> {
        let (from, group) = ([192, 0, 2, 1].into(), Ipv4Addr::new(239, 255, 1, 2));
        let group = SocketAddrV4::new(group, 5000);
        announcement(from, group, 3, 0x1234_5678_9abc_def0, takes_back)
    }

    #[test]
    fn announcement_has_the_fields_of_its_rfcs() {
        let bytes = announced(false);
        // RFC 2974, section 6: version 1 and no flag, no authentication, hash, source, kind.
        assert_eq!(bytes[0] >> 5, 1, "version");
        assert_eq!(bytes[0] & 0x1f, 0, "A, R, T, E, C");
        assert_eq!(bytes[1], 0, "no authentication data");
        assert_eq!(bytes[2..4], [0x12, 0x34], "hash");
        assert_eq!(bytes[4..8], [192, 0, 2, 1], "source");
        let rest = bytes[8..].strip_prefix(b"application/sdp\0").expect("the payload's kind");
        let sdp = std::str::from_utf8(rest).expect("text");
        // RFC 4566, section 5: each line ends with CRLF, and the order is fixed.
        let lines: Vec<&str> = sdp.split_terminator("\r\n").collect();
        assert!(lines.iter().all(|line| !line.contains(['\r', '\n'])), "{sdp:?}");
        let types: String = lines.iter().map(|line| line.split_at(1).0).collect();
        assert_eq!(types, "vosctaama");
        assert_eq!(lines[1], "o=- 1311768467463790320 1 IN IP4 192.0.2.1");
        assert_eq!(lines[3], "c=IN IP4 239.255.1.2/3", "a group has its TTL behind it");
        // RFC 3551, section 6: 33 is a transport stream.
        assert_eq!(lines[7..], ["m=video 5000 RTP/AVP 33", "a=rtpmap:33 MP2T/90000"]);
        assert!(bytes.len() < 1024, "RFC 2974, section 6: not more than 1 kByte");
        // What takes it back differs by one bit, so that its origin is the same.
        let mut back = announced(true);
        assert_eq!(back[0], 0x24);
        back[0] = 0x20;
        assert_eq!(back, bytes);
    }

    #[test]
    fn announcement_goes_to_the_scope_of_its_group() {
        for (group, wanted) in [
            ([224, 0, 0, 9], "224.0.0.255:9875"),
            ([224, 0, 1, 9], "224.2.127.254:9875"),
            ([232, 1, 2, 3], "224.2.127.254:9875"),
            ([239, 191, 0, 1], "224.2.127.254:9875"),
            ([239, 192, 0, 1], "239.195.255.255:9875"),
            ([239, 195, 0, 1], "239.195.255.255:9875"),
            ([239, 196, 0, 1], "224.2.127.254:9875"),
            ([239, 255, 0, 1], "239.255.255.255:9875"),
        ] {
            let wanted = wanted.parse().expect("an address");
            assert_eq!(address(group.into()), wanted, "{group:?}");
        }
    }
}
