//! A file by its `.torrent`, from the swarm of any HTTP tracker: an ordinary peer, without a gate.
//!
//! The copy is read back, compared with the torrent's own digests and, where the user knows it,
//! with the SHA-1 of the file, before it gets its name; what was fetched before is resumed. Private
//! addresses are dialed only when the tracker has one itself: a tracker on the internet must not
//! make us connect to a neighbour.

use std::{
    fs::File,
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    client::{
        download::{Download, DownloadSpec, Proof},
        part::{ByteOrder, PartSpec},
    },
    digest::Digest,
    error::{Error, Result},
    net::{address, clock, storage::FileStorage},
    proto::{
        bt::metainfo::{METAINFO_MAX, Metainfo},
        http::url::Url,
    },
    text::{escape, escape_path},
    transport::swarm::{
        address::is_private,
        announcer::Tracker,
        peer::Peer,
        peer_id::{Role, random_id},
        store::HeldCopy,
    },
};

/// What the user wants.
#[derive(Debug)]
pub struct TorrentRequest<'a> {
    /// The torrent.
    pub metainfo: Metainfo,
    /// The folder for the copy.
    pub out: &'a Path,
    /// Whether a file that has the copy's name already is replaced.
    pub replace: bool,
    /// Give up when there is no progress for so long.
    pub stall: Duration,
    /// Serve others for so long when the copy is whole.
    pub seed_time: Duration,
    /// The SHA-1 of the whole file, where the user knows it.
    pub sha1: Option<Digest>,
}

/// A finished download.
#[derive(Debug)]
pub struct TorrentDownload {
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
/// It cannot be read, is too long, or is not a torrent of one file.
pub fn open(path: &Path) -> Result<Metainfo> {
    let at = escape_path(path);
    let file = File::open(path).map_err(Error::io("open the torrent", &at))?;
    let mut bytes = Vec::new();
    // What has no end, such as a device, is too long like any other.
    let read = file.take(METAINFO_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(Error::io("read the torrent", &at))?;
    Metainfo::decode(&bytes).map_err(|error| Error::refused(at, error.to_string()))
}

/// Downloads the file; `moved` counts the bytes that are there.
///
/// # Errors
/// The tracker does not answer, no peer has the file, or the disk fails. What came is kept for the
/// next time.
pub fn fetch(
    request: TorrentRequest<'_>,
    moved: &AtomicU64,
    stopped: &AtomicBool,
) -> Result<TorrentDownload> {
    let TorrentRequest { metainfo, out, replace, .. } = request;
    if metainfo.name.is_hidden() {
        let reason = format!("it chose the name '{}', which begins with a dot", metainfo.name);
        return Err(Error::refused("the torrent", reason));
    }
    let (tracker, tracker_is_private) = find_tracker(&metainfo)?;
    let (name, bytes) = (metainfo.name.clone(), metainfo.bytes);
    let spec = DownloadSpec {
        part: PartSpec {
            folder: out,
            name: &name,
            bytes,
            identity: metainfo.info_hash(),
            client: 1,
            order: ByteOrder::Any,
            resume: true,
            replace,
            in_place: false,
        },
        proof: request.sha1.map_or(Proof::Pieces, Proof::Sha1),
        clients: 1,
    };
    let download = Download::open(&spec, |_| Ok(()))?;
    let id = random_id(Role::External);
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let held = HeldCopy::read(metainfo.clone(), download.file(), |_| Ok(()))?;
    let mut peer = Peer::start(held, id, Role::External, at, tracker)?;
    if !tracker_is_private {
        peer.member.dial_only_public();
    }
    let begun = clock::now();
    peer.member.release();
    peer.announcer.start(false)?;
    let server_gone = || false;
    let note = |bytes| moved.store(bytes, Ordering::Relaxed);
    let last = peer.wait_until_complete(request.stall, stopped, &server_gone, &note)?;
    check_pieces(metainfo, download.file())?;
    let may_go_on =
        || if stopped.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) };
    let verified = download.verify(|_| may_go_on())?.whole(&name)?;
    let (resumed, sha1) = (peer.resumed, verified.sha1);
    verified.sync()?;
    let path = verified.publish(true)?.path;
    peer.seed(Some(request.seed_time), stopped);
    Ok(TorrentDownload { path, bytes: bytes - resumed, resumed, seconds: last.since(begun), sha1 })
}

/// Reads a complete copy back from disk: a piece was compared before it was written, and nothing
/// tells what has become of it since.
fn check_pieces(torrent: Metainfo, file: &FileStorage) -> Result<()> {
    let HeldCopy { metainfo, have, .. } = HeldCopy::read(torrent, file, |_| Ok(()))?;
    if have.is_full() {
        return Ok(());
    }
    let (wrong, all) = (have.len() - have.count(), have.len());
    let what = format!(
        "'{}': {wrong} of {all} pieces are not on the disk as they came; fetch it again to mend it",
        metainfo.name
    );
    Err(Error::Corrupt { what })
}

/// The torrent's tracker, and whether it is on a private network.
fn find_tracker(metainfo: &Metainfo) -> Result<(Tracker, bool)> {
    let announce = metainfo
        .announce
        .as_deref()
        .ok_or_else(|| Error::refused("the torrent", "it names no tracker"))?;
    let url = Url::parse(announce)?;
    let (addrs, is_private) = usable_addrs(address::resolve(&url.host, 80)?);
    // A torrent must not make us send anything else to a host of a private network.
    if is_private && !matches!(url.last_segment(), "announce" | "announce.php") {
        let reason = format!(
            "'{}': a tracker on a private network is asked at .../announce only",
            escape(announce)
        );
        return Err(Error::refused("the torrent", reason));
    }
    Ok((Tracker { url, addrs }, is_private))
}

/// The addresses of a tracker that are used, and whether they are private. Of both kinds only the
/// public ones are: anybody can give a host name a neighbour's address.
fn usable_addrs(mut addrs: Vec<SocketAddr>) -> (Vec<SocketAddr>, bool) {
    let all_private = addrs.iter().all(|addr| is_private(addr.ip()));
    if !all_private {
        addrs.retain(|addr| !is_private(addr.ip()));
    }
    (addrs, all_private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracker_is_private_when_all_its_addresses_are() {
        let at = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|t| t.parse().expect("an address")).collect()
        };
        let (public, private) = ("8.8.8.8:80", "10.0.0.1:80");
        assert_eq!(usable_addrs(at(&[public, private])), (at(&[public]), false));
        assert_eq!(usable_addrs(at(&[private])), (at(&[private]), true));
        assert_eq!(usable_addrs(at(&[public])), (at(&[public]), false));
    }
}
