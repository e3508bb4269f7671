//! What `session_log` uses of crossbeam's channel, over shuttle's lock and condition.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use shuttle::sync::{Condvar, Mutex};

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<VecDeque<T>>,
    changed: Condvar,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

/// There is no receiver any more.
#[derive(Debug)]
pub struct SendError;

pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(VecDeque::new()),
        changed: Condvar::new(),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    pub fn send(&self, value: T) -> Result<(), SendError> {
        let mut queue = self.0.queue.lock().expect("nobody panics with it");
        if self.0.receivers.load(Ordering::SeqCst) == 0 {
            return Err(SendError);
        }
        queue.push_back(value);
        drop(queue);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub fn recv(&self) -> Option<T> {
        let mut queue = self.0.queue.lock().expect("nobody panics with it");
        loop {
            if let Some(value) = queue.pop_front() {
                return Some(value);
            }
            if self.0.senders.load(Ordering::SeqCst) == 0 {
                return None;
            }
            queue = self.0.changed.wait(queue).expect("nobody panics with it");
        }
    }

    pub fn try_recv(&self) -> Option<T> {
        self.0.queue.lock().expect("nobody panics with it").pop_front()
    }

    pub fn len(&self) -> usize {
        self.0.queue.lock().expect("nobody panics with it").len()
    }
}

impl<T> Iterator for &Receiver<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.recv()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Taken, so that a receiver is either before its look at the count or asleep.
            drop(self.0.queue.lock());
            self.0.changed.notify_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receivers.fetch_sub(1, Ordering::SeqCst);
    }
}
