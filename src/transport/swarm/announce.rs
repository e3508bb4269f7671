//! A peer and its tracker: where we are, how far we are, and whom to call.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::net::STACK;
use crate::net::clock;
use crate::net::http::client;
use crate::proto::bt::tracker::ANSWER_MAX;
use crate::proto::bt::tracker::Announce;
use crate::proto::bt::tracker::Answer;
use crate::proto::bt::tracker::Event;
use crate::proto::bt::tracker::FROM_MAX;
use crate::proto::bt::tracker::Share;
use crate::proto::http::url::Url;
use crate::transport::swarm::member::Member;
use crate::transport::swarm::member::PEER_LINKS;
use crate::transport::swarm::member::view::Moved;

/// Tells the tracker where we are, and calls whom it names.
#[derive(Debug)]
pub struct Announcer {
    member: Arc<Member>,
    tracker: Url,
    /// Where the tracker is: its name is looked up once, and cannot become another's.
    addrs: Vec<SocketAddr>,
    port: u16,
    /// The tracker is our own server's, and is told what came from whom.
    tells: bool,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How long the links may take to stand before READY.
const LINK_LIMIT: Duration = Duration::from_secs(2);

impl Announcer {
    /// Announces `member`, which listens on `port`, to `tracker` at its addresses; not before it
    /// has joined in.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(
        member: &Arc<Member>,
        (tracker, addrs): (Url, Vec<SocketAddr>),
        port: u16,
        tells: bool,
    ) -> Result<Self> {
        let mut announcer = Self {
            member: Arc::clone(member),
            tracker,
            addrs,
            port,
            tells,
            ended: Arc::default(),
            thread: None,
        };
        announcer.start()?;
        Ok(announcer)
    }

    /// The first announce. With `wait` it also waits until the calls have been answered, so that
    /// a release finds every link standing.
    ///
    /// # Errors
    /// The tracker cannot be reached or refuses.
    pub fn join_in(&self, wait: bool) -> Result<()> {
        let answer = self.announce(Event::Started)?;
        self.call(answer.peers, wait);
        Ok(())
    }

    /// Calls `peers`; with `wait` it also waits until they have answered.
    pub fn call(&self, peers: Vec<SocketAddr>, wait: bool) {
        // Of a large swarm only half as many as there will be: the others call us.
        let called = match peers.len() {
            few if few < PEER_LINKS => few,
            _ => PEER_LINKS / 2,
        };
        (peers.into_iter().take(called)).for_each(|peer| self.member.dial(peer));
        let deadline = clock::now().after(LINK_LIMIT);
        while wait && self.member.links() < called && clock::left(deadline).is_some() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Announces from time to time, and once when the copy is whole.
    fn start(&mut self) -> Result<()> {
        let (member, ended) = (Arc::clone(&self.member), Arc::clone(&self.ended));
        let asking = Self {
            member: Arc::clone(&member),
            tracker: self.tracker.clone(),
            addrs: self.addrs.clone(),
            port: self.port,
            tells: self.tells,
            ended: Arc::clone(&ended),
            thread: None,
        };
        let thread = thread::Builder::new()
            .name("announce".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let mut told = member.progress().missing == 0;
                let mut next = clock::now().after(Duration::from_secs(5));
                while !ended.load(Ordering::Relaxed) {
                    thread::park_timeout(Duration::from_millis(500));
                    let whole = member.progress().missing == 0;
                    if (whole && told) || (!whole && clock::left(next).is_some()) {
                        continue;
                    }
                    let event = if whole {
                        Event::Completed
                    } else {
                        Event::Regular
                    };
                    told = whole;
                    let wait = match asking.announce(event) {
                        Ok(answer) => {
                            if !whole && member.links() < PEER_LINKS {
                                answer.peers.into_iter().for_each(|peer| member.dial(peer));
                            }
                            answer.interval
                        }
                        // A swarm goes on with the peers that it knows.
                        Err(error) => {
                            log::debug!("the tracker: {error}");
                            5
                        }
                    };
                    next = clock::now().after(Duration::from_secs(wait));
                }
            })
            .map_err(Error::io("start the announcing thread", "this process"))?;
        self.thread = Some(thread);
        Ok(())
    }

    fn announce(&self, event: Event) -> Result<Answer> {
        let progress = self.member.progress();
        let moved = self.member.moved();
        let announce = Announce {
            info_hash: self.member.hash(),
            peer_id: self.member.id(),
            port: self.port,
            left: Some(self.member.metainfo.bytes - progress.bytes),
            event,
            wanted: PEER_LINKS,
            sent: moved.values().map(|moved| moved.sent).sum(),
            from: if self.tells {
                shares(&moved)
            } else {
                Vec::new()
            },
        };
        let mark = if self.tracker.target.contains('?') {
            '&'
        } else {
            '?'
        };
        let target = format!("{}{mark}{}", self.tracker.target, announce.encode());
        let body = client::get(&self.addrs, &self.tracker.host, &target, ANSWER_MAX)?;
        Answer::decode(&body).map_err(|error| Error::refused(&self.tracker.host, error.to_string()))
    }

    /// Announces at once that the copy is whole.
    pub fn is_whole(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Ends it, with a last word to the tracker.
    pub fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A last word, if the tracker is still there; nobody waits for it.
            if thread.join().is_err() {
                log::error!("the announcing thread panicked");
            }
            if let Err(error) = self.announce(Event::Stopped) {
                log::debug!("the tracker: {error}");
            }
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// What came from whom, the most first, as much as one announce may carry.
fn shares(moved: &BTreeMap<[u8; 20], Moved>) -> Vec<Share> {
    let mut all: Vec<Share> = moved
        .iter()
        .map(|(&id, moved)| (id, moved.received))
        .filter(|share| share.1 > 0)
        .collect();
    all.sort_unstable_by_key(|share| Reverse(share.1));
    all.truncate(FROM_MAX);
    all
}
