//! Removing stars: our own at its end, and what killed processes left behind.
//!
//! Only namespaces whose names are exactly those of a star are ever touched, and of them only
//! those that we made or whose owner is dead. Processes in them are ended first: a namespace
//! lives on, without a name, as long as a process is in it.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::Result,
    net::clock,
    testbed::star::{namespace, refused, setup, star_id::StarId, step, tool},
};

/// A star that exists on this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingStar {
    /// Its name.
    pub id: StarId,
    /// Its namespaces.
    pub namespaces: Vec<String>,
    /// The process that built it still runs.
    pub owner_lives: bool,
}

/// How long killed processes may take to be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// All stars of this system, by name.
pub fn find() -> Vec<ExistingStar> {
    let mut stars: BTreeMap<StarId, Vec<String>> = BTreeMap::new();
    for name in namespace::names() {
        if let Some((id, _)) = StarId::of_namespace(&name) {
            stars.entry(id).or_default().push(name);
        }
    }
    let all = stars.into_iter();
    all.map(|(id, namespaces)| ExistingStar { id, namespaces, owner_lives: id.owner_lives() })
        .collect()
}

/// Removes every star of this process, for one that must end at once. Nothing can be built after.
pub fn remove_own() {
    tool::reserve();
    let own = |star: &ExistingStar| star.id.process == std::process::id() && star.owner_lives;
    for star in find().into_iter().filter(own) {
        if let Err(error) = remove(&star.namespaces) {
            log::error!("{error}");
        }
    }
}

/// Removes `namespaces`, and ends the processes in them. Those that are gone already are fine.
///
/// # Errors
/// One that could not be removed; the others are.
pub fn remove(namespaces: &[String]) -> Result<()> {
    let there = || {
        let all = namespace::names().into_iter();
        all.filter(|name| namespaces.contains(name)).collect::<Vec<_>>()
    };
    end_processes(namespaces);
    let mut failed = step::run(&setup::down(&there())).err();
    if failed.is_some() {
        // One that cannot be removed does not keep the others.
        for step in setup::down(&there()) {
            failed = step::run(&[step]).err().or(failed);
        }
    }
    match (failed, there().first()) {
        (_, None) => Ok(()),
        (Some(error), _) => Err(error),
        (None, Some(name)) => Err(refused(format!("{name} is still there"))),
    }
}

/// Kills every process in `namespaces`, and waits until none is left.
fn end_processes(namespaces: &[String]) {
    let same: HashSet<(u64, u64)> = namespaces
        .iter()
        .filter_map(|name| fs::metadata(namespace::path_of(name)).ok())
        .map(|about| (about.dev(), about.ino()))
        .collect();
    let deadline = clock::now().after(EXIT_TIMEOUT);
    loop {
        let inside = processes(&same);
        for &process in &inside {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL); // It may have ended by itself.
        }
        if inside.is_empty() || clock::left(deadline).is_none() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The processes whose network namespace is one of `namespaces`, without this one.
fn processes(namespaces: &HashSet<(u64, u64)>) -> Vec<i32> {
    let folder = fs::read_dir("/proc").into_iter().flatten();
    let own = std::process::id().cast_signed();
    // Of a dead process that is not yet reaped there is no namespace any more.
    let namespace = |process| fs::metadata(format!("/proc/{process}/ns/net"));
    let is_inside = |process: &i32| {
        namespace(*process).is_ok_and(|about| namespaces.contains(&(about.dev(), about.ino())))
    };
    let all = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|process| *process != own && is_inside(process)).collect()
}
