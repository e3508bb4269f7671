//! Stars that are slow for one known reason, and whether the session says that reason.
//!
//! Each has a server and three clients on hosts of their own; the second client is the sick one, or
//! what all of them share is. One has six sick clients and a healthy one.
//! They need root, `ip`, `tc`, `nft` and `ethtool`, and are skipped without them.

use std::{fmt::Write, fs, path::Path, process::Command};

use gatecast::internals::{
    report::why::{self, CauseKind},
    server::sample,
    transfer::{Evidence, Record},
};

use crate::common::{
    have,
    program::{GATECAST, output_text, records},
    star::turn_with_stars,
};

/// What one star is.
#[derive(Clone, Copy)]
pub(crate) struct Sick<'a> {
    /// The way of sending; the server names none where it is empty.
    pub(crate) via: &'a str,
    /// Options of the star beyond its clients' links of 100 Mbit/s.
    pub(crate) star: &'a [&'a str],
    /// Options of the server.
    pub(crate) serve: &'a str,
    /// Done on the second client's host before it starts.
    pub(crate) prepare: &'a str,
    /// What stands before and after the second client's program.
    pub(crate) client: (&'a str, &'a str),
    /// Megabytes.
    pub(crate) size: u64,
}

/// A server whose link has room for all clients, and nothing that is wrong.
pub(crate) const HEALTHY: Sick<'_> = Sick {
    via: "tcp",
    star: &["--host", "0=400mbit"],
    serve: "",
    prepare: "",
    client: ("", ""),
    size: 20,
};

/// What is done on one client's host before its client starts, and what stands before and after the
/// client's program.
#[derive(Clone, Copy, Default)]
pub(crate) struct Host<'a> {
    pub(crate) prepare: &'a str,
    pub(crate) client: (&'a str, &'a str),
}

/// Runs one session with three clients, and returns its record and what the server printed.
fn session(sick: &Sick<'_>) -> (Record, String) {
    let Sick { prepare, client, .. } = *sick;
    session_of(sick, &[Host::default(), Host { prepare, client }, Host::default()])
}

/// Runs one session with these clients, and returns its record and what the server printed. TCP that
/// loses a third may stand still for longer than the usual limit.
pub(crate) fn session_of(sick: &Sick<'_>, hosts: &[Host<'_>]) -> (Record, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().display();
    sample::make(&folder.path().join("f.bin"), sick.size * 1_000_000).expect("room");
    let via = if sick.via.is_empty() { String::new() } else { format!("--via {}", sick.via) };
    let mut script = format!(
        "cd {at}\n{GATECAST} star exec 0 -- {GATECAST} serve f.bin --clients {} --one-off \
         --stall-limit 120s {} \
         {} >server.txt 2>&1 &\nserver=$!\n",
        hosts.len(),
        via,
        sick.serve
    );
    for (host, Host { prepare, client: (before, after) }) in (1..).zip(hosts) {
        if !prepare.is_empty() {
            let _ = writeln!(script, "{GATECAST} star exec {host} -- sh -ec '{prepare}'");
        }
        let _ = writeln!(
            script,
            "{GATECAST} star exec {host} -- {before} {GATECAST} fetch 10.77.0.1 --retry 60s \
             --stall-limit 120s \
             --name host-{host} --out out-{host} {after} >client-{host}.txt 2>&1 &"
        );
    }
    script += "wait $server\ncode=$?\nwait\nexit $code\n";
    let output = Command::new(GATECAST)
        .args(["star", "run", "--rate", "100mbit", "--hosts", &(hosts.len() + 1).to_string()])
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
    println!("{}: {:?}", sick.via, reasons(&record));
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
    session_in_four(wanted, || session(sick))
}

/// The same of any session.
fn session_in_four(
    wanted: impl Fn(&[Reason<'_>]) -> bool,
    run: impl Fn() -> (Record, String),
) -> Option<(Record, String)> {
    let mut last = None;
    for _ in 0..4 {
        let (record, said) = run();
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

/// This machine has strace, which makes system calls slow.
fn have_strace() -> bool {
    let strace = Command::new("strace").arg("-V").output();
    have("strace", strace.is_ok_and(|output| output.status.success()))
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

/// Nobody has a reason in a session of `sick`.
fn nobody_is_slow(sick: &Sick<'_>) -> Option<(Record, String)> {
    let none = |reasons: &[Reason<'_>]| reasons.iter().all(|(_, reason)| reason.is_none());
    let (record, said) = session_with(none, sick)?;
    assert!(none(&reasons(&record)), "{said}\n{:#?}", record.transfers);
    Some((record, said))
}

/// Nobody has a reason in a session of `sick`, and yet what can be observed is there: all figures but
/// those `unknown`.
fn nobody_is(sick: &Sick<'_>, unknown: &[&str]) {
    let Some((record, said)) = nobody_is_slow(sick) else { return };
    assert_eq!(why::explain(&record).advice.is_some(), said.contains("why slow"), "{said}");
    for transfer in &record.transfers {
        let figures = Evidence::NAMES.into_iter().zip(transfer.evidence.values());
        let missing: Vec<_> = figures.filter(|(_, value)| value.is_none()).map(|f| f.0).collect();
        assert_eq!(missing, unknown, "{transfer:?}");
    }
}

#[test]
fn healthy_star_has_no_reason() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let of_others = [
        "paced_us",
        "server_link_us",
        "buffer_full_us",
        "repair_us",
        "rate_cuts",
        "client_link_us",
        "buffer_bytes",
    ];
    nobody_is(&HEALTHY, &of_others);
}

#[test]
fn healthy_group_has_no_reason() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let of_connections = [
        "read_us",
        "write_us",
        "busy_us",
        "rwnd_limited_us",
        "sndbuf_limited_us",
        "segments",
        "segments_again",
        "min_rtt_us",
        "rtt_us",
        "delivery_rate",
        "queued_bytes",
        "paced_us",
        "client_link_us",
    ];
    nobody_is(&Sick { via: "multicast", ..HEALTHY }, &of_connections);
}

#[test]
fn healthy_swarm_has_no_reason() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let of_others = [
        "read_us",
        "write_us",
        "queued_bytes",
        "paced_us",
        "buffer_full_us",
        "repair_us",
        "rate_cuts",
        "buffer_bytes",
    ];
    nobody_is(&Sick { via: "swarm", ..HEALTHY }, &of_others);
}

#[test]
fn full_link_of_a_server_that_sends_once_is_named() {
    let Some(_turn) = turn_with_stars("star") else { return };
    for via in ["multicast", "swarm"] {
        let star = &["--host", "0=30mbit"];
        all_are(CauseKind::Uplink, &Sick { via, star, size: 10, ..HEALTHY });
    }
}

#[test]
fn rate_of_a_group_is_what_everybody_waits_for() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let serve = "--rate 40mbit";
    all_are(CauseKind::Rate, &Sick { via: "multicast", serve, size: 10, ..HEALTHY });
}

#[test]
fn full_links_of_a_swarms_clients_are_named() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let narrow = "1mbit/100mbit";
    let star = ["0=40mbit", &format!("1={narrow}"), &format!("2={narrow}"), &format!("3={narrow}")];
    let star: Vec<&str> = star.iter().flat_map(|host| ["--host", host]).collect();
    let sick = Sick { via: "swarm", star: &star, size: 8, ..HEALTHY };
    // Who has everything first is not slow.
    let wanted = |reasons: &[Reason<'_>]| {
        let named = reasons.iter().filter(|(_, reason)| *reason == Some(CauseKind::PeerUplinks));
        let silent = reasons.iter().filter(|(_, reason)| reason.is_none());
        let (named, silent) = (named.count(), silent.count());
        named > 0 && named + silent == 3
    };
    let Some((record, said)) = session_with(wanted, &sick) else { return };
    assert!(wanted(&reasons(&record)), "{:?}\n{said}", reasons(&record));
    assert!(said.contains("send without the clients' uplinks: --via multicast"), "{said}");
}

#[test]
fn swarm_in_which_some_links_are_full_has_no_reason() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let star = &["--host", "0=40mbit", "--host", "1=1mbit/100mbit", "--host", "3=1mbit/100mbit"];
    nobody_is_slow(&Sick { via: "swarm", star, size: 8, ..HEALTHY });
}

#[test]
fn narrow_link_of_one_host_of_many_is_named() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let star = &["--host", "0=400mbit", "--host", "2=20mbit"];
    for via in ["multicast", "swarm"] {
        only_second_is(CauseKind::Link, &Sick { via, star, size: 10, ..HEALTHY });
    }
}

#[test]
fn loss_on_the_way_to_one_host_of_a_group_is_named() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let prepare = "nft \"add table ip t; \
                   add chain ip t i { type filter hook input priority 0; }; \
                   add rule ip t i ip protocol udp numgen random mod 100 < 5 drop\"";
    only_second_is(CauseKind::Loss, &Sick { via: "multicast", prepare, ..HEALTHY });
}

#[test]
fn small_buffer_of_one_host_of_a_group_is_named() {
    let (true, Some(_turn)) = (have_strace(), turn_with_stars("star")) else { return };
    // What would enlarge the buffers of its two sockets for datagrams does nothing. Its reports take
    // their time, as over a long way: a small buffer is no limit on a short one.
    let client = "strace -f -qq -o /dev/null -e trace=setsockopt \
                  -e inject=setsockopt:retval=0:when=7..11+4";
    let star = ["0=1gbit", "1=200mbit", "2=300kbit/200mbit", "3=200mbit"];
    let star: Vec<&str> = star.iter().flat_map(|host| ["--host", host]).collect();
    let sick = Sick { via: "multicast", star: &star, size: 30, ..HEALTHY };
    only_second_is(CauseKind::Window, &Sick { client: (client, ""), ..sick });
    nobody_is_slow(&sick);
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
    for via in ["tcp", "swarm"] {
        only_second_is(CauseKind::Loss, &Sick { via, prepare, ..HEALTHY });
    }
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
    let (true, Some(_turn)) = (have_strace(), turn_with_stars("star")) else { return };
    let writes =
        "strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:delay_enter=20000";
    only_second_is(
        CauseKind::Disk,
        &Sick { client: (writes, "--copy buffered"), size: 10, ..HEALTHY },
    );
    only_second_is(CauseKind::Disk, &Sick { client: (SLOW_SYNC, ""), size: 10, ..HEALTHY });
}

/// Gives `run` what stands before a client's program so that it has 8 milliseconds of a CPU in each
/// second, where this system can.
fn with_little_cpu(run: impl FnOnce(&str)) {
    let groups = Path::new("/sys/fs/cgroup/cpu");
    let there = groups.join("cpu.cfs_quota_us").exists();
    let (true, Some(_turn)) = (have("a cgroup of cpu", there), turn_with_stars("star")) else {
        return;
    };
    // Tests of one process run beside each other.
    let test = std::thread::current().name().unwrap_or("main").to_owned();
    let group = groups.join(format!("gatecast-{}-{test}", std::process::id()));
    fs::create_dir(&group).expect("root");
    fs::write(group.join("cpu.cfs_period_us"), "1000000").expect("a second");
    fs::write(group.join("cpu.cfs_quota_us"), "8000").expect("8 milliseconds of it");
    let client = format!("sh -c \"echo \\$\\$ >{}/cgroup.procs; exec \\$0 \\$@\"", group.display());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&client)));
    let _ = fs::remove_dir(&group);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn host_with_little_cpu_is_named() {
    with_little_cpu(|client| {
        only_second_is(CauseKind::Cpu, &Sick { client: (client, ""), ..HEALTHY });
    });
}

#[test]
fn host_of_many_with_little_cpu_is_named() {
    with_little_cpu(|client| {
        for via in ["multicast", "swarm"] {
            only_second_is(CauseKind::Cpu, &Sick { via, client: (client, ""), ..HEALTHY });
        }
    });
}

/// What [`slow_disk_of_one_host_is_named`] puts before a client: a sync of six seconds.
const SLOW_SYNC: &str = "strace -f -qq -o /dev/null -e trace=fsync \
                         -e inject=fsync:delay_enter=6000000";

#[test]
fn six_sick_hosts_of_one_session_have_their_reasons() {
    if !have_strace() {
        return;
    }
    let writes =
        "strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:delay_enter=20000";
    let loss = "nft \"add table ip t; \
                add chain ip t i { type filter hook input priority 0; }; \
                add rule ip t i ip protocol tcp numgen random mod 100 < 35 drop\"";
    let window = "sysctl -w net.ipv4.tcp_rmem=\"1152 1152 1152\"";
    let host = Host::default();
    with_little_cpu(|cpu| {
        let hosts = [
            host,
            Host { client: (SLOW_SYNC, ""), ..host },
            Host { client: (writes, "--copy buffered"), ..host },
            Host { prepare: window, ..host },
            host,
            Host { client: (cpu, ""), ..host },
            Host { prepare: loss, ..host },
        ];
        let star = ["0=1gbit", "4=2mbit/100mbit", "5=20mbit"];
        let star: Vec<&str> = star.iter().flat_map(|host| ["--host", host]).collect();
        let sick = Sick { star: &star, ..HEALTHY };
        let wanted = [
            ("host-1", None),
            ("host-2", Some(CauseKind::Disk)),
            ("host-3", Some(CauseKind::Disk)),
            ("host-4", Some(CauseKind::Window)),
            ("host-5", Some(CauseKind::Link)),
            ("host-6", Some(CauseKind::Cpu)),
            ("host-7", Some(CauseKind::Loss)),
        ];
        let run = || session_of(&sick, &hosts);
        let session = session_in_four(|reasons| reasons == wanted, run);
        let Some((record, said)) = session else { return };
        assert_eq!(reasons(&record), wanted, "{said}\n{:#?}", record.transfers);
        assert_eq!(said.matches("why slow, seat ").count(), 6, "{said}");
        println!("{said}");
    });
}
