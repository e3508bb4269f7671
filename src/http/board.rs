//! The one snapshot that every subscriber shows, and the stream that carries it.
//!
//! There is no thread behind it: whichever subscriber comes first after [`LOOK`] looks at the
//! sessions, for all of them, so that nobody watching costs nothing. A subscriber that is slow
//! finds the newest state when it comes back, and never a queue.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use crate::http::Documents;
use crate::http::Face;
use crate::http::connection::Counted;
use crate::http::connection::Line;
use crate::http::connection::Reply;
use crate::http::connection::send_by;
use crate::http::event;
use crate::net::clock;
use crate::proto::http::text;
use crate::server::gate::GateView;
use crate::server::lobby::Lobby;
use crate::session::SessionId;
use crate::transfer::Record;
use crate::units::Moment;

/// The latest state, and the sessions that have ended.
#[derive(Debug)]
pub struct Board {
    documents: Documents,
    shown: Mutex<Shown>,
}

/// What is on the board.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Grows with every change that is worth telling.
    pub id: u64,
    /// The state, as a `gatecast.event/1` on one line.
    pub state: Arc<str>,
    /// The ended sessions, newest last: each with its `session` event, where this build writes
    /// documents.
    pub ended: VecDeque<(SessionId, Option<Arc<str>>)>,
}

#[derive(Debug, Default)]
struct Shown {
    sight: Sight,
    /// When the sessions were looked at last, and when the state was written last.
    looked: Option<Moment>,
    written: Option<Moment>,
    shape: Vec<Shape>,
}

/// What of a session is told at once when it changes.
type Shape = (SessionId, bool, usize, usize, usize);

/// How often the sessions are looked at while somebody watches.
pub const LOOK: Duration = Duration::from_millis(100);

/// How often progress alone is told.
pub const PROGRESS: Duration = Duration::from_secs(1);

/// Most subscribers at once.
pub const SUBSCRIBERS_MAX: usize = 64;

/// Ended sessions that a new subscriber is told in full.
const TOLD_AT_FIRST: usize = 1;

/// How long a subscriber may take to take an event.
const EVENT_LIMIT: Duration = Duration::from_secs(10);

/// How long the stream is silent at most, so that whatever is between sees that it lives.
const PING: Duration = Duration::from_secs(10);

impl Board {
    /// An empty board that writes ended sessions by `documents`.
    pub fn new(documents: Documents) -> Self {
        Self {
            documents,
            shown: Mutex::default(),
        }
    }

    /// What is on it, no older than [`LOOK`].
    pub fn look(&self, lobby: &Lobby) -> Sight {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if shown.looked.is_none_or(|at| now.since(at) >= LOOK) {
            shown.looked = Some(now);
            shown.renew(lobby, self.documents);
        }
        shown.sight.clone()
    }
}

impl Shown {
    fn renew(&mut self, lobby: &Lobby, documents: Documents) {
        // Views first: a session that ends in between is in the ledger then, and not in neither.
        let views = lobby.views();
        let ended = lobby.history().ended();
        let more = self.take_up(&ended, documents);
        let shape: Vec<Shape> = views.iter().map(shape).collect();
        let due = self
            .written
            .is_none_or(|at| clock::now().since(at) >= PROGRESS);
        let moving = views.iter().any(|view| !view.seats.is_empty());
        if more || shape != self.shape || self.written.is_none() || (due && moving) {
            self.shape = shape;
            self.written = Some(clock::now());
            self.sight.id += 1;
            let state = event::state_of(self.sight.id, clock::wall(), &views, &ended, lobby);
            self.sight.state = state.into();
        }
    }

    /// Takes up what has ended since; says whether anything has.
    fn take_up(&mut self, ended: &[Arc<Record>], documents: Documents) -> bool {
        let known = &mut self.sight.ended;
        let before = known.len();
        known.retain(|(id, _)| ended.iter().any(|record| record.session == *id));
        let mut more = known.len() != before;
        for record in ended {
            if known.iter().all(|(id, _)| *id != record.session) {
                let event = documents
                    .json
                    .map(|write| event::session_ended(&write(record)).into());
                known.push_back((record.session, event));
                more = true;
            }
        }
        more
    }
}

fn shape(view: &GateView) -> Shape {
    let count = |wanted: fn(&crate::server::gate::SeatView) -> bool| {
        view.seats.iter().filter(|seat| wanted(seat)).count()
    };
    (
        view.session,
        view.released.is_some(),
        view.seats.len(),
        count(|seat| seat.ready),
        count(|seat| seat.finished),
    )
}

impl Face {
    /// Streams events until the client leaves or the server ends.
    pub(super) fn stream_events(&self, line: &Line<'_>, lobby: &Arc<Lobby>) -> io::Result<()> {
        let Some(_place) = Counted::new(&self.counts.subscribers, SUBSCRIBERS_MAX) else {
            let reply = Reply::say(
                503,
                format!("{SUBSCRIBERS_MAX} subscribers are here already"),
            );
            self.reply(line, reply.field("Retry-After", "5"), false);
            return Ok(());
        };
        let head = self
            .head(200, true)
            .field("Content-Type", "text/event-stream")
            .field("Cache-Control", "no-store")
            .field("X-Accel-Buffering", "no")
            .encode();
        let mut text = String::from_utf8(head).expect("a head is text");
        text.push_str("retry: 2000\n\n");
        let (mut state, mut told, mut first) = (0, VecDeque::new(), true);
        let mut silent = clock::now();
        loop {
            let sight = self.board.look(lobby);
            if sight.id != state {
                text += &text::event("state", sight.id, &sight.state);
                state = sight.id;
            }
            // Of the sessions that had ended before it came, a subscriber gets the last.
            let skip = if first {
                sight.ended.len().saturating_sub(TOLD_AT_FIRST)
            } else {
                0
            };
            for (at, (id, event)) in sight.ended.iter().enumerate() {
                if told.contains(id) {
                    continue;
                }
                told.push_back(*id);
                if let Some(event) = event.as_ref().filter(|_| at >= skip) {
                    text += &text::event("session", sight.id, event);
                }
            }
            told.retain(|id| sight.ended.iter().any(|(known, _)| known == id));
            first = false;
            if text.is_empty() && clock::now().since(silent) >= PING {
                text.push_str(":\n\n");
            }
            if !text.is_empty() {
                send_by(
                    line.stream,
                    text.as_bytes(),
                    clock::now().after(EVENT_LIMIT),
                )?;
                text.clear();
                silent = clock::now();
            }
            thread::sleep(LOOK);
            if is_gone(line.stream)? {
                return Ok(());
            }
        }
    }
}

/// Whether the client has closed, or has been closed; what it says is not listened to.
fn is_gone(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    match seen {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
