//! A file by its `.torrent`, from any HTTP tracker's swarm: an ordinary peer, without a gate.
//!
//! The copy is held to the torrent's own digests, takes its name only when it is whole, and what
//! was fetched before is taken up again. Addresses of private networks are called only when the
//! tracker is on one itself: a tracker out in the world must not send anybody to a neighbour.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::download::{Download, DownloadSpec, Proof};
use crate::client::part::{ByteOrder, PartSpec};
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::net::socket;
use crate::proto::bt::metainfo::METAINFO_MAX;
use crate::proto::bt::metainfo::Metainfo;
use crate::proto::http::url::Url;
use crate::transport::swarm::member::role::Role;
use crate::transport::swarm::member::role::peer_id;
use crate::transport::swarm::peer::Peer;

/// What the user wants.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The torrent.
    pub metainfo: Metainfo,
    /// The folder for the copy.
    pub out: &'a Path,
    /// Give the swarm up when it makes no progress for so long.
    pub stall: Duration,
    /// Go on serving for so long when the copy is whole.
    pub seed_time: Duration,
}

/// How it ended.
#[derive(Debug)]
pub struct Fetched {
    /// The whole, verified copy.
    pub path: PathBuf,
    /// Bytes that came now.
    pub bytes: u64,
    /// Bytes that were there before.
    pub resumed: u64,
    /// How long it took.
    pub seconds: Duration,
    /// SHA-1 of the whole file.
    pub sha1: Digest,
}

/// Reads a `.torrent` from disk.
///
/// # Errors
/// It cannot be read, is too long, or is no torrent for us.
pub fn open(path: &Path) -> Result<Metainfo> {
    let at = crate::text::escape(&path.display().to_string());
    let length = std::fs::metadata(path)
        .map_err(Error::io("open the torrent", &at))?
        .len();
    if length > METAINFO_MAX as u64 {
        return Err(Error::refused(
            at,
            format!("{length} bytes are too many for a torrent"),
        ));
    }
    let bytes = std::fs::read(path).map_err(Error::io("read the torrent", &at))?;
    Metainfo::decode(&bytes).map_err(|error| Error::refused(at, error.to_string()))
}

/// Fetches; `moved` counts the bytes that are there.
///
/// # Errors
/// No tracker, nobody who has the file, a disk that fails; what came stays for the next time.
pub fn fetch(wish: Wish<'_>, moved: &AtomicU64, stopped: &AtomicBool) -> Result<Fetched> {
    let metainfo = wish.metainfo;
    let announce = metainfo
        .announce
        .as_deref()
        .ok_or_else(|| Error::refused("the torrent", "it names no tracker"))?;
    let tracker = Url::parse(announce)?;
    let (at_tracker, neighbours) = places(socket::resolve(&tracker.host, 80)?);
    // Nothing else on a private network is to be asked because a torrent says so.
    if neighbours && !matches!(tracker.last_segment(), "announce" | "announce.php") {
        let reason = format!(
            "'{}': a tracker on a private network is asked at .../announce only",
            crate::text::escape(announce)
        );
        return Err(Error::refused("the torrent", reason));
    }
    let (name, bytes) = (metainfo.name.clone(), metainfo.bytes);
    let download = Download::open(&DownloadSpec {
        part: PartSpec {
            folder: wish.out,
            name: &name,
            bytes,
            identity: metainfo.info_hash(),
            client: 1,
            order: ByteOrder::Any,
            resume: true,
        },
        proof: Proof::Pieces,
        clients: 1,
    })?;
    let id = peer_id(Role::Free, &format!("{:011x}", clock::random() >> 20));
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let tracker = (tracker, at_tracker);
    let peer = Peer::start(metainfo, download.file(), id, Role::Free, at, tracker)?;
    if !neighbours {
        peer.member.only_public();
    }
    let begun = clock::now();
    peer.member.release();
    peer.join_in()?;
    let last = peer.finish(wish.stall, stopped, &|| false, &|bytes| {
        moved.store(bytes, Ordering::Relaxed);
    })?;
    let verified = download.verify(|_| Ok(()))?.whole(&name)?;
    let (resumed, sha1) = (peer.held(), verified.sha1);
    verified.sync()?;
    let path = verified.publish(true)?;
    peer.see_out(Some(wish.seed_time), stopped);
    Ok(Fetched {
        path,
        bytes: bytes - resumed,
        resumed,
        seconds: last.since(begun),
        sha1,
    })
}

/// Where to ask a tracker whose name has these addresses, and whether it is on a private network.
/// Of both kinds only the public ones are taken: anybody can give his name a neighbour's address.
fn places(found: Vec<SocketAddr>) -> (Vec<SocketAddr>, bool) {
    match found.iter().all(|addr| is_private(addr.ip())) {
        true => (found, true),
        false => {
            let public = found.into_iter().filter(|addr| !is_private(addr.ip()));
            (public.collect(), false)
        }
    }
}

/// True for addresses that only neighbours can reach, or nobody as a peer: of this machine, of
/// private, shared (RFC 6598) and local networks, of groups.
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && second & 0xc0 == 64;
            let here = first == 0 || ip.is_loopback() || ip.is_broadcast() || ip.is_multicast();
            ip.is_private() || ip.is_link_local() || shared || here
        }
        IpAddr::V6(ip) => {
            let here = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
            ip.is_unique_local() || ip.is_unicast_link_local() || here
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_a_neighbour_only_where_all_its_addresses_are() {
        let at = |texts: &[&str]| -> Vec<SocketAddr> {
            texts
                .iter()
                .map(|t| t.parse().expect("an address"))
                .collect()
        };
        let (public, private) = ("8.8.8.8:80", "10.0.0.1:80");
        assert_eq!(places(at(&[public, private])), (at(&[public]), false));
        assert_eq!(places(at(&[private])), (at(&[private]), true));
        assert_eq!(places(at(&[public])), (at(&[public]), false));
    }

    #[test]
    fn neighbours_are_told_from_the_world() {
        for (ip, private) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("172.16.0.1", true),
            ("169.254.169.254", true),
            ("::1", true),
            ("fd00::1", true),
            ("::ffff:10.0.0.1", true),
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("0.0.0.0", true),
            ("::", true),
            ("224.0.0.1", true),
            ("ff02::1", true),
            ("100.63.255.255", false),
            ("100.128.0.1", false),
            ("8.8.8.8", false),
            ("2001:4860::1", false),
        ] {
            assert_eq!(is_private(ip.parse().expect(ip)), private, "{ip}");
        }
    }
}
