//! Doing something inside a network namespace: a thread of its own enters it and is thrown away.
//!
//! Sockets made there, and processes started there, stay in that namespace; nothing else of this
//! process ever changes its own. No helper program, and no mount that `ip netns exec` would make.

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result};

/// Where `ip netns` keeps the names of namespaces.
pub const NAMES: &str = "/var/run/netns";

/// The file of a named namespace.
pub fn path_of(namespace: &str) -> PathBuf {
    Path::new(NAMES).join(namespace)
}

/// Runs `work` inside the network namespace of `file`, and waits for it.
///
/// # Errors
/// There is no such namespace, or it must not be entered; no thread.
pub fn enter<T: Send>(file: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let at = file.display().to_string();
    let namespace = File::open(file).map_err(Error::io("open the namespace", &at))?;
    thread::scope(|scope| {
        let inside = thread::Builder::new()
            .name("inside".to_owned())
            .spawn_scoped(scope, || setns(&namespace, CloneFlags::CLONE_NEWNET).map(|()| work()))
            .map_err(Error::io("start a thread", &at))?;
        match inside.join() {
            Ok(ended) => ended.map_err(|errno| Error::io("enter the namespace", &at)(errno.into())),
            // What panicked in there panics here.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Gives the calling thread, and what it becomes, a host name of its own, by which clients call
/// themselves. Where the system does not allow that they have this machine's.
pub fn name_host(name: &str) {
    if unshare(CloneFlags::CLONE_NEWUTS).is_ok() {
        let _ = std::fs::write("/proc/sys/kernel/hostname", name);
    }
}

/// The names of all namespaces of this system, ours and others'.
pub fn names() -> Vec<String> {
    // The folder appears with the first namespace.
    let folder = std::fs::read_dir(NAMES).into_iter().flatten();
    let mut names: Vec<String> =
        folder.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
