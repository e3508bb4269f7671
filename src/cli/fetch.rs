//! `gatecast fetch`: one or more clients in this process.

use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::cli::events;
use crate::cli::menu;
use crate::cli::options;
use crate::cli::output;
use crate::cli::progress;
use crate::cli::signals;
use crate::cli::signals::Request;
use crate::client;
use crate::client::ClientReport;
use crate::client::FetchConfig;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::fetch::FetchTask;
use crate::http::client::HttpTarget;
use crate::net::copy;
use crate::report::json::SessionDocument;
use crate::report::session_table;
use crate::report::verdict::Verdict;
use crate::session::Via;
use crate::text::FileName;
use crate::transport::swarm::leech;

/// `gatecast fetch HOST[:PORT] [FILE]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast fetch 192.168.1.10 image.iso --group 25 --out /srv")]
pub(crate) struct Args {
    /// The server, port 8080 unless given; with --via http an http:// URL too; or a FILE.torrent,
    /// for the swarm of any HTTP tracker
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) server: String,
    /// The file; the server's choice unless given
    #[arg(value_parser = options::file_name)]
    pub(crate) file: Option<FileName>,
    /// How many clients to start here
    #[arg(long, default_value = "1", value_parser = options::clients, value_name = "N")]
    pub(crate) clients: u16,
    /// How many clients the whole group has; as many as are started here unless given
    #[arg(long, value_parser = options::clients, value_name = "N")]
    pub(crate) group: Option<u16>,
    /// The way: tcp, udp, raw, multicast, swarm or http; the server's choice unless given
    #[arg(long, value_parser = options::via)]
    pub(crate) via: Option<Via>,
    /// The folder for the copies
    #[arg(long, default_value = "received", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What the client calls itself; unless given, this machine's name, and the number that Slurm
    /// (SLURM_PROCID) or Kubernetes (JOB_COMPLETION_INDEX) gave to this task
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Take up what an earlier, interrupted fetch left
    #[arg(long)]
    pub(crate) resume: bool,
    /// Wait so long for a server that is not there yet
    #[arg(long, default_value = "0s", value_parser = options::span, value_name = "TIME")]
    pub(crate) retry: Duration,
    /// Refuse any file but the one of this SHA-1
    #[arg(long, value_name = "HEX")]
    pub sha1: Option<Digest>,
    /// How bytes are copied: auto, buffered or sendfile
    #[arg(long, default_value = "auto", value_name = "HOW")]
    pub(crate) copy: copy::Method,
    /// Give the server up when it makes no progress for so long
    #[arg(long, default_value = "30s", value_parser = options::wait, value_name = "TIME")]
    pub(crate) stall_limit: Duration,
    /// The address of this host by whose interface a group is joined; the one from which the server
    /// is reached unless given
    #[arg(long, value_name = "ADDR")]
    pub(crate) multicast_interface: Option<Ipv4Addr>,
    /// In a swarm, go on serving for so long after the last byte; until all have it unless given
    #[arg(long, value_parser = options::span, value_name = "TIME")]
    pub(crate) seed_time: Option<Duration>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Print what the clients do as lines of JSON, and the session at the end
    #[arg(long, conflicts_with = "json")]
    pub(crate) events: bool,
    /// Talk to a server of the lab's UDP protocol: list, config, start, disconnect
    #[arg(long, conflicts_with_all = ["file", "group", "via", "resume", "sha1", "json"])]
    pub(crate) lab: bool,
}

/// Fetches.
///
/// # Errors
/// It could not be begun; what happens to a client after that is in its row and the verdict.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    if args.lab {
        return menu::run(&options::server(&args.server)?, &args.out);
    }
    if args.server.ends_with(".torrent") && !args.server.starts_with(SCHEME) {
        return torrent(args);
    }
    let config = FetchConfig {
        file: args.file.clone(),
        clients: args.clients,
        group: args.group,
        via: args.via,
        name: args.name.clone().unwrap_or_else(own_name),
        out: args.out.clone(),
        resume: args.resume,
        retry: args.retry,
        sha1: args.sha1,
        copy: args.copy,
        stall: args.stall_limit,
        interface: args.multicast_interface,
        seed_time: args.seed_time,
        ..FetchConfig::new(options::server(&authority(&args.server))?)
    };
    let task = if args.server.starts_with(SCHEME) {
        FetchTask::with_target(config, Some(url(args)?))
    } else {
        FetchTask::new(config)?
    };
    let task = Arc::new(task);
    stop_on_signal(&task)?;
    let work = || task.run();
    let ends = if args.events {
        events::watch(&task.run, work)
    } else {
        progress::watch(&task.run, work)
    }?;
    show(&ends, args)?;
    Ok(Verdict::of_clients(&ends))
}

/// How a URL begins.
const SCHEME: &str = "http://";

/// The host and port of a URL (80 unless given), or what was given in its place.
fn authority(server: &str) -> String {
    let Some(rest) = server.strip_prefix(SCHEME) else {
        return server.to_owned();
    };
    let host = rest.split('/').next().unwrap_or(rest);
    // An IPv6 address stands in brackets; a colon after them begins the port.
    match host.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        true => host.to_owned(),
        false => format!("{host}:80"),
    }
}

/// What stands at the URL that was given in place of a server.
fn url(args: &Args) -> Result<HttpTarget> {
    if !matches!(args.via, None | Some(Via::Http)) {
        let what = "an http:// URL is fetched --via http".to_owned();
        return Err(Error::Usage { what });
    }
    if args.file.is_some() {
        let what = "an http:// URL names its file, so no other can be given".to_owned();
        return Err(Error::Usage { what });
    }
    HttpTarget::url(&args.server)
}

/// Fetches from the swarm of a torrent: no gate, one client, and the torrent's word for what is
/// right.
fn torrent(args: &Args) -> Result<Verdict> {
    let requests = signals::listen()?;
    let stopped = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stopped);
    thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            if requests.iter().any(|request| request == Request::Stop) {
                stopping.store(true, Ordering::Relaxed);
            }
        })
        .map_err(Error::io("start the signal thread", "this process"))?;
    let metainfo = leech::open(Path::new(&args.server))?;
    let wish = leech::TorrentRequest {
        metainfo,
        out: &args.out,
        stall: args.stall_limit,
        seed_time: args.seed_time.unwrap_or(Duration::ZERO),
    };
    let fetched = leech::fetch(wish, &AtomicU64::new(0), &stopped)?;
    if let Some(sha1) = args.sha1.filter(|sha1| *sha1 != fetched.sha1) {
        let what = format!("its SHA-1 is {}, not {sha1}", fetched.sha1);
        return Err(Error::Corrupt { what });
    }
    let path = crate::text::escape(&fetched.path.display().to_string());
    if args.json {
        output::print(&format!(
            "{}\n",
            serde_json::json!({"schema": "gatecast.torrent/1", "path": path,
                "bytes": fetched.bytes, "bytes_resumed": fetched.resumed,
                "sha1": fetched.sha1.to_string(), "seconds": fetched.seconds.as_secs_f64()})
        ))?;
    } else {
        output::print(&format!(
            "{path}: whole and verified, {} bytes in {:.3} s, {} from before, SHA-1 {}\n",
            fetched.bytes,
            fetched.seconds.as_secs_f64(),
            fetched.resumed,
            fetched.sha1
        ))?;
    }
    Ok(Verdict::AllVerified)
}

/// Lets the first Ctrl-C end every client.
fn stop_on_signal(task: &Arc<FetchTask>) -> Result<()> {
    let requests = signals::listen()?;
    let task = Arc::clone(task);
    thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            if requests.iter().any(|request| request == Request::Stop) {
                task.run.stop();
            }
        })
        .map(|_| ())
        .map_err(Error::io("start the signal thread", "this process"))
}

/// Prints the tables or the document, and each client's failure once.
fn show(ends: &[ClientReport], args: &Args) -> Result<()> {
    let records = client::records(ends);
    if args.events {
        records.iter().try_for_each(events::ended)?;
    } else if args.json {
        if let Some(document) = SessionDocument::of(&records) {
            output::print(&document.to_text())?;
        }
    } else {
        for record in &records {
            output::print(&session_table::session(
                record,
                session_table::Rows::Failures,
            ))?;
        }
    }
    complain(ends);
    Ok(())
}

/// One line for each kind of failure, with the clients that it struck.
fn complain(ends: &[ClientReport]) {
    let mut failures: Vec<(String, Vec<usize>)> = Vec::new();
    for (number, error) in (1..)
        .zip(ends)
        .filter_map(|(number, end)| Some((number, end.error.as_ref()?)))
    {
        let text = error.to_string();
        match failures.iter_mut().find(|(known, _)| *known == text) {
            Some((_, clients)) => clients.push(number),
            None => failures.push((text, vec![number])),
        }
    }
    for (text, clients) in failures {
        match &clients[..] {
            _ if ends.len() == 1 => output::say(format_args!("gatecast: {text}")),
            [one] => output::say(format_args!("gatecast: client {one}: {text}")),
            [first, .., last] => {
                output::say(format_args!(
                    "gatecast: {} clients ({first} to {last}): {text}",
                    clients.len()
                ));
            }
            [] => {}
        }
    }
}

/// What a client calls itself when nobody says: this machine's name, with the number of the task
/// where a scheduler started many at once.
fn own_name() -> String {
    let task = ["SLURM_PROCID", "JOB_COMPLETION_INDEX"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    named(&host_name(), task.as_deref())
}

fn named(host: &str, task: Option<&str>) -> String {
    match task {
        // A number, as schedulers give; anything else is not theirs.
        Some(task) if task.len() <= 9 && crate::proto::line::decimal(task).is_some() => {
            format!("{host}-{task}")
        }
        _ => host.to_owned(),
    }
}

/// This machine's name, cut to what a client may call itself.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    match name.is_empty() {
        true => "client".to_owned(),
        false => name.chars().take(40).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduled_client_is_named_by_its_task() {
        assert_eq!(named("node7", Some("12")), "node7-12");
        for task in [None, Some(""), Some("x"), Some("-1"), Some("1234567890")] {
            assert_eq!(named("node7", task), "node7");
        }
    }
}
