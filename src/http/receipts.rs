//! Receipts: a script that fetched by HTTP attests the digest of its copy.
//!
//! A client that asks with `&receipt` finds in the response's head where to post it, with a key
//! that nobody else knows. Its row waits for the receipt; no other row waits.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    digest::Digest,
    net::{clock, lock},
    proto::{
        http::{
            response::HttpResponse,
            text::{self, QueryPairs},
        },
        lab::tcp::decode_elapsed,
    },
    session::{SeatId, SessionId},
    units::Moment,
};

/// The receipts that the server waits for, by their keys.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    expected: Mutex<BTreeMap<u64, ExpectedReceipt>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct ExpectedReceipt {
    session: SessionId,
    seat: SeatId,
    posted: Option<PostedReceipt>,
}

/// What a client attests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PostedReceipt {
    pub(super) sha1: Digest,
    pub(super) bytes: Option<u64>,
    /// Release to its last byte, by its own clock.
    pub(super) seconds: Option<Duration>,
    /// When it came.
    pub(super) at: Moment,
}

/// A seat's right to post a receipt; dropping it withdraws the right.
#[derive(Debug)]
pub(super) struct ReceiptSlot<'a> {
    receipts: &'a Receipts,
    key: u64,
    session: SessionId,
    seat: SeatId,
}

/// How often a waiting seat checks whether the server stops.
const STOP_CHECK: Duration = Duration::from_millis(200);

impl Receipts {
    /// Expects a receipt of the client in `seat`.
    pub(super) fn expect(&self, session: SessionId, seat: SeatId) -> ReceiptSlot<'_> {
        let key = clock::random();
        let expected = ExpectedReceipt { session, seat, posted: None };
        lock(&self.expected).insert(key, expected);
        ReceiptSlot { receipts: self, key, session, seat }
    }

    /// Accepts a posted receipt: a form, `sha1=HEX&bytes=N&seconds=S`, or what `sha1sum` prints.
    pub(super) fn post(&self, session: SessionId, query: &QueryPairs, body: &[u8]) -> HttpResponse {
        let key = query.get("key");
        let key = key.and_then(|key| u64::from_str_radix(&key, 16).ok());
        let body = String::from_utf8_lossy(body);
        let form = QueryPairs::parse(body.trim_end()).unwrap_or_default();
        let printed = body.split_whitespace().next().map(Into::into);
        let sha1 = form.get("sha1").or(printed);
        let Some(sha1) = sha1.and_then(|text| text.parse::<Digest>().ok()) else {
            let why = "a receipt is sha1= and 40 hexadecimal digits, or what sha1sum prints";
            return HttpResponse::text(400, why);
        };
        let bytes = form.get("bytes").and_then(|text| text::digits(&text));
        let seconds = form.get("seconds").and_then(|text| decode_elapsed(&text).ok());
        let posted = PostedReceipt { sha1, bytes, seconds, at: clock::now() };
        let mut entries = lock(&self.expected);
        let entry =
            key.and_then(|key| entries.get_mut(&key)).filter(|entry| entry.session == session);
        match entry {
            None => HttpResponse::text(404, "no receipt is expected here, or no longer"),
            Some(entry) if entry.posted.is_some() => {
                HttpResponse::text(409, "this receipt has been posted before")
            }
            Some(entry) => {
                entry.posted = Some(posted);
                self.arrived.notify_all();
                HttpResponse::text(200, format!("accepted for seat {}", entry.seat))
            }
        }
    }
}

impl ReceiptSlot<'_> {
    /// The path to which the receipt is posted.
    pub(super) fn path(&self) -> String {
        format!("/sessions/{}/receipt?seat={}&key={:016x}", self.session, self.seat, self.key)
    }

    /// True when the receipt has come.
    pub(super) fn is_posted(&self) -> bool {
        let entries = lock(&self.receipts.expected);
        entries.get(&self.key).is_some_and(|entry| entry.posted.is_some())
    }

    /// Waits for the receipt until `deadline`, or until `give_up` returns true.
    pub(super) fn wait(
        &self,
        deadline: Moment,
        give_up: impl Fn() -> bool,
    ) -> Option<PostedReceipt> {
        let mut entries = lock(&self.receipts.expected);
        loop {
            let posted = entries.get(&self.key).and_then(|entry| entry.posted);
            let (None, Some(left)) = (posted, clock::left(deadline)) else {
                return posted;
            };
            if give_up() {
                return None;
            }
            let arrived = &self.receipts.arrived;
            (entries, _) = arrived
                .wait_timeout(entries, left.min(STOP_CHECK))
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for ReceiptSlot<'_> {
    fn drop(&mut self) {
        lock(&self.receipts.expected).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn post(receipts: &Receipts, path: &str, body: &str) -> u16 {
        let query = path.split_once('?').expect("a query").1;
        let pairs = QueryPairs::parse(query).expect("valid");
        receipts.post(SESSION, &pairs, body.as_bytes()).status
    }

    #[test]
    fn receipt_is_accepted_once_and_only_with_its_key() {
        let receipts = Receipts::default();
        let sha1 = Digest::of(b"x");
        let slot = receipts.expect(SESSION, SeatId(3));
        let path = slot.path();
        assert_eq!(post(&receipts, "?seat=3", &format!("sha1={sha1}")), 404);
        assert_eq!(post(&receipts, "?seat=3&key=0", &format!("sha1={sha1}")), 404);
        assert_eq!(post(&receipts, &path, "sha1=xyz"), 400);
        assert_eq!(post(&receipts, &path, ""), 400);
        assert_eq!(slot.wait(clock::now(), || false), None);
        assert_eq!(post(&receipts, &path, &format!("sha1={sha1}&bytes=1&seconds=0.5")), 200);
        assert_eq!(post(&receipts, &path, &format!("sha1={sha1}")), 409);
        let posted =
            slot.wait(clock::now().after(Duration::from_secs(60)), || false).expect("it came");
        assert_eq!((posted.sha1, posted.bytes), (sha1, Some(1)));
        assert_eq!(posted.seconds, Some(Duration::from_millis(500)));
        drop(slot);
        assert_eq!(post(&receipts, &path, &format!("sha1={sha1}")), 404);
        assert!(lock(&receipts.expected).is_empty());
    }

    #[test]
    fn output_of_sha1sum_is_accepted_as_receipt() {
        let receipts = Receipts::default();
        let slot = receipts.expect(SESSION, SeatId(1));
        assert_eq!(post(&receipts, &slot.path(), &format!("{}  a b.bin\n", Digest::of(b"x"))), 200);
        let posted = slot.wait(clock::now(), || false).expect("it came");
        assert_eq!((posted.sha1, posted.bytes, posted.seconds), (Digest::of(b"x"), None, None));
    }
}
