//! `gatecast watch`: one viewer, for a player of this host, a file, or just to measure.

use std::{
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Child,
    time::Duration,
};

use crossbeam_channel::select;

use crate::{
    cli::{
        keys::{self, Keys},
        launch, options, output, signals,
    },
    error::{Error, Result},
    net::{address, clock},
    proto::{
        log_cell::or_missing,
        relay::{PORT_MIN, ViewerState, events, status::WatchSnapshot},
    },
    relay::watch::{Watch, WatchConfig},
    report::{relay as report, verdict::Verdict},
    units::{Moment, mbit_per_second},
};

/// `gatecast watch HOST[:PORT]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys, or lines on standard input: p pause, c continue, q quit.\n\
Example: vlc udp://@:1234 & gatecast watch 192.168.1.10 --player 127.0.0.1:1234\n\
Exit code: 0 left by q or after --for; 1 the relay was not there, refused or let us go, or the \
recording is not whole; 2 usage; 130 interrupted.")]
pub(crate) struct WatchArgs {
    /// The relay, port 7000 unless given
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) relay: String,
    /// Where the player listens
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Network")]
    pub(crate) player: Option<SocketAddr>,
    /// Start vlc, mpv or ffplay for the stream
    #[arg(long, conflicts_with = "player", help_heading = "Network")]
    pub(crate) launch: bool,
    /// Way: auto, unicast, multicast
    ///
    /// multicast is by the relay's group, auto that where it is heard.
    #[arg(long, default_value = "auto", value_parser = ["auto", "unicast", "multicast"])]
    #[arg(hide_possible_values = true, value_name = "WAY", help_heading = "Network")]
    pub(crate) via: String,
    /// The address of this host by whose interface the group is joined; that by which the relay is
    /// reached unless given
    #[arg(long, value_name = "ADDR", help_heading = "Network", hide_short_help = true)]
    pub(crate) multicast_interface: Option<Ipv4Addr>,
    /// Write the stream into this file, in place of an old one
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(crate) record: Option<PathBuf>,
    /// The UDP port to receive at, 1024 or above; the system's choice unless given
    #[arg(long, default_value = "0", value_name = "PORT")]
    #[arg(help_heading = "Network", hide_short_help = true)]
    pub(crate) port: u16,
    /// Leave after this time
    #[arg(long = "for", value_parser = options::positive_duration, value_name = "TIME")]
    #[arg(help_heading = "Output")]
    pub(crate) time: Option<Duration>,
    /// Print at the end where datagrams were lost
    #[arg(long, help_heading = "Output")]
    pub(crate) loss_report: bool,
    /// Print a line of JSON every second
    #[arg(long, help_heading = "Output")]
    pub(crate) events: bool,
}

/// The relay's port when none is given.
const PORT: u16 = 7000;

/// What can be typed while it runs.
const KEYS: &str = "p pauses, c continues, q quits";

/// How often the status line is renewed and events are printed.
const EVERY: Duration = Duration::from_secs(1);

/// After so long without a datagram, while the relay sends, none will come.
const UNREACHED_AFTER: Duration = Duration::from_secs(5);

/// More datagrams than can be on their way.
const UNREACHED_MIN: u64 = 50;

/// How often to check that the relay is still there.
const CHECK: Duration = Duration::from_millis(200);

/// Watches.
///
/// # Errors
/// The relay is not there, refuses or goes; the recording is not whole.
pub(crate) fn run(args: &WatchArgs) -> Result<Verdict> {
    let requests = signals::listen()?;
    let (watch, mut player) = start(args)?;
    let mut has_ended = || player.as_mut().is_some_and(|it| matches!(it.try_wait(), Ok(Some(_))));
    output::eprintln(format_args!("watching {} at {}; {KEYS}", args.relay, watch.snapshot().at));
    let keys = Keys::listen()?;
    let end = args.time.map_or_else(crossbeam_channel::never, crossbeam_channel::after);
    let tick = crossbeam_channel::tick(EVERY);
    let check = crossbeam_channel::tick(CHECK);
    let mut status = StatusLine::default();
    let verdict = loop {
        select! {
            recv(keys.input) -> word => {
                status.clear();
                let done = match word.expect("it is held open").as_str() {
                    "p" | "pause" => watch.pause(),
                    "c" | "continue" | "resume" => watch.resume(),
                    "q" | "quit" | keys::ESCAPE => break Verdict::AllVerified,
                    _ => {
                        output::eprintln(KEYS);
                        Ok(())
                    }
                };
                if let Err(error) = done {
                    output::print_error(&error);
                }
                status.show(&watch.snapshot());
            }
            recv(end) -> _ => break Verdict::AllVerified,
            recv(requests) -> request => if request != Ok(signals::SignalRequest::Release) {
                break Verdict::Interrupted;
            },
            recv(check) -> _ => if has_ended() {
                break Verdict::AllVerified;
            } else if let Some(why) = watch.end_reason() {
                status.clear();
                output::eprintln(format_args!("gatecast: the relay has let us go: {why}"));
                break Verdict::CouldNotRun;
            },
            recv(tick) -> _ => {
                let view = watch.snapshot();
                if args.events {
                    output::print(&events::watch_event(&view))?;
                }
                if view.watched > UNREACHED_AFTER && is_unreached(&view) {
                    break Verdict::CouldNotRun;
                }
                status.show(&view);
            }
        }
    };
    status.clear();
    // One that has ended needs no ending.
    let _ = player.map(|mut player| player.kill());
    // A second Ctrl-C ends all at once; the terminal is as it was by then.
    drop(keys);
    let view = watch.quit()?;
    if args.events {
        output::print(&events::watch_event(&view))?;
    }
    if args.loss_report {
        output::print(&report::loss_table(&view, output::width()))?;
    } else if !args.events {
        output::print(&(report::summary(&view) + "\n"))?;
    }
    if !is_unreached(&view) {
        return Ok(verdict);
    }
    print_unreached(&args.relay, &view);
    Ok(verdict.min(Verdict::CouldNotRun))
}

/// Begins to watch, and starts the player where one is asked for.
fn start(args: &WatchArgs) -> Result<(Watch, Option<Child>)> {
    if (1..PORT_MIN).contains(&args.port) {
        let what = format_args!("--port {} is below 1024; no relay sends there", args.port);
        return Err(Error::usage(what));
    }
    let config = WatchConfig {
        player: if args.launch { Some(launch::free_port()?) } else { args.player },
        by_group: (args.via != "auto").then(|| args.via == "multicast"),
        record: args.record.clone(),
        port: args.port,
        interface: args.multicast_interface,
        ..WatchConfig::new(address::resolve(&args.relay, PORT)?)
    };
    let watch = Watch::start(&config)?;
    let player = config.player.filter(|_| args.launch);
    let player = player.map(|at| launch::start(at, config.relay[0])).transpose()?;
    Ok((watch, player))
}

fn print_unreached(relay: &str, view: &WatchSnapshot) {
    let (sent, at) = (view.sent.map_or(0, |sent| sent.sent), view.at);
    output::eprintln(format_args!(
        "gatecast: {relay} has sent {sent} datagrams to {at} and none came: a firewall may drop UDP"
    ));
}

/// Whether the relay sends and nothing comes.
fn is_unreached(view: &WatchSnapshot) -> bool {
    let sent = view.sent.is_some_and(|sent| sent.sent > UNREACHED_MIN);
    sent && view.received.datagrams == 0
}

/// The line that is always at the bottom of a terminal.
#[derive(Debug, Default)]
struct StatusLine {
    last: Option<(Moment, u64)>,
    shown: bool,
}

impl StatusLine {
    fn show(&mut self, view: &WatchSnapshot) {
        let (now, bytes) = (clock::now(), view.received.bytes);
        let last = self.last.replace((now, bytes));
        if !std::io::stderr().is_terminal() {
            return;
        }
        let rate = last.and_then(|(then, at)| mbit_per_second(bytes - at, now.since(then)));
        let rate = or_missing(rate.map(|rate| format!("{rate:.2}")));
        let jitter = or_missing(view.received.jitter_us.map(|us| format!("{:.2}", us / 1e3)));
        let state = match view.state {
            ViewerState::Running => "playing",
            ViewerState::Grouped => "playing by the group",
            ViewerState::Paused => "paused",
            ViewerState::Unconnected => "out",
        };
        let line = format!(
            "{state} {:.0} s  {} datagrams  {rate} Mbit/s  CC errors {}  jitter {jitter} ms",
            view.watched.as_secs_f64(),
            view.received.datagrams,
            view.received.ts.errors,
        );
        let term = console::Term::stderr();
        let cut = console::truncate_str(&line, usize::from(term.size().1), "").into_owned();
        self.clear();
        // A terminal that is gone needs no status.
        let _ = term.write_str(&cut);
        self.shown = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = console::Term::stderr().clear_line();
        }
    }
}
