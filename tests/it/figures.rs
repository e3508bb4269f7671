//! Clients whose figures are not true.

use gatecast::internals::{
    proto::native::{FromClient, Receipt},
    transfer::{Counts, Evidence, Outcome},
};

#[cfg(feature = "cli")]
use crate::common::{Peer, program::Program};
use crate::{
    common,
    common::{PATIENCE, Server, receipt, within},
};

/// Every counter that there is, which no way has all of.
fn all_counts() -> Counts {
    Counts::from_values([Some(7); Counts::NAMES.len()])
}

fn with_counts(receipt: FromClient, counts: Counts) -> FromClient {
    match receipt {
        FromClient::Receipt(receipt) => FromClient::Receipt(Receipt { counts, ..receipt }),
        other => other,
    }
}

#[test]
fn counters_foreign_to_the_via_are_ignored() {
    within(PATIENCE, || {
        let server = Server::new(1000, |_| {});
        let mut whole = server.waiting(1, "whole");
        let sha1 = whole.receive_to_last();
        whole.send_message(&FromClient::Hashed { sha1 });
        whole.send_message(&with_counts(receipt(1000, sha1), all_counts()));
        let record = server.record();
        let row = common::row(&record, "whole");
        assert_eq!(row.counts, Counts::default());
        assert_eq!((record.proven(), record.broken_identities()), (1, Vec::new()));

        let mut fails = server.waiting(1, "fails");
        assert_eq!(fails.read_past_wait(), "GO bytes=1000");
        fails.send_message(&FromClient::Fail {
            outcome: Outcome::Cut,
            bytes: 5,
            reason: "no room".to_owned(),
            last: None,
            counts: all_counts(),
        });
        let record = server.record();
        common::ended(&record, "fails", Outcome::Cut, "no room");
        assert_eq!(common::row(&record, "fails").counts, Counts::default());
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        server.stop();
    });
}

#[test]
fn figures_of_a_client_are_believed_within_its_time() {
    within(PATIENCE, || {
        let server = Server::new(1000, |_| {});
        // No figure of the server's own, and no second that has not passed.
        let honest = Evidence { read_us: Some(1), cpu_us: Some(0), ..Evidence::default() };
        let claims = [
            (Evidence { paced_us: Some(7), server_link_us: Some(7), ..honest }, honest),
            (Evidence { client_link_us: Some(u64::MAX), ..honest }, Evidence::default()),
            (Evidence { write_us: Some(u64::MAX), ..honest }, Evidence::default()),
            (Evidence::from_values([Some(u64::MAX); Evidence::NAMES.len()]), Evidence::default()),
        ];
        for (claim, believed) in claims {
            let mut client = server.waiting(1, "claims");
            let sha1 = client.receive_to_last();
            client.send_message(&FromClient::Hashed { sha1 });
            client.send_message(&match receipt(1000, sha1) {
                FromClient::Receipt(receipt) => {
                    FromClient::Receipt(Receipt { evidence: claim, ..receipt })
                }
                other => other,
            });
            let record = server.record();
            let row = common::row(&record, "claims");
            let told = Evidence {
                read_us: row.evidence.read_us,
                write_us: row.evidence.write_us,
                hash_us: row.evidence.hash_us,
                sync_us: row.evidence.sync_us,
                cpu_us: row.evidence.cpu_us,
                cpu_wait_us: row.evidence.cpu_wait_us,
                paced_us: row.evidence.paced_us,
                server_link_us: row.evidence.server_link_us,
                client_link_us: row.evidence.client_link_us,
                ..Evidence::default()
            };
            assert_eq!(told, believed);
            assert_eq!(record.proven(), 1);
        }
        server.stop();
    });
}

/// A client of a swarm that proves its copy, and claims bytes of the server that it never sent.
#[cfg(feature = "cli")]
#[test]
fn server_exits_with_6_when_figures_contradict() {
    use gatecast::internals::digest::Digest;

    within(PATIENCE * 2, || {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("f.bin"), [7; 1000]).expect("room");
        let sha1 = Digest::of(&[7; 1000]);
        let (mut server, addr) = Program::serve(
            folder.path(),
            &["f.bin", "--via", "swarm", "--clients", "1", "--one-off"],
        );
        let mut liar = Peer::connect(addr.parse().expect("an address"));
        liar.send("GATECAST/1 JOIN group=1 name=liar\n");
        assert!(liar.read_line().starts_with("OFFER "));
        liar.send("READY offset=0\n");
        assert_eq!(liar.read_past_wait(), "GO bytes=1000");
        liar.send_message(&FromClient::Last { bytes: 1000 });
        liar.send_message(&FromClient::Hashed { sha1 });
        let counts = Counts {
            bytes_from_server: Some(1000),
            bytes_from_peers: Some(0),
            retransmitted: Some(0),
            ..Counts::default()
        };
        liar.send_message(&with_counts(receipt(1000, sha1), counts));
        assert_eq!(server.code(), 6, "{}", server.stderr());
        let table = server.stdout().join("\n");
        assert!(table.contains("whole and verified  1 of 1"), "{table}");
        assert!(
            table.contains("INVALID: seat 1: 1000 bytes from the server, which sent 0"),
            "{table}"
        );
    });
}
