//! Stars that are slow for one known reason, and whether the session says that reason.
//!
//! Each has a server and three clients on hosts of their own; the second client is the sick one.
//! They need root, `ip`, `tc`, `nft` and `ethtool`, and are skipped without them.

use std::{fmt::Write, fs, path::Path, process::Command};

use gatecast::internals::{
    report::why::{self, CauseKind},
    server::sample,
    transfer::Record,
};

use crate::common::{
    have,
    program::{GATECAST, output_text, records},
    star::turn_with_stars,
};

/// What one star is.
struct Sick<'a> {
    /// Options of the star beyond its clients' links of 100 Mbit/s.
    star: &'a [&'a str],
    /// Options of the server.
    serve: &'a str,
    /// Done on the second client's host before it starts.
    prepare: &'a str,
    /// What stands before and after the second client's program.
    client: (&'a str, &'a str),
    /// Megabytes.
    size: u64,
}

/// A server whose link has room for all clients, and nothing that is wrong.
const HEALTHY: Sick<'_> =
    Sick { star: &["--host", "0=400mbit"], serve: "", prepare: "", client: ("", ""), size: 20 };

/// Runs one session, and returns its record and what the server printed.
fn session(sick: &Sick<'_>) -> (Record, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().display();
    sample::make(&folder.path().join("f.bin"), sick.size * 1_000_000).expect("room");
    let mut script = format!(
        "cd {at}\n{GATECAST} star exec 0 -- {GATECAST} serve f.bin --clients 3 --one-off {} \
         >server.txt 2>&1 &\nserver=$!\n",
        sick.serve
    );
    for host in 1..=3 {
        let (before, after) = if host == 2 { sick.client } else { ("", "") };
        if host == 2 && !sick.prepare.is_empty() {
            let _ = writeln!(script, "{GATECAST} star exec 2 -- sh -ec '{}'", sick.prepare);
        }
        let _ = writeln!(
            script,
            "{GATECAST} star exec {host} -- {before} {GATECAST} fetch 10.77.0.1 --retry 60s \
             --name host-{host} --out out-{host} {after} >client-{host}.txt 2>&1 &"
        );
    }
    script += "wait $server\ncode=$?\nwait\nexit $code\n";
    let output = Command::new(GATECAST)
        .args(["star", "run", "--hosts", "4", "--rate", "100mbit"])
        .args(sick.star)
        .args(["--", "sh", "-c", &script])
        .env_remove("GATECAST_STAR")
        .output()
        .expect("the program starts");
    let said = fs::read_to_string(folder.path().join("server.txt")).unwrap_or_default();
    assert!(output.status.success(), "{}{said}", output_text(&output));
    let mut records = records(folder.path());
    assert_eq!(records.len(), 1, "{said}");
    let record = records.remove(0);
    assert!(record.all_proven(), "{said}");
    (record, said)
}

/// A client's name and its reason.
type Reason<'a> = (&'a str, Option<CauseKind>);

/// The session of `sick` that has the reasons which are `wanted`, or the last of four: what else the
/// machine does takes CPU, and time, from some host in one session and from none in the next.
/// Nothing is told where the machine stays so busy that hosts lack CPU.
fn session_with(
    wanted: impl Fn(&[Reason<'_>]) -> bool,
    sick: &Sick<'_>,
) -> Option<(Record, String)> {
    let mut last = None;
    for _ in 0..4 {
        let (record, said) = session(sick);
        if wanted(&reasons(&record)) {
            return Some((record, said));
        }
        last = Some((record, said));
    }
    let lacks_cpu = |(record, _): &(Record, String)| {
        reasons(record).iter().any(|(_, reason)| *reason == Some(CauseKind::Cpu))
    };
    if is_busy() && last.as_ref().is_some_and(lacks_cpu) {
        eprintln!("passed by: other programs take the CPU");
        return None;
    }
    last
}

/// More programs want to run than there are processors, over the last minute.
fn is_busy() -> bool {
    let load = fs::read_to_string("/proc/loadavg").expect("Linux");
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).expect("a number");
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    load > u32::try_from(processors).map_or(f64::MAX, f64::from)
}

/// The reasons by the clients' names.
fn reasons(record: &Record) -> Vec<Reason<'_>> {
    let seats = why::explain(record).seats.into_iter().map(|cause| cause.map(|cause| cause.kind));
    let mut reasons: Vec<_> = record.transfers.iter().map(|t| &*t.name).zip(seats).collect();
    reasons.sort_unstable_by_key(|(name, _)| *name);
    reasons
}

/// The second client has this reason and nobody else has one; the server says so.
fn only_second_is(kind: CauseKind, sick: &Sick<'_>) {
    let wanted = [("host-1", None), ("host-2", Some(kind)), ("host-3", None)];
    let Some((record, said)) = session_with(|reasons| reasons == wanted, sick) else { return };
    assert_eq!(reasons(&record), wanted, "{said}\n{:#?}", record.transfers);
    assert_eq!(said.matches("why slow, seat ").count(), 1, "{said}");
    assert_eq!(said.matches("to be faster ").count(), 1, "{said}");
}

/// All clients have this reason, and it is said once.
fn all_are(kind: CauseKind, sick: &Sick<'_>) {
    let all = |reasons: &[Reason<'_>]| reasons.iter().all(|(_, reason)| *reason == Some(kind));
    let Some((record, said)) = session_with(all, sick) else { return };
    assert!(all(&reasons(&record)), "{:?}\n{said}", reasons(&record));
    assert_eq!(said.matches("why slow, seat 1-3 ").count(), 1, "{said}");
}

#[test]
fn healthy_star_has_no_reason() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let none = |reasons: &[Reason<'_>]| reasons.iter().all(|(_, reason)| reason.is_none());
    let Some((record, said)) = session_with(none, &HEALTHY) else { return };
    assert!(none(&reasons(&record)), "{said}\n{:#?}", record.transfers);
    assert_eq!(why::explain(&record).advice.is_some(), said.contains("why slow"), "{said}");
    // What the system can say is there all the same.
    for transfer in &record.transfers {
        let told = transfer.evidence.values().iter().filter(|figure| figure.is_some()).count();
        assert_eq!(told, transfer.evidence.values().len() - 1, "all but the pacing: {transfer:?}");
    }
}

#[test]
fn narrow_server_is_what_everybody_waits_for() {
    let Some(_turn) = turn_with_stars("star") else { return };
    all_are(CauseKind::Uplink, &Sick { star: &["--host", "0=60mbit"], size: 10, ..HEALTHY });
}

#[test]
fn rate_of_the_session_is_what_everybody_waits_for() {
    let Some(_turn) = turn_with_stars("star") else { return };
    all_are(CauseKind::Rate, &Sick { serve: "--rate 60mbit", size: 10, ..HEALTHY });
}

#[test]
fn narrow_link_of_one_host_is_named() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let star = &["--host", "0=400mbit", "--host", "2=20mbit"];
    only_second_is(CauseKind::Link, &Sick { star, size: 10, ..HEALTHY });
}

#[test]
fn loss_on_the_way_to_one_host_is_named() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let prepare = "nft \"add table ip t; \
                   add chain ip t i { type filter hook input priority 0; }; \
                   add rule ip t i ip protocol tcp numgen random mod 100 < 30 drop\"";
    only_second_is(CauseKind::Loss, &Sick { prepare, ..HEALTHY });
}

#[test]
fn small_window_of_one_host_is_named() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let prepare = "sysctl -w net.ipv4.tcp_rmem=\"1152 1152 1152\"";
    // Its acknowledgements take their time, as over a long way: a window is no limit on a short one.
    let star = &["--host", "0=400mbit", "--host", "2=2mbit/100mbit"];
    only_second_is(CauseKind::Window, &Sick { star, prepare, size: 10, ..HEALTHY });
}

#[test]
fn slow_disk_of_one_host_is_named() {
    let strace = Command::new("strace").arg("-V").output();
    let there = strace.is_ok_and(|output| output.status.success());
    let (true, Some(_turn)) = (have("strace", there), turn_with_stars("star")) else { return };
    let writes =
        "strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:delay_enter=20000";
    only_second_is(
        CauseKind::Disk,
        &Sick { client: (writes, "--copy buffered"), size: 10, ..HEALTHY },
    );
    let syncs = "strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:delay_enter=6000000";
    only_second_is(CauseKind::Disk, &Sick { client: (syncs, ""), size: 10, ..HEALTHY });
}

#[test]
fn host_with_little_cpu_is_named() {
    let groups = Path::new("/sys/fs/cgroup/cpu");
    let there = groups.join("cpu.cfs_quota_us").exists();
    let (true, Some(_turn)) = (have("a cgroup of cpu", there), turn_with_stars("star")) else {
        return;
    };
    let group = groups.join(format!("gatecast-{}", std::process::id()));
    fs::create_dir(&group).expect("root");
    fs::write(group.join("cpu.cfs_period_us"), "1000000").expect("a second");
    fs::write(group.join("cpu.cfs_quota_us"), "8000").expect("8 milliseconds of it");
    let client = format!("sh -c \"echo \\$\\$ >{}/cgroup.procs; exec \\$0 \\$@\"", group.display());
    let result = std::panic::catch_unwind(|| {
        only_second_is(CauseKind::Cpu, &Sick { client: (&client, ""), ..HEALTHY });
    });
    let _ = fs::remove_dir(&group);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
