//! Half a core, and no more: a control group of the kernel, version 2 or 1. Where this user can
//! make none, a process holds itself to it.

use std::{
    fs,
    fs::OpenOptions,
    io,
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// The share of one core, in percent.
const SHARE: u32 = 50;

/// The period that the share is of.
const PERIOD: Duration = Duration::from_millis(100);

/// A control group, removed when dropped.
pub(crate) struct Group(PathBuf);

/// A process that is held to the share.
pub(crate) struct HalfCore {
    begun: Instant,
    by_itself: bool,
}

/// A control group for the share; `None` where this user cannot make one.
pub(crate) fn make() -> Option<Group> {
    let name = format!("gatecast-attack-{}", std::process::id());
    let period = PERIOD.as_micros();
    let quota = period * u128::from(SHARE) / 100;
    let root = Path::new("/sys/fs/cgroup");
    // Version 2 has one tree, version 1 one for the processor.
    let second = [("cpu.max", format!("{quota} {period}"))];
    let first =
        [("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
    // Where it is on already, or is not to be had, the next step tells.
    let _ = set(&root.join("cgroup.subtree_control"), "+cpu");
    [
        (root.join(&name), &second[..]),
        (root.join("cpu").join(&name), &first),
        (root.join("cpu,cpuacct").join(&name), &first),
    ]
    .into_iter()
    .find_map(|(path, limits)| {
        fs::create_dir(&path).ok()?;
        let group = Group(path);
        let is_set = limits.iter().all(|(key, value)| set(&group.0.join(key), value).is_ok());
        is_set.then_some(group)
    })
}

/// Writes into a file of the kernel. Elsewhere there is none, and none is made.
fn set(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

impl Group {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group that still has a process stays; its name says whose it is.
        let _ = fs::remove_dir(&self.0);
    }
}

impl HalfCore {
    /// Puts this process into `group`; an empty name is none.
    pub(crate) fn enter(group: &str) -> Self {
        let by_itself = group.is_empty();
        if !by_itself {
            let processes = Path::new(group).join("cgroup.procs");
            set(&processes, &std::process::id().to_string()).expect("made by the parent");
        }
        Self { begun: Instant::now(), by_itself }
    }

    /// The share of one core that this process has used so far, in percent.
    pub(crate) fn used(&self) -> f64 {
        // All of its time on a processor, in nanoseconds; the kernel's work for it included.
        let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
        let spent: f64 = text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0);
        spent / 1e9 / self.begun.elapsed().as_secs_f64() * 100.0
    }

    /// Waits while this process has had more than its share, where no group holds it.
    pub(crate) fn pause(&self) {
        while self.by_itself && self.used() > f64::from(SHARE) {
            thread::sleep(PERIOD / 10);
        }
    }

    /// Uses all of the share for ever.
    pub(crate) fn spin(&self) {
        loop {
            let until = Instant::now() + PERIOD / 10;
            while Instant::now() < until {}
            self.pause();
        }
    }
}
