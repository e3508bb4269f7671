//! The sums that hold on every run, and what does not hold of them.

use crate::{
    session::{FileInfo, SeatId, Via},
    transfer::{Counts, Outcome, Record, Transfer},
};

impl Record {
    /// Every identity that does not hold, one sentence each; empty when the numbers add up.
    pub fn broken_identities(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for transfer in &self.transfers {
            if let Some(sentence) = transfer.broken_identity(self.via, &self.file) {
                broken.push(format!("seat {}: {sentence}", transfer.seat));
            }
        }
        let mut seats: Vec<SeatId> =
            self.transfers.iter().filter(|t| t.woke.is_some()).map(|t| t.seat).collect();
        seats.sort_unstable();
        if let Some(pair) = seats.windows(2).find(|pair| pair[0] == pair[1]) {
            broken.push(format!("seat {} was released twice", pair[0]));
        }
        broken
    }
}

impl Counts {
    /// The sums over datagrams that do not hold, one sentence each. A sum with an unknown part
    /// says nothing.
    fn broken(&self) -> Option<String> {
        let sum = |parts: &[Option<u64>]| {
            parts.iter().try_fold(0_u128, |sum, part| Some(sum + u128::from((*part)?)))
        };
        let identities = [
            (
                "offered",
                self.offered,
                "unique, lost and unheard",
                sum(&[self.unique, self.lost, self.unheard]),
            ),
            (
                "lost",
                self.lost,
                "local_drop, network_lost and host_rx_drop",
                sum(&[self.local_drop, self.network_lost, self.host_rx_drop]),
            ),
            (
                "delivered",
                self.delivered,
                "unique, duplicate, corrupt, foreign and late",
                sum(&[self.unique, self.duplicate, self.corrupt, self.foreign, self.late]),
            ),
        ];
        identities.into_iter().find_map(|(name, whole, of, parts)| {
            let (whole, parts) =
                whole.zip(parts).filter(|(whole, parts)| u128::from(*whole) != *parts)?;
            Some(format!("{whole} datagrams {name}, and {of} are {parts}"))
        })
    }
}

impl Transfer {
    fn broken_identity(&self, via: Via, file: &FileInfo) -> Option<String> {
        if let Some(sentence) = self.counts.broken() {
            return Some(sentence);
        }
        // A client that was told how many there were knows of all of them.
        let unheard = self.counts.unheard.filter(|&count| count > 0);
        if let (Via::Raw, Some(_), Some(count)) = (via, self.seconds_client, unheard) {
            return Some(format!(
                "{count} datagrams unheard, by a client that was told how many there were"
            ));
        }
        let whole = |side: &str, bytes: u64| {
            let sum = bytes.saturating_add(self.bytes_resumed);
            (sum != file.bytes).then(|| {
                format!(
                    "complete with {bytes} bytes at the {side} and {} from before, of {}",
                    self.bytes_resumed, file.bytes
                )
            })
        };
        let Counts { bytes_from_server: server, bytes_from_peers: peers, .. } = self.counts;
        if let (Some(server), Some(peers), Some(client)) = (server, peers, self.bytes_client)
            && self.outcome == Outcome::Complete
        {
            let again = self.counts.retransmitted.unwrap_or(0);
            if server.saturating_add(peers) != client.saturating_add(again) {
                return Some(format!(
                    "{server} bytes from the server and {peers} from peers, of which {again} of \
                     no use, are not {client}"
                ));
            }
            if let Some(sent) = self.bytes_server.filter(|&sent| sent < server) {
                return Some(format!("{server} bytes from the server, which sent {sent}"));
            }
        }
        if self.outcome == Outcome::Complete {
            if let Some(sentence) = self.bytes_client.and_then(|bytes| whole("client", bytes)) {
                return Some(sentence);
            }
            let retransmitted =
                self.counts.retransmitted.is_some() || self.counts.bytes_from_peers.is_some();
            if let Some(bytes) = self.bytes_server.filter(|_| !retransmitted) {
                return whole("server", bytes);
            }
            return None;
        }
        if let (Some(sent), Some(received)) = (self.bytes_server, self.bytes_client)
            && received > sent
            && !matches!(via, Via::Swarm | Via::Chain)
            && self.counts == Counts::default()
        {
            return Some(format!("received {received} bytes of {sent} sent"));
        }
        None
    }
}
