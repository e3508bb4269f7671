//! Which peers are being dialed, and which are to be dialed later.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
};

use crate::{
    net::clock,
    proto::bt::wire::PeerId,
    transport::swarm::{address::is_private, limits::EXTERNAL_CONNECTIONS},
    units::Moment,
};

/// The dials of one member.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    /// Dial no private addresses.
    pub(super) only_public: bool,
    in_progress: BTreeSet<SocketAddr>,
    scheduled: VecDeque<ScheduledDial>,
}

/// A dial at a later time, dropped if the peer of that id connects first.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScheduledDial {
    due: Moment,
    /// Where to.
    pub(super) addr: SocketAddr,
    /// Who is expected there.
    pub(super) id: PeerId,
}

/// Most dials in progress; each is a thread.
const IN_PROGRESS_MAX: usize = 64;

/// Most scheduled dials.
const SCHEDULED_MAX: usize = 1024;

impl Dialer {
    /// Notes that a dial begins; false when it must not.
    pub(super) fn begin(&mut self, addr: SocketAddr) -> bool {
        if self.only_public && is_private(addr.ip()) {
            log::info!("{addr}: a private address from a public tracker, not dialed");
            return false;
        }
        self.has_room() && self.in_progress.insert(addr)
    }

    /// A dial is over.
    pub(super) fn end(&mut self, addr: SocketAddr) {
        self.in_progress.remove(&addr);
    }

    fn has_room(&self) -> bool {
        self.in_progress.len() < IN_PROGRESS_MAX
    }

    /// Schedules a dial, unless there are too many.
    pub(super) fn schedule(&mut self, due: Moment, addr: SocketAddr, id: PeerId) {
        let mut scheduled = self.scheduled.iter();
        let known = scheduled.any(|dial| dial.addr == addr);
        let here = (self.scheduled.iter()).filter(|dial| dial.addr.ip() == addr.ip());
        if !known && self.scheduled.len() < SCHEDULED_MAX && here.count() < EXTERNAL_CONNECTIONS {
            self.scheduled.push_back(ScheduledDial { due, addr, id });
        }
    }

    /// The next scheduled dial, when it is due and there is room for it.
    pub(super) fn next_due(&mut self) -> Option<ScheduledDial> {
        let is_due = |dial: &ScheduledDial| clock::left(dial.due).is_none();
        if !self.has_room() || !self.scheduled.front().is_some_and(is_due) {
            return None;
        }
        self.scheduled.pop_front()
    }
}
