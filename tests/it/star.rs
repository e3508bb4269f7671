//! Stars of real namespaces, links and shapers, and that nothing of them is left.
//!
//! Most tests need root, `ip`, `tc`, `nft` and `ethtool`, and are skipped without them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, PoisonError, atomic::AtomicBool},
    thread,
    time::Duration,
};

use gatecast::internals::{
    testbed::star::{
        build::Star,
        calibrate,
        calibrate::{flow, flow::Window},
        layout::{Loss, StarLayout, StarTopology, Traffic},
        namespace,
        star_id::{StarId, StarNode},
        tool,
    },
    units::Rate,
};

use crate::common::{
    have,
    program::{GATECAST, output_text, signal},
    star::turn_with_stars,
    until,
};

static GO: AtomicBool = AtomicBool::new(false);

/// Held by a test that removes all stars without an owner, and by one that keeps such a star.
static OWNERLESS: Mutex<()> = Mutex::new(());

fn gatecast(arguments: &[&str]) -> Output {
    Command::new(GATECAST)
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("GATECAST_STAR")
        .output()
        .expect("the program starts")
}

/// Builds a star in the background, and waits until it stands.
fn standing(arguments: &[&str]) -> Child {
    let child = Command::new(GATECAST)
        .args(["star", "up"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let last = StarNode::Host(hosts(arguments) - 1);
    until("the star", || {
        of(&child)
            .iter()
            .any(|name| StarId::of_namespace(name).is_some_and(|(_, place)| place == last))
    });
    child
}

fn hosts(arguments: &[&str]) -> usize {
    let place = arguments.iter().position(|word| *word == "--hosts");
    place.map_or(14, |place| arguments[place + 1].parse().expect("a number"))
}

/// The namespaces of a process's stars.
fn of(child: &Child) -> Vec<String> {
    let mine =
        |name: &String| StarId::of_namespace(name).is_some_and(|(id, _)| id.process == child.id());
    namespace::names().into_iter().filter(mine).collect()
}

/// Links, queues and packet filters of the namespace of this process.
fn surroundings() -> String {
    let show = |program: &str, words: &[&str]| {
        let path = tool::find(program).expect("there");
        let output = Command::new(path).args(words).output().expect("it starts");
        assert!(output.status.success(), "{}", output_text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    show("ip", &["-o", "link"]) + &show("tc", &["qdisc"]) + &show("nft", &["list", "ruleset"])
}

#[test]
fn impossible_star_is_a_usage_error() {
    for (arguments, says) in [
        (&["--hosts", "0"][..], "0 hosts"),
        (&["--hosts", "1"], "1 hosts"),
        (&["--hosts", "10000"], "more than 1000 hosts"),
        (&["--hosts", "251", "--router"], "more than 250 hosts"),
        (&["--rate", "0"], "invalid rate '0'"),
        (&["--rate", "0mbit"], "invalid rate '0mbit'"),
        (&["--rate", "fast"], "invalid rate 'fast'"),
        (&["--rate", "1kbit"], "1 kbit/s up"),
        (&["--loss", "100%"], "invalid loss '100%'"),
        (&["--loss", "1%", "--offloads"], "offloads must be off"),
        (&["--loss-of", "icmp"], "invalid value 'icmp'"),
        (&["--host", "14=1mbit"], "--host 14: the hosts are 0 to 13"),
        (&["--host", "x"], "invalid host link 'x'"),
        (&["--delay", "1h"], "more than 5 s"),
    ] {
        for action in ["up", "run"] {
            let program = if action == "run" { &["--", "true"][..] } else { &[] };
            let output = gatecast(&[&["star", action], arguments, program].concat());
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", output_text(&output));
            assert!(output_text(&output).contains(says), "{arguments:?}: {}", output_text(&output));
        }
    }
}

#[test]
fn star_leaves_its_surroundings_unchanged() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let before = surroundings();
    // Hosts see their own address and each other's port, and no IPv6.
    let script = format!(
        "set -e; {GATECAST} star exec 13 -- ip -o addr | grep -q 'inet 10.77.0.14/16'; \
         {GATECAST} star exec 13 -- sh -c '! ip -o addr | grep -q inet6'; \
         {GATECAST} star exec 0 -- tc qdisc | grep -q 'tbf .*rate 100Mbit'; \
         {GATECAST} star exec 5 -- false || exit 7"
    );
    let output = gatecast(&["star", "run", "--rate", "100mbit", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(7), "{}", output_text(&output));
    assert_eq!(surroundings(), before);
    assert!(gatecast(&["star", "run", "--hosts", "2", "--", "true"]).status.success());
    let output = gatecast(&["star", "run", "--hosts", "2", "--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output_text(&output).contains("no-such-program"), "{}", output_text(&output));
    assert_eq!(surroundings(), before);
}

#[test]
fn dry_run_prints_working_script() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let before = surroundings();
    let output = gatecast(&[
        "star",
        "up",
        "--hosts",
        "3",
        "--loss",
        "1%",
        "--dry-run",
        "--host",
        "2=5mbit/10mbit",
    ]);
    assert!(output.status.success(), "{}", output_text(&output));
    let plan = String::from_utf8(output.stdout).expect("text");
    assert!(plan.contains("p2 root tbf rate 10000000bit"), "{plan}");
    let run = Command::new("sh").args(["-ec", &plan]).output().expect("sh");
    assert!(run.status.success(), "{}", output_text(&run));
    assert_eq!(surroundings(), before, "it removes the star as well");
}

#[test]
fn foreign_namespace_is_never_touched() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    // The star has an id of ours, but a namespace of its name is there already and is not ours.
    let mut id = StarId::next();
    id.number = 990_000;
    let layout = StarLayout::new(3, Rate(10_000_000));
    let theirs = id.namespace(StarNode::Host(1));
    let ip = |words: &[&str]| {
        let output = Command::new("ip").args(words).output().expect("ip");
        assert!(output.status.success(), "{}", output_text(&output));
    };
    ip(&["netns", "add", &theirs]);
    let error = Star::build_as(id, &layout, &GO).expect_err("taken").to_string();
    assert!(error.contains(&theirs) && error.contains("not ours"), "{error}");
    assert_eq!(
        namespace::names().iter().filter(|name| name.starts_with(&id.to_string())).count(),
        1,
        "theirs stands and nothing of ours"
    );
    ip(&["netns", "del", &theirs]);
    let star = Star::build_as(id, &layout, &GO).expect("free now");
    let near = format!("{theirs}x");
    ip(&["netns", "add", &near]);
    star.down().expect("down");
    assert!(namespace::names().contains(&near), "only exact names are ours");
    ip(&["netns", "del", &near]);
}

#[test]
fn down_removes_stars_of_killed_owners_only() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let _alone = OWNERLESS.lock().unwrap_or_else(PoisonError::into_inner);
    let before = surroundings();
    let mut killed = standing(&["--hosts", "3"]);
    let mut living = standing(&["--hosts", "3"]);
    // A process inside keeps a namespace alive after its name is gone.
    let namespace = namespace::path_of(&of(&killed)[0]);
    let mut sleeper =
        namespace::enter(&namespace, || Command::new("sleep").arg("600").spawn().expect("sleep"))
            .expect("inside");
    assert!(signal(killed.id(), "KILL"));
    killed.wait().expect("dead");
    assert_eq!(of(&killed).len(), 4, "a killed process cannot tidy up");

    let id = of(&living)[0].rsplit_once('-').expect("a name").0.to_owned();
    let output = gatecast(&["star", "down", &id]);
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
    assert!(output_text(&output).contains("in use by process"), "{}", output_text(&output));
    let output = gatecast(&["star", "down"]);
    assert!(output.status.success(), "{}", output_text(&output));
    assert!(output_text(&output).contains("spared"), "{}", output_text(&output));
    assert_eq!(of(&killed).len(), 0);
    assert_eq!(of(&living).len(), 4);
    let ended = sleeper.wait().expect("waited");
    assert!(!ended.success(), "it was ended with its star");

    assert!(signal(living.id(), "INT"));
    assert_eq!(living.wait().expect("ends").code(), Some(130));
    assert_eq!(of(&living).len(), 0);
    assert_eq!(surroundings(), before);
}

/// Whether this process was started with SIGINT (signal 2) ignored.
fn ignores_interrupts() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap_or(0) & 0b10 != 0)
}

/// Whether a capture was ended by its program: its last block is that of the statistics (type 5).
fn is_ended(capture: &Path) -> bool {
    let bytes = fs::read(capture).expect("a capture");
    let number =
        |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
    number(bytes.len() - number(bytes.len() - 4)) == 5
}

#[test]
fn capture_is_whole_however_the_program_ends() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    if !have("dumpcap", tool::find("dumpcap").is_some()) {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let send = "for n in 1 2 3 4 5 6 7 8 9; do echo passed-$n > /dev/udp/10.77.0.2/9; done";
    let interrupt = if ignores_interrupts() { "TERM" } else { "INT" };
    for (name, end, code) in [
        ("ended", "true", 0),
        ("failed", "exit 7", 7),
        ("stopped", &format!("kill -{interrupt} $PPID; sleep 9"), 130),
        ("absent", "", 1),
    ] {
        let folder = place.path().join(name);
        let script = format!("{GATECAST} star exec 0 -- bash -c '{send}'; {end}");
        let at = folder.display().to_string();
        let capture = ["star", "run", "--hosts", "3", "--loss", "50%", "--loss-of", "tcp"];
        let program =
            if end.is_empty() { &["nobody-has-this"][..] } else { &["bash", "-c", &script] };
        let output = gatecast(&[&capture, &["--capture", &at, "--"][..], program].concat());
        assert_eq!(output.status.code(), Some(code), "{name}: {}", output_text(&output));
        for (host, sees) in [("h0-server", true), ("h1", true), ("h2", false)] {
            let capture = folder.join(format!("{host}.pcapng"));
            assert!(is_ended(&capture), "{name}: {host}");
            let bytes = fs::read(&capture).expect("a capture");
            let has = |n: &u8| {
                bytes.windows(8).any(|window| window == [b"passed-", &[b'0' + n][..]].concat())
            };
            let sees = sees && !end.is_empty();
            assert_eq!((1..=9).filter(has).count(), if sees { 9 } else { 0 }, "{name}: {host}");
        }
        // Of TCP half is lost, and this was UDP.
        let lost = fs::read_to_string(folder.join("lost.csv"));
        assert_eq!(
            lost.ok().as_deref(),
            (code != 1).then_some("host,seen,lost\n0,0,0\n1,0,0\n2,0,0\n")
        );
    }
}

#[test]
fn absent_capture_program_is_named_before_a_star_is_built() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let place = tempfile::tempdir().expect("a folder");
    let command = |action: &[&str]| {
        let mut command = Command::new(GATECAST);
        command.args(action).args(["--capture", "capture"]).current_dir(place.path());
        command
    };
    let [mut star, mut study] = [command(&["star", "run"]), command(&["study"])];
    for command in [star.args(["--", "true"]), &mut study] {
        // Administrators' programs are found without a path, and `dumpcap` is none of them.
        let output = command.env("PATH", "/nowhere").output().expect("the program starts");
        assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
        let says = "the program `dumpcap` is missing; Debian has it in package wireshark-common";
        assert!(output_text(&output).contains(says), "{}", output_text(&output));
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
    }
}

#[test]
fn ctrl_c_leaves_no_star_at_any_moment() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    // A shell's background job ignores SIGINT, and so does its child until it sets its handlers.
    let interrupt = if ignores_interrupts() { "TERM" } else { "INT" };
    for (step, name) in (0..24_u64).zip([interrupt, "TERM"].into_iter().cycle()) {
        let mut child = Command::new(GATECAST)
            .args(["star", "up", "--hosts", "20", "--loss", "1%"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        // The signal comes at different moments: from before the handlers are set to a complete
        // star.
        thread::sleep(Duration::from_millis(step * 10));
        assert!(signal(child.id(), name));
        if step % 3 == 0 {
            // A second signal, which is no part of the first, ends it at once and leaves nothing.
            thread::sleep(Duration::from_millis(110 + step));
            signal(child.id(), "INT");
        }
        let status = child.wait().expect("ends");
        // Before the handlers are set the signal itself ends it, and nothing is made yet.
        assert!(matches!(status.code(), Some(130) | None), "{status}");
        assert_eq!(of(&child).len(), 0, "after {step} x 10 ms, {name}");
    }
}

#[test]
fn kept_star_stands_until_taken_down() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let _alone = OWNERLESS.lock().unwrap_or_else(PoisonError::into_inner);
    let output = gatecast(&["star", "up", "--hosts", "2", "--router", "--keep"]);
    assert!(output.status.success(), "{}", output_text(&output));
    let text = output_text(&output);
    let (_, name) = text.rsplit_once("gatecast star down ").expect("how to remove it");
    let name = name.trim();
    // The route to another subnet goes through the router.
    let exec =
        gatecast(&["star", "exec", "--star", name, "1", "--", "ip", "route", "get", "10.77.0.2"]);
    assert!(output_text(&exec).contains("via 10.77.1.1"), "{}", output_text(&exec));
    let exec = gatecast(&["star", "exec", "--star", name, "2", "--", "true"]);
    assert!(output_text(&exec).contains("has no host 2"), "{}", output_text(&exec));
    let output = gatecast(&["star", "down", name]);
    assert!(output.status.success(), "{}", output_text(&output));
    let output = gatecast(&["star", "down", name]);
    assert!(output_text(&output).contains("there is no star"), "{}", output_text(&output));
}

#[test]
fn missing_tool_is_named_in_error() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let nft = tool::find("nft").expect("there");
    // In a mount namespace of its own, /dev/null is mounted over the program.
    let script = format!(
        "mount --bind /dev/null {} && exec {GATECAST} star run --hosts 2 --loss 1% -- true",
        nft.display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output();
    let output = output.expect("unshare");
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
    let says = "`nft` is missing; Debian has it in package nftables";
    assert!(output_text(&output).contains(says), "{}", output_text(&output));

    let output = gatecast(&["star", "run", "--hosts", "2", "--delay", "2ms", "--", "true"]);
    if !output.status.success() {
        assert!(output_text(&output).contains("sch_netem"), "{}", output_text(&output));
    }
}

#[test]
fn star_without_root_uses_user_namespace_or_says_why() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    if !have("setpriv", tool::find("setpriv").is_some()) {
        return;
    }
    // The user nobody may not reach the built program, so it runs a copy.
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("gatecast");
    fs::copy(GATECAST, &program).expect("copied");
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    open(folder.path()).and_then(|()| open(&program)).expect("opened");
    let nobody = |arguments: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&program)
            .args(arguments)
            .current_dir("/")
            .output()
            .expect("setpriv starts")
    };
    let script = format!("{0} star exec 1 -- ip -o addr | grep 10.77.0.2", program.display());
    let output =
        nobody(&["star", "run", "--hosts", "3", "--loss", "1%", "--", "sh", "-c", &script]);
    let allowed = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .args(["unshare", "-Urn", "true"])
        .status();
    if allowed.expect("setpriv starts").success() {
        assert!(output.status.success(), "{}", output_text(&output));
        assert!(output_text(&output).contains("10.77.0.2/16"), "{}", output_text(&output));
    } else {
        assert_eq!(output.status.code(), Some(1));
        assert!(output_text(&output).contains("user namespace"), "{}", output_text(&output));
    }
    let output = nobody(&["star", "up", "--keep"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output_text(&output).contains("--keep takes root"), "{}", output_text(&output));
}

#[test]
fn links_keep_their_rate_and_count_every_loss() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    for middle in [StarTopology::Switch, StarTopology::Router] {
        let mut layout = StarLayout::new(3, Rate(100_000_000));
        layout.topology = middle;
        layout.links[2].down = Rate(20_000_000);
        layout.loss = Some(Loss { millionths: 50_000, of: Traffic::Udp });
        let star = Star::build(&layout, &GO).expect("built");
        let window = Window { lead: Duration::from_millis(400), span: Duration::from_millis(1000) };
        // The bounds are wide because other tests run at the same time. They still tell the links
        // apart.
        for (host, nominal) in [(1, 100.0), (2, 20.0)] {
            let hosts = &star.hosts;
            let got = flow::tcp(&hosts[0], &hosts[host], window, &GO).expect("measured");
            let share = got / (nominal * calibrate::TCP_SHARE);
            assert!((0.7..1.05).contains(&share), "host {host}: {got} Mbit/s");
        }
        let check = calibrate::loss(&star, &GO).expect("counted").expect("asked for");
        check.check().expect("exact");
        assert!(check.sent > 5000 && check.filter_dropped > 0, "{check}");
        // The filter stays afterwards, with its counters at zero, and for UDP only.
        let hosts = &star.hosts;
        flow::tcp(&hosts[0], &hosts[1], window, &GO).expect("measured");
        assert_eq!(star.filtered(1).expect("counters").0, 0);
        star.down().expect("down");
    }
}

#[test]
fn host_counters_include_headers() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let star = Star::build(&StarLayout::new(2, Rate(50_000_000)), &GO).expect("built");
    let hosts = &star.hosts;
    let before = [hosts[0].carried(), hosts[1].carried()].map(|c| c.expect("counted"));
    let window = Window { lead: Duration::ZERO, span: Duration::from_secs(5) };
    let flow = flow::udp(&hosts[0], &hosts[1], window, 1000, &GO).expect("measured");
    assert_eq!((flow.sent, flow.received, flow.receiver_dropped), (1000, 1000, 0));
    let up = hosts[0].carried().expect("counted").since(before[0]).up;
    let down = hosts[1].carried().expect("counted").since(before[1]).down;
    // 1000 frames, and a few more of address resolution.
    assert!((1_514_000..1_516_000).contains(&up), "{up}");
    assert_eq!(up, down);
    assert!(!hosts[1].listens(8080).expect("looked"));
    star.down().expect("down");
}
