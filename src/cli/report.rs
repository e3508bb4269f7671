//! `gatecast report`: session logs as tables, CSV, JSON or a plot.

use std::path::{Path, PathBuf};

use crate::{
    cli::{calibrate, output},
    error::{Error, Result},
    proto::relay::{events, log::ViewerRecord},
    report,
    report::{
        auto, csv,
        errors::Errors,
        json,
        plot::Chart,
        relay, scaling, session_plot,
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
    /// Print the figures with their errors
    ///
    /// As 'gatecast calibrate' found them for this machine; FILE is what its --json printed on another.
    #[arg(long, conflicts_with_all = ["csv", "json"], value_name = "FILE", help_heading = "Output")]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub(crate) errors: Option<Option<PathBuf>>,
    /// Plot the rates against the number of clients
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) svg: Option<PathBuf>,
    /// Plot the times against the number of clients
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) svg_time: Option<PathBuf>,
    /// Plot the rate of each client as a bar
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) svg_client: Option<PathBuf>,
    /// Plot the rate of all clients over time
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) svg_rate: Option<PathBuf>,
    /// Plot the lost datagrams against the number of clients
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) svg_loss: Option<PathBuf>,
}

/// What draws sessions.
type Plot = fn(&[Record]) -> Chart;

/// Reports.
///
/// # Errors
/// A log that cannot be read or is not one; a result that cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Result<Verdict> {
    let (relays, sessions): (Vec<&PathBuf>, Vec<&PathBuf>) =
        args.logs.iter().partition(|path| relay::is_relay_log(path));
    let visits = relays.iter().map(|path| relay::read_relay_log(path));
    let visits = visits.collect::<Result<Vec<_>>>()?.concat();
    let plots: [(&Option<PathBuf>, Plot); 5] = [
        (&args.svg, scaling::rates),
        (&args.svg_time, scaling::times),
        (&args.svg_loss, scaling::losses),
        (&args.svg_client, session_plot::clients),
        (&args.svg_rate, session_plot::over_time),
    ];
    let plots = || plots.iter().filter_map(|(path, plot)| Some((path.as_ref()?, plot)));
    if sessions.is_empty() && plots().next().is_some() {
        return Err(Error::usage("a plot is of sessions, and these are relay logs"));
    }
    let mut records = report::read_logs(&sessions)?;
    // Logs of one second sort by their random numbers; what happened first stands first.
    records.sort_by_key(|record| record.released_at);
    if records.is_empty() && visits.is_empty() {
        let what = if sessions.is_empty() { "visit" } else { "session" };
        return Err(Error::refused("gatecast", format!("these logs hold no {what}")));
    }
    for (path, plot) in plots() {
        write(path, &plot(&records))?;
    }
    let errors = args.errors.as_ref().map(|file| calibrate::errors(file.as_deref())).transpose()?;
    output::print(&text(args, &records, &visits, errors.as_ref()))?;
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
fn text(
    args: &ReportArgs,
    records: &[Record],
    visits: &[ViewerRecord],
    errors: Option<&Errors>,
) -> String {
    if args.csv {
        let is_relays = records.is_empty();
        return if is_relays { relay::viewer_csv(visits) } else { csv::transfers(records) };
    }
    if args.json {
        return json::sessions(records, None).unwrap_or_else(|| events::viewers_document(visits));
    }
    let (width, layout) = (output::width(), output::layout());
    // Without a code: what the program returned is not in the log.
    let session = |record: &Record| {
        let last = verdict::line_of_session(record, record.clients.into(), None);
        let errors = errors.map_or(String::new(), |errors| errors.of_session(record, width));
        session_table::session(record, Rows::All, layout) + &errors + &last
    };
    let mut tables: Vec<String> = records.iter().map(session).collect();
    if records.len() > 1 {
        tables.push(trials::trials(records, layout));
        tables.extend(auto::predictions(records, width));
    }
    if !visits.is_empty() {
        tables.push(relay::viewer_table(visits, width));
        tables.extend(errors.map(Errors::of_viewers));
    }
    tables.join("\n")
}

fn write(path: &Path, chart: &Chart) -> Result<()> {
    std::fs::write(path, chart.to_svg()).map_err(Error::io("write the plot", ShownPath(path)))
}
