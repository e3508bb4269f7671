//! The thread that tells the others of new pieces, a few at a time, and looks after time limits.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::net::clock;
use crate::proto::bt::wire::Message;
use crate::transport::swarm::link::PeerConnection;
use crate::transport::swarm::member::MemberState;
use crate::transport::swarm::member::SwarmMember;
use crate::transport::swarm::member::role::Role;
use crate::transport::swarm::member::role::has_role;

/// Longest time for which news of a piece waits for others, so that one message carries several.
const NEWS_WAIT: Duration = Duration::from_millis(4);

/// How often time limits are looked at, and for how long a rumour waits for something else to go out
/// on its link before it goes alone.
const TICK: Duration = Duration::from_millis(50);

impl SwarmMember {
    /// The ticker's thread.
    pub(super) fn keep_time(&self) {
        let mut state = self.lock();
        let mut look = clock::now().after(TICK);
        while !state.closed {
            if state.news.is_empty() {
                let left = clock::left(look).unwrap_or_default();
                state = self
                    .tick
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            if !state.news.is_empty() {
                drop(state);
                // Others that come meanwhile go with them.
                thread::sleep(NEWS_WAIT);
                state = self.lock();
                let news = std::mem::take(&mut state.news);
                self.tell(&state, &news, PeerConnection::say);
            }
            if clock::left(look).is_none() {
                look = clock::now().after(TICK);
                // The rumours of the last tick, where nothing else went out meanwhile.
                state.links.values().for_each(|link| link.press());
                let rumours = std::mem::take(&mut state.rumours);
                if !rumours.is_empty() {
                    self.tell(&state, &rumours, PeerConnection::murmur);
                }
                for late in state.table.snub_silent_peers(clock::now()) {
                    if let Some(link) = state.links.get(&late) {
                        log::info!("{}: does not answer, others are asked", link.addr);
                    }
                }
                self.call_due(&mut state);
                self.ask_all(&mut state);
                self.show(&mut state);
            }
        }
    }

    /// Tells the others of new pieces; one of ours that has a piece needs not hear of it.
    fn tell(&self, state: &MemberState, news: &[u32], say: fn(&PeerConnection, &[Message<'_>])) {
        let whole = state.table.is_complete();
        for link in state.links.values() {
            let terse = link.peer.native() && !has_role(Role::Seeder, &link.peer);
            let has = state.table.pieces_of(link.key);
            let mut words: Vec<Message<'_>> = match whole && link.peer.native() {
                true => vec![Message::HaveAll],
                false => news
                    .iter()
                    .filter(|&&piece| !terse || has.is_none_or(|has| !has.has(piece)))
                    .map(|&piece| Message::Have(piece))
                    .collect(),
            };
            if whole && link.interested.swap(false, Ordering::Relaxed) {
                words.push(Message::NotInterested);
            }
            if !words.is_empty() {
                say(link, &words);
            }
        }
    }
}
