//! Replies that cost to make, by path: each is made once for all who ask for it meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::{
    net::{lock, shared_reply::SharedReply},
    proto::http::response::HttpResponse,
};

/// The replies of one server.
#[derive(Debug, Default)]
pub(super) struct Replies(Mutex<BTreeMap<String, Arc<SharedReply>>>);

/// Most paths whose replies are held: two for each session that the history keeps, the others,
/// and as much again for sessions that are open.
const PATHS_MAX: usize = 256;

impl Replies {
    /// The reply at `path` as of `stamp`, by `make` unless it was made for this stamp before. Only
    /// for paths that exist.
    pub(super) fn get(
        &self,
        path: &str,
        content_type: &'static str,
        stamp: u64,
        make: impl FnOnce() -> Result<String, HttpResponse>,
    ) -> HttpResponse {
        let Some(reply) = self.at(path) else {
            let why = "too many slow readers hold the replies of other paths";
            return HttpResponse::text(503, why).field("Retry-After", "5");
        };
        match reply.get(stamp, || make().map(String::into_bytes)) {
            Ok(body) => HttpResponse::shared(200, content_type, body),
            Err(response) => response,
        }
    }

    /// The place of `path`; `None` where all are taken.
    fn at(&self, path: &str) -> Option<Arc<SharedReply>> {
        let mut by_path = lock(&self.0);
        if by_path.len() >= PATHS_MAX && !by_path.contains_key(path) {
            by_path.retain(|_, reply| Arc::strong_count(reply) > 1 || reply.is_read());
            if by_path.len() >= PATHS_MAX {
                return None;
            }
        }
        Some(Arc::clone(by_path.entry(path.to_owned()).or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(replies: &Replies, path: usize) -> HttpResponse {
        replies.get(&path.to_string(), "text/plain", 0, || Ok("x".to_owned()))
    }

    #[test]
    fn replies_of_many_paths_are_bounded_while_they_are_read() {
        let replies = Replies::default();
        for path in 0..10_000 {
            assert_eq!(get(&replies, path).status, 200, "nobody reads the others any more");
        }
        assert!(lock(&replies.0).len() <= PATHS_MAX);
        let held: Vec<_> = (0..PATHS_MAX + 9).map(|path| get(&replies, path)).collect();
        let refused = held.iter().filter(|response| response.status == 503).count();
        assert_eq!(refused, 9);
        drop(held);
        assert_eq!(get(&replies, PATHS_MAX + 9).status, 200);
    }
}
