//! The study itself: a star for each rate and loss, its calibration, and run after run, each
//! saved before the next begins.

use std::{
    fmt, fs,
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::clock,
    server::sample,
    testbed::{
        star::{
            build::Star, calibrate, calibrate::Calibration, capture::Capture, check_stop,
            host::Host, layout::StarLayout,
        },
        study::{
            bound::Bound,
            contender::{Contender, Observed, RunSpec},
            environment,
            grid::{Cell, LONG_S, RUNS_LONG},
            process_group, results,
            results::{Results, StarResult, StudyRun},
            work_folder::WorkFolder,
        },
    },
    text::debug_fields,
    units::{Bytes, Rate},
};

/// Everything that a study needs to begin or go on.
#[derive(Debug)]
pub struct Study<'a> {
    /// What it compares, in the order of the grid's names.
    pub contenders: &'a [Box<dyn Contender>],
    /// Where it runs.
    pub testbed: Testbed<'a>,
    /// The file to send; without one, files of the grid's sizes are generated.
    pub file: Option<&'a Path>,
    /// Where the results are written after every run.
    pub results: &'a Path,
    /// The folder in which each run has one with what passed its hosts, and how much of each
    /// packet is kept.
    pub capture: Option<(&'a Path, u32)>,
    /// How far a link alone may be from its nominal rate, a fraction.
    pub tolerance: f64,
    /// Ends the study once it is set.
    pub stop: &'a AtomicBool,
    /// Called with each sentence about the study's progress.
    pub progress: fn(fmt::Arguments<'_>),
}

/// Where a study runs.
pub enum Testbed<'a> {
    /// On stars of its own, built from the layout that this makes of a number of hosts, a rate
    /// and a loss.
    Stars(&'a dyn Fn(usize, Rate, u32) -> Result<StarLayout>),
    /// On hosts that were given, the server first.
    Given(&'a [Host]),
    /// On other machines, over the network that they have.
    Room(&'a RoomRun<'a>),
}

/// Sends the file to the machines of a room as the cell says, with what it writes meanwhile in the
/// folder, and says what was observed.
pub type RoomRun<'a> = dyn Fn(&Cell, &Path, &Path) -> Result<Observed> + 'a;

/// Makes one run of a cell with a file and an empty folder, or none where there are enough.
type Once<'a> = dyn Fn(&Cell, u32, &StudyFile, &Path) -> Result<Option<StudyRun>> + 'a;

/// A file to send, its size and its digest.
type StudyFile = (PathBuf, u64, Digest);

/// The files to send, in a folder that also holds the copies of a run.
type StudyFiles = (WorkFolder, Vec<StudyFile>);

/// What a run may take beyond its bound: this many times the bound, and a minute for programs
/// to start and to end. Random loss alone can cost a TCP that takes it for congestion far more
/// than the bound says, but what takes so long is no longer worth waiting for.
const PATIENCE: f64 = 5.0;
const PATIENCE_MORE: Duration = Duration::from_secs(60);

impl Study<'_> {
    /// Makes every run that `results` does not have yet.
    ///
    /// # Errors
    /// A star or a link that is not what was asked for, results that cannot be written, or `stop`
    /// was set; what was measured until then is written. A run that fails is a row, not an error.
    pub fn run(&self, results: &mut Results) -> Result<()> {
        for contender in self.contenders {
            contender.check()?;
        }
        let files = self.files(results)?;
        for (rate, loss) in results.grid.stars() {
            let runs = results.grid.runs_on((rate, loss));
            let missing = |(repeat, cell): &(u32, Cell)| results.run(cell, *repeat).is_none();
            if !runs.iter().any(missing) {
                continue;
            }
            match self.testbed {
                Testbed::Given(hosts) => {
                    self.run_on(hosts, None, (rate, loss), results, &files)?;
                }
                Testbed::Room(run) => {
                    let once = |cell: &Cell, repeat, (file, ..): &StudyFile, folder: &Path| {
                        let send = || run(cell, file, folder);
                        run_once(&[], (cell, repeat), None, self.stop, &send).map(Some)
                    };
                    self.run_missing(&runs, results, &files, &once)?;
                }
                Testbed::Stars(layout) => {
                    let hosts = usize::from(results.grid.most_clients()) + 1;
                    let (rate_of_links, percent) = (Rate(rate), f64::from(loss) / 1e4);
                    let star = Star::build(&layout(hosts, rate_of_links, loss)?, self.stop)?;
                    (self.progress)(format_args!(
                        "star {}: {hosts} hosts, {rate_of_links}, {percent} % loss",
                        star.id
                    ));
                    let done = self.run_on(&star.hosts, Some(&star), (rate, loss), results, &files);
                    // The star goes before any error is reported.
                    let down = star.down();
                    done.and(down)?;
                }
            }
        }
        Ok(())
    }

    /// The file of each size, and its digest.
    fn files(&self, results: &mut Results) -> Result<StudyFiles> {
        let largest = results.grid.bytes.iter().copied().max().unwrap_or(0);
        let is_here = !matches!(self.testbed, Testbed::Room(_));
        let copies = if is_here { u64::from(results.grid.most_clients()) } else { 0 };
        let work = WorkFolder::new(largest.saturating_mul(copies + 1))?;
        results.environment.copies = is_here.then(|| work.kind.to_owned());
        let mut files = Vec::new();
        for &bytes in &results.grid.bytes {
            let path = match self.file {
                Some(path) => path.to_owned(),
                None => {
                    (self.progress)(format_args!("making a file of {}", Bytes(bytes)));
                    let path = work.path.join(format!("{bytes}.bin"));
                    sample::make(&path, bytes)?;
                    path
                }
            };
            let sha1 = File::open(&path)
                .and_then(Digest::of_reader)
                .map_err(Error::io("read the file", path.display()))?;
            files.push((path, bytes, sha1));
        }
        Ok((work, files))
    }

    /// Makes the missing runs on these hosts, whose links have this rate and loss.
    fn run_on(
        &self,
        hosts: &[Host],
        star: Option<&Star>,
        (rate, loss): (u64, u32),
        results: &mut Results,
        files: &StudyFiles,
    ) -> Result<()> {
        results.environment.read_host(&hosts[0]);
        let links = self.calibrate(hosts, star, (rate, loss), results)?;
        results.write(self.results)?;
        let once = |cell: &Cell, repeat, (path, bytes, sha1): &StudyFile, folder: &Path| {
            let mut ways = self.contenders.iter();
            let way = ways.find(|way| way.name() == cell.way).expect("a contender of each name");
            let bounds = results::bounds(way.as_ref(), cell, hosts, &links);
            if repeat >= RUNS_LONG && bounds.0 > LONG_S {
                return Ok(None);
            }
            let spec = RunSpec {
                server: &hosts[0],
                clients: &hosts[1..=usize::from(cell.clients)],
                file: path,
                bytes: *bytes,
                sha1: *sha1,
                folder,
                limit: Duration::from_secs_f64(bounds.0.min(1e6) * PATIENCE) + PATIENCE_MORE,
            };
            let (hosts, send) = (&hosts[..=spec.clients.len()], || way.run(&spec, self.stop));
            let start = |(folder, snap_length): (&Path, u32)| {
                let Cell { way, clients, .. } = cell;
                let run = format!("{way}-{clients}-{bytes}B-{rate}bps-{loss}ppm-{}", repeat + 1);
                Capture::start(hosts, star, (&folder.join(run), snap_length))
            };
            let capture = self.capture.map(start).transpose()?;
            let run = run_once(hosts, (cell, repeat), Some(bounds), self.stop, &send)?;
            capture.map_or(Ok(()), Capture::end)?;
            Ok(Some(run))
        };
        let runs = results.grid.runs_on((rate, loss));
        self.run_missing(&runs, results, files, &once)
    }

    /// Makes those of `runs` that are missing, each by `once`.
    fn run_missing(
        &self,
        runs: &[(u32, Cell)],
        results: &mut Results,
        (work, files): &StudyFiles,
        once: &Once<'_>,
    ) -> Result<()> {
        let count = runs.len();
        for (number, (repeat, cell)) in (1..).zip(runs) {
            if results.run(cell, *repeat).is_some() {
                continue;
            }
            let file = files.iter().find(|(_, bytes, _)| *bytes == cell.bytes);
            let folder = work.run_folder()?;
            let run = once(cell, *repeat, file.expect("there is a file of each size"), &folder);
            fs::remove_dir_all(&folder)
                .map_err(Error::io("remove the copies of a run", folder.display()))?;
            let Some(run) = run? else {
                continue;
            };
            (self.progress)(format_args!("[{number}/{count}] {}", sentence(&run)));
            results.add(run);
            results.write(self.results)?;
        }
        Ok(())
    }

    /// Measures the links, checks them, and adds them to the results.
    fn calibrate(
        &self,
        hosts: &[Host],
        star: Option<&Star>,
        (rate, loss): (u64, u32),
        results: &mut Results,
    ) -> Result<Calibration> {
        let mut links = calibrate::links(hosts, self.stop)?;
        if let Some(star) = star {
            links.loss_check = calibrate::loss(star, self.stop)?;
        }
        for line in links.to_string().lines() {
            (self.progress)(format_args!("  {line}"));
        }
        // In a swarm and a chain every host sends at once.
        let sends = |way: &Bound| matches!(way, Bound::Swarm | Bound::Chain);
        let together = self.contenders.iter().any(|way| sends(&way.bound()));
        links.check(self.tolerance, together)?;
        let short_together = links.short_together();
        if let Some(why) = &short_together {
            (self.progress)(format_args!("  {why}"));
        }
        let star = StarResult {
            rate_nominal_mbit: Rate(rate).mbit(),
            loss: f64::from(loss) / 1e6,
            links: links.clone(),
            short_together,
        };
        results.calibration.retain(|earlier| {
            earlier.rate_nominal_mbit != star.rate_nominal_mbit || earlier.loss != star.loss
        });
        results.calibration.push(star);
        Ok(links)
    }
}

/// Makes one run by `send`, between `hosts`, which a room has not, as `bounds` it has not; only
/// being stopped is an error.
fn run_once(
    hosts: &[Host],
    (cell, repeat): (&Cell, u32),
    bounds: Option<(f64, f64)>,
    stop: &AtomicBool,
    send: &dyn Fn() -> Result<Observed>,
) -> Result<StudyRun> {
    let carried = || hosts.iter().map(Host::carried).collect::<Result<Vec<_>>>();
    let (before, busy, own) = (carried()?, environment::busy_s(), process_group::own_cpu_s());
    let began = clock::now();
    let ended = send();
    // A second Ctrl-C takes the star from under the programs: how they ended says nothing.
    check_stop(stop)?;
    let took_s = clock::now().since(began).as_secs_f64();
    let (bound_s, bound_nominal_s) = bounds.unzip();
    let (observed, failed) = match ended {
        Ok(mut observed) => {
            observed.trouble.extend(bound_s.and_then(|bound_s| too_fast(&observed, bound_s)));
            (Some(observed), None)
        }
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => (None, Some(error.to_string())),
    };
    let others = |seen: &Observed| {
        let ours = seen.cpu_server_s? + seen.cpu_clients_s? + process_group::own_cpu_s() - own;
        Some((environment::busy_s()? - busy? - ours).max(0.0))
    };
    let carried = before.iter().zip(carried()?).map(|(before, after)| after.since(*before));
    Ok(StudyRun {
        carried: carried.collect(),
        cell: cell.clone(),
        repeat,
        bound_s,
        bound_nominal_s,
        cpu_others_s: observed.as_ref().and_then(others),
        observed,
        failed,
        took_s,
    })
}

/// The error of a run that was faster than its links allow. Some per cent are the shaper's burst;
/// beyond them the figure is not the time of the last byte.
fn too_fast(observed: &Observed, bound_s: f64) -> Option<String> {
    let makespan = observed.makespan_s.filter(|&makespan| makespan < bound_s * 0.9)?;
    Some(format!("INVALID: {makespan:.3} s is less than the links allow, {bound_s:.3} s"))
}

/// A run in one line.
fn sentence(run: &StudyRun) -> String {
    let Cell { clients, bytes, way, .. } = &run.cell;
    let plural = if *clients == 1 { "" } else { "s" };
    let what = format!("{way}, {} to {clients} client{plural}", Bytes(*bytes));
    let makespan = run.observed.as_ref().and_then(|observed| observed.makespan_s);
    match (makespan, run.trouble()) {
        (Some(makespan), None) => {
            let share = |bound| format!(", bound {bound:.3} s, {:.1} %", bound / makespan * 100.0);
            format!("{what}: {makespan:.3} s{}", run.bound_s.map(share).unwrap_or_default())
        }
        (_, None) => format!("{what}: FAILED: not every copy is proven"),
        (_, Some(trouble)) => format!("{what}: FAILED: {trouble}"),
    }
}

debug_fields!(Testbed<'_>);
