//! `--events`: what the page shows, as lines of JSON on standard output.

use std::thread;

use crossbeam_channel::RecvTimeoutError;

use crate::cli::output;
use crate::cli::services;
use crate::client::ClientView;
use crate::client::FetchRun;
use crate::http::board::Board;
use crate::http::board::LOOK;
use crate::http::board::PROGRESS;
use crate::http::event;
use crate::net::clock;
use crate::server::lobby::Lobby;
use crate::transfer::Record;
use crate::transport::swarm::torrents::Torrents;
use crate::units::Moment;

/// Prints the states of a server as they change; its owner says when to look.
#[derive(Debug)]
pub(crate) struct States {
    board: Board,
    last: u64,
}

impl Default for States {
    fn default() -> Self {
        Self {
            board: Board::new(services::DOCUMENTS),
            last: 0,
        }
    }
}

impl States {
    /// Prints the state of `lobby` if it is another one than before.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn tell(&mut self, lobby: &Lobby) -> crate::error::Result<()> {
        let sight = self.board.look(lobby);
        if sight.id == self.last {
            return Ok(());
        }
        self.last = sight.id;
        output::print(&format!("{}\n", sight.state))
    }
}

/// Prints that a session has ended.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn ended(record: &Record) -> crate::error::Result<()> {
    let write = services::DOCUMENTS.json.expect("this program writes them");
    output::print(&format!("{}\n", event::session_ended(&write(record))))
}

/// Prints who had which chunk, and who got how much from whom, once a session of a swarm is over.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn swarm(torrents: &Torrents) -> crate::error::Result<()> {
    output::print(&format!("{}\n", event::swarm(&torrents.document())))
}

/// Prints what the clients of `fetch` do until `work` is done.
pub(crate) fn watch<T: Send>(fetch: &FetchRun, work: impl FnOnce() -> T + Send) -> T {
    let (done, over) = crossbeam_channel::bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut teller = Teller::default();
            while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                teller.tell(fetch.views());
            }
            teller.told = None;
            teller.tell(fetch.views());
        });
        let result = work();
        drop(done);
        result
    })
}

/// Tells a change of stage at once and progress alone once a second.
#[derive(Default)]
struct Teller {
    last: Vec<ClientView>,
    told: Option<Moment>,
}

impl Teller {
    fn tell(&mut self, views: Vec<ClientView>) {
        let stages = |views: &[ClientView]| -> Vec<_> {
            views.iter().map(|view| (view.stage, view.muster)).collect()
        };
        let due = self
            .told
            .is_none_or(|at| clock::now().since(at) >= PROGRESS);
        if stages(&views) == stages(&self.last) && !(due && views != self.last) {
            return;
        }
        if let Err(error) = output::print(&format!("{}\n", event::clients(clock::wall(), &views))) {
            log::warn!("{error}");
        }
        self.told = Some(clock::now());
        self.last = views;
    }
}
