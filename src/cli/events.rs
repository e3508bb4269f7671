//! `--events`: what the page shows, as lines of JSON on standard output.

use crate::{
    cli::{output, progress},
    client::{ClientView, FetchRun},
    error::Result,
    http::{
        event,
        feed::{POLL_INTERVAL, PROGRESS_INTERVAL, StateFeed},
    },
    net::clock,
    serve::DOCUMENTS,
    server::lobby::Lobby,
    transfer::Record,
    transport::swarm::torrents::Torrents,
    units::Moment,
};

/// Prints the states of a server as they change.
#[derive(Debug)]
pub(crate) struct StatePrinter {
    feed: StateFeed,
    printed: u64,
}

impl Default for StatePrinter {
    fn default() -> Self {
        Self { feed: StateFeed::new(DOCUMENTS), printed: 0 }
    }
}

impl StatePrinter {
    /// Prints the state of `lobby` if it has changed since the last call.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn print_new(&mut self, lobby: &Lobby) -> Result<()> {
        let snapshot = self.feed.poll(lobby);
        if snapshot.id == self.printed {
            return Ok(());
        }
        self.printed = snapshot.id;
        print(&snapshot.state)
    }
}

fn print(event: &str) -> Result<()> {
    output::print(&format!("{event}\n"))
}

/// Prints that a session has ended.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn ended(record: &Record) -> Result<()> {
    let write = DOCUMENTS.json.expect("this program writes them");
    print(&event::ended_with("session", &write(record)))
}

/// Prints which peer had which chunk, and how much each got from whom, after a session of a swarm.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn swarm(torrents: &Torrents) -> Result<()> {
    print(&event::ended_with("swarm", &torrents.document()))
}

/// Prints what the clients of `fetch` do until `work` is done.
pub(crate) fn watch<T>(fetch: &FetchRun, work: impl FnOnce() -> T) -> T {
    let mut clients = ClientPrinter::default();
    let result = progress::poll_while(POLL_INTERVAL, || clients.print_new(fetch.views()), work);
    clients.printed_at = None;
    clients.print_new(fetch.views());
    result
}

/// Prints the clients of this process: a change of stage at once, progress alone once a second.
#[derive(Default)]
struct ClientPrinter {
    printed: Vec<ClientView>,
    printed_at: Option<Moment>,
}

impl ClientPrinter {
    fn print_new(&mut self, views: Vec<ClientView>) {
        let stages = |views: &[ClientView]| -> Vec<_> {
            views.iter().map(|view| (view.stage, view.muster)).collect()
        };
        let now = clock::now();
        let due = (self.printed_at).is_none_or(|at| now.since(at) >= PROGRESS_INTERVAL);
        if stages(&views) == stages(&self.printed) && !(due && views != self.printed) {
            return;
        }
        if let Err(error) = print(&event::clients(&views)) {
            log::warn!("{error}");
        }
        self.printed_at = Some(now);
        self.printed = views;
    }
}
