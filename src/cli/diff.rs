//! `gatecast diff`: two sessions, or two studies, side by side.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    cli::{options, output},
    error::{Error, Result},
    net::text_file,
    report::{diff::Difference, verdict::Verdict},
    text::ShownPath,
};

/// `gatecast diff FIRST SECOND`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast diff before.json after.json --threshold 5%
Exit code: 0 within the threshold, 1 beyond it")]
pub(crate) struct DiffArgs {
    /// A document that --json or a study wrote
    #[arg(value_name = "FIRST")]
    pub(crate) first: PathBuf,
    /// The document to compare with it
    #[arg(value_name = "SECOND")]
    pub(crate) second: PathBuf,
    /// How far figures may differ
    ///
    /// As a share of the first one's, such as 5% or 0.05.
    #[arg(long, default_value = "10%", value_parser = options::share, value_name = "SHARE")]
    #[arg(help_heading = "Output")]
    pub(crate) threshold: f64,
}

/// Largest document that is read, bytes: as for the results of a study.
const DOCUMENT_MAX: u64 = 1 << 30;

/// Compares.
///
/// # Errors
/// A file that cannot be read, or is not a gatecast document.
pub(crate) fn run(args: &DiffArgs) -> Result<Verdict> {
    let [first, second] = [&args.first, &args.second].map(|path| read(path, DOCUMENT_MAX));
    let difference = Difference::between(&first?, &second?, args.threshold)?;
    output::print(&difference.to_text(output::width()))?;
    Ok(if difference.is_beyond() { Verdict::CouldNotRun } else { Verdict::AllVerified })
}

/// Reads a document of JSON that is no longer than `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<Value> {
    serde_json::from_str(&text_file::read(path, most)?)
        .map_err(|error| Error::protocol(ShownPath(path), error.to_string()))
}
