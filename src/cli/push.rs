//! `gatecast push`: the server here, a client on each host by ssh, one table, one exit code.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, select};

use crate::{
    cli::{
        calibrate,
        options::{self, SendArgs},
        output,
        progress::{DigestBar, MusterLine},
        serve,
        signals::{self, SignalRequest},
        ssh::{FarClient, FarConfig},
    },
    error::{Error, Result},
    net::{clock, hosts_file, key_file},
    proto::hosts::HostList,
    report::{
        json,
        session_table::{self, Rows},
        verdict,
        verdict::Verdict,
    },
    serve::{Server, ServerBuilder},
    server::{config::ServerConfig, gate::GateView},
    session::Via,
    text::FileName,
    transfer::Record,
};

/// `gatecast push PATH --hosts FILE`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast push image.iso --hosts room --via multicast --out /srv")]
pub(crate) struct PushArgs {
    /// The file to send, or the folder
    pub(crate) path: PathBuf,
    /// The hosts, one a line: NAME or NAME ADDRESS
    ///
    /// NAME is what ssh connects to, or what its configuration calls the host; ssh connects to
    /// ADDRESS where the line has one. # begins a comment.
    #[arg(long, value_name = "FILE", help_heading = "Gate")]
    pub(crate) hosts: PathBuf,
    /// Way: tcp, udp, raw, multicast, swarm, chain, http
    ///
    /// tcp unless given.
    #[arg(long, help_heading = "Network")]
    pub(crate) via: Option<Via>,
    /// The far ends.
    #[command(flatten)]
    pub(crate) far: FarArgs,
    /// Have both ends prove the key in this file to each other
    ///
    /// It reaches the hosts through ssh, never a command line or a disk. - is standard input.
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub(crate) key: Option<PathBuf>,
    /// Wait so long for them, from the first
    ///
    /// And as long for the first.
    #[arg(long, default_value = "60s", value_parser = options::positive_duration, value_name = "TIME")]
    #[arg(help_heading = "Gate")]
    pub(crate) max_wait: Duration,
    /// Release so many, if they are ready, when that is over
    ///
    /// Hosts that cannot be reached are not waited for.
    #[arg(long, value_parser = options::clients, value_name = "Q", help_heading = "Gate")]
    pub(crate) quorum: Option<u16>,
    /// How it sends.
    #[command(flatten)]
    pub(crate) sending: SendArgs,
    /// The folder for the session log
    #[arg(long, default_value = "logs", value_name = "DIR", help_heading = "Files")]
    pub(crate) log_dir: PathBuf,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// How the clients are started.
#[derive(Debug, clap::Args)]
pub(crate) struct FarArgs {
    /// The folder for the copies on each host
    ///
    /// received, in the user's home, unless given.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) out: Option<String>,
    /// Replace a file that has the copy's name already
    #[arg(long, help_heading = "Files")]
    pub(crate) overwrite: bool,
    /// Take up what an earlier, interrupted push left
    #[arg(long, help_heading = "Files")]
    pub(crate) resume: bool,
    /// How they and the server reach each other.
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// How hosts are reached, and how they reach the server; for `push` and `study --room`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReachArgs {
    /// The command that reaches a host
    ///
    /// Such as "ssh -F FILE -p 2222". Its words are separated by blanks; no shell reads them. It
    /// must not ask for anything.
    #[arg(long, default_value = "ssh", value_name = "COMMAND", help_heading = "Network")]
    pub(crate) ssh: String,
    /// Bring this program along to hosts that lack it
    ///
    /// It is removed after.
    #[arg(long, help_heading = "Files")]
    pub(crate) copy_binary: bool,
    /// The address to fetch from
    ///
    /// That from which a host sees ssh come unless given.
    #[arg(long, value_name = "ADDR", help_heading = "Network")]
    pub(crate) address: Option<String>,
    /// Where to listen, for firewalls; at any free port unless given
    #[arg(long, default_value = "0.0.0.0:0", value_name = "[ADDR:]PORT", hide_short_help = true)]
    #[arg(value_parser = options::listen, help_heading = "Network")]
    pub(crate) listen: SocketAddr,
}

/// How often hosts are looked at, and what is shown of them is renewed.
const REFRESH: Duration = Duration::from_millis(100);

/// How long the far ends may take to end after the session. Then their ssh is ended, by which they end.
const END_WAIT: Duration = Duration::from_secs(3);

/// What a user asks of a push while it goes on.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) requests: Receiver<SignalRequest>,
    pub(crate) enter: Receiver<String>,
}

/// How a push ended.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// Its session, if there was one.
    pub(crate) record: Option<Record>,
    pub(crate) verdict: Verdict,
    /// A sentence for each host whose copy is not proven; none if the user stopped it.
    pub(crate) failed: Vec<String>,
}

/// Pushes.
///
/// # Errors
/// It could not be begun, or a log or result could not be written. What happens to a host after that
/// is in its row, in a message and in the verdict.
pub(crate) fn run(args: &PushArgs) -> Result<Verdict> {
    let roster = hosts_file::read(&args.hosts)?;
    let hosts = roster.entries().len();
    let controls = Controls { requests: signals::listen()?, enter: serve::enter_pressed() };
    let key = args.key.as_deref().map(key_file::read_with_bytes).transpose()?;
    let (key, bytes) = key.unzip();
    let far = far_config(args, bytes.unwrap_or_default())?;
    let path = vec![args.path.clone()];
    let (paths, trees) = if args.path.is_dir() { (Vec::new(), path) } else { (path, Vec::new()) };
    let builder = ServerBuilder {
        paths,
        trees,
        config: args.sending.server_config(ServerConfig {
            via: args.via.or(Some(Via::Tcp)),
            max_wait: args.max_wait,
            quorum: args.quorum,
            key,
            ..ServerConfig::default()
        }),
        log_dir: Some(args.log_dir.clone()),
        udp: args.sending.udp_config(),
        ..ServerBuilder::default()
    };
    let pushed = session(roster, builder, args.far.reach.listen, &far, &controls)?;
    print_result(pushed.record.as_ref(), hosts, args, pushed.verdict)?;
    for sentence in &pushed.failed {
        output::eprintln(format_args!("gatecast: {sentence}"));
    }
    Ok(pushed.verdict)
}

/// One session of `builder` at `listen` with a client on each host of `roster`.
///
/// # Errors
/// As [`run`].
pub(crate) fn session(
    roster: HostList,
    mut builder: ServerBuilder,
    listen: SocketAddr,
    far: &FarConfig<'_>,
    controls: &Controls,
) -> Result<Pushed> {
    let roster = Arc::new(roster);
    builder.config.clients = Some(roster.clients());
    builder.config.roster = Some(Arc::clone(&roster));
    builder.config.one_off = true;
    let (max_wait, digest_bar) = (builder.config.max_wait, DigestBar::default());
    let progress = |name: &FileName, size, done| digest_bar.update(name, size, done);
    let server = builder.bind_with(listen, &progress)?;
    let far = FarConfig { port: server.local_addr().port(), ..far.clone() };
    let clients = roster.entries().iter().map(|host| far.start(host));
    let mut clients = clients.collect::<Result<Vec<_>>>()?;
    let (record, stopped) = watch(server, &mut clients, max_wait, controls)?;
    let records = record.as_ref().map(std::slice::from_ref);
    let verdict = records.map_or(Verdict::CouldNotRun, Verdict::of_records).min(stopped);
    let failed = match verdict {
        Verdict::Interrupted => Vec::new(),
        _ => failed(&clients, record.as_ref()),
    };
    Ok(Pushed { record, verdict, failed })
}

fn far_config(args: &PushArgs, key: Vec<u8>) -> Result<FarConfig<'_>> {
    let far = &args.far;
    let mut options = Vec::new();
    options.extend(far.out.as_ref().map(|folder| format!("--out={folder}")));
    let set = |is_set: bool, option: &str| is_set.then(|| option.to_owned());
    options.extend(set(far.overwrite, "--overwrite"));
    options.extend(set(far.resume, "--resume"));
    options.extend(set(!key.is_empty(), "--key=-"));
    Ok(FarConfig { options, key: key.into(), ..far.reach.config()? })
}

impl ReachArgs {
    /// These options as those of the far ends.
    ///
    /// # Errors
    /// This program cannot be read.
    pub(crate) fn config(&self) -> Result<FarConfig<'_>> {
        let program = self.copy_binary.then(|| std::env::current_exe().and_then(fs::read));
        let program =
            program.transpose().map_err(Error::io("read this program", "--copy-binary"))?;
        Ok(FarConfig {
            ssh: &self.ssh,
            address: self.address.as_deref(),
            port: 0,
            options: Vec::new(),
            discard: false,
            key: Arc::default(),
            program: program.unwrap_or_default().into(),
        })
    }
}

/// Shows the session until it has ended at both ends; returns its record, if there was one, and
/// whether the user stopped it.
fn watch(
    server: Server,
    clients: &mut [FarClient],
    max_wait: Duration,
    controls: &Controls,
) -> Result<(Option<Record>, Verdict)> {
    let lobby = Arc::clone(server.core.lobby());
    let records = server.core.records();
    let tick = crossbeam_channel::tick(REFRESH);
    let mut line = MusterLine::default();
    let begun = clock::now();
    let (record, stopped) = loop {
        select! {
            recv(records) -> record => break (record.ok(), Verdict::AllVerified),
            recv(controls.requests) -> request => match request {
                Ok(SignalRequest::Release) => lobby.release_now(),
                Ok(SignalRequest::Stop) | Err(_) => break (None, Verdict::Interrupted),
            },
            recv(controls.enter) -> _ => lobby.release_now(),
            recv(tick) -> _ => {
                let views = lobby.views();
                line.show(&views);
                let is_late = clock::left(begun.after(max_wait)).is_none();
                let ready = |view: &GateView| view.seats.iter().filter(|seat| seat.ready).count();
                let session = views.first().map(|view| (ready(view), view.left.is_some()));
                match next(session, running(clients), clients.len(), is_late) {
                    Next::Wait => {}
                    Next::Release => lobby.release_now(),
                    Next::End => break (None, Verdict::AllVerified),
                }
            }
        }
    };
    line.clear();
    let left = server.shutdown()?;
    let record = record.or_else(|| left.first().map(|session| session.record.clone()));
    let deadline = clock::now().after(END_WAIT);
    while running(clients) > 0 && clock::left(deadline).is_some() {
        thread::sleep(Duration::from_millis(10));
    }
    Ok((record, stopped))
}

/// What a look at the session and the hosts calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Release,
    End,
}

/// `session` has so many ready seats, and musters or not; `running` of the `hosts` clients have not
/// ended; `is_late` says that the first is waited for no longer.
fn next(session: Option<(usize, bool)>, running: usize, hosts: usize, is_late: bool) -> Next {
    match session {
        None | Some((0, true)) if running == 0 => Next::End,
        None if is_late => Next::End,
        // Whoever has ended will not come: the others wait for nobody else.
        Some((ready, true)) if running < hosts && ready >= running => Next::Release,
        _ => Next::Wait,
    }
}

fn running(clients: &mut [FarClient]) -> usize {
    clients.iter_mut().map(|client| usize::from(client.is_running())).sum()
}

fn print_result(
    record: Option<&Record>,
    hosts: usize,
    args: &PushArgs,
    verdict: Verdict,
) -> Result<()> {
    let Some(record) = record else {
        return output::print_verdict(&verdict::line(0, hosts, Some(verdict), "no client came"));
    };
    if args.json {
        return output::print(&format!("{}\n", json::session(record, Some(&calibrate::stamp()))));
    }
    output::print(&session_table::session(record, Rows::Failures, output::layout()))?;
    output::print_verdict(&verdict::line_of_session(record, hosts, Some(verdict)))
}

/// A sentence for each host whose copy is not proven.
fn failed(clients: &[FarClient], record: Option<&Record>) -> Vec<String> {
    let transfers = || record.into_iter().flat_map(|record| &record.transfers);
    let is_proven = |name: &str| transfers().any(|row| row.name == name && row.is_proven());
    let failed = clients.iter().filter(|client| !is_proven(client.name.as_str()));
    failed.map(|client| format!("{}: {}", client.name, client.why())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_waits_for_every_host_that_can_still_come() {
        let mustering = |ready| Some((ready, true));
        for (session, running, expected) in [
            (None, 3, Next::Wait),
            (mustering(2), 3, Next::Wait),
            // The gate opens by itself when all are ready.
            (mustering(3), 3, Next::Wait),
            (mustering(1), 2, Next::Wait),
            (mustering(2), 2, Next::Release),
            (mustering(1), 1, Next::Release),
            // A seat whose client has just ended.
            (mustering(2), 1, Next::Release),
            (mustering(0), 1, Next::Wait),
            (mustering(0), 0, Next::End),
            (None, 0, Next::End),
            // It was released: its record comes.
            (Some((3, false)), 0, Next::Wait),
            (Some((2, false)), 2, Next::Wait),
        ] {
            assert_eq!(next(session, running, 3, false), expected, "{session:?}, {running}");
        }
        assert_eq!(next(None, 3, 3, true), Next::End);
        assert_eq!(next(mustering(0), 3, 3, true), Next::Wait, "the muster has a deadline");
    }
}
