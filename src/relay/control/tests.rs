use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::*;
use crate::relay::Relay;

const PATIENCE: Duration = Duration::from_secs(10);

/// A client of the lab's kind, and a relay for it alone.
struct Scene {
    relay: Relay,
    control: BufReader<TcpStream>,
    ports: Vec<UdpSocket>,
}

impl Scene {
    fn new() -> Self {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let relay = Relay::builder().input(here).listen(here).start();
        let relay = relay.expect("free ports");
        let control = TcpStream::connect(relay.local_addr()).expect("listening");
        control.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let port = |_| UdpSocket::bind(here).expect("a free port");
        Self { relay, control: BufReader::new(control), ports: (0..2).map(port).collect() }
    }

    fn conectar(&self, which: usize) -> String {
        let port = self.ports[which].local_addr().expect("bound").port();
        format!("CONECTAR {port}\n")
    }

    fn ask(&mut self, command: &str) -> String {
        let said = self.control.get_mut().write_all(command.as_bytes());
        said.expect("connected");
        self.read_line()
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.control.read_line(&mut line).expect("an answer");
        line
    }

    fn is_empty_soon(&self) -> bool {
        let begun = Instant::now();
        while !self.relay.snapshot().viewers.is_empty() {
            if begun.elapsed() > PATIENCE {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

#[test]
fn expelled_viewer_gives_no_commands_and_frees_its_place() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask(&scene.conectar(0)), "OK\n");
    // As the source thread lets it go, a moment before its control thread is woken: what that
    // thread reads in between is what the client had said already.
    let viewer = scene.relay.hub.viewers().remove(0);
    viewer.expel(ViewerEnd::Refused, "nobody listens".to_owned());
    scene.relay.hub.set_states(|_| true, ViewerState::Unconnected);
    drop(viewer);
    assert_eq!(scene.ask(&scene.conectar(1)), "ERROR nobody listens\n");
    assert_eq!(scene.read_line(), "", "and closed");
    assert!(scene.is_empty_soon(), "its place is taken for ever");
    let visits = scene.relay.stop().expect("no log to fail");
    assert_eq!(visits.len(), 1, "{visits:?}");
    assert_eq!(visits[0].end, ViewerEnd::Refused);
}

#[test]
fn connection_never_gets_a_second_viewer() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask(&scene.conectar(0)), "OK\n");
    scene.relay.hub.set_states(|_| true, ViewerState::Unconnected);
    let answer = scene.ask(&scene.conectar(1));
    assert_eq!(answer, "ERROR this connection has had its viewer\n");
    assert_eq!(scene.relay.snapshot().viewers.len(), 1);
    // The honest way to another port: to leave and to come again.
    assert_eq!(scene.ask("DESCONECTAR\n"), "OK\n");
    assert_eq!(scene.read_line(), "");
    let again = TcpStream::connect(scene.relay.local_addr()).expect("listening");
    again.set_read_timeout(Some(PATIENCE)).expect("a socket");
    scene.control = BufReader::new(again);
    assert_eq!(scene.ask(&scene.conectar(1)), "OK\n");
    let visits = scene.relay.stop().expect("no log to fail");
    assert_eq!(visits.len(), 2, "{visits:?}");
}
