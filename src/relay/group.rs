//! The group that the stream is sent to beside the viewers' own ports, once for a whole room, and its
//! announcement by SAP.
//!
//! It gets the stream in RTP (RFC 2250, section 2) with numbers of the relay's own, so that whoever
//! hears it knows exactly what is missing. To the source's thread it is a viewer that never leaves,
//! because nobody tells who listens.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    error::{Error, Result},
    net::{
        clock,
        datagrams::{DatagramBatch, send_batch},
    },
    proto::{
        relay::{RelayGroup, ViewerState},
        rtp::RtpHeader,
        sap::{self, EVERY},
    },
    relay::viewer::Viewer,
    server::transport::GroupRoute,
};

/// A relay's group, as its threads share it.
#[derive(Debug)]
pub(super) struct StreamGroup {
    /// What is sent to it, as to any viewer.
    pub(super) viewer: Viewer,
    /// The number of the next datagram.
    pub(super) next: AtomicU64,
    from: SocketAddr,
    announcer: UdpSocket,
    /// What announces the stream, and what takes that back.
    announcements: [Vec<u8>; 2],
    /// When it is announced again, microseconds.
    due: AtomicU64,
}

impl StreamGroup {
    /// The group at `route`.
    ///
    /// # Errors
    /// It is not of IPv4, or there is no way to it.
    pub(super) fn open(route: GroupRoute) -> Result<Self> {
        let at = route.interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let open = |to| {
            let socket = send_batch::connected_socket((at, 0).into(), to)?;
            let set = socket.set_multicast_ttl_v4(route.ttl).and_then(|()| socket.local_addr());
            set.map(|from| (socket, from)).map_err(Error::io("send to the group", to))
        };
        let (socket, from) = open(route.group)?;
        let (SocketAddr::V4(to), IpAddr::V4(ip)) = (route.group, from.ip()) else {
            return Err(Error::refused(route.group, "groups are of IPv4"));
        };
        let session = clock::random();
        let viewer = Viewer::new(0, route.group, (Some(socket), None), None);
        viewer.set_state(ViewerState::Running);
        Ok(Self {
            viewer,
            next: AtomicU64::new(0),
            from,
            announcer: open(sap::address(*to.ip()))?.0,
            announcements: [false, true]
                .map(|takes_back| sap::announcement(ip, to, route.ttl, session, takes_back)),
            due: AtomicU64::new(0),
        })
    }

    /// What a viewer is told of it.
    pub(super) fn told(&self, next: u64) -> RelayGroup {
        RelayGroup { group: self.viewer.to, from: self.from, next }
    }

    /// Puts `batch` into RTP; a source that is `in_rtp` loses its own.
    pub(super) fn wrap(&self, batch: &DatagramBatch, in_rtp: bool, wrapped: &mut DatagramBatch) {
        wrapped.clear();
        for (number, datagram) in (self.next.load(Ordering::SeqCst)..).zip(batch.iter()) {
            let theirs = RtpHeader::decode(datagram.bytes).filter(|_| in_rtp);
            let payload = theirs.map_or(datagram.bytes, |header| &datagram.bytes[header.payload]);
            // Of the number and of the time, ticks of 90 kHz, RTP has the low bits.
            let (sequence, timestamp) = (number as u16, (datagram.at.0 / 100 * 9) as u32);
            let ssrc = u32::from(self.from.port());
            let header = RtpHeader { sequence, timestamp, ssrc, payload: 0..0 }.encode_before(0);
            wrapped.push(&header, payload, datagram.at, datagram.from);
        }
    }

    /// Announces the stream where it is time to; when the relay ends, takes that back.
    pub(super) fn announce(&self, is_over: bool) {
        let now = clock::now();
        if is_over || now.0 >= self.due.load(Ordering::Relaxed) {
            self.due.store(now.after(EVERY).0, Ordering::Relaxed);
            let sent = self.announcer.send(&self.announcements[usize::from(is_over)]);
            log::debug!("announced the group: {sent:?}");
        }
    }
}
