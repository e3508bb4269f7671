//! `gatecast serve`: offers files, session after session, until it is stopped.

use std::io::BufRead;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::select;

use crate::cli::events;
use crate::cli::events::StatePrinter;
use crate::cli::options;
use crate::cli::output;
use crate::cli::progress::Hashing;
use crate::cli::progress::Room;
use crate::cli::signals;
use crate::cli::signals::Request;
use crate::error::Result;
use crate::http::HttpConfig;
use crate::http::guard;
use crate::report::json::SessionDocument;
use crate::report::session_table;
use crate::report::verdict::Verdict;
use crate::serve::{Server, ServerBuilder};
use crate::server::builder::ServerCore;
use crate::server::config::ServerConfig;
use crate::session::Via;
use crate::text::FileName;
use crate::transfer::Record;
use crate::transport::swarm::torrents::Torrents;

/// `gatecast serve PATH...`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast serve image.iso --clients 25 --one-off")]
pub(crate) struct Args {
    /// Files, or folders whose files are offered
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// How many clients a session has; the clients' own number unless given
    #[arg(long, value_parser = options::clients, value_name = "N")]
    pub(crate) clients: Option<u16>,
    /// The file for clients that name none
    #[arg(long, value_parser = options::file_name, value_name = "NAME")]
    pub(crate) file: Option<FileName>,
    /// The way: tcp, udp, raw, multicast, swarm or http; the clients' choice unless given
    #[arg(long, value_parser = options::via)]
    pub(crate) via: Option<Via>,
    /// How long a session waits for its clients, from the first one
    #[arg(long, default_value = "60s", value_parser = options::wait, value_name = "TIME")]
    pub(crate) max_wait: Duration,
    /// Release so many ready clients when that time is over, instead of none
    #[arg(long, value_parser = options::clients, value_name = "Q")]
    pub(crate) quorum: Option<u16>,
    /// How it sends.
    #[command(flatten)]
    pub(crate) sending: options::Sending,
    /// What swarms may do.
    #[command(flatten)]
    pub(crate) swarming: options::Swarming,
    /// The folder for the session logs
    #[arg(long, default_value = "logs", value_name = "DIR")]
    pub(crate) log_dir: PathBuf,
    /// Serve the lab's UDP clients too, on the same port number: loopback and --allow only
    #[arg(long)]
    pub(crate) lab_udp: bool,
    /// An address that the lab's UDP server may send to; may be given again
    #[arg(long, value_name = "ADDR", requires = "lab_udp")]
    pub(crate) allow: Vec<IpAddr>,
    /// Serve one session and exit
    #[arg(long)]
    pub(crate) one_off: bool,
    /// Print one JSON document a line, for each session
    #[arg(long)]
    pub(crate) json: bool,
    /// Print every event as a line of JSON: muster, progress, results
    #[arg(long, conflicts_with = "json")]
    pub(crate) events: bool,
    /// Let the page at this address release sessions too, with the token; 0.0.0.0 is any address
    #[arg(long, value_name = "ADDR")]
    pub(crate) dashboard: Vec<IpAddr>,
    /// The token for that; a random one is printed unless given
    #[arg(long, value_name = "TEXT", value_parser = options::token)]
    pub(crate) token: Option<String>,
    /// A further name by which browsers may ask for this server
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
}

/// How often the terminal is looked at.
const REFRESH: Duration = Duration::from_millis(200);

/// Serves.
///
/// # Errors
/// It could not be begun, or a log or result could not be written.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let requests = signals::listen()?;
    let hashing = Hashing::default();
    let token = args.token.clone().unwrap_or_else(guard::random_token);
    let builder = ServerBuilder {
        paths: args.paths.clone(),
        config: args.sending.apply(ServerConfig {
            clients: args.clients,
            file: args.file.clone(),
            via: args.via,
            max_wait: args.max_wait,
            quorum: args.quorum,
            one_off: args.one_off,
            ..ServerConfig::default()
        }),
        log_dir: Some(args.log_dir.clone()),
        http: HttpConfig {
            token: Some(token.clone()),
            control_from: args.dashboard.clone(),
            hosts: args.host.clone(),
            ..HttpConfig::default()
        },
        udp: args.sending.udp(),
        swarm: args.swarming.options(),
        lab_udp: args.lab_udp.then(|| args.allow.clone()),
        ..ServerBuilder::default()
    };
    let progress = |name: &FileName, size, done| hashing.tell(name, size, done);
    let server = builder.bind_with(args.listen, &progress)?;
    greet(server.core(), args, &token)?;
    attend(server, args, &requests)
}

fn greet(server: &ServerCore, args: &Args, token: &str) -> Result<()> {
    output::say(format_args!("listening on {}", server.addr()));
    for file in server.lobby().files()? {
        output::say(format_args!(
            "  {:>13} bytes  {}  {}",
            file.bytes, file.sha1, file.name
        ));
    }
    if args.lab_udp {
        output::say(format_args!("the lab's UDP clients are served too"));
    }
    let shown = match server.lobby().address() {
        Some(addr) => addr,
        None => server.addr(),
    };
    output::say(format_args!("the page of this server: http://{shown}/"));
    if !args.dashboard.is_empty() {
        output::say(format_args!(
            "to release from elsewhere, open http://{shown}/#token={token}"
        ));
    }
    if let Some(clients) = args.clients {
        output::say(format_args!("waiting for {clients} clients"));
    }
    Ok(())
}

/// Shows sessions and prints their results until the server is to end.
fn attend(server: Server, args: &Args, requests: &Receiver<Request>) -> Result<Verdict> {
    let (lobby, torrents) = (Arc::clone(server.core().lobby()), server.torrents());
    let records = server.core().records();
    let enter = enter_pressed();
    let tick = crossbeam_channel::tick(REFRESH);
    let mut room = Room::default();
    let mut states = StatePrinter::default();
    let mut earned = Verdict::AllVerified;
    loop {
        select! {
            recv(records) -> record => {
                let record = record.expect("the logger lives as long as the server");
                room.clear();
                earned = earned.min(show(&record, &torrents, args)?);
                if args.one_off {
                    server.shutdown()?;
                    return Ok(earned);
                }
            }
            recv(requests) -> request => match request {
                Ok(Request::Release) => lobby.release_now(),
                Ok(Request::Stop) | Err(_) => {
                    room.clear();
                    if !lobby.is_idle() {
                        earned = Verdict::Interrupted;
                    }
                    for session in server.shutdown()? {
                        earned = earned.min(show(session.record(), &torrents, args)?);
                    }
                    return Ok(earned);
                }
            },
            recv(enter) -> _ => lobby.release_now(),
            recv(tick) -> _ => {
                room.show(&lobby.views());
                if args.events {
                    states.print_new(&lobby)?;
                }
            }
        }
    }
}

fn show(record: &Record, torrents: &Torrents, args: &Args) -> Result<Verdict> {
    if args.events {
        if record.via == Via::Swarm {
            events::swarm(torrents)?;
        }
        events::ended(record)?;
    } else if args.json {
        output::print(&SessionDocument::new(record).to_line())?;
    } else {
        output::print(&format!(
            "{}\n",
            session_table::session(record, session_table::Rows::Failures)
        ))?;
    }
    Ok(Verdict::of_records(std::slice::from_ref(record)))
}

/// A message for each Enter on the terminal; never one where there is none.
fn enter_pressed() -> Receiver<()> {
    if !std::io::stdin().is_terminal() {
        return crossbeam_channel::never();
    }
    let (tell, pressed) = crossbeam_channel::unbounded();
    let reading = thread::Builder::new()
        .name("enter".to_owned())
        .spawn(move || {
            for line in std::io::stdin().lock().lines() {
                if line.is_err() || tell.send(()).is_err() {
                    return;
                }
            }
            // The terminal is gone; the channel must stay open, or its end would be read as Enter.
            loop {
                thread::park();
            }
        });
    match reading {
        Ok(_) => pressed,
        Err(error) => {
            log::warn!("cannot watch the terminal: {error}");
            crossbeam_channel::never()
        }
    }
}
