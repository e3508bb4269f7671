//! `gatecast torrent`: writes the `.torrent` of a file or folder into the current folder.

use std::path::{Path, PathBuf};

use crate::{
    cli::output,
    error::{Error, Result},
    proto::http::url::Url,
    report::verdict::Verdict,
    server::{catalog, catalog::Catalog},
    transport::swarm::store,
};

/// `gatecast torrent FILE --announce URL`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: gatecast torrent image.iso --announce http://192.168.1.10:8080/announce"
)]
pub(crate) struct TorrentArgs {
    /// The file, or the folder as one thing
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where its tracker is, such as http://HOST:8080/announce
    ///
    /// The address of the server that offers the file, and /announce.
    #[arg(long, value_name = "URL", help_heading = "Network")]
    pub(crate) announce: String,
}

/// Writes the torrent.
///
/// # Errors
/// The file cannot be read or is empty, or the torrent cannot be written.
pub(crate) fn run(args: &TorrentArgs) -> Result<Verdict> {
    Url::parse(&args.announce)?;
    let mut catalog = Catalog::default();
    if args.file.is_dir() {
        catalog.offer_tree(&args.file)?;
    } else {
        catalog = Catalog::offer([&args.file])?;
    }
    let name = catalog.only().expect("a file or a folder is one thing");
    let source = catalog.open(name, &catalog::silent)?;
    let torrent = store::make_metainfo(&source.file, name, source.info.bytes)?;
    source.unchanged()?;
    let path = format!("{name}.torrent");
    std::fs::write(Path::new(&path), torrent.encode(Some(&args.announce), None))
        .map_err(Error::io("write the torrent", &path))?;
    let (hash, pieces, bytes) = (torrent.info_hash(), torrent.pieces.len(), torrent.piece_bytes);
    output::answer(&format!("{path}: info-hash {hash}, {pieces} pieces of {bytes} bytes\n"))
}
