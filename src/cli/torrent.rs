//! `gatecast torrent`: writes a file's `.torrent` into the current folder.

use std::path::Path;
use std::path::PathBuf;

use crate::cli::output;
use crate::error::Error;
use crate::error::Result;
use crate::proto::bt::layout::Layout;
use crate::proto::bt::metainfo;
use crate::proto::bt::metainfo::Metainfo;
use crate::proto::http::url::Url;
use crate::report::verdict::Verdict;
use crate::server::catalog;
use crate::server::catalog::Catalog;
use crate::transport::swarm::store;

/// `gatecast torrent FILE --announce URL`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: gatecast torrent image.iso --announce http://192.168.1.10:8080/announce"
)]
pub(crate) struct Args {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where its tracker is: the server that offers the file, and /announce
    #[arg(long, value_name = "URL")]
    pub(crate) announce: String,
}

/// Writes the torrent.
///
/// # Errors
/// The file cannot be read or is empty, or the torrent cannot be written.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    Url::parse(&args.announce)?;
    let catalog = Catalog::offer([&args.file])?;
    let name = catalog.only().ok_or_else(|| Error::Usage {
        what: format!("'{}' is no single file", args.file.display()),
    })?;
    let source = catalog.open(name, &catalog::silent)?;
    let layout = Layout::new(source.info.bytes, metainfo::piece_bytes(source.info.bytes));
    let refuse = |error: metainfo::MetainfoError| Error::refused("gatecast", error.to_string());
    let pieces = match source.info.bytes {
        0 => Vec::new(),
        _ => store::digests(&source.file, layout, name.as_str())?,
    };
    source.unchanged()?;
    let torrent =
        Metainfo::new(name.clone(), layout.bytes, layout.piece, pieces).map_err(refuse)?;
    let path = format!("{name}.torrent");
    std::fs::write(Path::new(&path), torrent.encode(Some(&args.announce), None))
        .map_err(Error::io("write the torrent", &path))?;
    output::print(&format!(
        "{path}: info-hash {}, {} pieces of {} bytes\n",
        torrent.info_hash(),
        torrent.pieces.len(),
        torrent.piece_bytes
    ))?;
    Ok(Verdict::AllVerified)
}
