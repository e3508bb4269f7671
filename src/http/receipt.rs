//! Receipts: a script that fetched by HTTP attests the digest of its copy.
//!
//! A client that asks with `&receipt` finds in the answer's head where to post it, with a key
//! that only it knows. Its row waits for the receipt; without the promise nothing waits.

use std::collections::BTreeMap;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use crate::digest::Digest;
use crate::http::connection::Reply;
use crate::net::clock;
use crate::proto::http::text;
use crate::session::SeatId;
use crate::session::SessionId;
use crate::units::Moment;

/// The promised receipts of all sessions.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    promised: Mutex<BTreeMap<u64, Promise>>,
    came: Condvar,
}

#[derive(Debug)]
struct Promise {
    session: SessionId,
    seat: SeatId,
    said: Option<Said>,
}

/// What a client attests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) sha1: Digest,
    pub(super) bytes: Option<u64>,
    /// Release to its last byte, by its own clock.
    pub(super) seconds: Option<Duration>,
    /// When it came.
    pub(super) at: Moment,
}

/// A seat's place for its receipt; dropping it takes the promise back.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    receipts: &'a Receipts,
    key: u64,
    session: SessionId,
    seat: SeatId,
}

/// How often a waiting seat looks whether the server ends.
const LOOK: Duration = Duration::from_millis(200);

impl Receipts {
    /// A client in `seat` promises a receipt.
    pub(super) fn promise(&self, session: SessionId, seat: SeatId) -> Slot<'_> {
        let key = clock::random();
        let said = None;
        self.lock().insert(
            key,
            Promise {
                session,
                seat,
                said,
            },
        );
        Slot {
            receipts: self,
            key,
            session,
            seat,
        }
    }

    /// Takes a posted receipt: a form, `sha1=HEX&bytes=N&seconds=S`, or what `sha1sum` prints.
    pub(super) fn take(
        &self,
        session: SessionId,
        pairs: &[(String, Vec<u8>)],
        body: &[u8],
    ) -> Reply {
        let value = |pairs: &[(String, Vec<u8>)], wanted: &str| {
            let (_, value) = pairs.iter().find(|(key, _)| key == wanted)?;
            String::from_utf8(value.clone()).ok()
        };
        let key = value(pairs, "key").and_then(|key| u64::from_str_radix(&key, 16).ok());
        let body = String::from_utf8_lossy(body);
        let form = text::pairs(body.trim_end()).unwrap_or_default();
        let bare = body.split_whitespace().next().map(str::to_owned);
        let sha1 = value(&form, "sha1").or(bare);
        let Some(sha1) = sha1.and_then(|text| text.parse::<Digest>().ok()) else {
            return Reply::say(
                400,
                "a receipt is sha1= and 40 hexadecimal digits, or what sha1sum prints",
            );
        };
        let said = Said {
            sha1,
            bytes: value(&form, "bytes").and_then(|text| text::digits(&text)),
            seconds: value(&form, "seconds")
                .and_then(|text| crate::proto::lab::tcp::decode_elapsed(&text).ok()),
            at: clock::now(),
        };
        let mut promised = self.lock();
        let promise = key
            .and_then(|key| promised.get_mut(&key))
            .filter(|promise| promise.session == session);
        match promise {
            None => Reply::say(404, "no receipt is waited for there, or no longer"),
            Some(promise) if promise.said.is_some() => {
                Reply::say(409, "this receipt has come before")
            }
            Some(promise) => {
                promise.said = Some(said);
                let seat = promise.seat;
                self.came.notify_all();
                Reply::say(200, format!("taken for seat {seat}"))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Promise>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot<'_> {
    /// Where the receipt is to be posted.
    pub(super) fn path(&self) -> String {
        format!(
            "/sessions/{}/receipt?seat={}&key={:016x}",
            self.session, self.seat, self.key
        )
    }

    /// Waits for it until `deadline`, or until `give_up` says so.
    pub(super) fn wait(&self, deadline: Moment, give_up: impl Fn() -> bool) -> Option<Said> {
        let mut promised = self.receipts.lock();
        loop {
            let said = promised.get(&self.key).and_then(|promise| promise.said);
            let left = clock::left(deadline);
            let (None, Some(left)) = (said, left) else {
                return said;
            };
            if give_up() {
                return None;
            }
            promised = self
                .receipts
                .came
                .wait_timeout(promised, left.min(LOOK))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.receipts.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn post(receipts: &Receipts, path: &str, body: &str) -> u16 {
        let query = path.split_once('?').expect("a query").1;
        let pairs = text::pairs(query).expect("valid");
        receipts.take(SESSION, &pairs, body.as_bytes()).status
    }

    #[test]
    fn a_receipt_needs_its_key_and_comes_once() {
        let receipts = Receipts::default();
        let sha1 = Digest::of(b"x");
        let slot = receipts.promise(SESSION, SeatId(3));
        let path = slot.path();
        assert_eq!(post(&receipts, "?seat=3", &format!("sha1={sha1}")), 404);
        assert_eq!(
            post(&receipts, "?seat=3&key=0", &format!("sha1={sha1}")),
            404
        );
        assert_eq!(post(&receipts, &path, "sha1=xyz"), 400);
        assert_eq!(post(&receipts, &path, ""), 400);
        assert_eq!(slot.wait(clock::now(), || false), None);
        assert_eq!(
            post(
                &receipts,
                &path,
                &format!("sha1={sha1}&bytes=1&seconds=0.5")
            ),
            200
        );
        assert_eq!(post(&receipts, &path, &format!("sha1={sha1}")), 409);
        let said = slot
            .wait(clock::now().after(Duration::from_secs(60)), || false)
            .expect("it came");
        assert_eq!((said.sha1, said.bytes), (sha1, Some(1)));
        assert_eq!(said.seconds, Some(Duration::from_millis(500)));
        drop(slot);
        assert_eq!(post(&receipts, &path, &format!("sha1={sha1}")), 404);
        assert!(receipts.lock().is_empty());
    }

    #[test]
    fn what_sha1sum_prints_is_a_receipt() {
        let receipts = Receipts::default();
        let slot = receipts.promise(SESSION, SeatId(1));
        assert_eq!(
            post(
                &receipts,
                &slot.path(),
                &format!("{}  a b.bin\n", Digest::of(b"x"))
            ),
            200
        );
        let said = slot.wait(clock::now(), || false).expect("it came");
        assert_eq!(
            (said.sha1, said.bytes, said.seconds),
            (Digest::of(b"x"), None, None)
        );
    }
}
