//! UFTP and udpcast as contenders: what people use today to send one file to a group.
//!
//! Neither has a gate that could be watched, so their time begins where it is kindest to them:
//! when the last client's copy came into being, which is after everybody was announced and before
//! the first byte. It ends with the last change of the last copy. Each gets a table of host names
//! of its own: UFTP asks for the name of whom it meets, and on a star nobody would answer.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::SystemTime;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::testbed::star::tool;
use crate::testbed::study::bound::Bound;
use crate::testbed::study::contender::Carrier;
use crate::testbed::study::contender::Contender;
use crate::testbed::study::contender::Observed;
use crate::testbed::study::contender::RunSpec;
use crate::testbed::study::contender::SeatReport;
use crate::testbed::study::process_group::ProcessGroup;

/// One of the two rivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MulticastTool {
    /// `uftp -R`, one `uftpd` a host.
    Uftp,
    /// `udp-sender`, one `udp-receiver` a host.
    Udpcast,
}

/// All of them.
pub const ALL: [MulticastTool; 2] = [MulticastTool::Uftp, MulticastTool::Udpcast];

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

    fn carrier(&self) -> Carrier {
        // The same bound as our own multicast: what one frame can carry of a file.
        Carrier::Udp {
            block: crate::proto::udp::packet::block_len(crate::proto::udp::packet::DATAGRAM, true),
        }
    }

    fn check(&self) -> Result<()> {
        let (programs, package) = match self {
            Self::Uftp => (["uftp", "uftpd"], "uftp"),
            Self::Udpcast => (["udp-sender", "udp-receiver"], "udpcast"),
        };
        for program in programs {
            if tool::find(program).is_none() {
                let why = format!("the program `{program}` is missing; Debian has it in {package}");
                return Err(Error::refused("the study", why));
            }
        }
        Ok(())
    }

    fn run(&self, job: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed> {
        let rate = job.server.link.up;
        let least = rate.time_for(job.bytes) * PATIENCE + PATIENCE_MORE;
        let deadline = clock::now().after(job.limit.min(least));
        let names = names(job)?;
        let mut group = ProcessGroup::new(job.folder);
        let mut receivers = Vec::new();
        for (number, host) in (1..).zip(job.clients) {
            let copy = copy(job, number)?;
            let words = match self {
                Self::Uftp => format!(
                    "uftpd -d -D {} -M 239.255.7.1 -I {}",
                    folder(&copy).display(),
                    host.device
                ),
                Self::Udpcast => format!(
                    "udp-receiver --nokbd --interface {} --file {}",
                    host.device,
                    copy.display()
                ),
            };
            let mut receiver = shell(&names, &host.device, host.address, &words);
            receivers.push(group.start(&format!("h{number}"), host, &mut receiver, false)?);
        }
        group.wait(clock::now().after(MUSTER), stop, |_| Ok(false))?;
        let (file, device) = (job.file.display(), &job.server.device);
        let kbit = |share: f64| (rate.0 as f64 * share / 1000.0) as u64;
        let words = match self {
            Self::Uftp => {
                let hosts: Vec<String> =
                    job.clients.iter().map(|h| h.address.to_string()).collect();
                format!(
                    "uftp -R {} -b {UFTP_BLOCK} -M 239.255.7.1 -P 239.255.7.2 -I {device} \
                     -r 0.05:0.01:0.5 -H {} {file}",
                    kbit(UFTP_SHARE),
                    hosts.join(",")
                )
            }
            Self::Udpcast => format!(
                "udp-sender --nokbd --min-receivers {} --min-wait 0 --max-wait 3 \
                 --max-bitrate {}k --interface {device} --file {file}",
                job.clients.len(),
                kbit(UDPCAST_SHARE)
            ),
        };
        let mut sender = shell(&names, device, job.server.address, &words);
        let sender = group.start("sender", job.server, &mut sender, false)?;
        let mut observed = Observed::default();
        let ended = group.wait(deadline, stop, |group| Ok(group.ended(sender).is_some()))?;
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
            let patience = clock::now().after(Duration::from_secs(2));
            group.wait(patience, stop, |group| {
                Ok(receivers.iter().all(|&place| group.ended(place).is_some()))
            })?;
        }
        group.stop(sender)?;
        for &place in &receivers {
            group.stop(place)?;
        }
        self.read_copies(job, &mut observed)?;
        observed.cpu_server_s = group.ended(sender).map(|end| end.cpu_s);
        let cpu = receivers
            .iter()
            .map(|&place| Some(group.ended(place)?.cpu_s));
        observed.cpu_clients_s = cpu.sum();
        observed.sender = Some(words.split(' ').take(3).collect::<Vec<_>>().join(" "));
        Ok(observed)
    }
}

impl MulticastTool {
    /// What every client got, by its file.
    fn read_copies(self, job: &RunSpec<'_>, observed: &mut Observed) -> Result<()> {
        let mut copies = Vec::new();
        for number in 1..=job.clients.len() {
            let path = copy(job, number)?;
            let about = path.metadata().ok();
            let born = about.as_ref().and_then(|about| about.created().ok());
            // UFTP gives the copy the source's own time of change.
            let done = about.as_ref().and_then(|about| {
                let (s, ns) = (about.ctime(), about.ctime_nsec());
                let since = Duration::new(u64::try_from(s).ok()?, u32::try_from(ns).ok()?);
                SystemTime::UNIX_EPOCH.checked_add(since)
            });
            let digest = std::fs::File::open(&path).and_then(Digest::of_reader).ok();
            let bytes = about.map(|about| about.len());
            copies.push((number, born, done, digest == Some(job.sha1), bytes));
        }
        let released = copies.iter().filter_map(|(_, born, ..)| *born).max();
        for (host, _, done, whole, bytes) in copies {
            let outcome = if whole { "complete" } else { "cut" };
            if !whole {
                observed.trouble.push(format!("client {host}: {outcome}"));
            }
            let took = done
                .zip(released)
                .and_then(|(d, r)| d.duration_since(r).ok());
            observed.seats.push(SeatReport {
                host,
                outcome: outcome.to_owned(),
                verified: Some(whole),
                seconds: took.filter(|_| whole).map(|took| took.as_secs_f64()),
                seconds_verified: None,
                bytes,
                bytes_from_server: None,
                bytes_from_peers: None,
            });
        }
        observed.makespan_s = observed.seconds().reduce(f64::max);
        Ok(())
    }
}

/// A client's copy.
fn copy(job: &RunSpec<'_>, number: usize) -> Result<PathBuf> {
    let folder = job.folder.join(format!("g{number}"));
    std::fs::create_dir_all(&folder).map_err(Error::io("make a folder", folder.display()))?;
    let name = job.file.file_name().unwrap_or_default();
    Ok(folder.join(name))
}

fn folder(copy: &Path) -> &Path {
    copy.parent().unwrap_or(copy)
}

/// The hosts' names, as a file.
fn names(job: &RunSpec<'_>) -> Result<PathBuf> {
    let path = job.folder.join("hosts");
    let mut text = format!("127.0.0.1 localhost\n{} h0\n", job.server.address);
    for (number, host) in (1..).zip(job.clients) {
        text.push_str(&format!("{} h{number}\n", host.address));
    }
    std::fs::write(&path, text).map_err(Error::io("write the names", path.display()))?;
    Ok(path)
}

/// `words` with the names of this star, and with a broadcast address, which udpcast needs.
fn shell(names: &Path, device: &str, address: std::net::Ipv4Addr, words: &str) -> Command {
    let names = names.display();
    let script = format!(
        "mount --bind '{names}' /etc/hosts; \
         if ! ip -4 -o addr show dev {device} | grep -q ' brd '; then \
         net=$(ip -4 -o addr show dev {device} | sed -n 's|.*inet {address}/\\([0-9]*\\).*|\\1|p'); \
         way=$(ip -4 route show default); ip addr del {address}/$net dev {device}; \
         ip addr add {address}/$net brd + dev {device}; ip route replace $way; fi; exec {words}"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    command
}
