//! `gatecast study`: every way of sending on the same links, against the same bound.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use clap::ValueEnum;

use crate::{
    cli::{
        output,
        push::ReachArgs,
        signals,
        testbed::{
            links::{CaptureArgs, LinkArgs},
            room::Room,
            star,
        },
    },
    error::{Error, Result},
    report::verdict::Verdict,
    session::Via,
    testbed::{
        star::{
            calibrate, host,
            host::Host,
            layout::{Traffic, parse_loss},
            setup,
        },
        study::{
            contender::{
                Contender, multicast::MulticastTool, native::Native, nginx::Nginx,
                torrent::TorrentClient,
            },
            environment::Environment,
            figure,
            grid::{Cell, ClientCounts, Grid, Preset},
            page,
            results::Results,
            runner::{Study, Testbed},
            table,
        },
    },
    text::{ShownPath, escape, escape_path},
    units::{Bytes, Rate},
};

/// `gatecast study [FILE]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast study --clients 1,2,4,8,13 --via tcp --rate 100mbit \
--runs 3 --out study")]
pub(crate) struct StudyArgs {
    /// The file to send; generated, of the sizes of --size, unless given
    pub(crate) file: Option<PathBuf>,
    /// A study that is set up already: peers, router or loss
    ///
    /// peers: 10 MB, 1 to 13 clients; router: 6 clients, each in a subnet of its own; loss: 0, 0.1,
    /// 1 and 5 %. Other options change it.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "NAME")]
    #[arg(help_heading = "Study")]
    pub(crate) preset: Option<Preset>,
    /// Numbers of clients, such as 1-13 [default: 1,2,4,8,13]
    #[arg(long, value_name = "LIST", help_heading = "Study")]
    pub(crate) clients: Option<ClientCounts>,
    /// What to compare, such as tcp,swarm,nginx
    ///
    /// tcp, udp, multicast, swarm, chain, http; nginx (with one curl a host), uftp, udpcast, aria2,
    /// libtorrent.
    #[arg(long, default_value = "tcp", value_delimiter = ',', value_name = "LIST")]
    #[arg(help_heading = "Study")]
    pub(crate) via: Vec<String>,
    /// Sizes of the file, such as 10MB,100MB [default: 10MB]
    ///
    /// It is generated.
    #[arg(long, value_delimiter = ',', value_name = "LIST", conflicts_with = "file")]
    #[arg(help_heading = "Study")]
    pub(crate) size: Vec<Bytes>,
    /// Rates, such as 10mbit,100mbit [default: 100mbit]
    #[arg(long, value_delimiter = ',', value_name = "LIST", help_heading = "Links")]
    pub(crate) rate: Vec<Rate>,
    /// Shares of packets lost, such as 0,0.1%,1% [default: 0]
    #[arg(long, value_parser = parse_loss, value_delimiter = ',', value_name = "LIST")]
    #[arg(help_heading = "Links")]
    pub(crate) loss: Vec<u32>,
    /// How often each is measured
    ///
    /// 3 for a look, 9 for a claim; rows of over a minute 3 at most.
    #[arg(long, default_value = "3", help_heading = "Study")]
    pub(crate) runs: u32,
    /// What every link has beside rate and loss.
    #[command(flatten)]
    pub(crate) links: LinkArgs,
    /// Where the results go
    ///
    /// They are written after every run; a study that was interrupted goes on from there.
    #[arg(long, default_value = "study", value_name = "DIR", help_heading = "Files")]
    pub(crate) out: PathBuf,
    /// Forget what DIR has of an earlier study
    #[arg(long, help_heading = "Files")]
    pub(crate) fresh: bool,
    /// Where it runs.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// TCP congestion control of the server, such as cubic; the system's own unless given
    #[arg(long, value_name = "NAME", help_heading = "Links", hide_short_help = true)]
    pub(crate) congestion: Option<String>,
    /// How far a link may be from its rate [default: 1%; 3% with --hosts-from]
    #[arg(long, value_parser = parse_loss, value_name = "SHARE")]
    #[arg(help_heading = "Links", hide_short_help = true)]
    pub(crate) tolerance: Option<u32>,
    /// Print the document instead of the table
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Where a study runs, if not on stars of its own.
#[derive(Debug, clap::Args)]
#[command(mut_group("ReachArgs", |group| group.requires("room")))]
pub(crate) struct PlaceArgs {
    /// Run on the hosts in FILE instead of stars of our own: one a line, `NAMESPACE ADDRESS
    /// DEVICE`, the server first
    #[arg(long, value_name = "FILE", conflicts_with_all = ["preset", "loss"])]
    #[arg(help_heading = "Links", hide_short_help = true)]
    pub(crate) hosts_from: Option<PathBuf>,
    /// Run on the machines in FILE, as push does
    ///
    /// One a line, NAME or NAME ADDRESS; N clients are the first N. Their network is as it is:
    /// there is no bound. The copies are removed.
    #[arg(long, value_name = "FILE", help_heading = "Links")]
    #[arg(conflicts_with_all = ["hosts_from", "preset", "rate", "loss", "up", "down", "host_links",
        "loss_of", "delay", "router", "offloads", "tolerance", "capture"])]
    pub(crate) room: Option<PathBuf>,
    /// How its machines are reached.
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    /// What is captured there.
    #[command(flatten)]
    pub(crate) capture: CaptureArgs,
}

/// What a study measures unless it is told.
const CLIENTS: [u16; 5] = [1, 2, 4, 8, 13];
const SIZE: u64 = 10_000_000;
const RATE: u64 = 100_000_000;

/// Studies.
///
/// # Errors
/// A grid that cannot be, a star or link that is not what was asked for, results that cannot be
/// written, or the user stopped it; what was measured until then is written.
pub(crate) fn run(args: &StudyArgs) -> Result<Verdict> {
    let grid = grid(args)?;
    let (place, congestion) = (&args.place, args.congestion.clone());
    let open = |path| Room::open(path, &place.reach, congestion, &grid);
    let room = place.room.as_deref().map(open).transpose()?;
    let mut links = args.links.clone();
    links.router |= args.preset == Some(Preset::Router);
    let contenders = contenders(args)?;
    let capture = args.place.capture.wanted()?;
    // A grid that no star can have is a usage error, before anything is made.
    let hosts = usize::from(grid.most_clients()) + 1;
    for (rate, loss) in grid.stars().into_iter().filter(|_| room.is_none()) {
        links.layout(hosts, Rate(rate), loss)?;
    }
    let hosts_from = args.place.hosts_from.as_deref();
    let given = hosts_from.map(|path| given(path, &grid, &links)).transpose()?;
    let stop = match room {
        Some(_) => Arc::default(), // Signals end the push, which ends the study.
        None => {
            star::need_root()?;
            signals::stop_flag()?
        }
    };
    fs::create_dir_all(&args.out).map_err(Error::io("make the folder", ShownPath(&args.out)))?;
    let path = args.out.join("results.json");
    let middle = room.as_ref().map(|_| "room").or_else(|| given.as_ref().map(|_| "given"));
    let mut results = begin(args, grid, &links, middle, &path)?;
    let layout = |hosts, rate, loss| links.layout(hosts, rate, loss);
    let push = |cell: &Cell, file: &Path, folder: &Path| {
        room.as_ref().expect("only a room is pushed to").push(cell, file, folder)
    };
    let study = Study {
        contenders: &contenders,
        testbed: match &given {
            _ if room.is_some() => Testbed::Room(&push),
            Some(hosts) => Testbed::Given(hosts),
            None => Testbed::Stars(&layout),
        },
        file: args.file.as_deref(),
        results: &path,
        capture,
        tolerance: match (args.tolerance, &given) {
            (Some(millionths), _) => f64::from(millionths) / 1e6,
            (None, None) => calibrate::TOLERANCE,
            (None, Some(_)) => calibrate::TOLERANCE_FOREIGN,
        },
        stop: &stop,
        progress: |line| output::eprintln(line),
    };
    let done = study.run(&mut results);
    publish(&results, &args.out)?;
    done?;
    if args.json {
        output::print(&fs::read_to_string(&path).map_err(Error::io("read", ShownPath(&path)))?)?;
    } else {
        output::print(&table::table(&results, output::width()))?;
    }
    Ok(if results.all_proven() { Verdict::AllVerified } else { Verdict::SomeFailed })
}

fn grid(args: &StudyArgs) -> Result<Grid> {
    let (clients, losses): (Vec<u16>, Vec<u32>) = match args.preset {
        Some(Preset::Peers) => ((1..=13).collect(), vec![0]),
        Some(Preset::Router) => ((1..=6).collect(), vec![0]),
        Some(Preset::Loss) => (vec![4], vec![0, 1000, 10_000, 50_000]),
        None => (CLIENTS.to_vec(), vec![0]),
    };
    let bytes = match &args.file {
        Some(path) => vec![size_of(path)?],
        None => or_else(args.size.iter().map(|size| size.0).collect(), vec![SIZE]),
    };
    if bytes.contains(&0) {
        return Err(Error::usage("the file must have at least 1 byte"));
    }
    let given = args.clients.as_ref();
    Grid {
        clients: given.map_or(clients, |ClientCounts(counts)| counts.clone()),
        ways: args.via.clone(),
        bytes,
        rates: match &args.place.room {
            Some(_) => vec![0],
            None => or_else(args.rate.iter().map(|rate| rate.0).collect(), vec![RATE]),
        },
        losses: or_else(args.loss.clone(), losses),
        runs: args.runs,
    }
    .checked()
}

/// `given`, or where nothing is given `preset`.
fn or_else<T>(given: Vec<T>, preset: Vec<T>) -> Vec<T> {
    if given.is_empty() { preset } else { given }
}

fn size_of(path: &Path) -> Result<u64> {
    let about = fs::metadata(path).map_err(Error::io("read the file", ShownPath(path)))?;
    if !about.is_file() {
        return Err(Error::refused(ShownPath(path), "it is not a file"));
    }
    Ok(about.len())
}

fn contenders(args: &StudyArgs) -> Result<Vec<Box<dyn Contender>>> {
    let program = std::env::current_exe().map_err(Error::io("find this program", "the study"))?;
    let contender = |name: &String| -> Result<Box<dyn Contender>> {
        let rivals: [Box<dyn Contender>; 5] = [
            Box::new(Nginx),
            Box::new(MulticastTool::Uftp),
            Box::new(MulticastTool::Udpcast),
            Box::new(TorrentClient::Aria2),
            Box::new(TorrentClient::Libtorrent),
        ];
        if let Some(rival) = rivals.into_iter().find(|rival| rival.name() == name) {
            return Ok(rival);
        }
        let via = Via::from_str(name).map_err(|error| {
            let others = "nginx, uftp, udpcast, aria2 or libtorrent";
            Error::usage(format_args!("--via '{}': {error}, {others}", escape(name)))
        })?;
        Ok(Box::new(Native { via, program: program.clone(), congestion: args.congestion.clone() }))
    };
    args.via.iter().map(contender).collect()
}

/// The hosts of a network that was given.
fn given(path: &Path, grid: &Grid, links: &LinkArgs) -> Result<Vec<Host>> {
    let usage = |what: String| Err(Error::usage(what));
    let [rate] = grid.rates[..] else {
        let what = "--hosts-from: the links have one --rate, the one they were built with";
        return Err(Error::usage(what));
    };
    let mut hosts = host::read(path, links.link(Rate(rate)))?;
    for (number, link) in &links.host_links {
        match hosts.get_mut(*number) {
            Some(host) => host.link = *link,
            None => return usage(format!("--host {number}: there is no such host")),
        }
    }
    let wanted = usize::from(grid.most_clients()) + 1;
    if hosts.len() < wanted {
        let (has, at) = (hosts.len(), ShownPath(path));
        return usage(format!("{at} has {has} hosts; the study takes {wanted}"));
    }
    Ok(hosts)
}

/// An empty document, or the one that an interrupted study left.
fn begin(
    args: &StudyArgs,
    grid: Grid,
    links: &LinkArgs,
    middle: Option<&str>,
    path: &Path,
) -> Result<Results> {
    let mut environment = Environment::here(std::env::args().collect());
    let pick = |set: bool, yes: &str, no: &str| if set { yes } else { no }.to_owned();
    if let Some(middle) = middle {
        (environment.middle, environment.offloads) = (middle.to_owned(), "-".to_owned());
    } else {
        environment.middle = pick(links.router, "router", "switch");
        environment.offloads = pick(links.offloads, "on", "off");
        let rates = grid.rates.iter().map(|&rate| Rate(rate));
        let queue = |rate| format!("{} bytes at {rate}", setup::queue_bytes(rate));
        environment.queues = rates.map(queue).collect();
    }
    let about = describe(args, links, &environment);
    if args.fresh || !path.exists() {
        return Ok(Results::new(environment, grid, about));
    }
    let mut earlier = Results::read(path)?;
    // More repeats of the same are the same study.
    earlier.grid.runs = grid.runs;
    if earlier.links != about || earlier.grid != grid {
        let why = "it is of another study; give another --out, or --fresh to forget it";
        return Err(Error::refused(ShownPath(path), why));
    }
    let there = earlier.measurements.len();
    output::eprintln(format_args!("going on: {there} runs are there already"));
    earlier.environment = environment;
    Ok(earlier)
}

/// What makes the links and the runs, beside the grid: two studies that differ in it are two.
fn describe(args: &StudyArgs, links: &LinkArgs, environment: &Environment) -> String {
    let mut parts = vec![match &args.place.room {
        Some(room) => format!("room {}", escape_path(room)),
        None => format!("{} in the middle", environment.middle),
    }];
    if environment.offloads != "-" {
        parts.push(format!("offloads {}", environment.offloads));
    }
    parts.extend(links.up.map(|rate| format!("up {rate}")));
    parts.extend(links.down.map(|rate| format!("down {rate}")));
    let own = links.host_links.iter();
    parts
        .extend(own.map(|(host, link)| format!("host {host}: {} up, {} down", link.up, link.down)));
    if !links.delay.is_zero() {
        parts.push(format!("delay {:?}", links.delay));
    }
    let kind = links.loss_of.to_possible_value().filter(|_| links.loss_of != Traffic::All);
    parts.extend(kind.map(|kind| format!("loss of {} packets only", kind.get_name())));
    let congestion = args.congestion.as_ref();
    parts.extend(congestion.map(|name| format!("congestion control {}", escape(name))));
    let file = args.file.as_ref();
    parts.extend(file.map(|file| format!("file {}", escape_path(file))));
    parts.join(", ")
}

/// Writes tables, plots and the page beside the document.
fn publish(results: &Results, out: &Path) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = out.join(name);
        fs::write(&path, text).map_err(Error::io("write the results", ShownPath(&path)))
    };
    if results.rows.is_empty() {
        return Ok(());
    }
    write("results.csv", &table::csv(results))?;
    let figures = figure::all(results);
    for figure in &figures {
        write(&format!("{}.svg", figure.name), &figure.chart.to_svg())?;
    }
    write("report.html", &page::html(results, &figures))?;
    let (plots, at) = (figures.len(), ShownPath(out));
    output::eprintln(format_args!(
        "results.json, results.csv, report.html and {plots} plots are in {at}"
    ));
    Ok(())
}
