//! VLC on another host lists the relay's stream by itself. (It keeps what is taken back.)

use std::process::Command;

use crate::{
    common::{
        have, installed,
        program::{GATECAST, Program},
        turn::in_turn,
        until,
    },
    live::{LIMIT, relaying, vanished::Elsewhere},
};

/// Whether VLC lists the stream now, as its command `playlist` shows it.
fn is_listed(vlc: &mut Program) -> bool {
    let before = vlc.stdout().len();
    vlc.type_line("playlist");
    let answer = || vlc.stdout()[before..].to_vec();
    until("its list", || answer().iter().any(|line| line.contains("End of playlist")));
    let answer = answer();
    let shows = |text: &str| answer.iter().position(|line| line.contains(text));
    let streams = shows("Network streams (SAP)").expect("it looks for announcements");
    shows("- gatecast relay").is_some_and(|stream| stream > streams)
}

#[test]
fn vlc_lists_the_stream_that_is_announced() {
    let elsewhere = Elsewhere::new(78);
    let there = elsewhere.is_some() && installed("cvlc") && installed("runuser");
    if !have("network namespaces (root) and VLC", there) {
        return;
    }
    in_turn("live", LIMIT, move || {
        let elsewhere = elsewhere.expect("made");
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        // VLC runs as another user, who must be able to write here.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(place, everybody).expect("ours");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &elsewhere.name, "runuser", "-u", "nobody", "--"]);
        command.args(["cvlc", "-q", "-S", "sap", "-I", "oldrc", "--rc-fake-tty"]);
        command.env("HOME", place).env_remove("XDG_RUNTIME_DIR");
        let mut vlc = Program::interactive(&mut command);
        assert!(!is_listed(&mut vlc), "nobody announces anything yet");
        let words = ["relay", "--input", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
        let group = ["--multicast-group", "239.255.78.1:5000"];
        let by = ["--multicast-interface", "198.18.78.1"];
        let mut command = Command::new(GATECAST);
        let (_relay, _, _) = relaying(command.args(words).args(group).args(by), place);
        until("VLC lists the stream", || is_listed(&mut vlc));
        vlc.type_line("quit");
    });
}
