//! `gatecast man`: the manual page, or one page for each subcommand.

use std::path::PathBuf;

use clap_mangen::Man;

use crate::{
    cli::output,
    error::{Error, Result},
    report::verdict::Verdict,
    text::ShownPath,
};

/// `gatecast man`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast man | man -l -")]
pub(crate) struct ManArgs {
    /// Write a page for each subcommand into this folder
    ///
    /// gatecast.1 and gatecast-serve.1 and so on, instead of printing the first.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) out: Option<PathBuf>,
}

/// Prints or writes the pages of `command`, which is the whole program.
///
/// # Errors
/// They cannot be written.
pub(crate) fn run(args: &ManArgs, mut command: clap::Command) -> Result<Verdict> {
    // Names of the subcommands' own pages in full: gatecast-serve(1).
    command.build();
    let Some(folder) = &args.out else {
        return output::answer(&String::from_utf8_lossy(&page(&command)?));
    };
    std::fs::create_dir_all(folder).map_err(Error::io("make the folder", ShownPath(folder)))?;
    let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    for command in std::iter::once(&command).chain(subcommands) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let path = folder.join(format!("{name}.1"));
        std::fs::write(&path, page(command)?)
            .map_err(Error::io("write the page", ShownPath(&path)))?;
    }
    Ok(Verdict::AllVerified)
}

fn page(command: &clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .map_err(Error::io("render the page", "in memory"))?;
    Ok(page)
}
