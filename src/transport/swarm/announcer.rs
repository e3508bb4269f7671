//! A peer and its tracker: tells the tracker where we are and what we have, and dials the peers
//! that it names.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{clock, http::client, spawn},
    proto::{
        bt::{
            tracker::{
                announce::{Announce, AnnounceEvent, SHARES_MAX, Share},
                response::{AnnounceResponse, RESPONSE_MAX},
            },
            wire::PeerId,
        },
        http::url::Url,
    },
    transport::swarm::{
        limits::PEER_CONNECTIONS,
        member::{SwarmMember, accounting::PeerTraffic},
    },
};

/// Announces one member to one tracker.
#[derive(Debug)]
pub struct Announcer {
    announcing: Arc<Announcing>,
    thread: Option<JoinHandle<()>>,
}

/// Who is announced, and where.
#[derive(Debug)]
struct Announcing {
    member: Arc<SwarmMember>,
    tracker: Tracker,
    port: u16,
    reports_shares: bool,
    ended: AtomicBool,
}

/// A tracker, with the addresses of its host: these are looked up once and cannot change.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// Its address as the torrent names it.
    pub url: Url,
    /// The addresses of its host.
    pub addrs: Vec<SocketAddr>,
}

/// How long it may take until the first peers are connected.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long after a failed announce the next one follows, seconds.
const RETRY_SECONDS: u64 = 5;

/// How often the announcing thread looks whether the copy is complete or an announce is due.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

impl Announcer {
    /// Announces `member`, which listens on `port`, every few seconds and when its copy is
    /// complete. [`Announcer::start`] makes the first announce. `reports_shares` is for our own
    /// server's tracker: it is told which bytes came from whom.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(
        member: &Arc<SwarmMember>,
        tracker: Tracker,
        port: u16,
        reports_shares: bool,
    ) -> Result<Self> {
        let announcing = Arc::new(Announcing {
            member: Arc::clone(member),
            tracker,
            port,
            reports_shares,
            ended: AtomicBool::new(false),
        });
        let regular = Arc::clone(&announcing);
        let thread = spawn("announce", move || regular.run())
            .map_err(Error::io("start the announcing thread", "this process"))?;
        Ok(Self { announcing, thread: Some(thread) })
    }

    /// Makes the first announce and dials the peers that the tracker names. With `wait` it also
    /// waits until these are connected, so that a release finds every connection open.
    ///
    /// # Errors
    /// The tracker cannot be reached or refuses.
    pub fn start(&self, wait: bool) -> Result<()> {
        let response = self.announcing.announce(AnnounceEvent::Started)?;
        self.dial(response.peers, wait);
        Ok(())
    }

    /// Dials `peers`; with `wait` it also waits until they are connected.
    pub fn dial(&self, peers: Vec<SocketAddr>, wait: bool) {
        let member = &self.announcing.member;
        // In a large swarm only half as many as wanted: the others dial us.
        let dialed =
            if peers.len() < PEER_CONNECTIONS { peers.len() } else { PEER_CONNECTIONS / 2 };
        (peers.into_iter().take(dialed)).for_each(|peer| member.dial(peer));
        let deadline = clock::now().after(CONNECT_LIMIT);
        while wait && member.connections() < dialed && clock::left(deadline).is_some() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Announces at once that the copy is complete.
    pub fn announce_completed(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Ends the thread, and tells the tracker that we leave.
    pub fn stop(&mut self) {
        self.announcing.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                log::error!("the announcing thread panicked");
            }
            // The tracker may be gone already.
            if let Err(error) = self.announcing.announce(AnnounceEvent::Stopped) {
                log::debug!("the tracker: {error}");
            }
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.announcing.ended.store(true, Ordering::Relaxed);
    }
}

impl Announcing {
    /// The thread: announces at the tracker's interval until the copy is complete, and then once.
    fn run(&self) {
        let mut announced_complete = self.member.is_complete();
        let mut next = clock::now().after(Duration::from_secs(RETRY_SECONDS));
        while !self.ended.load(Ordering::Relaxed) {
            thread::park_timeout(CHECK_INTERVAL);
            let complete = self.member.is_complete();
            let due = if complete { !announced_complete } else { clock::left(next).is_none() };
            if !due {
                continue;
            }
            announced_complete = complete;
            let event = if complete { AnnounceEvent::Completed } else { AnnounceEvent::Regular };
            let interval = match self.announce(event) {
                Ok(response) => {
                    if !complete && self.member.connections() < PEER_CONNECTIONS {
                        let peers = response.peers.into_iter();
                        peers.for_each(|peer| self.member.dial(peer));
                    }
                    response.interval
                }
                // The swarm goes on with the peers that it knows.
                Err(error) => {
                    log::debug!("the tracker: {error}");
                    RETRY_SECONDS
                }
            };
            next = clock::now().after(Duration::from_secs(interval));
        }
    }

    fn announce(&self, event: AnnounceEvent) -> Result<AnnounceResponse> {
        let Tracker { url, addrs } = &self.tracker;
        let traffic = self.member.traffic();
        let announce = Announce {
            info_hash: self.member.info_hash,
            peer_id: self.member.id,
            port: self.port,
            left: Some(self.member.metainfo.bytes - self.member.progress().bytes),
            event,
            wanted: PEER_CONNECTIONS,
            uploaded: traffic.values().map(|traffic| traffic.sent).sum(),
            received_from: if self.reports_shares { shares(&traffic) } else { Vec::new() },
        };
        let mark = if url.target.contains('?') { '&' } else { '?' };
        let target = format!("{}{mark}{}", url.target, announce.encode());
        let body = client::get(addrs, &url.host, &target, RESPONSE_MAX)?;
        AnnounceResponse::decode(&body)
            .map_err(|error| Error::refused(&url.host, error.to_string()))
    }
}

/// The bytes that came from each member, the most first, as many as one announce may carry.
fn shares(traffic: &BTreeMap<PeerId, PeerTraffic>) -> Vec<Share> {
    let mut all: Vec<Share> = traffic
        .iter()
        .map(|(&id, traffic)| (id, traffic.received))
        .filter(|share| share.1 > 0)
        .collect();
    all.sort_unstable_by_key(|share| Reverse(share.1));
    all.truncate(SHARES_MAX);
    all
}
