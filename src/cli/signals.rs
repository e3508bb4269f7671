//! Ctrl-C in two stages, and the signal that opens the gate.
//!
//! The first SIGINT or SIGTERM is sent to the receiver of [`listen`], so that a session ends cleanly
//! with its table. The second ends the process at once, after temporary folders are removed.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_channel::Receiver;

use crate::{
    error::{Error, Result},
    net::{clock, lock, spawn},
    text::ShownPath,
};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalRequest {
    /// End cleanly.
    Stop,
    /// Open the gate for those who are ready.
    Release,
}

/// What comes so soon after the first is no second one: `timeout` signals its child, and then its
/// whole process group.
#[cfg(unix)]
const SAME_STOP: std::time::Duration = std::time::Duration::from_millis(100);

/// Folders that a process that ends at once removes.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Starts listening to signals.
///
/// # Errors
/// The system refuses the handlers or a thread.
#[cfg(unix)]
pub(crate) fn listen() -> Result<Receiver<SignalRequest>> {
    use signal_hook::{
        consts::{SIGINT, SIGTERM, SIGUSR1},
        iterator::Signals,
    };

    let (sender, requests) = crossbeam_channel::unbounded();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])
        .map_err(Error::io("handle signals", "this process"))?;
    let hear = move || {
        let mut stopping = None;
        for signal in signals.forever() {
            let mut request = SignalRequest::Release;
            if signal != SIGUSR1 {
                let now = clock::now();
                match stopping {
                    Some(first) if now.since(first) < SAME_STOP => continue,
                    Some(_) => {
                        remove_temporary();
                        remove_stars();
                        std::process::exit(130);
                    }
                    None => (stopping, request) = (Some(now), SignalRequest::Stop),
                }
            }
            // Without a receiver, a second Ctrl-C must still end the process.
            let _ = sender.send(request);
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(hear);
    thread.map(|_| requests).map_err(Error::io("start the signal thread", "this process"))
}

/// This system has no signals to listen to: Ctrl-C ends the process.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub(crate) fn listen() -> Result<Receiver<SignalRequest>> {
    Ok(crossbeam_channel::never())
}

/// Runs `stop` on a thread of its own when the first SIGINT or SIGTERM comes.
///
/// # Errors
/// The system refuses the handlers or a thread.
pub(crate) fn on_stop(stop: impl FnOnce() + Send + 'static) -> Result<()> {
    let requests = listen()?;
    let wait = move || {
        if requests.iter().any(|request| request == SignalRequest::Stop) {
            stop();
        }
    };
    spawn("stop", wait).map(drop).map_err(Error::io("start the signal thread", "this process"))
}

/// A flag that the first SIGINT or SIGTERM sets.
///
/// # Errors
/// The system refuses the handlers or a thread.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&flag);
    on_stop(move || stop.store(true, Ordering::Relaxed))?;
    Ok(flag)
}

/// A folder that is removed when this value is dropped, or when the process is ended at once.
#[derive(Debug)]
pub(crate) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Makes a folder of a name that nobody else has.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn new(what: &str) -> Result<Self> {
        let name = format!("gatecast-{what}-{}-{:08x}", std::process::id(), clock::random() >> 32);
        let path = std::env::temp_dir().join(name);
        #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
        let mut folder = std::fs::DirBuilder::new();
        // What is copied there is nobody else's.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.create(&path).map_err(Error::io("make the temporary folder", ShownPath(&path)))?;
        lock(&TEMPORARY).push(path.clone());
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        lock(&TEMPORARY).retain(|path| *path != self.0);
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("cannot remove {}: {error}", ShownPath(&self.0));
        }
    }
}

#[cfg(unix)]
fn remove_temporary() {
    for path in lock(&TEMPORARY).iter() {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Removes what a star or study of this process has made.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn remove_stars() {
    crate::testbed::star::cleanup::remove_own();
    crate::testbed::study::work_folder::remove(|id| id.process == std::process::id());
}

#[cfg(all(unix, not(all(target_os = "linux", feature = "sockopt"))))]
fn remove_stars() {}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    #[test]
    fn temporary_folder_is_closed_to_other_users() {
        let folder = super::TemporaryFolder::new("test").expect("room");
        let about = std::fs::metadata(folder.path()).expect("there");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777, 0o700);
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
