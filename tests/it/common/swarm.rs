//! What the tests of the swarm share: a server that sends by swarm only, and a peer that sends
//! messages one by one.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    thread::JoinHandle,
};

use gatecast::internals::{
    client::{ClientReport, FetchConfig, FetchRun},
    http::{self, HttpConfig},
    proto::bt::{
        metainfo::Metainfo,
        wire,
        wire::{Block, Handshake, Message, MessageLimits},
    },
    server::{builder::ServerCoreBuilder, config::ServerConfig},
    session::Via,
    transport::{swarm, swarm::torrents::SwarmServerConfig},
};

use crate::common::{PATIENCE, Server, http::get};

/// A server that sends by swarm only.
pub(crate) fn server(bytes: u64, set: impl FnOnce(&mut ServerConfig)) -> Server {
    let set = |settings: &mut ServerConfig| {
        settings.via = Some(Via::Swarm);
        set(settings);
    };
    Server::with(bytes, set, serve)
}

/// Adds the swarm, and HTTP with its routes.
pub(crate) fn serve(host: ServerCoreBuilder) -> ServerCoreBuilder {
    let (host, torrents) = swarm::serve(host, SwarmServerConfig::default());
    let config = HttpConfig {
        extra: Some(Arc::new(move |request, peer, local, lobby| {
            torrents.answer(request, peer, local, lobby)
        })),
        ..HttpConfig::default()
    };
    http::serve(host, config).expect("HTTP")
}

/// Clients of this process, each in a thread.
pub(crate) fn fetch(
    server: &Server,
    clients: u16,
    set: impl FnOnce(&mut FetchConfig),
) -> JoinHandle<Vec<ClientReport>> {
    let mut order = server.order("o");
    order.clients = clients;
    set(&mut order);
    thread::spawn(move || {
        FetchRun::new(&order)
            .run(&order, &[&swarm::receive::SwarmReceiveTransport::default()])
            .expect("an order that can be begun")
    })
}

pub(crate) fn metainfo(server: &Server) -> Metainfo {
    Metainfo::decode(&get(server.addr, "/f.bin.torrent")).expect("a torrent")
}

/// How many chunks no client has got yet.
pub(crate) fn held_back(server: &Server) -> usize {
    let swarm = String::from_utf8(get(server.addr, "/swarm")).expect("text");
    swarm.matches("\"first\":null").count()
}

/// The block that a message asks for; `None` when it is no request.
pub(crate) fn request(message: &[u8]) -> Option<Block> {
    let number = |at: usize| Some(u32::from_be_bytes(*message.get(at..)?.first_chunk()?));
    (message[0] == 6).then_some(())?;
    Some(Block { piece: number(1)?, begin: number(5)?, len: number(9)? })
}

/// The bytes of a block of the file.
pub(crate) fn data_of<'a>(content: &'a [u8], metainfo: &Metainfo, block: Block) -> &'a [u8] {
    let from = (block.piece * metainfo.piece_bytes + block.begin) as usize;
    &content[from..from + block.len as usize]
}

/// A peer that sends messages one by one, right or wrong.
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
        stream.write_all(&ours.encode()).expect("a peer that listens");
        let mut theirs = [0; wire::HANDSHAKE_LEN];
        stream.read_exact(&mut theirs).expect("a handshake");
        let theirs = Handshake::decode(&theirs).expect("a handshake");
        assert_eq!(theirs.info_hash, ours.info_hash);
        let pieces = metainfo.pieces.len() as u32;
        Self { stream, limits: MessageLimits { pieces, fast: true } }
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        // The other side may have closed already.
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn send(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.send_bytes(&bytes);
    }

    /// The next message that is no keep-alive; `None` when the other side has closed.
    pub(crate) fn read_message(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut head = [0; 4];
            self.fill(&mut head)?;
            let len = u32::from_be_bytes(head) as usize;
            assert!(len <= self.limits.max_len(), "{len}");
            let mut body = vec![0; len];
            self.fill(&mut body)?;
            if len > 0 {
                return Some(body);
            }
        }
    }

    /// Reads so many bytes; `None` when the other side has closed. It must not be silent.
    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        let read = self.stream.read_exact(bytes);
        let kind = read.as_ref().err().map(std::io::Error::kind);
        let silent = matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert!(!silent, "silence on a link that stands");
        read.ok()
    }

    /// Reads until the other side has closed.
    pub(crate) fn until_closed(&mut self) {
        while self.read_message().is_some() {}
    }

    /// The kind of the next message that is one of `kinds`.
    pub(crate) fn read_until(&mut self, kinds: &[u8]) -> u8 {
        loop {
            let message = self.read_message().expect("a link that stands");
            if kinds.contains(&message[0]) {
                return message[0];
            }
        }
    }

    /// Answers every request with what `data` gives for it, until the other side closes.
    pub(crate) fn serve(&mut self, mut data: impl FnMut(Block) -> Vec<u8>) {
        while let Some(message) = self.read_message() {
            if let Some(block) = request(&message) {
                self.send(&Message::Piece(block.piece, block.begin, &data(block)));
            }
        }
    }
}
