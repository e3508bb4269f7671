//! `gatecast report`: session logs as tables, CSV, JSON or a plot.

use std::path::{Path, PathBuf};

use crate::{
    cli::output,
    error::{Error, Result},
    report,
    report::{
        csv, json, plot::Chart, relay, relay::events, scaling, session_table, trials, verdict,
        verdict::Verdict,
    },
    transfer::Record,
};

/// `gatecast report LOG...`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast report logs/*.log --svg rates.svg")]
pub(crate) struct ReportArgs {
    /// Session logs, or relay logs
    #[arg(value_name = "LOG", required = true)]
    pub(crate) logs: Vec<PathBuf>,
    /// Print CSV, one row per transfer
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the plot of the rates against the number of clients
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write the plot of the lost datagrams against the number of clients
    #[arg(long, value_name = "FILE")]
    pub(crate) svg_loss: Option<PathBuf>,
}

/// Reports.
///
/// # Errors
/// A log that cannot be read or is not one; a result that cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Result<Verdict> {
    let (relays, sessions): (Vec<&PathBuf>, Vec<&PathBuf>) =
        args.logs.iter().partition(|path| relay::is_relay_log(path));
    if !relays.is_empty() {
        return run_relays(args, &relays, &sessions);
    }
    let mut records = report::read_logs(&args.logs)?;
    // Logs of one second sort by their random numbers; what happened first stands first.
    records.sort_by_key(|record| record.released_at);
    if records.is_empty() {
        return Err(Error::refused("gatecast", "these logs hold no session"));
    }
    if let Some(path) = &args.svg {
        write(path, &scaling::rates(&records))?;
    }
    if let Some(path) = &args.svg_loss {
        write(path, &scaling::losses(&records))?;
    }
    let text = if args.csv {
        csv::transfers(&records)
    } else if args.json {
        json::sessions(&records).expect("there is a record")
    } else {
        return print_tables(&records);
    };
    output::print(&text)?;
    Ok(Verdict::AllVerified)
}

/// The sessions, each with its verdict: what the program returned is not in the log.
fn print_tables(records: &[Record]) -> Result<Verdict> {
    let width = output::width();
    for record in records {
        output::print(&session_table::session(record, session_table::Rows::All, width))?;
        output::print_verdict(&verdict::line_of_session(record, record.clients.into(), None))?;
        output::print("\n")?;
    }
    if records.len() > 1 {
        output::print(&trials::trials(records, width))?;
    }
    Ok(Verdict::AllVerified)
}

fn write(path: &Path, chart: &Chart) -> Result<()> {
    std::fs::write(path, chart.to_svg()).map_err(Error::io("write the plot", path.display()))
}

/// Reports relay logs, which have viewers and no session.
fn run_relays(args: &ReportArgs, relays: &[&PathBuf], sessions: &[&PathBuf]) -> Result<Verdict> {
    if let Some(other) = sessions.first() {
        return Err(Error::Usage {
            what: format!(
                "{} is not a relay log and {} is one; report them apart",
                other.display(),
                relays[0].display()
            ),
        });
    }
    if args.svg.is_some() || args.svg_loss.is_some() {
        return Err(Error::Usage {
            what: "a plot is of sessions, and these are relay logs".to_owned(),
        });
    }
    let mut records = Vec::new();
    for path in relays {
        records.extend(relay::read_relay_log(path)?);
    }
    if records.is_empty() {
        return Err(Error::refused("gatecast", "these logs hold no visit"));
    }
    output::print(&if args.csv {
        relay::viewer_csv(&records)
    } else if args.json {
        events::viewers_document(&records)
    } else {
        relay::viewer_table(&records, output::width())
    })?;
    Ok(Verdict::AllVerified)
}
