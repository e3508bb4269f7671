//! What the tests of the swarm share: a server that sends by swarm alone, a GET, a peer made of
//! messages.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::thread::JoinHandle;

use gatecast::internals::client::{ClientReport, FetchConfig};
use gatecast::internals::proto::bt::metainfo::Metainfo;
use gatecast::internals::proto::bt::wire;
use gatecast::internals::proto::bt::wire::{Handshake, Message, MessageLimits};
use gatecast::internals::server::config::ServerConfig;
use gatecast::internals::session::Via;
use gatecast::internals::transport::swarm;
use gatecast::internals::transport::swarm::torrents::SwarmServerConfig;

use crate::common::{PATIENCE, Server};

/// A server that sends by swarm alone.
pub(crate) fn server(bytes: u64, set: impl FnOnce(&mut ServerConfig)) -> Server {
    let set = |settings: &mut ServerConfig| {
        settings.via = Some(Via::Swarm);
        set(settings);
    };
    Server::with(bytes, set, |host| {
        let (host, torrents) = swarm::serve(host, SwarmServerConfig::default());
        swarm::serve_http(host, torrents)
    })
}

/// Clients of one process, a thread each.
pub(crate) fn fetch(
    server: &Server,
    clients: u16,
    set: impl FnOnce(&mut FetchConfig),
) -> JoinHandle<Vec<ClientReport>> {
    let mut order = server.order("o");
    order.clients = clients;
    set(&mut order);
    thread::spawn(move || swarm::fetch(&order).expect("an order that can be begun"))
}

/// The body of a GET.
pub(crate) fn get(addr: SocketAddr, target: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("a server that listens");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("an answer that ends");
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("a head");
    answer.split_off(end + 4)
}

pub(crate) fn metainfo(server: &Server) -> Metainfo {
    Metainfo::decode(&get(server.addr, "/f.bin.torrent")).expect("a torrent")
}

/// How many chunks nobody but the server has had.
pub(crate) fn held_back(server: &Server) -> usize {
    let swarm = String::from_utf8(get(server.addr, "/swarm")).expect("text");
    swarm.matches("\"first\":null").count()
}

/// A peer made of messages.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    limits: MessageLimits,
}

impl Raw {
    pub(crate) fn join(addr: SocketAddr, metainfo: &Metainfo, id: [u8; 20]) -> Self {
        let stream = TcpStream::connect(addr).expect("a server");
        Self::greet(stream, metainfo, id)
    }

    pub(crate) fn greet(mut stream: TcpStream, metainfo: &Metainfo, id: [u8; 20]) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let ours = Handshake::new(metainfo.info_hash(), id);
        stream
            .write_all(&ours.encode())
            .expect("a peer that listens");
        let mut theirs = [0; wire::HANDSHAKE_LEN];
        stream.read_exact(&mut theirs).expect("a handshake");
        let theirs = Handshake::decode(&theirs).expect("a handshake");
        assert_eq!(theirs.info_hash, ours.info_hash);
        let pieces = metainfo.pieces.len() as u32;
        Self {
            stream,
            limits: MessageLimits { pieces, fast: true },
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        // Whoever is spoken to may have had enough.
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.raw(&bytes);
    }

    /// The next message that is more than a sign of life; `None` when the other side has closed.
    pub(crate) fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut head = [0; 4];
            self.stream.read_exact(&mut head).ok()?;
            let len = u32::from_be_bytes(head) as usize;
            assert!(len <= self.limits.max_len(), "{len}");
            let mut body = vec![0; len];
            self.stream.read_exact(&mut body).ok()?;
            if len > 0 {
                return Some(body);
            }
        }
    }

    /// The kind of the next message that is one of `kinds`.
    pub(crate) fn until(&mut self, kinds: &[u8]) -> u8 {
        loop {
            let message = self.hear().expect("a link that stands");
            if kinds.contains(&message[0]) {
                return message[0];
            }
        }
    }
}
