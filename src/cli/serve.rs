//! `gatecast serve`: offers files, session after session, until it is stopped.

use std::{
    io::IsTerminal,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::{Receiver, select};

use crate::{
    cli::{
        calibrate,
        events::{self, StatePrinter},
        keys,
        options::{self, KeyArgs, SendArgs, SwarmArgs, ViaChoice},
        output,
        progress::{DigestBar, MusterLine, NAMES_ROOM},
        signals::{self, SignalRequest},
    },
    error::{Error, Result},
    http::HttpConfig,
    net::{hosts_file, http::guard},
    proto::{greeting::Greeting, hosts::HostList},
    report::{
        self, json,
        session_table::{self, Rows},
        verdict,
        verdict::Verdict,
    },
    serve::{Server, ServerBuilder, check_again},
    server::{
        builder::ServerCore,
        catalog::Catalog,
        config::{AutoMode, ServerConfig},
    },
    session::Via,
    text::{FileName, escape_path, some_of},
    transfer::Record,
    transport::swarm::torrents::Torrents,
};

/// `gatecast serve PATH...`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast serve image.iso --clients 25 --one-off")]
pub(crate) struct ServeArgs {
    /// Files, or folders whose files are offered
    #[arg(value_name = "PATH", required_unless_present = "tree")]
    pub(crate) paths: Vec<PathBuf>,
    /// What a session is.
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// Where to listen
    ///
    /// A port, or an address and a port. --port is the same.
    #[arg(long, alias = "port", default_value = "0.0.0.0:8080", value_name = "[ADDR:]PORT")]
    #[arg(value_parser = options::listen, help_heading = "Network")]
    pub(crate) listen: SocketAddr,
    /// Who may come.
    #[command(flatten)]
    pub(crate) admission: KeyArgs,
    /// How it sends.
    #[command(flatten)]
    pub(crate) sending: SendArgs,
    /// What swarms may do.
    #[command(flatten)]
    pub(crate) swarming: SwarmArgs,
    /// Offer this folder as one thing
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) tree: Vec<PathBuf>,
    /// The folder for the session logs
    #[arg(long, default_value = "logs", value_name = "DIR", help_heading = "Files")]
    pub(crate) log_dir: PathBuf,
    /// Serve the lab's UDP clients too, on the same port number: loopback and --allow only
    #[arg(long, help_heading = "UDP", hide_short_help = true)]
    pub(crate) lab_udp: bool,
    /// An address that the lab's UDP server may send to; may be given again
    #[arg(long, value_name = "ADDR", requires = "lab_udp")]
    #[arg(help_heading = "UDP", hide_short_help = true)]
    pub(crate) allow: Vec<IpAddr>,
    /// Serve one session and exit
    #[arg(long, help_heading = "Gate")]
    pub(crate) one_off: bool,
    /// Print one JSON document a line, for each session
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Print every event as a line of JSON
    ///
    /// The muster, the progress and the results.
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) events: bool,
    /// Who may release sessions in a browser.
    #[command(flatten)]
    pub(crate) page: DashboardArgs,
}

/// What the server decides about each session.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Gate")]
pub(crate) struct SessionArgs {
    /// How many clients a session has
    ///
    /// The clients' own number unless given.
    #[arg(long, value_parser = options::clients, value_name = "N")]
    pub(crate) clients: Option<u16>,
    /// The file for clients that name none
    #[arg(long, value_parser = FileName::new, value_name = "NAME", help_heading = "Files")]
    pub(crate) file: Option<FileName>,
    /// auto, tcp, udp, raw, multicast, swarm, chain, http
    ///
    /// The clients' choice unless given. Where they have none either, auto for clients on other
    /// machines, and tcp on this one.
    #[arg(long, help_heading = "Network")]
    pub(crate) via: Option<ViaChoice>,
    /// Wait so long for them, from the first
    #[arg(long, default_value = "60s", value_parser = options::positive_duration, value_name = "TIME")]
    pub(crate) max_wait: Duration,
    /// Release so many, if they are ready, when that is over
    ///
    /// Without it none is released then.
    #[arg(long, value_parser = options::clients, value_name = "Q")]
    pub(crate) quorum: Option<u16>,
    /// Seat only the clients that this file names
    ///
    /// A line is NAME or NAME ADDRESS, # begins a comment. NAME is what the client calls itself: its
    /// machine's name, or its --name.
    #[arg(long, value_name = "FILE", conflicts_with = "clients")]
    pub(crate) roster: Option<PathBuf>,
    /// Seat only those whose copy this log does not prove
    ///
    /// In its last session. The file must be the one of that session.
    #[arg(long, value_name = "LOG", conflicts_with_all = ["clients", "roster"])]
    pub(crate) again: Option<PathBuf>,
}

/// The page that a browser shows.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Page")]
pub(crate) struct DashboardArgs {
    /// Let the page at this address change things too
    ///
    /// It needs the token, which is printed. 0.0.0.0 is any address.
    #[arg(long, value_name = "ADDR")]
    pub(crate) dashboard: Vec<IpAddr>,
    /// The token for that; a random one is printed unless given
    #[arg(long, value_name = "TEXT", value_parser = options::token, hide_short_help = true)]
    pub(crate) token: Option<String>,
    /// A further name by which browsers may ask for this server
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) host: Vec<String>,
}

/// How often what is shown of the sessions is renewed.
const REFRESH: Duration = Duration::from_millis(200);

/// Serves.
///
/// # Errors
/// It could not be begun, or a log or result could not be written.
pub(crate) fn run(args: &ServeArgs) -> Result<Verdict> {
    let requests = signals::listen()?;
    let digest_bar = DigestBar::default();
    let (session, page) = (&args.session, &args.page);
    let token = page.token.clone().unwrap_or_else(guard::random_token);
    let progress = |name: &FileName, size, done| digest_bar.update(name, size, done);
    let again = session.again.as_deref().map(last_session).transpose()?;
    let roster = match (&session.roster, &again) {
        (Some(path), _) => Some(hosts_file::read(path)?),
        (None, Some(record)) => HostList::unproven(record)?,
        (None, None) => None,
    };
    if let (None, Some(record)) = (&roster, &again) {
        let mut catalog = Catalog::offer(&args.paths)?;
        args.tree.iter().try_for_each(|folder| catalog.offer_tree(folder))?;
        check_again(&catalog, session.file.as_ref(), &record.file, &progress)?;
        let (count, id) = (record.clients, record.session);
        output::print(&format!("nobody is left: all {count} copies of session {id} are proven\n"))?;
        return Ok(Verdict::AllVerified);
    }
    let builder = ServerBuilder {
        paths: args.paths.clone(),
        trees: args.tree.clone(),
        again: again.map(|record| record.file),
        config: args.sending.server_config(ServerConfig {
            clients: roster.as_ref().map(HostList::clients).or(session.clients),
            roster: roster.map(Arc::new),
            file: session.file.clone(),
            via: session.via.and_then(ViaChoice::way),
            auto: match session.via {
                None => AutoMode::Unsaid,
                Some(ViaChoice::Auto) => AutoMode::Always,
                Some(ViaChoice::Via(_)) => AutoMode::Asked,
            },
            max_wait: session.max_wait,
            quorum: session.quorum,
            one_off: args.one_off,
            open: args.admission.open.clone(),
            ..ServerConfig::default()
        }),
        log_dir: Some(args.log_dir.clone()),
        http: HttpConfig {
            token: Some(token.clone()),
            control_from: page.dashboard.clone(),
            hosts: page.host.clone(),
            ..HttpConfig::default()
        },
        udp: args.sending.udp_config(),
        swarm: args.swarming.config(),
        lab_udp: args.lab_udp.then(|| args.allow.clone()),
        key: args.admission.key.clone(),
        ..ServerBuilder::default()
    };
    let server = builder.bind_with(args.listen, &progress)?;
    print_welcome(&server.core, args, &token)?;
    show_sessions(server, args, &requests)
}

/// The last session of the log at `path`.
fn last_session(path: &Path) -> Result<Record> {
    let at = escape_path(path);
    let none = || Error::usage(format_args!("{at}: the log holds no session"));
    report::read_log(path)?.pop().ok_or_else(none)
}

/// Prints where the server is found and what it offers.
fn print_welcome(server: &ServerCore, args: &ServeArgs, token: &str) -> Result<()> {
    output::eprintln(format_args!("listening on {}", server.addr()));
    for file in server.lobby().files()? {
        output::eprintln(format_args!("  {:>13} bytes  {}  {}", file.bytes, file.sha1, file.name));
    }
    if args.lab_udp {
        output::eprintln(format_args!("the lab's UDP clients are served too"));
    }
    let lobby = server.lobby();
    if lobby.settings.key.is_some() {
        output::eprintln(format_args!("clients must prove the key; nothing is encrypted"));
    }
    let shown = lobby.address().unwrap_or_else(|| server.addr());
    // A server with a key shows its page to who has the token.
    let token_too = if lobby.settings.closes(Greeting::Http) {
        format!("?token={token}")
    } else {
        String::new()
    };
    output::eprintln(format_args!("the page of this server: http://{shown}/{token_too}"));
    if !args.page.dashboard.is_empty() {
        output::eprintln(format_args!(
            "to release from elsewhere, open http://{shown}/#token={token}"
        ));
    }
    if lobby.settings.clients.is_some() {
        print_waiting(&lobby.settings);
    }
    Ok(())
}

/// Prints for whom the next session waits.
fn print_waiting(config: &ServerConfig) {
    let clients = match config.clients {
        None => "clients".to_owned(),
        Some(1) => "1 client".to_owned(),
        Some(count) => format!("{count} clients"),
    };
    let names = config.roster.as_ref().map_or_else(String::new, |roster| {
        let names = roster.entries().iter().map(|host| host.name.as_str());
        format!(": {}", some_of(names, NAMES_ROOM))
    });
    output::eprintln(format_args!("waiting for {clients}{names}; Ctrl-C ends"));
}

/// Shows sessions and prints their results until the server is to end.
fn show_sessions(
    server: Server,
    args: &ServeArgs,
    requests: &Receiver<SignalRequest>,
) -> Result<Verdict> {
    let (lobby, torrents) = (Arc::clone(server.core.lobby()), Arc::clone(&server.torrents));
    let records = server.core.records();
    let enter = enter_pressed();
    let tick = crossbeam_channel::tick(REFRESH);
    let mut muster_line = MusterLine::default();
    let mut states = StatePrinter::default();
    let mut verdict = Verdict::AllVerified;
    loop {
        select! {
            recv(records) -> record => {
                let record = record.expect("the logger lives as long as the server");
                muster_line.clear();
                verdict = verdict.min(print_result(&record, &torrents, args, Verdict::AllVerified)?);
                if args.one_off {
                    server.shutdown()?;
                    return Ok(verdict);
                }
                if lobby.is_idle() {
                    print_waiting(&lobby.settings);
                }
            }
            recv(requests) -> request => match request {
                Ok(SignalRequest::Release) => lobby.release_now(),
                Ok(SignalRequest::Stop) | Err(_) => {
                    muster_line.clear();
                    if !lobby.is_idle() {
                        verdict = Verdict::Interrupted;
                    }
                    for session in server.shutdown()? {
                        let record = &session.record;
                        verdict = verdict.min(print_result(record, &torrents, args, verdict)?);
                    }
                    return Ok(verdict);
                }
            },
            recv(enter) -> _ => lobby.release_now(),
            recv(tick) -> _ => {
                muster_line.show(&lobby.views());
                if args.events {
                    states.print_new(&lobby)?;
                }
            }
        }
    }
}

/// Prints a session that has ended. `stopped` says whether the user ended it.
fn print_result(
    record: &Record,
    torrents: &Torrents,
    args: &ServeArgs,
    stopped: Verdict,
) -> Result<Verdict> {
    let verdict = Verdict::of_records(std::slice::from_ref(record)).min(stopped);
    if args.events {
        if record.via == Via::Swarm {
            events::swarm(torrents)?;
        }
        events::ended(record)?;
    } else if args.json {
        output::print(&format!("{}\n", json::session(record, Some(&calibrate::stamp()))))?;
    } else {
        output::print(&session_table::session(record, Rows::Failures, output::layout()))?;
        let line = verdict::line_of_session(record, record.clients.into(), Some(verdict));
        output::print_verdict(&line)?;
        if !args.one_off {
            output::print("\n")?;
        }
    }
    Ok(verdict)
}

/// Receives a line for each Enter on the terminal; never one if there is no terminal.
pub(super) fn enter_pressed() -> Receiver<String> {
    if !std::io::stdin().is_terminal() {
        return crossbeam_channel::never();
    }
    let (sender, pressed) = crossbeam_channel::unbounded();
    match keys::spawn(sender, keys::lines) {
        Ok(()) => pressed,
        Err(error) => {
            log::warn!("cannot watch the terminal: {error}");
            crossbeam_channel::never()
        }
    }
}
