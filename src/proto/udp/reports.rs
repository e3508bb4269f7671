//! What a receiver reports about missing blocks, when, and in how many lines.

use std::{ops::Range, time::Duration};

use crate::{proto::udp::control::Report, units::Moment};

/// What a receiver does about missing blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairMode {
    /// Nothing: it only measures.
    Raw,
    /// It reports them as soon as they have been overtaken.
    Unicast,
    /// It reports them this long after an END, so that not all clients answer in one instant.
    Multicast(Duration),
}

/// How often a receiver reports its progress at least, while datagrams come.
pub(super) const PROGRESS: Duration = Duration::from_millis(20);

/// The same while no datagrams come, or nothing is repaired: it shows that the client is there.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// The first pause after an answer; each pause after it is twice as long. TCP finds out at once
/// that a segment was lost when another one follows it, and otherwise only by its timer.
const FOLLOW: Duration = Duration::from_millis(2);

/// Most lines of one list. The rest of a longer one comes with the next report.
pub(super) const LINES_MAX: usize = 64;

/// When the next report is due.
#[derive(Clone, Debug)]
pub(super) struct ReportTimer {
    /// Most datagrams between two reports.
    every: u32,
    pub(super) unreported: u32,
    reported_at: Moment,
    /// The round of an END that is to be answered, and when.
    answer: Option<(Moment, u32)>,
    answered: u32,
    /// The longest pause after the last report.
    pause: Duration,
}

impl ReportTimer {
    /// Reports are due after `every` datagrams at the latest.
    pub(super) fn new(every: u32, now: Moment) -> Self {
        let pause = SIGN_OF_LIFE;
        Self { every, unreported: 0, reported_at: now, answer: None, answered: 0, pause }
    }

    /// An END of `round` came, to be answered at `at`.
    pub(super) fn handle_end(&mut self, round: u32, at: Moment) {
        let known = self.answer.is_some_and(|(_, pending)| pending == round);
        if round != self.answered && !known {
            self.answer = Some((at, round));
        }
    }

    /// The round that a report answers, 0 for none, if one is due now.
    pub(super) fn poll(&mut self, mode: RepairMode, now: Moment) -> Option<u32> {
        let asked = self.answer.filter(|(at, _)| now >= *at);
        if asked.is_none() && now < self.next(mode) && self.unreported < self.every {
            return None;
        }
        self.pause = (self.pause * 2).min(SIGN_OF_LIFE);
        if let Some((_, round)) = asked {
            self.answer = None;
            self.answered = round;
            self.pause = FOLLOW;
        }
        self.unreported = 0;
        self.reported_at = now;
        Some(asked.map_or(0, |(_, round)| round))
    }

    fn next(&self, mode: RepairMode) -> Moment {
        self.reported_at.after(match mode {
            RepairMode::Raw => SIGN_OF_LIFE,
            _ if self.unreported == 0 => self.pause,
            _ => self.pause.min(PROGRESS),
        })
    }

    /// When a report is due, unless a datagram comes before.
    pub(super) fn poll_timeout(&self, mode: RepairMode) -> Moment {
        let next = self.next(mode);
        self.answer.map_or(next, |(at, _)| next.min(at))
    }
}

/// Cuts a report with a list that may be long into as many as the list needs, [`LINES_MAX`] at most.
pub(super) fn split(report: Report, mut list: Vec<Range<u32>>) -> Vec<Report> {
    let mut reports = vec![report];
    while reports.len() <= LINES_MAX {
        let last = reports.last_mut().expect("one at least");
        last.missing = list;
        let (_, count) = last.encode();
        if count == last.missing.len() {
            return reports;
        }
        list = last.missing.split_off(count);
        last.more = true;
        let rest = Report { more: false, missing: Vec::new(), ..last.clone() };
        reports.push(rest);
    }
    // The list ends here and begins anew with the next report.
    reports.pop();
    if let Some(last) = reports.last_mut() {
        last.more = false;
    }
    reports
}
