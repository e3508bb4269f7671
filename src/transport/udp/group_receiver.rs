//! One receiving socket for a group, shared by many clients of this process.
//!
//! The kernel copies a datagram once for the process, not once for each client; and without
//! feature `sockopt` a second socket could not even be bound. A thread of its own only receives, so
//! the socket's buffer never waits for a disk. A client whose queue is full loses what comes, which
//! counts as a drop of its own machine; it never delays another client.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, LazyLock, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use crate::{
    error::{Error, Result},
    net::{self, datagrams, lock},
    transport::udp::socket::RecvSocket,
    units::Moment,
};

/// The datagrams that one call received.
#[derive(Debug)]
pub struct GroupBatch {
    /// Their sender.
    pub from: SocketAddr,
    /// The length of each datagram but the last, which may be shorter.
    pub segment: usize,
    /// When the first and the last of them came.
    pub came_at: (Moment, Moment),
    /// The datagrams.
    pub bytes: Vec<u8>,
}

/// One client's queue of the datagrams that a group's socket receives.
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
    /// The thread's socket, to ask the kernel at any moment how much it dropped.
    socket: UdpSocket,
    /// The kernel has handed over several datagrams as one; it drops such a row as one, too, and
    /// counts one.
    coalesced: AtomicBool,
}

/// A client's queue, and the datagrams for which it had no room.
#[derive(Debug)]
struct Subscriber {
    batches: Sender<Arc<GroupBatch>>,
    overflow: Arc<AtomicU64>,
}

/// The receivers of this process, by group and interface.
static RECEIVERS: LazyLock<Mutex<ByGroup>> = LazyLock::new(Mutex::default);

type ByGroup = HashMap<(SocketAddr, Ipv4Addr), Weak<GroupReceiver>>;

/// Most batches that wait for one client.
const QUEUE: usize = 256;

/// Receives and distributes until no client is left.
fn serve(mut socket: RecvSocket, receiver: &Weak<GroupReceiver>) {
    loop {
        let batch = match socket.gather(true) {
            Ok(Some((from, segment, bytes, came_at))) => {
                Some(Arc::new(GroupBatch { from, segment, bytes: bytes.to_vec(), came_at }))
            }
            Ok(None) => None,
            Err(error) => return log::warn!("a group's socket failed: {error}"),
        };
        let Some(receiver) = receiver.upgrade() else {
            return;
        };
        if let Some(batch) = batch {
            receiver.coalesced.fetch_or(socket.rows, Ordering::Relaxed);
            receiver.distribute(&batch);
        }
    }
}

impl GroupReceiver {
    fn new(socket: &RecvSocket) -> Result<Self> {
        Ok(Self {
            subscribers: Mutex::default(),
            room: socket.room,
            socket: socket.try_clone_socket()?,
            coalesced: AtomicBool::new(false),
        })
    }

    /// Joins `group` and starts the thread that receives.
    fn start(group: SocketAddr, interface: Ipv4Addr) -> Result<Arc<Self>> {
        let socket = RecvSocket::join(group, interface)?;
        let receiver = Arc::new(Self::new(&socket)?);
        let served = Arc::downgrade(&receiver);
        net::spawn(format!("group-{group}"), move || serve(socket, &served))
            .map_err(Error::io("start the group's thread", group))?;
        Ok(receiver)
    }

    fn subscribe(self: Arc<Self>) -> Subscription {
        let (sender, batches) = crossbeam_channel::bounded(QUEUE);
        let overflow = Arc::new(AtomicU64::new(0));
        lock(&self.subscribers)
            .push(Subscriber { batches: sender, overflow: Arc::clone(&overflow) });
        Subscription {
            batches,
            overflow,
            dropped_before: datagrams::drops(&self.socket),
            receiver: self,
        }
    }

    fn distribute(&self, batch: &Arc<GroupBatch>) {
        lock(&self.subscribers).retain(|subscriber| {
            let sent = subscriber.batches.try_send(Arc::clone(batch));
            if let Err(TrySendError::Full(_)) = sent {
                let count = batch.bytes.len().div_ceil(batch.segment) as u64;
                subscriber.overflow.fetch_add(count, Ordering::Relaxed);
            }
            !matches!(sent, Err(TrySendError::Disconnected(_)))
        });
    }
}

impl Subscription {
    /// Subscribes to `group` on the interface with the address `interface`. The first subscriber of
    /// this process joins the group; the others share its socket.
    ///
    /// # Errors
    /// The group cannot be joined, or the thread not started.
    pub fn join(group: SocketAddr, interface: Ipv4Addr) -> Result<Self> {
        let mut receivers = lock(&RECEIVERS);
        receivers.retain(|_, receiver| receiver.strong_count() > 0);
        let known = receivers.get(&(group, interface)).and_then(Weak::upgrade);
        let receiver = match known {
            Some(receiver) => receiver,
            None => {
                let receiver = GroupReceiver::start(group, interface)?;
                receivers.insert((group, interface), Arc::downgrade(&receiver));
                receiver
            }
        };
        Ok(receiver.subscribe())
    }

    /// The socket's receive buffer, bytes as the kernel counts them.
    pub fn room(&self) -> u64 {
        self.receiver.room
    }

    /// Datagrams that this machine dropped before this client saw them; `None` where the system
    /// does not tell, or has dropped whole rows of datagrams.
    pub fn drops(&self) -> Option<u64> {
        let count = datagrams::drops(&self.receiver.socket)?.checked_sub(self.dropped_before?)?;
        let exact = count == 0 || !self.receiver.coalesced.load(Ordering::Relaxed);
        exact.then(|| count + self.overflow.load(Ordering::Relaxed))
    }

    /// The next batch, within `patience`.
    ///
    /// # Errors
    /// The group's socket has failed.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<Arc<GroupBatch>>> {
        match self.batches.recv_timeout(patience) {
            Ok(batch) => Ok(Some(batch)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("the group's socket has failed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn drops_are_those_of_now_and_not_of_an_earlier_moment() {
        let group: SocketAddr = "239.255.7.2:40124".parse().expect("a group");
        // Nobody receives here, so the buffer is full at some time.
        let socket = RecvSocket::join(group, Ipv4Addr::LOCALHOST).expect("loopback has groups");
        let subscription = Arc::new(GroupReceiver::new(&socket).expect("a socket")).subscribe();
        assert_eq!(subscription.drops(), Some(0));
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut counted = 0;
        for _ in 0..10 {
            for _ in 0..2000 {
                sender.send_to(&[7; 1400], group).expect("sent");
            }
            let now = subscription.drops().expect("Linux tells");
            assert!(now >= counted);
            counted = now;
        }
        assert!(counted > 1000, "28 MB are more than a buffer: {counted}");
    }

    #[test]
    fn every_client_of_the_process_gets_every_datagram() {
        let group: SocketAddr = "239.255.7.1:40123".parse().expect("a group");
        let subscriptions: Vec<Subscription> = (0..3)
            .map(|_| Subscription::join(group, Ipv4Addr::LOCALHOST).expect("loopback has groups"))
            .collect();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        for number in 0..10_u8 {
            sender.send_to(&[number; 5], group).expect("sent");
        }
        for subscription in &subscriptions {
            let mut got: Vec<u8> = Vec::new();
            while got.len() < 50 {
                let batch = subscription.receive(Duration::from_secs(20)).expect("a socket");
                got.extend(&batch.expect("in time").bytes);
            }
            let wanted: Vec<u8> = (0..10).flat_map(|n| [n; 5]).collect();
            assert_eq!(got, wanted, "each once, in order");
        }
    }
}
