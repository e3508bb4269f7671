//! How far each seat is at which time, which the session's thread looks at.

use std::time::Duration;

use crate::{
    net::{primitives::atomic::Ordering, tcp_info},
    server::gate::state::{GateState, SeatPhase},
    transfer::samples,
    units::micros,
};

/// The least time between two looks at all seats, ...
pub(super) const LEAST: Duration = Duration::from_millis(10);

/// ... and for each of them: a look at one takes a microsecond.
const EACH: Duration = Duration::from_micros(100);

/// So many looks it takes for the time since the release to double, and a few more.
const PART: u32 = 32;

/// Looks at the seats that move, `took` after the release; returns when to look again. Where the
/// payload `fills_control`, the system knows what of it has come, after the words before it.
pub(super) fn take(state: &mut GateState, fills_control: bool, took: Duration) -> Duration {
    let mut seats = 0;
    for seat in state.seats.values_mut().filter(|s| matches!(s.phase, SeatPhase::Released)) {
        let acked = tcp_info::acked(&seat.client.stream).filter(|_| fills_control);
        let bytes = acked.map_or_else(|| seat.moved.load(Ordering::Relaxed), |(acked, ..)| acked);
        samples::push(&mut seat.samples, micros(took), bytes);
        seats += 1;
    }
    // Whole microseconds: a wait of less is none to the clock.
    took + Duration::from_micros(micros((took / PART).max(LEAST).max(EACH * seats)))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        sync::{Arc, atomic::AtomicU64},
    };

    use super::*;
    use crate::{
        net::clock,
        server::gate::{
            pending::{ClientKind, PendingClient},
            state::{GatePhase, TakenSeat},
            waiting_list::WaitingList,
        },
        session::SeatId,
        units::Moment,
    };

    /// A seat that is ready, and a released one, of which 3000 bytes have moved.
    fn state(stream: &Arc<TcpStream>) -> GateState {
        let seat = |phase| TakenSeat {
            client: PendingClient {
                name: "c".to_owned(),
                kind: ClientKind::Native,
                stream: Arc::clone(stream),
                peer: ([127, 0, 0, 1], 1).into(),
                ways: Vec::new(),
            },
            phase,
            heard: Moment(0),
            moved: Arc::new(AtomicU64::new(3000)),
            resumed: 0,
            call: None,
            samples: Vec::new(),
            given_up: None,
        };
        GateState {
            seats: [SeatPhase::Ready, SeatPhase::Released]
                .into_iter()
                .enumerate()
                .map(|(at, phase)| (SeatId(at as u16 + 1), seat(phase)))
                .collect(),
            phase: GatePhase::Mustering,
            deadline: Moment(0),
            by_hand: false,
            is_expired: false,
            settle_until: Moment(0),
            visited: true,
            waiting: WaitingList::default(),
        }
    }

    #[test]
    fn samples_are_of_the_seats_that_move_and_of_the_payload() {
        const MS: Duration = Duration::from_millis(1);
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let stream = Arc::new(TcpStream::connect(addr).expect("listening"));
        let (mut client, _) = listener.accept().expect("connected");
        let acked = || tcp_info::acked(&stream).map(|(acked, ..)| acked);
        let until_acked = |bytes: u64| {
            let deadline = clock::now().after(MS * 20_000);
            while acked().is_some_and(|acked| acked < bytes) && clock::left(deadline).is_some() {
                std::thread::sleep(MS);
            }
        };
        let mut state = state(&stream);
        (&*stream).write_all(&[1; 5000]).expect("room");
        client.read_exact(&mut [0; 5000]).expect("sent");
        until_acked(5000);

        assert_eq!(take(&mut state, false, MS * 5), MS * 15);
        assert_eq!(take(&mut state, true, MS * 640), MS * 660);
        let samples = |seat| state.seats[&SeatId(seat)].samples.clone();
        assert_eq!(samples(1), [], "it has not been released");
        let payload = acked().unwrap_or(3000);
        assert!([3000, 5000, 5001].contains(&payload), "the system may count the first number too");
        // Where the system does not say it nothing more has come, which is no sample.
        let more = (payload > 3000).then_some((640_000, payload));
        assert_eq!(samples(2), [(5_000, 3000)].into_iter().chain(more).collect::<Vec<_>>());
    }

    #[test]
    fn crowd_is_looked_at_less_often() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let stream = Arc::new(TcpStream::connect(addr).expect("listening"));
        let mut crowd = state(&stream);
        for seat in 3..=1002 {
            let one = state(&stream).seats.remove(&SeatId(2)).expect("released");
            crowd.seats.insert(SeatId(seat), one);
        }
        assert_eq!(take(&mut crowd, true, Duration::ZERO), EACH * 1001);
    }

    #[test]
    fn next_look_is_at_a_whole_microsecond() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let stream = Arc::new(TcpStream::connect(addr).expect("listening"));
        let took = Duration::from_micros(1_000_033);
        let look = take(&mut state(&stream), false, took);
        assert_eq!(look, took + Duration::from_micros(31_251), "and not 31,251.03 us later");
    }
}
