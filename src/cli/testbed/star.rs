//! `gatecast star`: an emulated star of hosts, for a while or until it is removed.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use clap::Subcommand;

use crate::{
    cli::{
        output, signals,
        testbed::links::{CaptureArgs, StarLayoutArgs},
    },
    error::{Error, Result},
    net::clock,
    report::{
        table::{Align, ColumnOf, Table},
        verdict::Verdict,
    },
    testbed::{
        star::{
            build::Star,
            calibrate,
            capture::Capture,
            cleanup,
            cleanup::ExistingStar,
            host::Host,
            layout::StarLayout,
            namespace, refused, rootless, setup,
            star_id::{StarId, StarNode},
            step::SetupStep,
        },
        study::work_folder,
    },
};

/// `gatecast star up|down|list|exec|run`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast star run --hosts 4 --rate 100mbit -- sh -c \
'gatecast star exec 0 -- iperf3 -s -1 & gatecast star exec 1 -- iperf3 -c 10.77.0.1'")]
pub(crate) struct StarArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: StarAction,
}

/// What to do with a star.
#[derive(Debug, Subcommand)]
pub(crate) enum StarAction {
    /// Build a star
    ///
    /// It stands until Ctrl-C, or with --keep until `star down`.
    Up {
        /// The star.
        #[command(flatten)]
        layout: StarLayoutArgs,
        /// End at once and leave the star standing
        #[arg(long, help_heading = "Star")]
        keep: bool,
        /// Print the commands and run none
        #[arg(long, help_heading = "Star")]
        dry_run: bool,
        /// Measure what its links carry, and print it
        #[arg(long, help_heading = "Star")]
        calibrate: bool,
    },
    /// Remove every star whose owner has ended, or one by name
    ///
    /// And what killed studies left.
    Down {
        /// The star
        name: Option<StarId>,
    },
    /// The stars that there are
    List,
    /// Run a program on a host: 0 is the server
    Exec {
        /// The star; $GATECAST_STAR or the only one unless given
        #[arg(long, help_heading = "Star")]
        star: Option<StarId>,
        /// The host's number
        host: usize,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Build a star, run a program beside it, and remove the star
    ///
    /// The program finds the star's name in $GATECAST_STAR.
    Run {
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
        /// The star.
        #[command(flatten)]
        layout: StarLayoutArgs,
        /// What is captured.
        #[command(flatten)]
        capture: CaptureArgs,
    },
}

/// How long a program may take to end after Ctrl-C, which it has seen too.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a wait looks up.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Names the star for `star exec`.
const VARIABLE: &str = "GATECAST_STAR";

/// Builds, removes, lists or uses a star.
///
/// # Errors
/// What is missing, wrong or not ours.
pub(crate) fn run(args: &StarArgs) -> Result<Verdict> {
    match &args.action {
        StarAction::Up { layout, dry_run: true, .. } => show_plan(&layout.layout()?),
        StarAction::Up { layout, keep, calibrate, .. } => up(&layout.layout()?, *keep, *calibrate),
        StarAction::Down { name } => down(*name),
        StarAction::List => list(),
        StarAction::Exec { star, host, command } => exec(*star, *host, command),
        StarAction::Run { layout, command, capture } => {
            run_beside(&layout.layout()?, command, capture)
        }
    }
}

/// Becomes root in a user namespace when we are not root. Returns when we are.
///
/// # Errors
/// Why that cannot be.
pub(crate) fn need_root() -> Result<()> {
    if !rootless::is_root() {
        rootless::enter()?;
    }
    Ok(())
}

fn show_plan(layout: &StarLayout) -> Result<Verdict> {
    let id = StarId::next();
    let mut steps = setup::up(&id, layout);
    steps.extend(layout.loss.iter().flat_map(|&loss| setup::loss(&id, layout, loss)));
    let lines = |steps: Vec<SetupStep>| steps.iter().map(|step| format!("{step}\n")).collect();
    let (up, down): (String, String) =
        (lines(steps), lines(setup::down(&setup::namespaces(&id, layout))));
    output::answer(&format!("{up}# and to remove it\n{down}"))
}

fn up(layout: &StarLayout, keep: bool, calibrate: bool) -> Result<Verdict> {
    if keep && (!rootless::is_root() || rootless::is_inside()) {
        return Err(refused("--keep takes root; without root a star lives inside its own process"));
    }
    need_root()?;
    let stop = signals::stop_flag()?;
    let began = clock::now();
    let star = Star::build(layout, &stop)?;
    let (id, hosts, took) = (star.id, layout.links.len(), clock::now().since(began));
    let took = took.as_secs_f64();
    output::eprintln(format_args!("star {id} is up: {hosts} hosts in {took:.2} s"));
    output::print(&table(&star))?;
    if calibrate {
        let mut measured = calibrate::links(&star.hosts, &stop)?;
        measured.loss_check = calibrate::loss(&star, &stop)?;
        output::print(&format!("\n{measured}\n"))?;
        measured.check(calibrate::TOLERANCE, false)?;
    } else {
        star.start_loss()?;
    }
    if keep {
        let id = star.keep();
        output::eprintln(format_args!("remove it with: gatecast star down {id}"));
        return Ok(Verdict::AllVerified);
    }
    output::eprintln("Ctrl-C removes it");
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(POLL_INTERVAL);
    }
    let began = clock::now();
    star.down()?;
    let took = clock::now().since(began);
    output::eprintln(format_args!("star is down in {:.2} s", took.as_secs_f64()));
    Ok(Verdict::Interrupted)
}

fn table(star: &Star) -> String {
    let columns: [ColumnOf<(usize, StarId, &Host)>; 5] = [
        ("host", Align::Right, 0, |(number, ..)| number.to_string()),
        ("address", Align::Left, 0, |(.., host)| host.address.to_string()),
        ("up", Align::Right, 2, |(.., host)| host.link.up.to_string()),
        ("down", Align::Right, 2, |(.., host)| host.link.down.to_string()),
        ("namespace", Align::Left, 1, |(number, id, _)| id.namespace(StarNode::Host(*number))),
    ];
    let hosts = (0..).zip(&star.hosts).map(|(number, host)| (number, star.id, host));
    Table::of(&columns, &hosts.collect::<Vec<_>>()).fitted(output::width())
}

fn down(name: Option<StarId>) -> Result<Verdict> {
    let found = cleanup::find();
    if let Some(name) = name
        && !found.iter().any(|star| star.id == name)
    {
        return Err(refused(format!("there is no star {name}")));
    }
    let mut removed = 0;
    for star in found.iter().filter(|star| name.is_none_or(|name| name == star.id)) {
        if star.owner_lives {
            let process = star.id.process;
            let spared = format!("star {} is in use by process {process}", star.id);
            if name.is_some() {
                return Err(refused(spared));
            }
            output::eprintln(format_args!("{spared}: spared"));
            continue;
        }
        cleanup::remove(&star.namespaces)?;
        let (id, count) = (star.id, star.namespaces.len());
        output::eprintln(format_args!("star {id} removed: {count} namespaces"));
        removed += 1;
    }
    let is_left = |id: &StarId| name.is_none() && !id.owner_lives();
    let folders = work_folder::remove(is_left);
    if folders > 0 {
        output::eprintln(format_args!("{folders} working folders of killed studies removed"));
    }
    if removed + folders == 0 {
        output::eprintln("nothing to remove");
    }
    Ok(Verdict::AllVerified)
}

fn list() -> Result<Verdict> {
    let columns: [ColumnOf<ExistingStar>; 3] = [
        ("star", Align::Left, 0, |star| star.id.to_string()),
        ("hosts", Align::Right, 0, |star| star.namespaces.len().saturating_sub(1).to_string()),
        ("owner", Align::Left, 0, |star| {
            let owner = star.owner_lives.then(|| format!("process {}", star.id.process));
            owner.unwrap_or_else(|| "has ended".to_owned())
        }),
    ];
    output::answer(&Table::of(&columns, &cleanup::find()).fitted(output::width()))
}

/// Becomes the program, on the host. Returns only when that cannot be.
fn exec(star: Option<StarId>, host: usize, command: &[String]) -> Result<Verdict> {
    let id = which(star)?;
    let namespace = id.namespace(StarNode::Host(host));
    if !namespace::names().contains(&namespace) {
        return Err(refused(format!("star {id} has no host {host}")));
    }
    let (program, arguments) = command.split_first().expect("clap takes one word at least");
    // The thread that entered the host becomes the program, and with it the whole process.
    let error = namespace::enter(&namespace::path_of(&namespace), || {
        namespace::name_host(&format!("host-{host}"));
        Command::new(program).args(arguments).exec()
    })?;
    Err(Error::io("start the program", program)(error))
}

fn which(star: Option<StarId>) -> Result<StarId> {
    let refuse = |reason: String| Err(refused(reason));
    if let Some(id) = star {
        return Ok(id);
    }
    if let Ok(name) = std::env::var(VARIABLE) {
        let shown = crate::text::escape(&name);
        return name
            .parse()
            .or_else(|_| refuse(format!("{VARIABLE} is '{shown}', which names no star")));
    }
    match &cleanup::find()[..] {
        [] => refuse("there is none; `gatecast star up` builds one".to_owned()),
        [one] => Ok(one.id),
        several => refuse(format!("there are {}; name one with --star", several.len())),
    }
}

fn run_beside(layout: &StarLayout, command: &[String], capture: &CaptureArgs) -> Result<Verdict> {
    let wanted = capture.wanted()?;
    need_root()?;
    let stop = signals::stop_flag()?;
    let star = Star::build(layout, &stop)?;
    star.start_loss()?;
    let (program, arguments) = command.split_first().expect("clap takes one word at least");
    let start = |wanted| Capture::start(&star.hosts, Some(&star), wanted);
    let capture = wanted.map(start).transpose()?;
    let child = Command::new(program)
        .args(arguments)
        .env(VARIABLE, star.id.to_string())
        .spawn()
        .map_err(Error::io("start the program", program))?;
    let code = wait_for_exit(child, &stop)?;
    capture.map_or(Ok(()), Capture::end)?;
    star.down()?;
    match code {
        _ if stop.load(Ordering::Relaxed) => Ok(Verdict::Interrupted),
        Some(0) => Ok(Verdict::AllVerified),
        // The program's own code is the answer of this command.
        other => std::process::exit(other.unwrap_or(1)),
    }
}

/// Waits for the program; its exit code, or `None` when a signal ended it.
fn wait_for_exit(mut child: Child, stop: &AtomicBool) -> Result<Option<i32>> {
    let mut deadline = None;
    loop {
        let status = child.try_wait();
        if let Some(status) = status.map_err(Error::io("wait for the program", child.id()))? {
            return Ok(status.code());
        }
        if stop.load(Ordering::Relaxed) {
            let deadline = *deadline.get_or_insert_with(|| clock::now().after(EXIT_TIMEOUT));
            if clock::left(deadline).is_none() {
                let _ = child.kill(); // It may have ended by itself just now.
            }
        }
        thread::sleep(POLL_INTERVAL);
    }
}
