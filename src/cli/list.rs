//! `gatecast list`: what a server offers.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    cli::{options, output},
    client,
    error::Result,
    net::key_file,
    report::{
        table::{Align, Table},
        verdict::Verdict,
    },
};

/// `gatecast list HOST[:PORT]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast list 192.168.1.10")]
pub(crate) struct ListArgs {
    /// The server, port 8080 unless given
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) server: String,
    /// Prove the key in this file; the server must prove it too
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub(crate) key: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Lists.
///
/// # Errors
/// The server cannot be reached or does not speak the protocol.
pub(crate) fn run(args: &ListArgs) -> Result<Verdict> {
    let key = args.key.as_deref().map(key_file::read).transpose()?;
    let (files, _) = client::list(&options::server(&args.server)?, key.as_ref())?;
    let text = if args.json {
        let files: Vec<_> = files
            .iter()
            .map(|(file, is_tree)| {
                let (name, sha1) = (file.name.as_str(), file.sha1.to_string());
                json!({"name": name, "bytes": file.bytes, "sha1": sha1, "folder": is_tree})
            })
            .collect();
        json!({"schema": "gatecast.list/1", "files": files}).to_string() + "\n"
    } else {
        let mut table = Table::new(&[
            ("bytes", Align::Right, 0),
            ("SHA-1", Align::Left, 1),
            ("name", Align::Left, 0),
        ]);
        for (file, is_tree) in files {
            let name = format!("{}{}", file.name, if is_tree { "/" } else { "" });
            table.row([file.bytes.to_string(), file.sha1.to_string(), name]);
        }
        table.fitted(output::width())
    };
    output::answer(&text)
}
