//! One receiving socket for a group, and many clients of this process behind it.
//!
//! The kernel copies a datagram once for the process, not once for each client, and without
//! feature `sockopt` a second socket could not even be bound. A thread only receives, so the
//! socket's buffer never waits for a disk. A client whose queue is full loses what comes, counted
//! as its own machine's drop; it never delays another.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use crate::error::{Error, Result};
use crate::net::datagrams;
use crate::transport::udp::socket::RecvSocket;

/// What came in one call.
#[derive(Debug)]
pub struct GroupBatch {
    /// Its sender.
    pub from: SocketAddr,
    /// The length of each datagram but the last.
    pub segment: usize,
    /// The datagrams.
    pub bytes: Vec<u8>,
}

/// A client's place behind the socket.
#[derive(Debug)]
pub struct Subscription {
    batches: Receiver<Arc<GroupBatch>>,
    overflow: Arc<AtomicU64>,
    receiver: Arc<GroupReceiver>,
    dropped_before: Option<u64>,
}

#[derive(Debug)]
struct GroupReceiver {
    subscribers: Mutex<Vec<Subscriber>>,
    room: u64,
    /// The thread's socket, to ask the kernel what it dropped at the moment when that is wanted.
    socket: UdpSocket,
    /// Rows of datagrams came, which the kernel drops as one and counts once.
    coalesced: AtomicBool,
}

type GroupKey = (SocketAddr, Ipv4Addr);

/// A client's queue, and what it had no room for.
type Subscriber = (Sender<Arc<GroupBatch>>, Arc<AtomicU64>);

static RECEIVERS: LazyLock<Mutex<HashMap<GroupKey, Weak<GroupReceiver>>>> =
    LazyLock::new(Mutex::default);

/// Calls' worth of datagrams that wait for one client at most.
const QUEUE: usize = 256;

/// Joins `group` on the interface with the address `interface`, or the socket that already has.
///
/// # Errors
/// The system's.
pub fn join(group: SocketAddr, interface: Ipv4Addr) -> Result<Subscription> {
    let mut hubs = RECEIVERS.lock().unwrap_or_else(PoisonError::into_inner);
    hubs.retain(|_, hub| hub.strong_count() > 0);
    let key = (group, interface);
    let hub = match hubs.get(&key).and_then(Weak::upgrade) {
        Some(hub) => hub,
        None => {
            let inlet = RecvSocket::join(group, interface)?;
            let hub = Arc::new(GroupReceiver::new(&inlet)?);
            let served = Arc::downgrade(&hub);
            thread::Builder::new()
                .name(format!("group-{group}"))
                .spawn(move || serve(inlet, &served))
                .map_err(Error::io("start the group's thread", group))?;
            hubs.insert(key, Arc::downgrade(&hub));
            hub
        }
    };
    Ok(hub.subscribe())
}

/// Receives until no client is left.
fn serve(mut inlet: RecvSocket, hub: &Weak<GroupReceiver>) {
    loop {
        let came = match inlet.gather(true) {
            Ok(Some((from, segment, bytes))) => Some(Arc::new(GroupBatch {
                from,
                segment,
                bytes: bytes.to_vec(),
            })),
            Ok(None) => None,
            Err(error) => return log::warn!("a group's socket failed: {error}"),
        };
        let Some(hub) = hub.upgrade() else {
            return;
        };
        if let Some(batch) = came {
            hub.coalesced
                .fetch_or(inlet.is_coalesced(), Ordering::Relaxed);
            hub.distribute(&batch);
        }
    }
}

impl GroupReceiver {
    fn new(inlet: &RecvSocket) -> Result<Self> {
        Ok(Self {
            subscribers: Mutex::default(),
            room: inlet.room(),
            socket: inlet.try_clone_socket()?,
            coalesced: AtomicBool::new(false),
        })
    }

    fn subscribe(self: Arc<Self>) -> Subscription {
        let (tell, batches) = crossbeam_channel::bounded(QUEUE);
        let overflow = Arc::new(AtomicU64::new(0));
        let mut taps = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taps.push((tell, Arc::clone(&overflow)));
        drop(taps);
        let dropped_before = datagrams::drops(&self.socket);
        Subscription {
            batches,
            overflow,
            receiver: self,
            dropped_before,
        }
    }

    fn distribute(&self, batch: &Arc<GroupBatch>) {
        let mut taps = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taps.retain(|(tell, overflow)| match tell.try_send(Arc::clone(batch)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                let count = batch.bytes.len().div_ceil(batch.segment) as u64;
                overflow.fetch_add(count, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }

    /// What the kernel has dropped since `before`, now.
    fn dropped(&self, before: Option<u64>) -> Option<u64> {
        let count = datagrams::drops(&self.socket)?.checked_sub(before?)?;
        (count == 0 || !self.coalesced.load(Ordering::Relaxed)).then_some(count)
    }
}

impl Subscription {
    /// The socket's receive buffer, bytes as the kernel counts them.
    pub fn room(&self) -> u64 {
        self.receiver.room
    }

    /// Datagrams dropped on this machine before this client saw them.
    pub fn drops(&self) -> Option<u64> {
        let kernel = self.receiver.dropped(self.dropped_before)?;
        Some(kernel + self.overflow.load(Ordering::Relaxed))
    }

    /// The next batch, within `patience`.
    ///
    /// # Errors
    /// The group's socket has failed.
    pub fn receive(&self, patience: Duration) -> std::io::Result<Option<Arc<GroupBatch>>> {
        match self.batches.recv_timeout(patience) {
            Ok(batch) => Ok(Some(batch)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(std::io::Error::other("the group's socket has failed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_the_kernel_dropped_is_told_as_it_is_and_not_as_it_was() {
        let group: SocketAddr = "239.255.7.2:40124".parse().expect("a group");
        // Nobody receives here, so the buffer is full at some time.
        let inlet = RecvSocket::join(group, Ipv4Addr::LOCALHOST).expect("loopback has groups");
        let tap = Arc::new(GroupReceiver::new(&inlet).expect("a socket")).subscribe();
        assert_eq!(tap.drops(), Some(0));
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut told = 0;
        for _ in 0..10 {
            for _ in 0..2000 {
                sender.send_to(&[7; 1400], group).expect("sent");
            }
            let now = tap.drops().expect("Linux tells");
            assert!(now >= told);
            told = now;
        }
        assert!(told > 1000, "28 MB are more than a buffer: {told}");
    }

    #[test]
    fn every_client_of_the_process_gets_every_datagram() {
        let group: SocketAddr = "239.255.7.1:40123".parse().expect("a group");
        let taps: Vec<Subscription> = (0..3)
            .map(|_| join(group, Ipv4Addr::LOCALHOST).expect("loopback has groups"))
            .collect();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        for number in 0..10_u8 {
            sender.send_to(&[number; 5], group).expect("sent");
        }
        for tap in &taps {
            let mut got: Vec<u8> = Vec::new();
            while got.len() < 50 {
                let batch = tap.receive(Duration::from_secs(20)).expect("a socket");
                got.extend(&batch.expect("in time").bytes);
            }
            let wanted: Vec<u8> = (0..10).flat_map(|n| [n; 5]).collect();
            assert_eq!(got, wanted, "each once, in order");
        }
    }
}
