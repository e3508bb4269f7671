//! Packets out of datagrams, whole ones and those that two datagrams share.

use super::{PACKET, SYNC};

/// Puts packets together that datagrams have cut. A stream begins with a datagram that holds one.
#[derive(Debug, Default)]
pub struct Framing {
    /// The beginning of a packet whose end has not come; less than a packet.
    begun: Vec<u8>,
}

/// Sync bytes in their places that make a stream of a datagram which begins in mid-packet. Noise
/// has as many once in 90,000 datagrams.
const SYNCS_MIN: usize = 3;

impl Framing {
    /// Gives `see` each packet that `datagram` completes. `false` when it is not a piece of a stream.
    pub fn handle(&mut self, datagram: &[u8], mut see: impl FnMut(&[u8; PACKET])) -> bool {
        let Some(start) = self.start(datagram) else {
            self.begun.clear();
            return false;
        };
        let (end, rest) = datagram.split_at(start);
        if !self.begun.is_empty() {
            self.begun.extend_from_slice(end);
            if let Ok(packet) = self.begun.as_slice().try_into() {
                see(packet);
            }
        }
        let (packets, rest) = rest.as_chunks::<PACKET>();
        packets.iter().for_each(&mut see);
        // A datagram too short to end a packet goes on with it.
        if start < datagram.len() || self.begun.len() >= PACKET {
            self.begun.clear();
        }
        self.begun.extend_from_slice(rest);
        true
    }

    /// What was begun does not go on.
    pub fn rejoin(&mut self) {
        self.begun.clear();
    }

    /// Where the first packet begins in `datagram`; its length when none does and it all belongs
    /// to the packet that was begun. Forgets what was begun when the datagram does not go on with
    /// it: one between them is missing.
    fn start(&mut self, datagram: &[u8]) -> Option<usize> {
        let missing = PACKET - self.begun.len();
        if missing < PACKET {
            if datagram.len() <= missing && !datagram.is_empty() {
                return Some(datagram.len());
            }
            if syncs(datagram, missing) > 0 {
                return Some(missing);
            }
            self.begun.clear();
        }
        if datagram.len() >= PACKET && syncs(datagram, 0) > 0 {
            return Some(0);
        }
        (1..PACKET).find(|&start| syncs(datagram, start) >= SYNCS_MIN)
    }
}

/// How many sync bytes stand a packet apart from `start` on; none if one of them is missing.
fn syncs(datagram: &[u8], start: usize) -> usize {
    let places = datagram.iter().skip(start).step_by(PACKET);
    let count = places.clone().count();
    if places.copied().all(|byte| byte == SYNC) { count } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mpegts::sample;

    fn stream(packets: u8) -> Vec<u8> {
        (0..packets).flat_map(|n| sample::packet(0x100, n, n)).collect()
    }

    /// The packets found in `datagrams`, by the byte that fills each, and how many were strange.
    fn found<'a>(datagrams: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, usize) {
        let (mut framing, mut fills, mut strange) = (Framing::default(), Vec::new(), 0);
        for datagram in datagrams {
            let whole = framing.handle(datagram, |packet| fills.push(packet[187]));
            strange += usize::from(!whole);
            assert!(framing.begun.len() < PACKET);
        }
        (fills, strange)
    }

    #[test]
    fn packets_are_found_however_the_stream_is_cut() {
        let stream = stream(30);
        // Whole packets, ffmpeg's own size, odd ones.
        for size in [188, 1316, 1472, 1000, 375, 189] {
            let all: Vec<u8> = (0..30).collect();
            assert_eq!(found(stream.chunks(size)), (all, 0), "{size}");
        }
        // Pieces of a packet go on with one, and begin none.
        let pieces = [&stream[..200], &stream[200..210], &stream[210..400], &stream[400..]];
        assert_eq!(found(pieces), ((0..30).collect(), 0));
    }

    #[test]
    fn lost_datagram_costs_only_its_own_packets() {
        let stream = stream(60);
        let datagrams: Vec<&[u8]> = stream.chunks(1472).collect();
        for lost in 0..datagrams.len() - 1 {
            let left = datagrams.iter().enumerate().filter(|(n, _)| *n != lost);
            let (fills, strange) = found(left.map(|(_, datagram)| *datagram));
            assert_eq!(strange, 0);
            let (from, to) = (lost * 1472 / PACKET, ((lost + 1) * 1472).div_ceil(PACKET));
            let wanted: Vec<u8> =
                (0..60).filter(|&n| !(from..to).contains(&usize::from(n))).collect();
            assert_eq!(fills, wanted, "without datagram {lost}");
        }
    }

    #[test]
    fn datagrams_without_packets_are_refused() {
        let noise: Vec<u8> = (0..1472_u32).map(|n| ((n * n) >> 3) as u8).collect();
        for strange in [&noise[..], b"", b"hello", &[0; 1316], &[SYNC; 187]] {
            assert_eq!(found([strange]), (vec![], 1));
        }
        // And ends what was begun before it.
        let stream = stream(10);
        let (fills, strange) = found([&stream[..300], &noise, &stream[300..]]);
        assert_eq!(strange, 1);
        assert_eq!(fills, [0, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    proptest! {
        #[test]
        fn any_datagrams_are_framed(
            datagrams in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(SYNC), any::<u8>()], 0..600), 0..8
            )
        ) {
            let (packets, _) = found(datagrams.iter().map(Vec::as_slice));
            let bytes: usize = datagrams.iter().map(Vec::len).sum();
            prop_assert!(packets.len() * PACKET <= bytes);
        }
    }
}
