//! The study itself: a star for each rate and loss, its calibration, and run after run, each
//! saved before the next begins.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::server::sample;
use crate::testbed::star::build::Star;
use crate::testbed::star::calibrate;
use crate::testbed::star::host::Host;
use crate::testbed::star::host::LinkBytes;
use crate::testbed::star::layout::StarLayout;
use crate::testbed::study::contender::Contender;
use crate::testbed::study::contender::Observed;
use crate::testbed::study::contender::RunSpec;
use crate::testbed::study::environment;
use crate::testbed::study::grid::Cell;
use crate::testbed::study::grid::LONG_S;
use crate::testbed::study::grid::RUNS_LONG;
use crate::testbed::study::process_group;
use crate::testbed::study::results;
use crate::testbed::study::results::Results;
use crate::testbed::study::results::StarResult;
use crate::testbed::study::results::StudyRun;
use crate::testbed::study::work_folder::WorkFolder;
use crate::units::Bytes;
use crate::units::Rate;

/// Everything that a study needs to begin or go on.
#[derive(Debug)]
pub struct Study<'a> {
    /// What it compares, in the order of the grid's names.
    pub contenders: &'a [Box<dyn Contender>],
    /// Where it runs.
    pub ground: Testbed<'a>,
    /// The file to send; without one, files of the grid's sizes are generated.
    pub file: Option<&'a Path>,
    /// Where the results are written after every run.
    pub results: &'a Path,
    /// How far a link alone may be from its nominal rate, a fraction.
    pub tolerance: f64,
}

/// Where a study runs.
pub enum Testbed<'a> {
    /// On stars of its own, built from the layout that this makes of a number of hosts, a rate
    /// and a loss.
    Stars(&'a dyn Fn(usize, Rate, u32) -> Result<StarLayout>),
    /// On hosts that somebody else built, the server first.
    Given(&'a [Host]),
}

/// Called with a sentence for whoever watches.
pub type OnProgress<'a> = &'a dyn Fn(std::fmt::Arguments<'_>);

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
    pub fn run(
        &self,
        results: &mut Results,
        stop: &AtomicBool,
        tell: OnProgress<'_>,
    ) -> Result<()> {
        for contender in self.contenders {
            contender.check()?;
        }
        let largest = results.grid.bytes.iter().copied().max().unwrap_or(0);
        let copies = u64::from(results.grid.most_clients()) + 1;
        let work = WorkFolder::new(largest.saturating_mul(copies))?;
        results.environment.copies = Some(work.kind().to_owned());
        let files = self.files(results, &work, tell)?;
        for (rate, loss) in results.grid.stars() {
            let runs = results.grid.runs_on((rate, loss));
            let missing = |(repeat, cell): &(u32, Cell)| results.run(cell, *repeat).is_none();
            if !runs.iter().any(missing) {
                continue;
            }
            match self.ground {
                Testbed::Stars(layout) => {
                    let hosts = usize::from(results.grid.most_clients()) + 1;
                    let star = Star::build(&layout(hosts, Rate(rate), loss)?, stop)?;
                    tell(format_args!(
                        "star {}: {hosts} hosts, {}, {} % loss",
                        star.id(),
                        Rate(rate),
                        f64::from(loss) / 1e4
                    ));
                    let done = self.on_hosts(
                        star.hosts(),
                        Some(&star),
                        (rate, loss),
                        results,
                        &files,
                        (&work, stop, tell),
                    );
                    // The star goes before anything else is said, whatever happened on it.
                    let down = star.down();
                    done.and(down)?;
                }
                Testbed::Given(hosts) => self.on_hosts(
                    hosts,
                    None,
                    (rate, loss),
                    results,
                    &files,
                    (&work, stop, tell),
                )?,
            }
        }
        Ok(())
    }

    /// The file of each size, and its digest.
    fn files(
        &self,
        results: &Results,
        work: &WorkFolder,
        tell: OnProgress<'_>,
    ) -> Result<Vec<(u64, PathBuf, Digest)>> {
        let digest = |path: &Path| {
            File::open(path)
                .and_then(Digest::of_reader)
                .map_err(Error::io("read the file", path.display()))
        };
        let mut files = Vec::new();
        for &bytes in &results.grid.bytes {
            let path = match self.file {
                Some(path) => path.to_owned(),
                None => {
                    tell(format_args!("making a file of {}", Bytes(bytes)));
                    let path = work.path().join(format!("{bytes}.bin"));
                    sample::make(&path, bytes)?;
                    path
                }
            };
            files.push((bytes, path.clone(), digest(&path)?));
        }
        Ok(files)
    }

    fn on_hosts(
        &self,
        hosts: &[Host],
        star: Option<&Star>,
        (rate, loss): (u64, u32),
        results: &mut Results,
        files: &[(u64, PathBuf, Digest)],
        (work, stop, tell): (&WorkFolder, &AtomicBool, OnProgress<'_>),
    ) -> Result<()> {
        results.environment.read_host(&hosts[0]);
        let mut links = calibrate::links(hosts, stop)?;
        if let Some(star) = star {
            links.loss_check = calibrate::loss(star, stop)?;
        }
        for line in links.to_string().lines() {
            tell(format_args!("  {line}"));
        }
        let all_out =
            |way: &dyn Contender| way.bound() == crate::testbed::study::bound::Bound::Swarm;
        let together = self.contenders.iter().any(|way| all_out(way.as_ref()));
        links.check(self.tolerance, together)?;
        let short_together = links.short_together();
        if let Some(why) = &short_together {
            tell(format_args!("  {why}"));
        }
        let cell_of_star = |there: &StarResult| {
            there.rate_nominal_mbit * 1e6 == rate as f64 && there.loss * 1e6 == f64::from(loss)
        };
        results.calibration.retain(|there| !cell_of_star(there));
        results.calibration.push(StarResult {
            rate_nominal_mbit: rate as f64 / 1e6,
            loss: f64::from(loss) / 1e6,
            links: links.clone(),
            short_together,
        });
        results.write(self.results)?;
        let runs = results.grid.runs_on((rate, loss));
        let count = runs.len();
        for (number, (repeat, cell)) in (1..).zip(runs) {
            if results.run(&cell, repeat).is_some() {
                continue;
            }
            let place = results.grid.ways.iter().position(|way| *way == cell.way);
            let way = &self.contenders[place.expect("the grid names the contenders")];
            let bounds = results::bounds(way.as_ref(), &cell, hosts, &links);
            if repeat >= RUNS_LONG && bounds.0 > LONG_S {
                continue;
            }
            let (_, path, sha1) = files
                .iter()
                .find(|(bytes, ..)| *bytes == cell.bytes)
                .expect("there is a file of each size");
            let folder = work.run_folder()?;
            let job = RunSpec {
                server: &hosts[0],
                clients: &hosts[1..=usize::from(cell.clients)],
                file: path,
                bytes: cell.bytes,
                sha1: *sha1,
                folder: &folder,
                limit: Duration::from_secs_f64(bounds.0.min(1e6) * PATIENCE) + PATIENCE_MORE,
            };
            let run = one(way.as_ref(), &job, (cell, repeat), bounds, hosts, stop);
            fs::remove_dir_all(&folder)
                .map_err(Error::io("remove the copies of a run", folder.display()))?;
            let run = run?;
            tell(format_args!("[{number}/{count}] {}", sentence(&run)));
            results.add(run);
            results.write(self.results)?;
        }
        Ok(())
    }
}

/// Makes one run; only being stopped is an error.
fn one(
    way: &dyn Contender,
    job: &RunSpec<'_>,
    (cell, repeat): (Cell, u32),
    (bound_s, bound_nominal_s): (f64, f64),
    hosts: &[Host],
    stop: &AtomicBool,
) -> Result<StudyRun> {
    let look = || -> Result<Vec<LinkBytes>> {
        let taking_part = &hosts[..=usize::from(cell.clients)];
        taking_part.iter().map(Host::carried).collect()
    };
    let (before, busy, own) = (look()?, environment::busy_s(), process_group::own_cpu_s());
    let began = clock::now();
    let ended = way.run(job, stop);
    // A second Ctrl-C takes the star from under the programs: how they ended says nothing.
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    let (observed, failed) = match ended {
        Ok(mut observed) => {
            observed.trouble.extend(too_fast(&observed, bound_s));
            (Some(observed), None)
        }
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => (None, Some(error.to_string())),
    };
    let took_s = clock::now().since(began).as_secs_f64();
    let ours = observed.as_ref().and_then(|observed| {
        Some(observed.cpu_server_s? + observed.cpu_clients_s? + process_group::own_cpu_s() - own)
    });
    let cpu_others_s = busy
        .zip(environment::busy_s())
        .zip(ours)
        .map(|((before, after), ours)| (after - before - ours).max(0.0));
    Ok(StudyRun {
        carried: before
            .iter()
            .zip(look()?)
            .map(|(before, after)| after.since(*before))
            .collect(),
        cell,
        repeat,
        bound_s,
        bound_nominal_s,
        observed,
        failed,
        cpu_others_s,
        took_s,
    })
}

/// What a run that was faster than its links must be told. Some per cent are the shaper's burst;
/// beyond, something else was timed than the arrival of bytes.
fn too_fast(observed: &Observed, bound_s: f64) -> Option<String> {
    let makespan = observed
        .makespan_s
        .filter(|&makespan| makespan < bound_s * 0.9)?;
    Some(format!(
        "INVALID: {makespan:.3} s is less than the links allow, {bound_s:.3} s"
    ))
}

/// A run in one line.
fn sentence(run: &StudyRun) -> String {
    let Cell {
        clients,
        bytes,
        way,
        ..
    } = &run.cell;
    let plural = if *clients == 1 { "" } else { "s" };
    let what = format!("{way}, {} to {clients} client{plural}", Bytes(*bytes));
    let makespan = run
        .observed
        .as_ref()
        .and_then(|observed| observed.makespan_s);
    match (makespan, run.trouble()) {
        (Some(makespan), None) => format!(
            "{what}: {makespan:.3} s, bound {:.3} s, {:.1} %",
            run.bound_s,
            run.bound_s / makespan * 100.0
        ),
        (_, trouble) => format!(
            "{what}: FAILED: {}",
            trouble.unwrap_or("not every copy is proven")
        ),
    }
}

impl std::fmt::Debug for Testbed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stars(_) => f.write_str("Stars"),
            Self::Given(hosts) => f.debug_tuple("Given").field(hosts).finish(),
        }
    }
}
