//! UFTP and udpcast as contenders: what people use today to send one file to a group.
//!
//! Neither has a gate that could be watched, so their time begins where it is kindest to them:
//! when the last client's copy came into being, which is after everybody was announced and before
//! the first byte. It ends with the last change of the last copy. Each gets a table of host names
//! of its own: UFTP asks for the name of each host that it meets, and on a star no name server answers.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use crate::{
    error::{Error, Result},
    net::clock,
    testbed::{
        star::{host::Host, tool},
        study::{
            bound::Bound,
            contender::{Contender, Observed, PayloadKind, RunSpec},
            process_group::ProcessGroup,
        },
    },
};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MulticastTool {
    /// `uftp -R`, one `uftpd` a host.
    Uftp,
    /// `udp-sender`, one `udp-receiver` a host.
    Udpcast,
}

/// UFTP's blocks: with its headers they fill an Ethernet frame but for a few bytes.
const UFTP_BLOCK: u64 = 1430;

/// The share of a link's rate that UFTP's `-R` may be without filling the sender's own queue: its
/// count leaves out the headers (1448 of the 1500 bytes that a frame costs, less half a percent).
const UFTP_SHARE: f64 = 0.96;

/// The same of udpcast: 1456 of the 1514 bytes that its frames cost, less half a percent.
const UDPCAST_SHARE: f64 = 0.955;

/// How long the receivers have to be there before the sender begins.
const MUSTER: Duration = Duration::from_millis(500);

/// How much longer than the file at the full rate of the link a rival may take, and some more for
/// its start: udpcast waits for ever for a client that it has lost.
const PATIENCE: u32 = 3;
const PATIENCE_MORE: Duration = Duration::from_secs(15);

impl Contender for MulticastTool {
    fn name(&self) -> &str {
        match self {
            Self::Uftp => "uftp",
            Self::Udpcast => "udpcast",
        }
    }

    fn bound(&self) -> Bound {
        Bound::Multicast
    }

    fn carrier(&self) -> PayloadKind {
        // The same bound as our own multicast: what one frame can carry of a file.
        PayloadKind::Udp {
            block: crate::proto::udp::packet::block_len(crate::proto::udp::packet::DATAGRAM, true),
        }
    }

    fn check(&self) -> Result<()> {
        let (programs, package) = match self {
            Self::Uftp => (["uftp", "uftpd"], "uftp"),
            Self::Udpcast => (["udp-sender", "udp-receiver"], "udpcast"),
        };
        for program in programs {
            tool::require("the study", program, package)?;
        }
        Ok(())
    }

    fn run(&self, spec: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed> {
        let rate = spec.server.link.up;
        let least = rate.time_for(spec.bytes) * PATIENCE + PATIENCE_MORE;
        let deadline = clock::now().after(spec.limit.min(least));
        let names = names(spec)?;
        let mut group = ProcessGroup::new(spec.folder, stop);
        let mut receivers = Vec::new();
        for (number, host) in (1..).zip(spec.clients) {
            let words = self.receiver(&copy(spec, number)?, &host.device);
            let receiver = shell(&names, host, &words);
            receivers.push(group.start(&format!("h{number}"), host, receiver, false)?);
        }
        group.wait(clock::now().after(MUSTER), |_| Ok(false))?;
        let words = self.sender(spec);
        let sender = shell(&names, spec.server, &words);
        let sender = group.start("sender", spec.server, sender, false)?;
        let mut observed = Observed::default();
        let ended = group.wait_for_all(&[sender], deadline)?;
        match group.ended(sender) {
            Some(end) if !end.status.success() => {
                let why = group.last_error_line(sender);
                observed.trouble.push(format!("{}: {why}", end.status));
            }
            _ if !ended => observed.trouble.push("it did not end in time".to_owned()),
            _ => {}
        }
        // A receiver of udpcast ends by itself, and one of UFTP never does.
        if *self == Self::Udpcast && ended {
            group.wait_for_all(&receivers, clock::now().after(Duration::from_secs(2)))?;
        }
        for &place in [&sender].into_iter().chain(&receivers) {
            group.stop(place)?;
        }
        read_copies(spec, &mut observed)?;
        observed.cpu_server_s = group.cpu_s(&[sender]);
        observed.cpu_clients_s = group.cpu_s(&receivers);
        observed.sender = Some(words.split(' ').take(3).collect::<Vec<_>>().join(" "));
        Ok(observed)
    }
}

impl MulticastTool {
    /// The command line of a client.
    fn receiver(self, copy: &Path, device: &str) -> String {
        let (copy, folder) = (copy.display(), copy.parent().unwrap_or(copy).display());
        match self {
            Self::Uftp => format!("uftpd -d -D {folder} -M 239.255.7.1 -I {device}"),
            Self::Udpcast => format!("udp-receiver --nokbd --interface {device} --file {copy}"),
        }
    }

    /// The command line of the server.
    fn sender(self, spec: &RunSpec<'_>) -> String {
        let (file, device) = (spec.file.display(), &spec.server.device);
        let kbit = |share: f64| (spec.server.link.up.0 as f64 * share / 1000.0) as u64;
        match self {
            Self::Uftp => format!(
                "uftp -R {} -b {UFTP_BLOCK} -M 239.255.7.1 -P 239.255.7.2 -I {device} \
                 -r 0.05:0.01:0.5 -H {} {file}",
                kbit(UFTP_SHARE),
                spec.clients.iter().map(|h| h.address.to_string()).collect::<Vec<_>>().join(",")
            ),
            Self::Udpcast => format!(
                "udp-sender --nokbd --min-receivers {} --min-wait 0 --max-wait 3 \
                 --max-bitrate {}k --interface {device} --file {file}",
                spec.clients.len(),
                kbit(UDPCAST_SHARE)
            ),
        }
    }
}

/// What every client got, by its file.
fn read_copies(spec: &RunSpec<'_>, observed: &mut Observed) -> Result<()> {
    let copies = (1..=spec.clients.len()).map(|number| Ok((number, copy(spec, number)?)));
    let copies = copies.collect::<Result<Vec<_>>>()?;
    let released = copies.iter().filter_map(|(_, path)| path.metadata().ok()?.created().ok()).max();
    for (number, path) in copies {
        let all_there = path.metadata().ok().filter(|about| about.len() == spec.bytes);
        let seconds = all_there.zip(released).and_then(|(about, released)| {
            Some(changed(&about)?.duration_since(released).ok()?.as_secs_f64())
        });
        observed.add_copy(spec, (number, &path), seconds, "");
    }
    Ok(())
}

/// The last change of a file's data or attributes. UFTP gives the copy the source's own time of
/// change of the data.
fn changed(about: &Metadata) -> Option<SystemTime> {
    let seconds = u64::try_from(about.ctime()).ok()?;
    let nanos = u32::try_from(about.ctime_nsec()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// A client's copy.
fn copy(spec: &RunSpec<'_>, number: usize) -> Result<PathBuf> {
    let folder = spec.make_folder(&format!("g{number}"))?;
    Ok(folder.join(spec.file.file_name().unwrap_or_default()))
}

/// The hosts' names, as a file.
fn names(spec: &RunSpec<'_>) -> Result<PathBuf> {
    let path = spec.folder.join("hosts");
    let mut text = format!("127.0.0.1 localhost\n{} h0\n", spec.server.address);
    for (number, host) in (1..).zip(spec.clients) {
        text.push_str(&format!("{} h{number}\n", host.address));
    }
    std::fs::write(&path, text).map_err(Error::io("write the names", path.display()))?;
    Ok(path)
}

/// `words` with the names of this star, and with a broadcast address, which udpcast needs.
fn shell(names: &Path, host: &Host, words: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", include_str!("multicast.sh"), "sh"]).arg(names);
    command.args([&*host.device, &host.address.to_string(), words]);
    command
}
