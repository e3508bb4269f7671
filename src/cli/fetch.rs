//! `gatecast fetch`: one or more clients in this process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use clap::builder::{PathBufValueParser, TypedValueParser};
use serde_json::json;

use crate::{
    cli::{events, menu, options, output, progress, signals},
    client::{self, ClientReport, FetchConfig, config::OverwritePolicy},
    digest::Digest,
    error::{Error, Result},
    fetch::FetchTask,
    http::client::HttpTarget,
    net::{copy, files, key_file, socket},
    proto::line,
    report::{
        json,
        session_table::{self, Rows},
        table::ROWS_MAX,
        verdict,
        verdict::Verdict,
    },
    session::Via,
    text::{FileName, escape},
    transport::swarm::leech,
    units,
};

/// `gatecast fetch HOST[:PORT] [FILE]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast fetch 192.168.1.10 image.iso --group 25 --out /srv")]
pub(crate) struct FetchArgs {
    /// The server, port 8080 unless given
    ///
    /// With --via http an http:// URL too; or a FILE.torrent, for the swarm of any HTTP tracker.
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) server: String,
    /// The file; the server's choice unless given
    #[arg(value_parser = FileName::new)]
    pub(crate) file: Option<FileName>,
    /// How many clients to start here
    #[arg(long, default_value = "1", value_parser = options::clients, value_name = "N")]
    #[arg(help_heading = "Gate")]
    pub(crate) clients: u16,
    /// How many clients the whole group has
    ///
    /// As many as are started here unless given.
    #[arg(long, value_parser = options::clients, value_name = "N", help_heading = "Gate")]
    pub(crate) group: Option<u16>,
    /// Way: tcp, udp, raw, multicast, swarm or http
    ///
    /// The server's choice unless given.
    #[arg(long, help_heading = "Network")]
    pub(crate) via: Option<Via>,
    /// The folder for the copies; received unless given
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    #[arg(value_parser = PathBufValueParser::new().try_map(options::folder))]
    pub(crate) out: Option<PathBuf>,
    /// Replace a file that has the copy's name already
    ///
    /// For where that is not done by itself: in the DIR of --out when the server or the torrent
    /// chose the name, and for a copy that nothing proves.
    #[arg(long, help_heading = "Files")]
    pub(crate) overwrite: bool,
    /// What the client calls itself
    ///
    /// Unless given, this machine's name, and the number that Slurm (SLURM_PROCID) or Kubernetes
    /// (JOB_COMPLETION_INDEX) gave to this task.
    #[arg(long, help_heading = "Gate")]
    pub(crate) name: Option<String>,
    /// Take up what an earlier, interrupted fetch left
    #[arg(long, help_heading = "Files")]
    pub(crate) resume: bool,
    /// Wait so long for the server to be there
    #[arg(long, default_value = "0s", value_parser = units::parse_duration, value_name = "TIME")]
    #[arg(help_heading = "Network")]
    pub(crate) retry: Duration,
    /// Refuse any file but the one of this SHA-1
    #[arg(long, value_name = "HEX", help_heading = "Files")]
    pub(crate) sha1: Option<Digest>,
    /// How it receives.
    #[command(flatten)]
    pub(crate) receiving: ReceiveArgs,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Print what the clients do as lines of JSON
    ///
    /// And the session at the end.
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) events: bool,
    /// Talk to a server of the lab's UDP protocol: list, config, start, disconnect
    #[arg(long, conflicts_with_all = ["file", "group", "via", "resume", "sha1", "json", "key"])]
    #[arg(help_heading = "UDP", hide_short_help = true)]
    pub(crate) lab: bool,
}

/// How the clients receive.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct ReceiveArgs {
    /// How bytes are copied: auto, buffered or sendfile
    #[arg(long, default_value = "auto", value_name = "HOW", hide_short_help = true)]
    pub(crate) copy: copy::Method,
    /// Give the server up when it makes no progress for so long
    #[arg(long, default_value = "30s", value_parser = options::positive_duration, value_name = "TIME")]
    #[arg(hide_short_help = true)]
    pub(crate) stall_limit: Duration,
    /// The address of this host by whose interface a group is joined; the one from which the server
    /// is reached unless given
    #[arg(long, value_name = "ADDR", help_heading = "UDP", hide_short_help = true)]
    pub(crate) multicast_interface: Option<Ipv4Addr>,
    /// Prove the key in this file; the server must prove it too
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// In a swarm, go on serving for so long after the last byte; until all have it unless given
    #[arg(long, value_parser = units::parse_duration, value_name = "TIME")]
    #[arg(help_heading = "Swarm", hide_short_help = true)]
    pub(crate) seed_time: Option<Duration>,
}

impl FetchArgs {
    /// The folder for the copies.
    fn folder(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| PathBuf::from("received"))
    }
}

/// How a URL begins.
const SCHEME: &str = "http://";

/// The port of a URL that names none.
const HTTP_PORT: u16 = 80;

/// Fetches.
///
/// # Errors
/// It could not be begun; what happens to a client after that is in its row and the verdict.
pub(crate) fn run(args: &FetchArgs) -> Result<Verdict> {
    if args.lab {
        return menu::run(&options::server(&args.server)?, &args.folder());
    }
    let is_url = args.server.starts_with(SCHEME);
    let is_torrent = args.server.ends_with(".torrent") && !is_url;
    if args.receiving.key.is_some() && (is_url || is_torrent) {
        return Err(Error::usage("a URL or a torrent cannot prove a key; give HOST[:PORT]"));
    }
    if is_torrent {
        return fetch_torrent(args);
    }
    let mut task = if is_url {
        let target = target(args)?;
        let server = socket::resolve(&target.host, HTTP_PORT)?;
        // The user's URL names the file.
        let file = Some(target.name.clone());
        let config = FetchConfig { file, ..config(args, server)? };
        FetchTask::with_target(config, Some(target))?
    } else {
        FetchTask::new(config(args, options::server(&args.server)?)?)?
    };
    task.swarm.seed_time = args.receiving.seed_time;
    task.multicast_interface = args.receiving.multicast_interface;
    let task = Arc::new(task);
    let stopping = Arc::clone(&task);
    signals::on_stop(move || stopping.run.stop())?;
    let work = || task.run();
    let reports = if args.events {
        events::watch(&task.run, work)
    } else {
        progress::watch(&task.run, work)
    }?;
    let verdict = Verdict::of_clients(&reports);
    print_results(&reports, args, verdict)?;
    Ok(verdict)
}

fn config(args: &FetchArgs, server: Vec<SocketAddr>) -> Result<FetchConfig> {
    Ok(FetchConfig {
        file: args.file.clone(),
        clients: args.clients,
        group: args.group,
        via: args.via,
        name: args.name.clone().unwrap_or_else(own_name),
        out: args.folder(),
        overwrite: match &args.out {
            _ if args.overwrite => OverwritePolicy::Always,
            Some(_) => OverwritePolicy::UsersFolder,
            None => OverwritePolicy::OwnFolder,
        },
        resume: args.resume,
        retry: args.retry,
        sha1: args.sha1,
        copy: args.receiving.copy,
        stall: args.receiving.stall_limit,
        key: args.receiving.key.as_deref().map(key_file::read).transpose()?,
        ..FetchConfig::new(server)
    })
}

/// The file at the URL that was given in place of a server.
fn target(args: &FetchArgs) -> Result<HttpTarget> {
    if !matches!(args.via, None | Some(Via::Http)) {
        return Err(Error::usage("an http:// URL is fetched --via http"));
    }
    if args.file.is_some() {
        let what = "an http:// URL names its file, so no other can be given";
        return Err(Error::usage(what));
    }
    if args.server.ends_with(".torrent") && args.sha1.is_none() {
        let what =
            "a torrent at a URL is not followed; get it with curl -O and give the local file";
        return Err(Error::usage(what));
    }
    HttpTarget::url(&args.server)
}

/// Fetches from the swarm of a torrent: no gate, one client, and the torrent's word for what is
/// right.
fn fetch_torrent(args: &FetchArgs) -> Result<Verdict> {
    let stopped = signals::stop_flag()?;
    files::check_folder(&args.folder(), "--out")?;
    let metainfo = leech::open(Path::new(&args.server))?;
    let wish = leech::TorrentRequest {
        metainfo,
        out: &args.folder(),
        replace: args.overwrite || args.out.is_none(),
        stall: args.receiving.stall_limit,
        seed_time: args.receiving.seed_time.unwrap_or(Duration::ZERO),
        sha1: args.sha1,
    };
    let fetched = leech::fetch(wish, &AtomicU64::new(0), &stopped)?;
    let path = escape(&fetched.path.display().to_string());
    let (bytes, resumed, sha1) = (fetched.bytes, fetched.resumed, fetched.sha1);
    let seconds = fetched.seconds.as_secs_f64();
    let result = if args.json {
        json!({"schema": "gatecast.torrent/1", "path": path, "bytes": bytes,
            "bytes_resumed": resumed, "sha1": sha1.to_string(), "seconds": seconds})
        .to_string()
    } else {
        format!(
            "{path}: whole and verified, {bytes} bytes in {seconds:.3} s, {resumed} from before, \
             SHA-1 {sha1}"
        )
    };
    output::print(&(result + "\n"))?;
    Ok(Verdict::AllVerified)
}

/// Prints the tables or the document, each kind of failure once, where the copies are, and as the
/// last line the verdict.
fn print_results(reports: &[ClientReport], args: &FetchArgs, verdict: Verdict) -> Result<()> {
    let records = client::records(reports);
    if args.events {
        records.iter().try_for_each(events::ended)?;
    } else if args.json {
        if let Some(document) = json::sessions(&records) {
            output::print(&document)?;
        }
    } else {
        for record in &records {
            output::print(&session_table::client_session(record, Rows::Failures, output::width()))?;
        }
    }
    output::print_failures(reports);
    if reports.iter().any(|report| report.is_kept) {
        let again = if args.resume { "the same command" } else { "the same command with --resume" };
        output::eprintln(format_args!("what arrived is kept; {again} goes on from there"));
    }
    // Without a seat there is an error and no session.
    if args.events || args.json || records.is_empty() {
        return Ok(());
    }
    output::print(&copies(reports, &args.folder()))?;
    output::print_verdict(&verdict::line_of_clients(reports, verdict))
}

/// The path of each whole copy, a line each; of very many their folder.
fn copies(reports: &[ClientReport], folder: &Path) -> String {
    let paths: Vec<&PathBuf> = reports.iter().filter_map(|report| report.path.as_ref()).collect();
    let shown = |path: &Path| escape(&path.display().to_string());
    if paths.len() > ROWS_MAX {
        return format!("{}: {} copies, whole and verified\n", shown(folder), paths.len());
    }
    paths.iter().map(|path| format!("{}: whole and verified\n", shown(path))).collect()
}

/// What a client calls itself unless the user gives a name: this machine's name, with the number of
/// the task if a scheduler started several.
fn own_name() -> String {
    let task =
        ["SLURM_PROCID", "JOB_COMPLETION_INDEX"].iter().find_map(|name| std::env::var(name).ok());
    task_name(&host_name(), task.as_deref())
}

fn task_name(host: &str, task: Option<&str>) -> String {
    match task {
        // Schedulers give a number; anything else does not come from one.
        Some(task) if task.len() <= 9 && line::decimal(task).is_some() => format!("{host}-{task}"),
        _ => host.to_owned(),
    }
}

/// This machine's name, cut to what a client may call itself.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "client".to_owned(),
        name => name.chars().take(40).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_of_a_scheduler_is_named_by_its_task() {
        assert_eq!(task_name("node7", Some("12")), "node7-12");
        for task in [None, Some(""), Some("x"), Some("-1"), Some("1234567890")] {
            assert_eq!(task_name("node7", task), "node7");
        }
    }
}
