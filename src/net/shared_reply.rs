//! A reply that costs to make, made once for all who ask for it meanwhile.
//!
//! Whoever reads slowly holds the bytes that it was given. So the bytes are shared, and few
//! versions of them are held at once, however many readers there are.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use crate::{
    net::{clock, lock},
    units::micros,
};

/// The reply at one place, in its newest version and those that are still being read.
#[derive(Debug, Default)]
pub struct SharedReply {
    versions: Mutex<Versions>,
}

#[derive(Debug, Default)]
struct Versions {
    /// The newest, and the stamp that it was made for.
    newest: Option<(u64, Arc<[u8]>)>,
    /// Versions before it that a reader still holds.
    older: Vec<Weak<[u8]>>,
}

/// Most versions besides the newest that readers may hold. While they do, everybody is given the
/// newest one: a reader has to end before another version is made.
const OLDER_MAX: usize = 2;

impl SharedReply {
    /// A reply that was not made yet.
    pub const fn new() -> Self {
        Self { versions: Mutex::new(Versions { newest: None, older: Vec::new() }) }
    }

    /// The reply as of `stamp`. It is made by `make` if it was not made for this stamp before;
    /// whoever asks meanwhile waits for it.
    ///
    /// # Errors
    /// `make` failed.
    pub fn get<E>(
        &self,
        stamp: u64,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Arc<[u8]>, E> {
        let mut versions = lock(&self.versions);
        versions.forget_unread();
        if let Some((made_for, newest)) = &versions.newest {
            let is_full = versions.older.len() >= OLDER_MAX && is_read(newest);
            if *made_for == stamp || is_full {
                return Ok(Arc::clone(newest));
            }
        }
        let reply: Arc<[u8]> = make()?.into();
        let before = versions.newest.replace((stamp, Arc::clone(&reply)));
        versions.older.extend(before.map(|(_, reply)| Arc::downgrade(&reply)));
        Ok(reply)
    }

    /// True while a reader holds a version.
    pub fn is_read(&self) -> bool {
        let mut versions = lock(&self.versions);
        versions.forget_unread();
        !versions.older.is_empty() || versions.newest.as_ref().is_some_and(|(_, r)| is_read(r))
    }
}

impl Versions {
    fn forget_unread(&mut self) {
        self.older.retain(|reply| reply.strong_count() > 0);
    }
}

/// True when somebody holds `reply` besides us.
fn is_read(reply: &Arc<[u8]>) -> bool {
    Arc::strong_count(reply) > 1
}

/// A stamp that changes once in `interval`, for what has no version of its own.
pub fn stamp_of_now(interval: Duration) -> u64 {
    clock::now().0 / micros(interval).max(1)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn ask(reply: &SharedReply, stamp: u64) -> Arc<[u8]> {
        let made = reply.get(stamp, || Ok::<_, Infallible>(stamp.to_string().into_bytes()));
        made.expect("infallible")
    }

    #[test]
    fn reply_is_made_once_for_all_readers_of_a_stamp() {
        let reply = SharedReply::default();
        let first = ask(&reply, 1);
        let again = reply.get(1, || -> Result<_, ()> { unreachable!("it is made already") });
        assert!(Arc::ptr_eq(&first, &again.expect("held")));
        assert_eq!(*ask(&reply, 2), *b"2");
        assert_eq!(reply.get(3, || Err("no disk")), Err("no disk"));
        assert_eq!(*ask(&reply, 2), *b"2", "what was made before stays");
    }

    #[test]
    fn slow_readers_hold_few_versions_and_quick_ones_all() {
        let reply = SharedReply::default();
        for stamp in 0..1000 {
            assert_eq!(*ask(&reply, stamp), *stamp.to_string().as_bytes(), "nobody holds it");
        }
        assert!(!reply.is_read());
        let mut held: Vec<_> = (1000..2000).map(|stamp| ask(&reply, stamp)).collect();
        assert!(reply.is_read());
        held.dedup_by(|a, b| Arc::ptr_eq(a, b));
        assert_eq!(held.len(), OLDER_MAX + 1);
        assert_eq!(*held[OLDER_MAX], *b"1002");
        // The first of them has read it to its end.
        held.remove(0);
        assert_eq!(*ask(&reply, 2000), *b"2000");
    }
}
