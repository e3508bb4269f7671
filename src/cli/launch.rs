//! `watch --launch`: a player of this host, started for the stream.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
};

use crate::{
    cli::output,
    error::{Error, Result},
};

/// Players, the one that suits most people first, and how each is told where to listen.
const PLAYERS: [(&str, &str); 3] = [("vlc", "udp://@"), ("mpv", "udp://"), ("ffplay", "udp://")];

/// A port of this host that nobody has.
///
/// # Errors
/// There is none.
pub(crate) fn free_port() -> Result<SocketAddr> {
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|held| held.local_addr());
    held.map_err(Error::io("find a free port", "this host"))
}

/// Starts the first player that is on PATH, to play what comes to `at`.
///
/// # Errors
/// There is none, which says where a player elsewhere finds the stream of `relay`.
pub(crate) fn start(at: SocketAddr, relay: SocketAddr) -> Result<Child> {
    for (player, scheme) in PLAYERS {
        let mut command = Command::new(player);
        command.arg(format!("{scheme}{at}")).stdin(Stdio::null());
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            started => {
                output::eprintln(format_args!("{player} plays what comes to {at}"));
                return started.map_err(Error::io("start", player));
            }
        }
    }
    let reason = format!("no vlc, mpv or ffplay is on PATH; open http://{relay}/live.ts");
    Err(Error::refused("this host", reason))
}
