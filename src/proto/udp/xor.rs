//! Which blocks to combine, so that one datagram repairs a loss at many clients.
//!
//! A client can use an XOR of which it lacks exactly one block (strict instantly decodable
//! network coding; Yu, Sadeghi, Aboutorab, EURASIP JASP 2015:94). So blocks are combined whose
//! lackers are disjoint: greedily, those that most clients lack first.

use crate::proto::udp::packet::{XOR_MAX, XOR_ROOM, xor_ids};

/// Most clients whose losses are combined, one bit each.
pub const LACKERS_MAX: usize = 128;

/// Groups `lacked`, blocks with the set of clients that lack each, so that no client lacks two
/// of a group. Groups come out sorted, each with at most [`XOR_MAX`] blocks whose numbers fit
/// [`XOR_ROOM`].
pub fn group(mut lacked: Vec<(u32, u128)>) -> Vec<Vec<u32>> {
    lacked.retain(|(_, who)| *who != 0);
    // Stable, so that neighbours stay together and their numbers are short.
    lacked.sort_by_key(|(_, who)| std::cmp::Reverse(who.count_ones()));
    let mut groups: Vec<(Vec<u32>, u128)> = Vec::new();
    // For each client the first group that may still have no block of its own.
    let mut free = [0_usize; LACKERS_MAX];
    for (block, who) in lacked {
        let mut at = 0;
        for client in ones(who) {
            let from = &mut free[client];
            while groups.get(*from).is_some_and(|(_, taken)| taken >> client & 1 == 1) {
                *from += 1;
            }
            at = at.max(*from);
        }
        loop {
            let Some((blocks, taken)) = groups.get_mut(at) else {
                groups.push((vec![block], who));
                break;
            };
            if *taken & who == 0 {
                let place = blocks.partition_point(|&other| other < block);
                blocks.insert(place, block);
                if xor_ids(blocks) <= XOR_ROOM {
                    // A full one is taken by everybody, so that nobody looks at it again.
                    let full = blocks.len() == XOR_MAX;
                    *taken = if full { u128::MAX } else { *taken | who };
                    break;
                }
                blocks.remove(place);
            }
            at += 1;
        }
    }
    groups.into_iter().map(|(blocks, _)| blocks).collect()
}

/// The numbers of the bits that are set.
fn ones(mut set: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (bit < 128).then_some(bit as usize)
    })
}

/// XORs `other` into the front of `sum`; what `other` lacks at its end counts as zeros.
pub fn add(sum: &mut [u8], other: &[u8]) {
    for (sum, other) in sum.iter_mut().zip(other) {
        *sum ^= other;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn losses_of_different_clients_share_a_datagram() {
        let groups = group(vec![(1, 0b0001), (2, 0b0010), (3, 0b0100), (4, 0b1000)]);
        assert_eq!(groups, [[1, 2, 3, 4]]);
        let groups = group(vec![(1, 0b0011), (2, 0b0010), (3, 0b1100)]);
        assert_eq!(groups, [vec![1, 3], vec![2]]);
        assert_eq!(group(vec![(1, 0)]), Vec::<Vec<u32>>::new());
    }

    #[test]
    fn xor_undoes_itself_and_pads_with_zeros() {
        let mut sum = [1, 2, 3];
        add(&mut sum, &[7, 7]);
        assert_eq!(sum, [6, 5, 3]);
        add(&mut sum, &[7, 7]);
        assert_eq!(sum, [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn every_block_is_in_one_group_and_no_client_lacks_two(
            lacked in prop::collection::btree_map(0_u32..100_000, 1_u128..1 << 14, 0..300),
        ) {
            let list: Vec<_> = lacked.iter().map(|(&block, &who)| (block, who)).collect();
            let groups = group(list);
            let mut all: Vec<u32> = groups.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, lacked.keys().copied().collect::<Vec<_>>());
            for blocks in &groups {
                prop_assert!(blocks.len() <= XOR_MAX && blocks.is_sorted());
                prop_assert!(xor_ids(blocks) <= XOR_ROOM);
                let mut taken = 0_u128;
                for block in blocks {
                    prop_assert_eq!(taken & lacked[block], 0);
                    taken |= lacked[block];
                }
            }
        }
    }
}
