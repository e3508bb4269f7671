//! `gatecast fetch`: one or more clients in this process.

use std::{
    io::{self, IsTerminal},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use serde_json::json;

use crate::{
    cli::{
        calibrate, events, menu, options,
        options::ViaChoice,
        output, progress,
        signals::{self, TemporaryFolder},
    },
    client::{self, ClientReport, FetchConfig, config::OverwritePolicy},
    digest::Digest,
    error::{Error, Result},
    fetch::FetchTask,
    http::client::HttpTarget,
    net::{address, copy, files, host_name, key_file},
    proto::line,
    report::{
        json,
        session_table::{self, Rows},
        table::ROWS_MAX,
        verdict,
        verdict::Verdict,
    },
    session::Via,
    text::{FileName, escape_path},
    transport::swarm::{leech, receive},
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
    /// auto, tcp, udp, raw, multicast, swarm, chain, http
    ///
    /// The server's choice unless given.
    #[arg(long, help_heading = "Network")]
    pub(crate) via: Option<ViaChoice>,
    /// Where the copies go.
    #[command(flatten)]
    pub(crate) target: TargetArgs,
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
    /// Leave a log of these clients in this folder, as a server leaves one
    #[arg(long, value_name = "DIR", help_heading = "Files", hide_short_help = true)]
    pub(crate) log_dir: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Print what the clients do as lines of JSON
    ///
    /// And the session at the end.
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) events: bool,
    /// Talk to a server of the lab's UDP protocol: list, config, start, disconnect
    #[arg(long, conflicts_with_all = ["file", "group", "via", "resume", "sha1", "json", "events", "key"])]
    #[arg(help_heading = "UDP", hide_short_help = true)]
    pub(crate) lab: bool,
}

/// Where the copies go.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct TargetArgs {
    /// The folder for copies, - for a pipe; received unless given
    ///
    /// With - the one copy goes to standard output once it is proven, and everything else to standard
    /// error.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace a file that has the copy's name already
    ///
    /// For where that is not done by itself: in the DIR of --out when the server or the torrent
    /// chose the name, for a copy that nothing proves, and for a folder.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Write the file onto this disk, or into this existing file, and read it back
    ///
    /// What is there is lost. Name it twice: --to /dev/sdX --yes-overwrite /dev/sdX. Nothing of it
    /// may be mounted.
    #[arg(long, value_name = "DISK", hide_short_help = true)]
    #[arg(conflicts_with_all = ["out", "overwrite"])]
    pub(crate) to: Option<PathBuf>,
    /// The DISK of --to, a second time
    #[arg(long, value_name = "DISK", hide_short_help = true)]
    pub(crate) yes_overwrite: Option<PathBuf>,
}

/// How the clients receive.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct ReceiveArgs {
    /// Stay, and take a seat whenever there is one
    ///
    /// For a copy that is not here yet, of a server whose sessions have a fixed size (--clients or
    /// --roster). It may come and go. A copy that is proven is not taken again until the server was
    /// started anew.
    #[arg(long, help_heading = "Gate")]
    #[arg(conflicts_with_all = ["clients", "group", "retry", "json", "events", "lab"])]
    pub(crate) standing: bool,
    /// Fetch from a server of the lab's TCP protocol
    #[arg(long, hide_short_help = true)]
    #[arg(conflicts_with_all = ["file", "group", "via", "resume", "key", "standing", "lab"])]
    pub(crate) lab_tcp: bool,
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
    ///
    /// - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// In a swarm, go on serving for so long after the last byte; until all have it unless given
    #[arg(long, value_parser = units::parse_duration, value_name = "TIME")]
    #[arg(help_heading = "Swarm", hide_short_help = true)]
    pub(crate) seed_time: Option<Duration>,
    /// Write when each piece of a swarm came, and from whom, into this CSV
    #[arg(long, value_name = "FILE", help_heading = "Swarm", hide_short_help = true)]
    #[arg(conflicts_with_all = ["standing", "lab", "lab_tcp"])]
    pub(crate) blocks: Option<PathBuf>,
}

impl FetchArgs {
    /// The way, where one was named.
    pub(super) fn way(&self) -> Option<Via> {
        self.via.and_then(ViaChoice::way)
    }

    /// The folder for the copies, or what is written in place.
    fn folder(&self) -> PathBuf {
        let chosen = self.target.to.as_ref().or(self.target.out.as_ref());
        chosen.map_or_else(|| PathBuf::from("received"), PathBuf::clone)
    }

    /// Refuses what does not go with a disk or with standard output.
    pub(super) fn check_target(&self, is_torrent: bool) -> Result<()> {
        let (target, is_pipe) = (&self.target, self.target.is_pipe());
        if target.to != target.yes_overwrite {
            let what = "name the disk twice: --to /dev/sdX --yes-overwrite /dev/sdX";
            return Err(Error::usage(what));
        }
        let others = [
            ("several --clients", self.clients > 1),
            ("--resume", self.resume),
            ("--lab", self.lab),
            ("--standing", self.receiving.standing),
            ("a torrent", is_torrent),
            ("--json", is_pipe && self.json),
            ("--events", is_pipe && self.events),
            ("a terminal; put a | or a > behind it", is_pipe && io::stdout().is_terminal()),
        ];
        let option = if is_pipe { "--out -" } else { "--to" };
        match others.into_iter().find(|&(_, is_given)| is_given) {
            Some((other, _)) if is_pipe || target.to.is_some() => {
                Err(Error::usage(format_args!("{option} does not go with {other}")))
            }
            _ => Ok(()),
        }
    }
}

impl TargetArgs {
    fn is_pipe(&self) -> bool {
        self.out.as_deref() == Some(Path::new("-"))
    }
}

/// How a URL begins.
const SCHEME: &str = "http://";

/// The port of a URL that names none.
const HTTP_PORT: u16 = 80;

/// Whether what is asked for has no gate: a URL, a torrent, or the bytes of HTTP alone.
pub(super) fn names_no_gate(args: &FetchArgs) -> bool {
    let server = &args.server;
    server.starts_with(SCHEME) || server.ends_with(".torrent") || args.way() == Some(Via::Http)
}

/// Fetches.
///
/// # Errors
/// It could not be begun; what happens to a client after that is in its row and the verdict.
pub(crate) fn run(args: &FetchArgs) -> Result<Verdict> {
    let is_url = args.server.starts_with(SCHEME);
    let is_torrent = args.server.ends_with(".torrent") && !is_url;
    args.check_target(is_torrent)?;
    if args.lab {
        return menu::run(&options::server(&args.server)?, &args.folder(), args.log_dir.as_deref());
    }
    if args.receiving.key.is_some() && (is_url || is_torrent) {
        return Err(Error::usage("a URL or a torrent cannot prove a key; give HOST[:PORT]"));
    }
    if args.receiving.lab_tcp && (is_url || is_torrent) {
        return Err(Error::usage("--lab-tcp takes HOST[:PORT], not a URL or a torrent"));
    }
    if args.receiving.blocks.is_some() && (is_torrent || args.way() != Some(Via::Swarm)) {
        return Err(Error::usage("--blocks goes with --via swarm, and with no torrent"));
    }
    if is_torrent {
        return fetch_torrent(args);
    }
    let spool = args.target.is_pipe().then(|| TemporaryFolder::new("fetch")).transpose()?;
    let spool = spool.as_ref().map(TemporaryFolder::path);
    output::set_pipe(spool.is_some());
    let task = if is_url {
        let target = target(args)?;
        let server = address::resolve(&target.host, HTTP_PORT)?;
        // The user's URL names the file.
        let file = Some(target.name.clone());
        let config = FetchConfig { file, ..config(args, server, spool)? };
        FetchTask::with_target(config, Some(target))?
    } else {
        FetchTask::new(config(args, options::server(&args.server)?, spool)?)?
    };
    let mut task = receiving(args, task);
    task.swarm.blocks = args.receiving.blocks.as_deref().map(receive::blocks_file).transpose()?;
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
    let copy = reports.first().and_then(|report| report.path.as_deref());
    if let Some(copy) = copy.filter(|_| spool.is_some()) {
        output::write_file(copy)?;
    }
    Ok(verdict)
}

/// `task` with the user's options for some ways.
pub(super) fn receiving(args: &FetchArgs, mut task: FetchTask) -> FetchTask {
    task.lab = args.receiving.lab_tcp;
    task.swarm.seed_time = args.receiving.seed_time;
    task.multicast_interface = args.receiving.multicast_interface;
    task
}

/// `spool` is the folder of a copy that goes to standard output.
pub(super) fn config(
    args: &FetchArgs,
    server: Vec<SocketAddr>,
    spool: Option<&Path>,
) -> Result<FetchConfig> {
    Ok(FetchConfig {
        file: args.file.clone(),
        clients: args.clients,
        group: args.group,
        via: args.way(),
        auto: args.via == Some(ViaChoice::Auto),
        name: args.name.clone().unwrap_or_else(own_name),
        out: spool.map_or_else(|| args.folder(), Path::to_owned),
        durable: spool.is_none(),
        overwrite: match &args.target.out {
            _ if args.target.to.is_some() => OverwritePolicy::InPlace,
            _ if spool.is_some() => OverwritePolicy::Spool,
            _ if args.target.overwrite => OverwritePolicy::Always,
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
    if !matches!(args.via, None | Some(ViaChoice::Via(Via::Http))) {
        return Err(Error::usage("an http:// URL is fetched --via http"));
    }
    if args.file.is_some() {
        return Err(Error::usage("an http:// URL names its file, so no other can be given"));
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
        replace: args.target.overwrite || args.target.out.is_none(),
        stall: args.receiving.stall_limit,
        seed_time: args.receiving.seed_time.unwrap_or(Duration::ZERO),
        sha1: args.sha1,
    };
    let fetched = leech::fetch(wish, &AtomicU64::new(0), &stopped)?;
    let path = escape_path(&fetched.path);
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
    client::log(&records, args.log_dir.clone())?;
    if args.events {
        records.iter().try_for_each(events::ended)?;
    } else if args.json {
        if let Some(document) = json::sessions(&records, Some(&calibrate::stamp())) {
            output::print(&document)?;
        }
    } else {
        for record in &records {
            let layout = output::layout();
            output::print(&session_table::client_session(record, Rows::Failures, layout))?;
        }
    }
    output::print_failures(reports);
    if let Some(disk) = &args.target.to
        && reports.iter().any(|report| report.released_at.is_some() && report.path.is_none())
    {
        let disk = escape_path(disk);
        output::eprintln(format_args!("{disk} is not the file, and may be partly overwritten"));
    }
    if !args.target.is_pipe() && reports.iter().any(|report| report.is_kept) {
        let again = if args.resume { "the same command" } else { "the same command with --resume" };
        output::eprintln(format_args!("what arrived is kept; {again} goes on from there"));
    }
    // Without a seat there is an error and no session.
    if args.events || args.json || records.is_empty() {
        return Ok(());
    }
    output::print(&copies(reports, args))?;
    output::print_verdict(&verdict::line_of_clients(reports, verdict))
}

/// The path of each whole copy, a line each; of very many their folder.
fn copies(reports: &[ClientReport], args: &FetchArgs) -> String {
    let paths: Vec<&PathBuf> = reports.iter().filter_map(|report| report.path.as_ref()).collect();
    if paths.len() > ROWS_MAX {
        return format!(
            "{}: {} copies, whole and verified\n",
            escape_path(&args.folder()),
            paths.len()
        );
    }
    if args.target.is_pipe() && !paths.is_empty() {
        return "whole and verified, and goes to standard output\n".to_owned();
    }
    paths.iter().map(|path| format!("{}: whole and verified\n", escape_path(path))).collect()
}

/// What a client calls itself unless the user gives a name: this machine's name, with the number of
/// the task if a scheduler started several.
fn own_name() -> String {
    let task =
        ["SLURM_PROCID", "JOB_COMPLETION_INDEX"].iter().find_map(|name| std::env::var(name).ok());
    task_name(&host_part(host_name::own()), task.as_deref())
}

fn task_name(host: &str, task: Option<&str>) -> String {
    match task {
        // Schedulers give a number; anything else does not come from one.
        Some(task) if task.len() <= 9 && line::decimal(task).is_some() => format!("{host}-{task}"),
        _ => host.to_owned(),
    }
}

/// This machine's name, cut so that a client may call itself that with two numbers behind it.
fn host_part(host: Option<String>) -> String {
    let mut name = host.unwrap_or_else(|| "client".to_owned());
    name.truncate(name.floor_char_boundary(40));
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::ClientName;

    #[test]
    fn client_of_a_scheduler_is_named_by_its_task() {
        assert_eq!(task_name("node7", Some("12")), "node7-12");
        for task in [None, Some(""), Some("x"), Some("-1"), Some("1234567890")] {
            assert_eq!(task_name("node7", task), "node7");
        }
    }

    #[test]
    fn host_of_any_name_leaves_room_for_numbers() {
        assert_eq!(host_part(None), "client");
        assert_eq!(host_part(Some("LAB-7".to_owned())), "LAB-7");
        assert_eq!(host_part(Some("x".repeat(40))).len(), 40);
        for letter in ["x", "\u{436}", "\u{20ac}", "\u{1f3a5}"] {
            let name = host_part(Some(letter.repeat(63)));
            let numbered = format!("{}-10000", task_name(&name, Some("123456789")));
            assert!(name.len() > 36 && ClientName::new(&numbered).is_ok(), "{numbered}");
        }
    }
}
