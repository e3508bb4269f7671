//! What waits to be written to one peer: encoded messages, and blocks that it requested.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    net::{clock, lock},
    proto::bt::wire::{Block, Message, REQUESTS_MAX},
};

/// The queue between everybody who sends to a peer and the thread that writes.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<OutboxQueue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct OutboxQueue {
    /// Encoded messages without payload.
    control: Vec<u8>,
    requests: VecDeque<Block>,
    /// `control` holds something that should not wait for the next write.
    urgent: bool,
    closed: bool,
    /// The writer sleeps and must be woken. Otherwise it looks here before it sleeps.
    idle: bool,
}

/// What the writer does next.
#[derive(Debug)]
pub enum NextWrite {
    /// Write these control bytes, then these blocks.
    Send(Vec<u8>, Vec<Block>),
    /// Nothing was queued for so long that a keep-alive is due.
    KeepAlive,
    /// The connection is closed.
    Closed,
}

/// After how much silence a keep-alive is sent. aria2 takes two within five seconds for a flood.
const KEEP_ALIVE: Duration = Duration::from_secs(110);

/// Payload written at a time, bytes.
const WRITE_MAX: usize = 128 << 10;

impl Outbox {
    /// Queues `messages`. Urgent ones go out at the next [`Outbox::flush`], others with the next
    /// write or at [`Outbox::flush_all`]. Returns how many bytes wait.
    #[must_use]
    pub fn push(&self, messages: &[Message<'_>], urgent: bool) -> usize {
        let mut queue = lock(&self.queue);
        queue.urgent |= urgent;
        messages.iter().for_each(|message| message.encode(&mut queue.control));
        queue.control.len()
    }

    /// Queues a block to be sent from the next flush on; false when too many wait.
    pub fn push_block(&self, block: Block) -> bool {
        let mut queue = lock(&self.queue);
        if queue.requests.len() >= REQUESTS_MAX {
            return false;
        }
        queue.requests.push_back(block);
        true
    }

    /// Drops a queued block; false when it is not queued any more.
    pub fn cancel(&self, block: Block) -> bool {
        let mut queue = lock(&self.queue);
        let before = queue.requests.len();
        queue.requests.retain(|waiting| *waiting != block);
        queue.requests.len() < before
    }

    /// Drops every queued block and returns them.
    pub fn cancel_all(&self) -> Vec<Block> {
        lock(&self.queue).requests.drain(..).collect()
    }

    /// Wakes a sleeping writer when urgent messages or blocks wait.
    pub fn flush(&self) {
        self.wake_if(|queue| queue.urgent || !queue.requests.is_empty());
    }

    /// Wakes a sleeping writer when anything waits.
    pub fn flush_all(&self) {
        self.wake_if(|queue| !(queue.control.is_empty() && queue.requests.is_empty()));
    }

    fn wake_if(&self, waits: impl Fn(&OutboxQueue) -> bool) {
        let mut queue = lock(&self.queue);
        let wake = queue.idle && waits(&queue);
        if wake {
            queue.idle = false;
            queue.urgent = true;
        }
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Ends the writer.
    pub fn close(&self) {
        lock(&self.queue).closed = true;
        self.wake.notify_all();
    }

    /// Waits until there is something to write.
    pub fn next_write(&self) -> NextWrite {
        let deadline = clock::now().after(KEEP_ALIVE);
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return NextWrite::Closed;
            }
            if queue.urgent || !queue.requests.is_empty() {
                return queue.take_write();
            }
            let Some(left) = clock::left(deadline) else {
                return NextWrite::KeepAlive;
            };
            queue.idle = true;
            queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            queue.idle = false;
        }
    }
}

impl OutboxQueue {
    fn take_write(&mut self) -> NextWrite {
        self.urgent = false;
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        while let Some(block) = self.requests.front() {
            if bytes > 0 && bytes + block.len as usize > WRITE_MAX {
                break;
            }
            bytes += block.len as usize;
            blocks.extend(self.requests.pop_front());
        }
        NextWrite::Send(std::mem::take(&mut self.control), blocks)
    }
}
