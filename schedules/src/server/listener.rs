//! A connection's place and thread, as `src/server/listener.rs` gives them, without a port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    net::{clock, primitives::TcpStream},
    server::{admission::Admission, places::Stage},
    units::Moment,
};

#[derive(Debug)]
pub struct Connection {
    pub stream: Arc<TcpStream>,
    pub peer: SocketAddr,
    pub first: Vec<u8>,
    pub deadline: Moment,
}

pub const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// Serves a connection in the thread that calls.
pub fn serve(admission: &Admission, stream: TcpStream, handler: impl FnOnce(Connection)) {
    let peer = stream.peer_addr().expect("always known");
    let stream = Arc::new(stream);
    let id = admission.add(&stream, peer);
    admission.set_stage(id, Stage::Greeted);
    let deadline = clock::now().after(GREETING_LIMIT);
    handler(Connection { stream, peer, first: Vec::new(), deadline });
    admission.remove(id);
}

/// How many connections are open.
pub fn connections(admission: &Admission) -> usize {
    admission.len()
}

/// Closes a connection that is not ready, as for one that finds no place.
pub fn evict(admission: &Admission) {
    admission.evict();
}
