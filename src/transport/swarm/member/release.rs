//! The gate of a member, and what a seeder shows to whom.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::net::clock;
use crate::proto::bt::inject::SuperSeeder;
use crate::proto::bt::random::Random;
use crate::proto::bt::wire::Message;
use crate::transport::swarm::link::PeerConnection;
use crate::transport::swarm::member::MemberState;
use crate::transport::swarm::member::SwarmMember;
use crate::transport::swarm::member::hear::refuse;

impl SwarmMember {
    /// Begins to serve and to ask, all links at once.
    pub fn release(&self) {
        let mut state = self.lock();
        if state.released.is_some() {
            return;
        }
        state.released = Some(clock::now());
        self.sent.store(0, Ordering::Relaxed);
        let links: Vec<Arc<PeerConnection>> = state.links.values().map(Arc::clone).collect();
        links.iter().for_each(|link| link.say(&[Message::Unchoke]));
        self.show(&mut state);
        for link in &links {
            self.ask(&mut state, link);
            link.flush();
        }
    }

    /// Serves nobody until the next [`Member::release`], and shows every piece anew to whom it
    /// has not been shown: the seeder's part of a new session.
    pub fn hold(&self) {
        let mut state = self.lock();
        state.released = None;
        let MemberState {
            injector, links, ..
        } = &mut *state;
        let mut random = Random::new(clock::random());
        *injector = Some(SuperSeeder::new(
            self.layout.pieces(),
            self.layout.piece,
            &mut random,
        ));
        for link in links.values() {
            link.say(&[Message::Choke]);
            refuse(link, link.cancel_all());
            link.flush();
        }
        state.holders.fill(None);
        state.admitted.clear();
        state.seats.clear();
        state.gone.clear();
    }

    /// Lets a seated peer be fed, and whoever was not yet served: its session is released.
    pub fn admit(&self, id: [u8; 20]) {
        self.release();
        let mut state = self.lock();
        state.admitted.insert(id);
        let Some(link) = state.links.values().find(|link| link.peer.peer_id == id) else {
            return;
        };
        let link = Arc::clone(link);
        if let Some(injector) = &mut state.injector {
            injector.admit(link.key);
            if injector.reveals_all() {
                link.say(&[Message::HaveAll]);
            }
        }
        self.show(&mut state);
    }

    /// True once released, until held again.
    pub fn is_released(&self) -> bool {
        self.lock().released.is_some()
    }

    /// Shows peers the pieces that are theirs to fetch; when all are out, everything to everybody.
    pub(super) fn show(&self, state: &mut MemberState) {
        let MemberState {
            released: Some(released),
            injector: Some(injector),
            links,
            table,
            ..
        } = state
        else {
            return;
        };
        let now = clock::now();
        let seconds = now.since(*released).as_secs_f64().max(0.1);
        let piece = f64::from(self.layout.piece);
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let pieces = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed) as f64 / piece;
        let of = |key: u32| links.get(&key).map_or(0.0, |link| pieces(&link.sent));
        let shown = injector.reveal(now, seconds, of, pieces(&self.sent));
        for one in shown.chunk_by(|one, two| one.0 == two.0) {
            let news: Vec<Message<'_>> = one.iter().map(|&(_, p)| Message::Have(p)).collect();
            if let Some(link) = links.get(&one[0].0) {
                link.say(&news);
            }
        }
        if injector.try_reveal_all(now) {
            let bits = table.have().encode();
            for link in links.values() {
                let all = match link.limits.fast {
                    true => Message::HaveAll,
                    false => Message::Bitfield(&bits),
                };
                link.say(&[all]);
            }
        }
    }
}
