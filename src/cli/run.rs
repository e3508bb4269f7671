//! `gatecast run`: server and clients in one process, on loopback: the whole job in one command.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::cli::events;
use crate::cli::options;
use crate::cli::output;
use crate::cli::progress;
use crate::cli::progress::Hashing;
use crate::cli::signals;
use crate::cli::signals::Request;
use crate::cli::signals::Temporary;
use crate::client::ClientReport;
use crate::client::FetchConfig;
use crate::error::Error;
use crate::error::Result;
use crate::fetch::FetchTask;
use crate::net::lock;
use crate::report::counts;
use crate::report::json::SessionDocument;
use crate::report::session_table;
use crate::report::trials;
use crate::report::verdict::Verdict;
use crate::serve::ServerBuilder;
use crate::server::config::ServerConfig;
use crate::server::sample;
use crate::session::Via;
use crate::text::FileName;
use crate::transfer::Record;
use crate::units::Bytes;

/// `gatecast run [FILE]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast run --clients 25 --size 100MB --runs 3")]
pub(crate) struct Args {
    /// The file to send; a generated one unless given
    pub(crate) file: Option<PathBuf>,
    /// How many clients
    #[arg(long, default_value = "25", value_parser = options::clients, value_name = "N")]
    pub(crate) clients: u16,
    /// The way: tcp, udp, raw, multicast, swarm or http
    #[arg(long, default_value = "tcp", value_parser = options::via)]
    pub(crate) via: Via,
    /// Repeat, and print the median with its range
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "K")]
    pub(crate) runs: u16,
    /// Size of the generated file
    #[arg(long, default_value = "100MB", conflicts_with = "file")]
    pub(crate) size: Bytes,
    /// Keep the copies in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// A known set of tests: lab is 1, 5 and 10 clients x 100 MB and 250 MB
    #[arg(long, value_parser = ["lab"], conflicts_with_all = ["file", "clients", "size"])]
    pub(crate) preset: Option<String>,
    /// How it sends.
    #[command(flatten)]
    pub(crate) sending: options::Sending,
    /// What swarms may do.
    #[command(flatten)]
    pub(crate) swarming: options::Swarming,
    /// Write session logs into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Print what the clients do as lines of JSON, and each session at its end
    #[arg(long, conflicts_with = "json")]
    pub(crate) events: bool,
}

/// The tests that the lab's report has: clients and file size.
const LAB: [(u16, u64); 6] = [
    (1, 100_000_000),
    (5, 100_000_000),
    (10, 100_000_000),
    (1, 250_000_000),
    (5, 250_000_000),
    (10, 250_000_000),
];

/// What a stop signal has to stop.
type Current = Arc<Mutex<Option<Arc<FetchTask>>>>;

/// Runs.
///
/// # Errors
/// It could not be begun; what happens to a client after that is in its row and the verdict.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let current = Current::default();
    stop_on_signal(&current)?;
    let work = Temporary::new("run")?;
    let tests = match (&args.preset, &args.file) {
        (Some(_), _) => LAB
            .iter()
            .map(|&(clients, bytes)| Ok((clients, generated(&work, bytes)?)))
            .collect(),
        (None, Some(file)) => Ok(vec![(args.clients, file.clone())]),
        (None, None) => generated(&work, args.size.0).map(|file| vec![(args.clients, file)]),
    };
    let mut records = Vec::new();
    let mut verdict = Verdict::AllVerified;
    for (clients, file) in tests? {
        for _ in 0..args.runs {
            let (record, earned, given) = session(args, &work, &file, clients, &current)?;
            verdict = verdict.min(earned);
            if args.events {
                events::ended(&record)?;
            } else if !args.json {
                output::print(&format!(
                    "{}{given}\n",
                    session_table::session(&record, session_table::Rows::Failures)
                ))?;
            }
            records.push(record);
            if verdict == Verdict::Interrupted {
                break;
            }
        }
        if verdict == Verdict::Interrupted {
            break;
        }
    }
    if args.json {
        output::print(
            &SessionDocument::of(&records)
                .expect("one run at least")
                .to_text(),
        )?;
    } else if records.len() > 1 && !args.events {
        output::print(&trials::trials(&records))?;
    }
    Ok(verdict)
}

fn generated(work: &Temporary, bytes: u64) -> Result<PathBuf> {
    let name = match bytes % 1_000_000 {
        0 if bytes > 0 => format!("{}MB.bin", bytes / 1_000_000),
        _ => format!("{bytes}B.bin"),
    };
    let path = work.path().join(name);
    sample::make(&path, bytes)?;
    Ok(path)
}

/// One server, one release, one record, and what the clients of a swarm gave to each other.
fn session(
    args: &Args,
    work: &Temporary,
    file: &Path,
    clients: u16,
    current: &Current,
) -> Result<(Record, Verdict, String)> {
    let hashing = Hashing::default();
    let builder = ServerBuilder {
        paths: vec![file.to_owned()],
        config: args.sending.apply(ServerConfig {
            clients: Some(clients),
            via: Some(args.via),
            one_off: true,
            max_wait: Duration::from_secs(120),
            ..ServerConfig::default()
        }),
        log_dir: args.log_dir.clone(),
        udp: args.sending.udp(),
        swarm: args.swarming.options(),
        ..ServerBuilder::default()
    };
    let progress = |name: &FileName, size, done| hashing.tell(name, size, done);
    let server = builder.bind_with(([127, 0, 0, 1], 0).into(), &progress)?;
    let out = match &args.keep {
        Some(folder) => folder.clone(),
        None => work.path().join("copies"),
    };
    let task = Arc::new(FetchTask::new(FetchConfig {
        clients,
        via: Some(args.via),
        out: out.clone(),
        copy: args.sending.copy,
        stall: args.sending.stall_limit,
        interface: args.sending.multicast_interface,
        durable: args.keep.is_some(),
        ..FetchConfig::new(vec![server.local_addr()])
    })?);
    *lock(current) = Some(Arc::clone(&task));
    let work = || task.run();
    let ends = if args.events {
        events::watch(&task.run, work)
    } else {
        progress::watch(&task.run, work)
    };
    *lock(current) = None;
    let ended = server.core().records();
    if args.keep.is_none() {
        remove_copies(&out);
    }
    let ends = ends?;
    // Every client has come to its end, so the session has, or ends now with the server.
    let record = ended.recv_timeout(Duration::from_secs(5)).ok();
    if args.events && args.via == Via::Swarm {
        events::swarm(&server.torrents())?;
    }
    let given: Vec<_> = server
        .torrents()
        .sent_by_seat()
        .into_iter()
        .map(|(seat, bytes)| (format!("seat {seat}"), bytes))
        .collect();
    let given = counts::given(&given);
    let left = server.shutdown()?;
    complain(&ends);
    let verdict = Verdict::of_clients(&ends);
    match record.or_else(|| left.first().map(|session| session.record().clone())) {
        Some(record) => {
            let verdict = verdict.min(Verdict::of_records(std::slice::from_ref(&record)));
            Ok((record, verdict, given))
        }
        None => Err(first_error(ends)),
    }
}

fn complain(ends: &[ClientReport]) {
    for (number, error) in (1..)
        .zip(ends)
        .filter_map(|(number, end)| Some((number, end.error.as_ref()?)))
    {
        output::say(format_args!("gatecast: client {number}: {error}"));
    }
}

fn first_error(ends: Vec<ClientReport>) -> Error {
    let error = ends.into_iter().find_map(|end| end.error);
    error.unwrap_or_else(|| Error::refused("the server", "no session was begun"))
}

fn remove_copies(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", folder.display());
    }
}

/// Lets the first Ctrl-C end the clients that are running, and with them the session.
fn stop_on_signal(current: &Current) -> Result<()> {
    let requests = signals::listen()?;
    let current = Arc::clone(current);
    thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            if requests.iter().any(|request| request == Request::Stop) {
                // Until the present session has ended, and through every one that would follow.
                loop {
                    if let Some(task) = &*lock(&current) {
                        task.run.stop();
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            }
        })
        .map(|_| ())
        .map_err(Error::io("start the signal thread", "this process"))
}
