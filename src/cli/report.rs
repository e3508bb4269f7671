//! `gatecast report`: session logs as tables, CSV, JSON or a plot.

use std::path::{Path, PathBuf};

use crate::{
    cli::output,
    error::{Error, Result},
    proto::relay::{events, log::ViewerRecord},
    report,
    report::{
        auto, csv, json,
        plot::Chart,
        relay, scaling,
        session_table::{self, Rows},
        trials, verdict,
        verdict::Verdict,
    },
    text::{ShownPath, escape_path},
    transfer::Record,
};

/// `gatecast report LOG...`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast report logs/*.log --svg rates.svg")]
pub(crate) struct ReportArgs {
    /// Session logs, relay logs, or both
    #[arg(value_name = "LOG", required = true)]
    pub(crate) logs: Vec<PathBuf>,
    /// Print CSV, one row per transfer
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) csv: bool,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Plot the rates against the number of clients
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) svg: Option<PathBuf>,
    /// Plot the lost datagrams against the number of clients
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) svg_loss: Option<PathBuf>,
}

/// Reports.
///
/// # Errors
/// A log that cannot be read or is not one; a result that cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Result<Verdict> {
    let (relays, sessions): (Vec<&PathBuf>, Vec<&PathBuf>) =
        args.logs.iter().partition(|path| relay::is_relay_log(path));
    let visits = relays.iter().map(|path| relay::read_relay_log(path));
    let visits = visits.collect::<Result<Vec<_>>>()?.concat();
    if sessions.is_empty() && (args.svg.is_some() || args.svg_loss.is_some()) {
        return Err(Error::usage("a plot is of sessions, and these are relay logs"));
    }
    let mut records = report::read_logs(&sessions)?;
    // Logs of one second sort by their random numbers; what happened first stands first.
    records.sort_by_key(|record| record.released_at);
    if records.is_empty() && visits.is_empty() {
        let what = if sessions.is_empty() { "visit" } else { "session" };
        return Err(Error::refused("gatecast", format!("these logs hold no {what}")));
    }
    if let Some(path) = &args.svg {
        write(path, &scaling::rates(&records))?;
    }
    if let Some(path) = &args.svg_loss {
        write(path, &scaling::losses(&records))?;
    }
    output::print(&text(args, &records, &visits))?;
    if (args.csv || args.json) && !records.is_empty() && !visits.is_empty() {
        let names: Vec<String> = relays.iter().map(|path| escape_path(path)).collect();
        output::eprintln(format_args!(
            "gatecast: this document is of sessions; give the relay logs alone for theirs: {}",
            names.join(" ")
        ));
    }
    Ok(Verdict::AllVerified)
}

/// The tables of both kinds of log; a document is of one kind, of sessions where there are some.
fn text(args: &ReportArgs, records: &[Record], visits: &[ViewerRecord]) -> String {
    if args.csv {
        let is_relays = records.is_empty();
        return if is_relays { relay::viewer_csv(visits) } else { csv::transfers(records) };
    }
    if args.json {
        return json::sessions(records).unwrap_or_else(|| events::viewers_document(visits));
    }
    let width = output::width();
    // Without a code: what the program returned is not in the log.
    let session = |record: &Record| {
        let last = verdict::line_of_session(record, record.clients.into(), None);
        session_table::session(record, Rows::All, width) + &last
    };
    let mut tables: Vec<String> = records.iter().map(session).collect();
    if records.len() > 1 {
        tables.push(trials::trials(records, width));
        tables.extend(auto::predictions(records, width));
    }
    if !visits.is_empty() {
        tables.push(relay::viewer_table(visits, width));
    }
    tables.join("\n")
}

fn write(path: &Path, chart: &Chart) -> Result<()> {
    std::fs::write(path, chart.to_svg()).map_err(Error::io("write the plot", ShownPath(path)))
}
