//! Where the time of one transfer went, as both ends observed it.

use std::time::Duration;

use crate::units::{micros, total_saturating};

counts! {
    /// What tells why a transfer took its time. The client says the first six, and its link; the rest
    /// is what the server's system and its sender saw of the way to it.
    Evidence:
    /// The client waited for the next payload byte, microseconds.
    read_us: "client_read_us",
    /// The client wrote payload into its copy, microseconds.
    write_us: "client_write_us",
    /// The client read its copy back and hashed it, microseconds.
    hash_us: "client_hash_us",
    /// The client made its copy durable and gave it its name, microseconds.
    sync_us: "client_sync_us",
    /// The client's thread was on a CPU, from GO to the receipt, microseconds.
    cpu_us: "client_cpu_us",
    /// The client's thread could run and had to wait for a CPU, microseconds.
    cpu_wait_us: "client_cpu_wait_us",
    /// The connection had payload on its way, microseconds.
    busy_us: "connection_busy_us",
    /// Of these: the client's receive window was full.
    rwnd_limited_us: "receive_window_limited_us",
    /// Of these: the server's send buffer was too small.
    sndbuf_limited_us: "send_buffer_limited_us",
    /// Segments with payload that were sent, those sent again included.
    segments: "sent_segments",
    /// Segments that were sent again.
    segments_again: "retransmitted_segments",
    /// The least round trip, microseconds.
    min_rtt_us: "least_round_trip_us",
    /// The last smoothed round trip, microseconds.
    rtt_us: "last_round_trip_us",
    /// The last rate of delivery that the system measured, bytes per second.
    delivery_rate: "delivery_bytes_per_s",
    /// Bytes of this connection in the queue of the server's own link while its last ones were handed
    /// to the system: the median.
    queued_bytes: "queued_at_server_bytes",
    /// The server's sender waited for the session's rate, microseconds.
    paced_us: "paced_us",
    /// The queue of the server's own link held datagrams, or pieces of the swarm, microseconds.
    server_link_us: "server_link_full_us",
    /// A datagram waited at the server for room in the client's buffer, microseconds.
    buffer_full_us: "client_buffer_full_us",
    /// From the group's last new block to this client's last one, microseconds.
    repair_us: "repair_us",
    /// The group's rate was cut so often while this client lost clearly more than most.
    rate_cuts: "rate_cuts",
    /// The queue of the client's own link held pieces for other peers, microseconds.
    client_link_us: "client_link_full_us",
    /// The client's buffer for datagrams, bytes as its system counts them.
    buffer_bytes: "client_buffer_bytes",
}

/// By how much the figures of two clocks may differ: one part in so many, and [`CLOCK_SLACK`].
const CLOCK_PART: u32 = 20;

/// What two clocks that were read one after the other may differ by on a busy machine.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// How many of the figures, the first ones, a client says.
const OF_CLIENT: usize = 6;

impl Evidence {
    /// What of these a client may say that had `passed` of time.
    #[must_use]
    pub fn of_client(self, passed: Duration) -> Self {
        let held = self.held_to(passed);
        let mut values = held.values();
        values[OF_CLIENT..].fill(None);
        Self { client_link_us: held.client_link_us, ..Self::from_values(values) }
    }

    /// These without the client's figures, where those claim more time than `passed`.
    #[must_use]
    pub fn held_to(self, passed: Duration) -> Self {
        let mut values = self.values();
        let most = micros(passed.saturating_add(passed / CLOCK_PART).saturating_add(CLOCK_SLACK));
        let is_over =
            |parts: &[Option<u64>]| total_saturating(parts.iter().flatten().copied()) > most;
        let phases = [self.read_us, self.write_us, self.hash_us, self.sync_us];
        let cpu = [self.cpu_us, self.cpu_wait_us];
        if is_over(&phases) || is_over(&cpu) || is_over(&[self.client_link_us]) {
            values[..OF_CLIENT].fill(None);
            return Self { client_link_us: None, ..Self::from_values(values) };
        }
        self
    }

    /// These figures, and what `other` knows of the rest.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut values = self.values();
        for (value, other) in values.iter_mut().zip(other.values()) {
            *value = value.or(other);
        }
        Self::from_values(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_that_claims_more_time_than_passed_is_not_believed() {
        let honest = Evidence {
            read_us: Some(400_000),
            write_us: Some(500_000),
            hash_us: Some(100_000),
            cpu_us: Some(900_000),
            cpu_wait_us: Some(100_000),
            busy_us: Some(u64::MAX),
            client_link_us: Some(1_000_000),
            ..Evidence::default()
        };
        let second = Duration::from_secs(1);
        // The largest honest case: all of the time, and what two clocks differ by.
        assert_eq!(honest.held_to(second), honest);
        assert_eq!(honest.of_client(second), Evidence { busy_us: None, ..honest });
        let none = Evidence { busy_us: honest.busy_us, ..Evidence::default() };
        for claim in [
            Evidence { sync_us: Some(100_000), ..honest },
            Evidence { hash_us: Some(u64::MAX), ..honest },
            Evidence { cpu_wait_us: Some(200_000), ..honest },
            Evidence { client_link_us: Some(1_200_000), ..honest },
        ] {
            assert_eq!(claim.held_to(second), none, "{claim:?}");
            assert_eq!(claim.of_client(second), Evidence::default());
        }
        assert_eq!(honest.of_client(Duration::ZERO), Evidence::default());
        assert_eq!(honest.held_to(Duration::MAX), honest);
    }

    #[test]
    fn what_one_end_knows_is_kept_and_the_rest_filled_in() {
        let ours = Evidence { read_us: Some(1), ..Evidence::default() };
        let both = ours.or(Evidence { read_us: Some(2), rtt_us: Some(3), ..Evidence::default() });
        assert_eq!(both, Evidence { rtt_us: Some(3), ..ours });
    }
}
