//! What passes each host, in files that Wireshark reads: a `dumpcap` on every host's device.

use std::{
    fs,
    io::Read,
    mem,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{Error, Result},
    net::clock,
    testbed::star::{build::Star, host::Host, tool},
    text::{ShownPath, escape},
    units::Moment,
};

/// The capture programs of some hosts. Dropping it ends them.
#[derive(Debug)]
pub struct Capture<'a> {
    programs: Vec<(PathBuf, Child)>,
    folder: PathBuf,
    star: Option<&'a Star>,
}

/// How long the capture programs may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// `dumpcap` takes packets over every 250 ms: files that have not grown for longer are whole.
const QUIET: Duration = Duration::from_millis(400);

/// How often files are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

impl<'a> Capture<'a> {
    /// Captures `snap_length` bytes of each packet at every host, the server first, into `folder`,
    /// which it makes; returns when every program is at work. Where `star` loses packets, their
    /// number is written at the end.
    ///
    /// # Errors
    /// A folder or file that cannot be made, or a program that is missing or does not begin.
    pub fn start(
        hosts: &[Host],
        star: Option<&'a Star>,
        (folder, snap_length): (&Path, u32),
    ) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("make the folder", ShownPath(folder)))?;
        let star = star.filter(|star| star.layout.loss.is_some());
        if let Some(star) = star {
            star.end_loss()?; // Its counters begin at zero again.
            star.start_loss()?;
        }
        let mut capture = Self { programs: Vec::new(), folder: folder.to_owned(), star };
        for (number, host) in hosts.iter().enumerate() {
            let role = if number == 0 { "-server" } else { "" };
            let path = folder.join(format!("h{number}{role}.pcapng"));
            let _ = fs::remove_file(&path); // An old one would pass for one that has begun.
            let mut dumpcap = tool::command("dumpcap");
            dumpcap
                .args(["-q", "-B", "8", "-i", &host.device, "-s", &snap_length.to_string(), "-w"])
                .arg(&path)
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                // Ctrl-C on the terminal is for us; they end after what they capture.
                .process_group(0);
            capture.programs.push((path, host.spawn(&mut dumpcap)?));
        }
        let deadline = clock::now().after(PATIENCE);
        for (path, child) in &mut capture.programs {
            // The head of the file is written once the device is open.
            wait(deadline, || size(path) > 0 || has_ended(child));
            if size(path) == 0 {
                let _ = child.kill(); // It may have ended by itself.
                return Err(Error::refused(ShownPath(path), said(child)));
            }
        }
        Ok(capture)
    }

    /// Waits until all that passed is in the files, and ends the programs.
    ///
    /// # Errors
    /// A file lacks packets, or what the packet filter lost cannot be written.
    pub fn end(mut self) -> Result<()> {
        let programs = self.stop();
        if let Some(star) = self.star {
            let mut text = "host,seen,lost\n".to_owned();
            for host in 0..programs.len() {
                let (seen, lost) = star.filtered(host)?;
                text += &format!("{host},{seen},{lost}\n");
            }
            let path = self.folder.join("lost.csv");
            fs::write(&path, text).map_err(Error::io("write the losses", ShownPath(&path)))?;
        }
        for (path, mut child) in programs {
            let said = said(&mut child);
            if !said.contains("/0 (pcap:0/dumpcap:0/") {
                return Err(Error::refused(ShownPath(&path), format!("not all is in it: {said}")));
            }
        }
        Ok(())
    }

    /// Ends the programs; they are returned once.
    fn stop(&mut self) -> Vec<(PathBuf, Child)> {
        let mut programs = mem::take(&mut self.programs);
        let (mut seen, mut grown) = (0, clock::now());
        wait(grown.after(PATIENCE), || {
            let now: u64 = programs.iter().map(|(path, _)| size(path)).sum();
            if now != seen {
                (seen, grown) = (now, clock::now());
            }
            clock::now().since(grown) >= QUIET
        });
        for (_, child) in &programs {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        }
        let deadline = clock::now().after(PATIENCE);
        for (_, child) in &mut programs {
            wait(deadline, || has_ended(child));
            let _ = child.kill(); // Most have ended by themselves.
        }
        programs
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if !self.programs.is_empty() {
            self.stop();
        }
    }
}

/// Waits until it is `done` or too late.
fn wait(deadline: Moment, mut done: impl FnMut() -> bool) {
    while !done() && clock::left(deadline).is_some() {
        thread::sleep(POLL_INTERVAL);
    }
}

fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// The last line of what a program that has ended said, escaped.
fn said(child: &mut Child) -> String {
    let mut text = Vec::new();
    // What came before a failure is what there is.
    let _ = child.stderr.take().map(|stderr| stderr.take(4096).read_to_end(&mut text));
    escape(String::from_utf8_lossy(&text).trim().lines().last().unwrap_or("dumpcap said nothing"))
}
