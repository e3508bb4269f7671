//! Clients whose reports are impossible.

use std::{net::UdpSocket, time::Duration};

use gatecast::internals::session::Via;

use super::{fetch, listening};
use crate::common::{row, udp::server, whole, within};

const LIMIT: Duration = Duration::from_secs(100);

/// What wraps round once and a little more: each number is later than the one before it.
const ROUND: &str = "REPORT seen=2147483647 received=2147483647 round=0 cum=0\n\
                     REPORT seen=4294967294 received=4294967294 round=0 cum=0\n\
                     REPORT seen=0 received=0 round=0 cum=0\n";

#[test]
fn pair_of_liars_does_not_end_the_group() {
    within(LIMIT, || {
        // Without a rate, so that what clients report sets one.
        let server = server(8_000_000, Via::Multicast, 4, |_| {});
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        // They have seats beside each other.
        let mut liars = ["liar1", "liar2"].map(|name| listening(&server, 4, name, &socket));
        let honest = fetch(&server, "honest", |order| {
            order.clients = 2;
            order.group = Some(4);
            order.stall = Duration::from_secs(8);
        });
        for liar in &mut liars {
            assert!(liar.read_past_wait().starts_with("GO "));
            liar.send(ROUND.repeat(20));
        }
        whole(honest.join().expect("no panic"), &server);
        drop(liars);
        let record = server.record();
        assert_eq!(record.transfers.iter().filter(|t| t.is_proven()).count(), 2);
        for name in ["liar1", "liar2"] {
            assert!(!row(&record, name).is_proven());
        }
        server.stop();
    });
}
