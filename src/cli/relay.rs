//! `gatecast relay`: a live stream to every viewer, until it is stopped.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crossbeam_channel::select;

use crate::{
    cli::{options, output, serve::DashboardArgs, signals},
    error::Result,
    net::{
        address,
        http::guard::{self, AccessGuard},
    },
    proto::relay::{events, log::ViewerRecord, status::RelaySnapshot},
    relay::{MAX_VIEWERS, Relay, VIEWERS_PER_ADDRESS},
    report::{relay as report, verdict::Verdict},
    server::transport::GroupRoute,
    text::escape_path,
    units,
};

/// `gatecast relay --input ADDR:PORT --listen ADDR:PORT`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: gatecast relay --input 127.0.0.1:65534 --listen 0.0.0.0:7000\n         \
ffmpeg -re -i film.mp4 -c copy -f mpegts 'udp://127.0.0.1:65534?pkt_size=1316'\n\
Exit code: 0 stopped while nobody watched, or the file was played; 1 could not run, or the log or the \
recording could not be written; 2 usage; 130 stopped while somebody watched."
)]
// Over 15 fields because each is one thing that a user may ask for.
pub(crate) struct RelayArgs {
    /// Where the stream comes
    ///
    /// MPEG-TS over UDP, bare or in RTP; a multicast address is joined. Given up to four times, best
    /// first: the same with lower rates, for viewers that cannot keep up.
    #[arg(long, default_value = "127.0.0.1:65534", value_name = "ADDR:PORT")]
    #[arg(help_heading = "Network")]
    pub(crate) input: Vec<SocketAddr>,
    /// Send this file of MPEG-TS, at its own clock
    ///
    /// In place of an input. Its clock (PCR) runs while somebody watches, or it is recorded; at its
    /// end the relay stops.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "interface"])]
    #[arg(help_heading = "Files")]
    pub(crate) play: Option<PathBuf>,
    /// Play the file again and again
    #[arg(long = "loop", requires = "play", help_heading = "Files", hide_short_help = true)]
    pub(crate) repeat: bool,
    /// Record the stream into this folder, in segments
    ///
    /// With a list of them (m3u8). The input is then read also while nobody watches.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) record: Option<PathBuf>,
    /// How long a segment is; it ends before the next picture that needs no earlier one
    #[arg(long, default_value = "60s", value_parser = options::positive_duration, value_name = "TIME")]
    #[arg(requires = "record", help_heading = "Files", hide_short_help = true)]
    pub(crate) segment: Duration,
    /// The address of the interface on which the group is joined; the system's choice unless given
    #[arg(long, value_name = "ADDR", help_heading = "Network", hide_short_help = true)]
    pub(crate) interface: Option<Ipv4Addr>,
    /// Where viewers come to
    ///
    /// Over TCP: a port, or an address and a port. The stream goes to them over UDP.
    #[arg(long, alias = "port", default_value = "0.0.0.0:7000", value_name = "[ADDR:]PORT")]
    #[arg(value_parser = options::listen, help_heading = "Network")]
    pub(crate) listen: SocketAddr,
    /// Send it to this group too
    ///
    /// Once for a whole room, such as 239.255.1.2:5000; in RTP, announced by SAP, for as long as the
    /// relay runs.
    #[arg(long, value_parser = options::group, value_name = "ADDR:PORT", help_heading = "Group")]
    pub(crate) multicast_group: Option<SocketAddr>,
    /// The address of this host by whose interface the group is sent to; the system's choice unless
    /// given
    #[arg(long, value_name = "ADDR", requires = "multicast_group")]
    #[arg(help_heading = "Group", hide_short_help = true)]
    pub(crate) multicast_interface: Option<Ipv4Addr>,
    /// How many routers what is sent to the group may pass, and one more
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..), value_name = "N")]
    #[arg(help_heading = "Group", hide_short_help = true)]
    pub(crate) ttl: u8,
    /// How long a datagram may wait for others to be sent with
    #[arg(long, default_value = "350us", value_parser = units::parse_duration, value_name = "TIME")]
    #[arg(help_heading = "Network", hide_short_help = true)]
    pub(crate) gather: Duration,
    /// Let a lab client go that sends nothing for so long
    #[arg(long, default_value = "4h", value_parser = options::positive_duration, value_name = "TIME")]
    #[arg(help_heading = "Network", hide_short_help = true)]
    pub(crate) max_silence: Duration,
    /// Most viewers at once
    #[arg(long, default_value_t = MAX_VIEWERS, value_name = "N", help_heading = "Network")]
    pub(crate) max_viewers: usize,
    /// Most viewers at one address other than this host's own; of IPv6 in one network of /64
    #[arg(long, default_value_t = VIEWERS_PER_ADDRESS, value_name = "N")]
    #[arg(help_heading = "Network", hide_short_help = true)]
    pub(crate) viewers_per_address: usize,
    /// The folder for the relay log
    #[arg(long, default_value = "logs", value_name = "DIR", help_heading = "Files")]
    pub(crate) log_dir: PathBuf,
    /// Print a line of JSON every second
    #[arg(long, help_heading = "Output")]
    pub(crate) events: bool,
    /// Print one JSON document at the end
    ///
    /// Who watched, and what each of them got: that of `report --json` of its log.
    #[arg(long, conflicts_with = "events", help_heading = "Output")]
    pub(crate) json: bool,
    /// Who may act on viewers in a browser.
    #[command(flatten)]
    pub(crate) page: DashboardArgs,
}

/// How often events are printed.
const EVERY: Duration = Duration::from_secs(1);

/// So many times somebody watched and nothing had ever come, until it is said.
const UNFED: u32 = 5;

/// Relays.
///
/// # Errors
/// It could not be begun, or the log or a result could not be written.
pub(crate) fn run(args: &RelayArgs) -> Result<Verdict> {
    let requests = signals::listen()?;
    let (mut relay, source) = start(args)?;
    let gone = relay.records();
    let tick = crossbeam_channel::tick(EVERY);
    let mut over = Vec::new();
    let mut unfed = 0;
    let is_played = loop {
        select! {
            recv(gone) -> record => {
                let record = record.expect("the logger lives as long as the relay");
                print_record(&record);
                over.push(record);
                // A relay that runs for months remembers what its table can show.
                if over.len() > SHOWN_MAX {
                    over.remove(0);
                }
            }
            recv(tick) -> _ => {
                // To look costs more than to relay nothing.
                let now = (args.events || unfed <= UNFED).then(|| relay.snapshot());
                if let Some(now) = now.as_ref().filter(|_| args.events) {
                    output::print(&events::relay_event(now))?;
                }
                unfed = match now.map(|now| (now.awake, now.input.datagrams)) {
                    Some((awake, 0)) => unfed + u32::from(awake),
                    _ => UNFED + 1,
                };
                if unfed == UNFED {
                    unfed += 1;
                    output::eprintln(format_args!(
                        "nothing has come to udp://{}: does its source send there, and does a \
                         firewall drop UDP?",
                        relay.input()
                    ));
                }
                if let Some(ended) = relay.file_end() {
                    ended?;
                    output::eprintln(format_args!("{source} has been played"));
                    break true;
                }
            },
            recv(requests) -> request => if request != Ok(signals::SignalRequest::Release) {
                break false;
            }
        }
    };
    relay.finish_recording();
    let last = relay.snapshot();
    over.extend(relay.stop()?);
    end(args, &last, over, is_played)
}

/// Starts the relay and says where it is. Returns also what it relays.
fn start(args: &RelayArgs) -> Result<(Relay, String)> {
    let DashboardArgs { dashboard, token, host } = args.page.clone();
    let token = token.unwrap_or_else(guard::random_token);
    let controls_elsewhere = !dashboard.is_empty();
    let relay = Relay::builder()
        .input(args.input[0])
        .lower_inputs(&args.input[1..])
        .listen(args.listen)
        .interface(args.interface)
        .group(args.multicast_group.map(|group| GroupRoute {
            group,
            interface: args.multicast_interface,
            ttl: u32::from(args.ttl),
        }))
        .gather(args.gather)
        .max_silence(args.max_silence)
        .max_viewers(args.max_viewers)
        .viewers_per_address(args.viewers_per_address)
        .log_dir(&args.log_dir)
        .access(AccessGuard::new(Some(token.clone()), dashboard, host))
        .play(args.play.clone(), args.repeat)
        .record(args.record.clone(), args.segment)
        .start()?;
    let at = relay.local_addr();
    let inputs = relay.inputs().map(|input| format!("udp://{input}")).collect::<Vec<_>>();
    let source = match &args.play {
        Some(file) => escape_path(file),
        None => format!("what comes to {}", inputs.join(", or less to ")),
    };
    output::eprintln(format_args!("relaying {source} to viewers at {at}; stop with Ctrl-C"));
    let host = address::outward().filter(|_| at.ip().is_unspecified()).unwrap_or_else(|| at.ip());
    let url = SocketAddr::new(host, at.port());
    let group = args.multicast_group.map_or_else(String::new, |to| format!(", or rtp://@{to}"));
    output::eprintln(format_args!(
        "players open http://{url}/live.ts{group}, the page is http://{url}/"
    ));
    if controls_elsewhere {
        output::eprintln(format_args!("to act from elsewhere, open http://{url}/#token={token}"));
    }
    if let Some(recording) = relay.snapshot().recording {
        output::eprintln(format_args!("recording into {}", escape_path(&recording.list)));
    }
    Ok((relay, source))
}

/// Most viewers in the table at the end; the log has all.
const SHOWN_MAX: usize = 1_000;

fn print_record(ViewerRecord { viewer, to, end, watched, sent, .. }: &ViewerRecord) {
    let (seconds, sent) = (watched.as_secs_f64(), sent.sent);
    output::eprintln(format_args!(
        "viewer {viewer} at {to}: {end} after {seconds:.1} s, {sent} datagrams"
    ));
}

/// Prints the results. A relay that is stopped while somebody watches was interrupted.
fn end(
    args: &RelayArgs,
    last: &RelaySnapshot,
    mut over: Vec<ViewerRecord>,
    is_played: bool,
) -> Result<Verdict> {
    over.sort_by_key(|record| record.viewer);
    if args.events {
        output::print(&events::relay_event(last))?;
    } else if args.json {
        output::print(&events::viewers_document(&over))?;
    } else if !over.is_empty() {
        output::print(&report::viewer_table(&over, output::width()))?;
        output::print(&report::input(last))?;
    }
    if let Some(recording) = &last.recording {
        output::eprintln(report::recording(recording));
        if recording.failed.is_some() {
            return Ok(Verdict::CouldNotRun);
        }
    }
    let is_whole = is_played || last.viewers.is_empty();
    Ok(if is_whole { Verdict::AllVerified } else { Verdict::Interrupted })
}
