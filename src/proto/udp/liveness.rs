//! When a client is given up.
//!
//! It is given up when it is silent, when it gets no further, when it reports what cannot be true,
//! or when it asks for too much. Otherwise one client could hold a session open for ever.

use crate::{
    proto::udp::{CONSENT, DOUBT, stall_detector::StallDetector},
    units::Moment,
};

/// Why nothing more is sent to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It sent no report for [`CONSENT`].
    Silent,
    /// For [`DOUBT`] all its reports claimed datagrams, or missed blocks, that were never sent.
    Impossible,
    /// It reports, and got nothing new for 10 s.
    Stuck,
    /// It reports, and none of what was sent for 10 s has reached it.
    Unreached,
    /// It asked for more than is reasonable.
    Greedy,
}

/// How often the file is sent to one client at most, and [`SLACK`] datagrams more.
pub const ROUNDS: u64 = 4;

/// Datagrams beyond [`ROUNDS`] times the file, for small files.
pub const SLACK: u64 = 16 * 1024;

/// Whether one client still deserves to be sent to.
#[derive(Clone, Debug, Default)]
pub(super) struct Liveness {
    /// When its last report came.
    pub(super) reported_at: Moment,
    pub(super) stall: StallDetector,
    /// Since when all its reports were impossible.
    doubted: Option<Moment>,
    /// How many datagrams it may still be sent.
    budget: u64,
}

impl Liveness {
    /// A client that lacks `blocks` blocks, when `sent` datagrams had been sent.
    pub(super) fn new(blocks: u32, sent: u64, now: Moment) -> Self {
        Self {
            reported_at: now,
            stall: StallDetector::new(sent, now),
            doubted: None,
            budget: u64::from(blocks) * ROUNDS + SLACK,
        }
    }

    /// True when its last report is older than [`CONSENT`].
    pub(super) fn is_silent(&self, now: Moment) -> bool {
        now >= self.reported_at.after(CONSENT)
    }

    /// What is wrong with a client that gets no further.
    pub(super) fn stuck(&self) -> Fault {
        if self.stall.is_unreached() { Fault::Unreached } else { Fault::Stuck }
    }

    /// Its report was possible.
    pub(super) fn trust(&mut self) {
        self.doubted = None;
    }

    /// Its report was impossible. An honest client may send one such report, after it received a
    /// forged datagram; so only a client that sends nothing else for [`DOUBT`] is given up.
    pub(super) fn doubt(&mut self, now: Moment) -> Result<(), Fault> {
        let since = *self.doubted.get_or_insert(now);
        if now >= since.after(DOUBT) {
            return Err(Fault::Impossible);
        }
        Ok(())
    }

    /// Takes `datagrams` off what it may be sent.
    pub(super) fn spend(&mut self, datagrams: u64) -> Result<(), Fault> {
        self.budget = self.budget.checked_sub(datagrams).ok_or(Fault::Greedy)?;
        Ok(())
    }
}

impl Fault {
    /// The fault as one clause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Silent => "sent no report for 5 s",
            Self::Stuck => "received nothing new for 10 s",
            Self::Unreached => "no datagram reached this client for 10 s: a firewall may drop UDP",
            Self::Impossible => "reported datagrams that were never sent",
            Self::Greedy => "asked for more than four times the file",
        }
    }
}
