//! The relay's group, as a viewer listens to it: joined, heard, taken, and left again where it does
//! not reach this host.
//!
//! The hearing has one lock. Who changes the way holds it until the relay has answered, so that what
//! comes meanwhile is judged by the answer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{
        clock,
        datagrams::{BatchSocket, DatagramBatch},
        lock,
    },
    proto::{
        relay::{ControlReply, hearing::GroupHearing},
        rtp::RtpHeader,
    },
};

/// What listens to the group.
#[derive(Debug)]
pub(super) struct GroupListener {
    pub(super) inbox: BatchSocket,
    from: SocketAddr,
    pub(super) hearing: Mutex<GroupHearing>,
}

/// How long a viewer waits to hear the group, before it gets the stream to its own port.
const HEAR_LIMIT: Duration = Duration::from_secs(2);

impl GroupListener {
    /// Joins the group that the relay has told of, from the address `here`.
    ///
    /// # Errors
    /// It cannot be joined, or the relay has told of none.
    pub(super) fn join(told: &ControlReply, here: IpAddr, always: bool) -> Result<Self> {
        let ControlReply::Group(told) = told else {
            return Err(Error::refused("the relay", "it has no group"));
        };
        let interface = if let IpAddr::V4(here) = here { Some(here) } else { None };
        let hearing = Mutex::new(GroupHearing::new(told.next, always));
        Ok(Self { inbox: BatchSocket::bind(told.group, interface)?, from: told.from, hearing })
    }

    /// Waits until the group is heard; for [`HEAR_LIMIT`] at most.
    pub(super) fn is_heard(&self) -> bool {
        let deadline = clock::now().after(HEAR_LIMIT);
        while !lock(&self.hearing).is_heard() && clock::left(deadline).is_some() {
            thread::sleep(Duration::from_millis(5));
        }
        lock(&self.hearing).is_heard()
    }

    /// Leaves of `batch` what is of the stream. Returns how much is of other senders.
    pub(super) fn take(&self, hearing: &mut GroupHearing, batch: &mut DatagramBatch) -> u64 {
        let mut foreign = 0;
        batch.trim(|datagram| {
            let header = RtpHeader::decode(datagram.bytes);
            let header = header.filter(|_| datagram.from == self.from);
            foreign += u64::from(header.is_none());
            header.filter(|header| hearing.hears(header.sequence)).map(|header| header.payload)
        });
        foreign
    }
}
