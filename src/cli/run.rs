//! `gatecast run`: server and clients in one process, on loopback: the whole job in one command.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{
    cli::{
        calibrate, events,
        options::{self, SendArgs, SwarmArgs, ViaChoice},
        output,
        progress::{self, DigestBar},
        signals::{self, TemporaryFolder},
    },
    client::FetchConfig,
    error::{Error, Result},
    fetch::FetchTask,
    net::{files, key_file, lock},
    report::{
        counts, json,
        session_table::{self, Rows},
        trials, verdict,
        verdict::Verdict,
    },
    serve::ServerBuilder,
    server::{
        catalog::Catalog,
        config::{AutoMode, ServerConfig},
        sample,
    },
    session::Via,
    text::{FileName, ShownPath, choice, escape_path},
    transfer::Record,
    units::Bytes,
};

/// `gatecast run [FILE]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast run --clients 25 --size 100MB --runs 3")]
pub(crate) struct RunArgs {
    /// The file to send; a generated one unless given
    pub(crate) file: Option<PathBuf>,
    /// How many clients
    #[arg(long, default_value = "25", value_parser = options::clients, value_name = "N")]
    #[arg(help_heading = "Gate")]
    pub(crate) clients: u16,
    /// Way, such as auto or multicast
    ///
    /// One of auto, tcp, udp, raw, multicast, swarm, chain and http.
    #[arg(long, default_value = "tcp", help_heading = "Network")]
    pub(crate) via: ViaChoice,
    /// Repeat, and print the median with its range
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "K")]
    #[arg(help_heading = "Gate")]
    pub(crate) runs: u16,
    /// Size of the generated file
    #[arg(long, default_value = "100MB", conflicts_with = "file", help_heading = "Files")]
    pub(crate) size: Bytes,
    /// Keep the copies in this folder
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) keep: Option<PathBuf>,
    /// A known set of tests: lab is 1, 5 and 10 clients x 100 MB and 250 MB
    #[arg(long, value_parser = ["lab"], conflicts_with_all = ["file", "clients", "size"])]
    #[arg(help_heading = "Gate", hide_short_help = true)]
    pub(crate) preset: Option<String>,
    /// Have both ends prove the key in this file to each other
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub(crate) key: Option<PathBuf>,
    /// How it sends.
    #[command(flatten)]
    pub(crate) sending: SendArgs,
    /// What swarms may do.
    #[command(flatten)]
    pub(crate) swarming: SwarmArgs,
    /// The folder for the session logs
    #[arg(long, default_value = "logs", value_name = "DIR", help_heading = "Files")]
    pub(crate) log_dir: PathBuf,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Print what the clients do as lines of JSON
    ///
    /// And each session at its end.
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) events: bool,
}

/// The tests that the lab's report has: clients and file size.
const LAB: ([u16; 3], [u64; 2]) = ([1, 5, 10], [100_000_000, 250_000_000]);

/// The clients that a stop signal stops.
type RunningTask = Arc<Mutex<Option<Arc<FetchTask>>>>;

/// What one session came to.
struct RunResult {
    /// `None` where the clients failed before there was a session.
    record: Option<Record>,
    verdict: Verdict,
    /// A line about what the clients of a swarm gave to each other; empty for other ways.
    given: String,
}

/// Runs.
///
/// # Errors
/// It could not be begun; what happens to a client after that is in its row and the verdict.
pub(crate) fn run(args: &RunArgs) -> Result<Verdict> {
    let running = RunningTask::default();
    let stopping = Arc::clone(&running);
    // Until the present session has ended, and through every one that would follow.
    signals::on_stop(move || {
        loop {
            if let Some(task) = &*lock(&stopping) {
                task.run.stop();
            }
            thread::sleep(Duration::from_millis(50));
        }
    })?;
    if let Some(folder) = &args.keep {
        files::check_folder(folder, "--keep")?;
    }
    files::check_folder(&args.log_dir, "--log-dir")?;
    let folder = TemporaryFolder::new("run")?;
    let tests: Vec<(u16, PathBuf)> = match (&args.preset, &args.file) {
        (Some(_), _) => {
            let (clients, sizes) = LAB;
            let files = sizes.map(|bytes| generate(&folder, bytes));
            let files = files.into_iter().collect::<Result<Vec<_>>>()?;
            files.iter().flat_map(|file| clients.map(|count| (count, file.clone()))).collect()
        }
        (None, Some(file)) => vec![(args.clients, only_file(file)?)],
        (None, None) => vec![(args.clients, generate(&folder, args.size.0)?)],
    };
    let mut records = Vec::new();
    let mut verdict = Verdict::AllVerified;
    let repeated = |test| std::iter::repeat_n(test, args.runs.into());
    for (clients, file) in tests.iter().flat_map(repeated) {
        let result = run_session(args, &folder, file, *clients, &running)?;
        verdict = verdict.min(result.verdict);
        let Some(record) = result.record else { break };
        if args.events {
            events::ended(&record)?;
        } else if !args.json {
            let table = session_table::session(&record, Rows::Failures, output::layout());
            output::print(&(table + &result.given))?;
            let seats = record.clients.into();
            let last = verdict::line_of_session(&record, seats, Some(result.verdict));
            output::print_verdict(&last)?;
            if args.runs > 1 || args.preset.is_some() {
                output::print("\n")?;
            }
        }
        records.push(record);
        if verdict == Verdict::Interrupted {
            break;
        }
    }
    if args.json {
        json::sessions(&records, Some(&calibrate::stamp()))
            .map_or(Ok(()), |document| output::print(&document))?;
    } else if records.len() > 1 && !args.events {
        output::print(&trials::trials(&records, output::layout()))?;
    }
    Ok(verdict)
}

fn generate(folder: &TemporaryFolder, bytes: u64) -> Result<PathBuf> {
    let name = match bytes % 1_000_000 {
        0 if bytes > 0 => format!("{}MB.bin", bytes / 1_000_000),
        _ => format!("{bytes}B.bin"),
    };
    let path = folder.path().join(name);
    sample::make(&path, bytes)?;
    Ok(path)
}

/// One server, one release, one record.
fn run_session(
    args: &RunArgs,
    folder: &TemporaryFolder,
    file: &Path,
    clients: u16,
    running: &RunningTask,
) -> Result<RunResult> {
    let digest_bar = DigestBar::default();
    let builder = ServerBuilder {
        paths: vec![file.to_owned()],
        config: args.sending.server_config(ServerConfig {
            clients: Some(clients),
            via: args.via.way(),
            auto: if args.via == ViaChoice::Auto { AutoMode::Always } else { AutoMode::Asked },
            one_off: true,
            max_wait: Duration::from_secs(120),
            ..ServerConfig::default()
        }),
        log_dir: Some(args.log_dir.clone()),
        udp: args.sending.udp_config(),
        swarm: args.swarming.config(),
        key: args.key.clone(),
        ..ServerBuilder::default()
    };
    let progress = |name: &FileName, size, done| digest_bar.update(name, size, done);
    let server = builder.bind_with(([127, 0, 0, 1], 0).into(), &progress)?;
    let out = match &args.keep {
        Some(folder) => folder.clone(),
        None => folder.path().join("copies"),
    };
    let mut task = FetchTask::new(FetchConfig {
        file: name_of(file),
        clients,
        via: args.via.way(),
        auto: args.via == ViaChoice::Auto,
        out: out.clone(),
        copy: args.sending.copy,
        stall: args.sending.stall_limit,
        durable: args.keep.is_some(),
        key: args.key.as_deref().map(key_file::read).transpose()?,
        ..FetchConfig::new(vec![server.local_addr()])
    })?;
    task.multicast_interface = args.sending.multicast_interface;
    let task = Arc::new(task);
    *lock(running) = Some(Arc::clone(&task));
    let work = || task.run();
    let reports =
        if args.events { events::watch(&task.run, work) } else { progress::watch(&task.run, work) };
    *lock(running) = None;
    let ended = server.core.records();
    if args.keep.is_none() {
        remove_copies(&out);
    }
    let reports = reports?;
    // Every client has come to its end, so the session has, or ends now with the server.
    let record = ended.recv_timeout(Duration::from_secs(5)).ok();
    if args.events && args.via == ViaChoice::Via(Via::Swarm) {
        events::swarm(&server.torrents)?;
    }
    let given: Vec<_> = server
        .torrents
        .sent_by_seat()
        .into_iter()
        .map(|(seat, bytes)| (format!("seat {seat}"), bytes))
        .collect();
    let given = counts::given(&given);
    let left = server.shutdown()?;
    output::print_failures(&reports);
    let verdict = Verdict::of_clients(&reports);
    let record = record.or_else(|| left.first().map(|session| session.record.clone()));
    let session = record.as_ref().map(|record| Verdict::of_records(std::slice::from_ref(record)));
    let verdict = verdict.min(session.unwrap_or(Verdict::CouldNotRun));
    Ok(RunResult { verdict, record, given })
}

/// The file to send, which may be the only one of a folder.
fn only_file(path: &Path) -> Result<PathBuf> {
    let catalog = Catalog::offer([path])?;
    let names = choice(catalog.names());
    if catalog.names().nth(1).is_some() {
        let at = escape_path(path);
        let what = format_args!("'{at}' has several files and run sends one; name one of {names}");
        return Err(Error::usage(what));
    }
    Ok(path.to_owned())
}

/// The name of the user's own file, which is fetched by it whatever it is.
fn name_of(file: &Path) -> Option<FileName> {
    let name = file.file_name().filter(|_| file.is_file())?;
    FileName::new(name.to_str()?).ok()
}

fn remove_copies(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", ShownPath(folder));
    }
}
