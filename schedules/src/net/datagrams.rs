//! What the gate needs of `src/net/datagrams`: a scheduler has no sockets of UDP, and none is opened.

pub mod options {
    use std::net::UdpSocket;

    pub fn limit_send_buffer(_: &UdpSocket) {}
}
