//! `watch --launch` with programs in the place of players.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::{
    common::{
        program::{GATECAST, Program},
        turn::in_turn,
        until, within,
    },
    live::{LIMIT, relay},
};

/// A viewer that finds only what is in `bin`.
fn launch(bin: &Path, at: SocketAddr) -> Program {
    let mut command = Command::new(GATECAST);
    command.args(["watch", &at.to_string(), "--launch"]).current_dir(bin).env("PATH", bin);
    Program::interactive(&mut command)
}

/// A player that does what `script` says.
fn player(bin: &Path, name: &str, script: &str) {
    let path = bin.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("room");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
}

#[test]
fn launched_player_gets_the_port_and_ends_with_the_viewer() {
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let bin = folder.path();
        let (_relay, _, at) = relay(bin);
        player(bin, "ffplay", "exit 9");
        player(bin, "mpv", "echo $$ $1 >told.new; /bin/mv told.new told; exec /bin/sleep 600");
        let mut watch = launch(bin, at);
        until("it is started", || bin.join("told").exists());
        let told = fs::read_to_string(bin.join("told")).expect("written");
        let (process, url) = told.trim().split_once(' ').expect("two words");
        let port = url.strip_prefix("udp://127.0.0.1:").expect("an address of this host");
        assert!(port.parse::<u16>().expect("a port") >= 1024, "{url}");
        let said = format!("mpv plays what comes to 127.0.0.1:{port}");
        until("it says so", || watch.stderr().contains(&said));
        let runs = || Path::new("/proc").join(process).join("cwd").read_link().is_ok();
        assert!(runs());
        watch.type_line("q");
        assert_eq!(watch.code(), 0, "{}", watch.stderr());
        until("it has ended", || !runs());
    });
}

#[test]
fn viewer_ends_with_its_player() {
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (_relay, _, at) = relay(folder.path());
        player(folder.path(), "vlc", "exit 1");
        let mut watch = launch(folder.path(), at);
        assert_eq!(watch.code(), 0, "{}", watch.stderr());
    });
}

#[test]
fn launch_without_a_player_says_the_url() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (_relay, _, at) = relay(folder.path());
        let mut watch = launch(folder.path(), at);
        assert_eq!(watch.code(), 1);
        let said = watch.stderr();
        assert!(said.contains(&format!("open http://{at}/live.ts")), "{said}");
    });
}
