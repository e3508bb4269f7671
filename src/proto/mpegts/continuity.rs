//! Continuity of a transport stream (ISO/IEC 13818-1, 2.4.3.3; ETSI TR 101 290, 1.4).
//!
//! A counter of four bits per PID tells that packets are missing, not how many: sixteen losses in
//! a row on one PID are invisible. So the count of errors is exact as to what was seen, and the
//! count of packets lost is a lower bound.

use super::{PID_NULL, PIDS, TsPacket};

/// Checks the counters of all PIDs.
#[derive(Debug)]
pub struct Continuity {
    pids: Box<[PidState]>,
    counts: ContinuityCounts,
}

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContinuityCounts {
    /// Packets of any PID, stuffing too.
    pub packets: u64,
    /// Times that a counter was not the one that had to come.
    pub errors: u64,
    /// Packets missing at least.
    pub lost: u64,
    /// Legal repeats of the packet before.
    pub repeats: u64,
    /// Packets that were marked as damaged before they came here.
    pub damaged: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct PidState {
    /// The last counter; `None` until the PID was seen.
    last: Option<u8>,
    /// Whether the packet that had it was repeated already.
    repeated: bool,
    /// The packet's last bytes, which differ between a repeat and a jump of sixteen.
    tail: [u8; TAIL],
}

/// Bytes of a packet that are compared to recognise a repeat.
const TAIL: usize = 8;

impl Default for Continuity {
    fn default() -> Self {
        Self {
            pids: vec![PidState::default(); PIDS].into_boxed_slice(),
            counts: ContinuityCounts::default(),
        }
    }
}

impl Continuity {
    /// What was seen so far.
    pub fn counts(&self) -> ContinuityCounts {
        self.counts
    }

    /// The PIDs that were seen, each with its last counter.
    pub fn counters(&self) -> impl Iterator<Item = (u16, u8)> {
        let last = (0..).zip(&self.pids).map(|(pid, state)| Some((pid, state.last?)));
        last.flatten()
    }

    /// The next packet does not follow the last one, and nothing is missing for it.
    pub fn rejoin(&mut self) {
        self.pids.fill(PidState::default());
    }

    /// Checks one packet.
    pub fn handle(&mut self, packet: TsPacket<'_>) {
        self.counts.packets += 1;
        if packet.transport_error() {
            self.counts.damaged += 1;
            return;
        }
        let pid = packet.pid();
        // A control of 0 is reserved and to be discarded (2.4.3.4).
        if pid == PID_NULL || packet.0[3] & 0x30 == 0 {
            return;
        }
        let counter = packet.counter();
        let tail = *packet.0.last_chunk().expect("188 bytes");
        let state = &mut self.pids[usize::from(pid)];
        let before =
            std::mem::replace(state, PidState { last: Some(counter), repeated: false, tail });
        let Some(last) = before.last.filter(|_| !packet.discontinuity()) else {
            return;
        };
        if !packet.has_payload() {
            // The counter stands still, and so does what may be repeated.
            if counter == last {
                *state = before;
            } else {
                self.counts.errors += 1;
                self.counts.lost += u64::from(counter.wrapping_sub(last) & 0x0F);
            }
        } else if counter == last && tail == before.tail && !before.repeated {
            self.counts.repeats += 1;
            state.repeated = true;
        } else if counter != last.wrapping_add(1) & 0x0F {
            self.counts.errors += 1;
            self.counts.lost += u64::from(counter.wrapping_sub(last + 1) & 0x0F);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::sample::{adapted, packet};

    fn run(packets: &[[u8; 188]]) -> ContinuityCounts {
        let mut continuity = Continuity::default();
        for bytes in packets {
            continuity.handle(TsPacket(bytes));
        }
        continuity.counts()
    }

    fn errors(packets: &[[u8; 188]]) -> (u64, u64) {
        let counts = run(packets);
        (counts.errors, counts.lost)
    }

    #[test]
    fn whole_stream_has_no_errors() {
        let packets: Vec<_> = (0..100)
            .flat_map(|n| [packet(0x100, n, n), packet(0x101, n / 2 + 3, n ^ 1)])
            .enumerate()
            .filter(|(n, _)| n % 4 != 3) // The second PID moves at half the pace.
            .map(|(_, packet)| packet)
            .collect();
        assert_eq!(errors(&packets), (0, 0));
        assert_eq!(run(&packets).packets, 150);
    }

    #[test]
    fn losses_of_one_to_fifteen_are_counted() {
        for lost in 1..=15 {
            let after = packet(7, 5 + 1 + lost, 9);
            assert_eq!(errors(&[packet(7, 5, 1), after]), (1, u64::from(lost)));
        }
        // Sixteen are not: the counter is where it had to be.
        assert_eq!(errors(&[packet(7, 5, 1), packet(7, 5 + 17, 9)]), (0, 0));
    }

    #[test]
    fn only_one_equal_repeat_is_legal() {
        let first = packet(7, 5, 1);
        assert_eq!(run(&[first, first]).repeats, 1);
        assert_eq!(errors(&[first, first, packet(7, 6, 2)]), (0, 0));
        assert_eq!(errors(&[first, first, first]), (1, 15));
        assert_eq!(errors(&[first, packet(7, 5, 2)]), (1, 15), "fifteen lost");
    }

    #[test]
    fn counter_stays_without_payload() {
        let clock = |counter| adapted(7, counter, 0x10, 1, false);
        assert_eq!(errors(&[packet(7, 5, 1), clock(5), clock(5), packet(7, 6, 1)]), (0, 0));
        assert_eq!(errors(&[packet(7, 5, 1), clock(7), packet(7, 8, 1)]), (1, 2));
    }

    #[test]
    fn announced_jump_stuffing_and_damage_are_no_errors() {
        let jump = adapted(7, 12, 0x80, 1, true);
        assert_eq!(errors(&[packet(7, 5, 1), jump, packet(7, 13, 1)]), (0, 0));
        let stuffing: Vec<_> = (0..30).map(|n| packet(PID_NULL, n * 7, n)).collect();
        assert_eq!(errors(&stuffing), (0, 0));
        let mut damaged = packet(7, 9, 1);
        damaged[1] |= 0x80;
        let counts = run(&[packet(7, 5, 1), damaged, packet(7, 6, 1)]);
        assert_eq!((counts.errors, counts.damaged), (0, 1));
    }

    #[test]
    fn nothing_is_missing_after_a_pause() {
        let mut continuity = Continuity::default();
        continuity.handle(TsPacket(&packet(7, 5, 1)));
        continuity.rejoin();
        continuity.handle(TsPacket(&packet(7, 11, 1)));
        continuity.handle(TsPacket(&packet(7, 13, 1)));
        assert_eq!(continuity.counts().errors, 1, "only the loss after it");
    }
}
