//! The lines of a chain, and its machine under members that say anything.

use std::collections::BTreeMap;

use gatecast::internals::{
    proto::{
        chain::{
            Chain, Place, Step,
            words::{ChainLine, ticket},
        },
        key::Challenge,
        line::LINE_MAX,
    },
    session::{SeatId, SessionId},
    units::Moment,
};

use crate::input::{Input, lines, reread};

/// So many seats.
const SEATS: u8 = 9;

/// Each line is read again as it is written. Whoever takes takes from one that stands before it and
/// is there; who loses links without a byte is not told without end.
pub fn chain(data: &[u8]) {
    for line in lines(data) {
        if let Some((_, bytes)) = reread(line, ChainLine::decode, ChainLine::encode) {
            assert!(bytes.len() <= LINE_MAX);
        }
    }
    let mut input = Input(data);
    let (mut chain, mut now) = (Chain::new(1000), Moment(1));
    let mut from: BTreeMap<SeatId, (u32, Option<SeatId>)> = BTreeMap::new();
    while !input.is_empty() {
        input.wait(&mut now);
        let seat = SeatId(u16::from(input.u8() % SEATS) + 1);
        let step = from.get(&seat).map_or(0, |(step, _)| *step);
        let steps: Vec<Step> = match input.u8() % 8 {
            0 | 1 => {
                let steps = chain.join(Place { address: None, seat });
                if !steps.is_empty() {
                    from.remove(&seat);
                }
                steps
            }
            2 => {
                from.remove(&seat);
                chain.leave(seat)
            }
            3 => {
                chain.release(now);
                Vec::new()
            }
            4 => {
                chain.at(seat, u64::from(input.u16()));
                assert!(chain.bytes_of(seat).is_none_or(|bytes| bytes <= 1000));
                Vec::new()
            }
            5 => {
                chain.linked(seat, step);
                Vec::new()
            }
            6 => {
                chain.lost(seat, step.wrapping_sub(u32::from(input.u8() % 2))).into_iter().collect()
            }
            _ => {
                let sent = u64::from(input.u16());
                chain.tick(now, |_| Some(sent))
            }
        };
        for Step { seat, step, from: source } in steps {
            let before = from.insert(seat, (step, source));
            assert!(before.is_none_or(|(before, _)| before < step));
            assert!(source.is_none_or(|source| source < seat && chain.bytes_of(source).is_some()));
        }
    }
    for (&seat, &(mut step, _)) in &from {
        let mut told = 0;
        while let Some(next) = chain.lost(seat, step) {
            (step, told) = (next.step, told + 1);
            assert!(told < 100, "without end");
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (session, seat, token) = (SessionId(7), SeatId(3), Challenge(9));
    let ticket = ticket(token, session, seat);
    let at = "10.0.0.1:5000".parse().expect("an address");
    [
        ChainLine::Terms(token),
        ChainLine::Join { session, seat, token, port: 5000 },
        ChainLine::Link { session, seat, ticket },
        ChainLine::From { step: 1, source: Some((seat, at)), ticket },
        ChainLine::Settled,
        ChainLine::Linked(1),
        ChainLine::Lost(1),
        ChainLine::Take(5),
        ChainLine::At(5),
    ]
    .iter()
    .map(ChainLine::encode)
    .collect()
}
