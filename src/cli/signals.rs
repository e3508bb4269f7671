//! Ctrl-C in two stages, and the signal that opens the gate.
//!
//! The first SIGINT or SIGTERM is told to whoever listens, so that a session ends cleanly with
//! its table; the second ends the process at once, after removing what is only temporary.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use crossbeam_channel::Receiver;

use crate::error::Result;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// End cleanly.
    Stop,
    /// Open the gate for those who are ready.
    Release,
}

/// Folders that a process that ends at once removes.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Starts listening to signals.
///
/// # Errors
/// The system refuses the handlers or a thread.
#[cfg(unix)]
pub(crate) fn listen() -> Result<Receiver<Request>> {
    use crate::error::Error;
    use signal_hook::consts::SIGINT;
    use signal_hook::consts::SIGTERM;
    use signal_hook::consts::SIGUSR1;
    use signal_hook::iterator::Signals;

    let (tell, requests) = crossbeam_channel::unbounded();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])
        .map_err(Error::io("handle signals", "this process"))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut stopping = false;
            for signal in signals.forever() {
                if signal != SIGUSR1 && stopping {
                    remove_temporary();
                    remove_stars();
                    std::process::exit(130);
                }
                stopping |= signal != SIGUSR1;
                let request = if signal == SIGUSR1 {
                    Request::Release
                } else {
                    Request::Stop
                };
                // Whoever listened has ended, and the process with it.
                if tell.send(request).is_err() {
                    return;
                }
            }
        })
        .map_err(Error::io("start the signal thread", "this process"))?;
    Ok(requests)
}

/// This system has no signals to listen to: Ctrl-C ends the process.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub(crate) fn listen() -> Result<Receiver<Request>> {
    Ok(crossbeam_channel::never())
}

/// A folder that goes when this value goes, or when the process is ended at once.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    /// Makes a folder of a name that nobody else has.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn new(what: &str) -> Result<Self> {
        use crate::error::Error;
        let name = format!(
            "gatecast-{what}-{}-{:08x}",
            std::process::id(),
            crate::net::clock::random() >> 32
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)
            .map_err(Error::io("make the temporary folder", path.display()))?;
        TEMPORARY
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(path.clone());
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        TEMPORARY
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|path| *path != self.0);
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(unix)]
fn remove_temporary() {
    for path in TEMPORARY
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
    {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Removes what a star or study of this process has made.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn remove_stars() {
    crate::testbed::star::cleanup::remove_own();
    crate::testbed::study::work_folder::remove_own();
}

#[cfg(all(unix, not(all(target_os = "linux", feature = "sockopt"))))]
fn remove_stars() {}
