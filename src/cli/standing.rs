//! `gatecast fetch --standing`: session after session from a server that comes and goes.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, select};

use crate::{
    cli::{
        fetch::{self, FetchArgs},
        options, output, progress, signals,
    },
    client::{self, ClientReport, FetchConfig, standing::StandingClient},
    error::{Error, Result},
    fetch::FetchTask,
    net::{clock, spawn},
    proto::native::Offer,
    report::verdict::{FAILED, Verdict},
    text::escape,
};

/// How often a running session is looked at for a signal.
const WATCH: Duration = Duration::from_millis(100);

/// Fetches whatever there is to fetch, until a signal comes.
///
/// # Errors
/// What no client could do; what happens after that is said in a line, and the client stays.
pub(super) fn run(args: &FetchArgs) -> Result<Verdict> {
    if fetch::names_no_gate(args) {
        let what = "a URL, a torrent and --via http have no seat for --standing; give HOST[:PORT]";
        return Err(Error::usage(what));
    }
    args.check_target(false)?;
    let config = fetch::config(args, Vec::new(), None)?;
    config.check()?;
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    signals::on_stop(move || drop(stop))?;
    let mut client = StandingClient::default();
    // The worst of the sessions so far, and why there was no seat, which is said once.
    let (mut verdict, mut told) = (Verdict::AllVerified, String::new());
    loop {
        let (sender, listing) = crossbeam_channel::bounded(1);
        let (host, key) = (args.server.clone(), config.key.clone());
        let look = move || {
            let server = options::server(&host);
            let listed = server.and_then(|at| Ok((client::list(&at, key.as_ref())?, at)));
            // Nobody hears it once a signal came.
            let _ = sender.send(listed);
        };
        // On a thread of its own: a signal does not wait for a server.
        spawn("look", look).map_err(Error::io("start a thread", "this process"))?;
        let listed = select! {
            recv(listing) -> listed => listed.expect("it is sent once"),
            recv(stopped) -> _ => return Ok(verdict),
        };
        let seated = listed.and_then(|(listed, server)| match client.choose(&listed, &config)? {
            Some(config) => take_part(args, FetchConfig { server, ..config }, &stopped),
            None => Ok(None),
        });
        match seated {
            Err(error) if error.to_string() == told => {}
            Err(error) => {
                output::print_error(&error);
                told = error.to_string();
            }
            Ok(None) => told.clear(),
            Ok(Some((offer, report))) => {
                told.clear();
                output::print(&line(&offer, &report))?;
                if report.error.is_none() {
                    client.note_proven(offer.file.sha1);
                }
                verdict = verdict.min(Verdict::of_clients(&[report]));
            }
        }
        let wait = client.next_wait(clock::random());
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return Ok(verdict);
        }
    }
}

/// Takes part in one session; without a seat there is an error.
fn take_part(
    args: &FetchArgs,
    config: FetchConfig,
    stopped: &Receiver<()>,
) -> Result<Option<(Offer, ClientReport)>> {
    let task = fetch::receiving(args, FetchTask::new(config)?);
    let stop = || {
        if stopped.try_recv() == Err(TryRecvError::Disconnected) {
            task.run.stop();
        }
    };
    let fetch = || progress::watch(&task.run, || task.run());
    let report = progress::poll_while(WATCH, stop, fetch)?.pop().expect("one client");
    match (report.offer.clone(), report.error) {
        (None, Some(error)) => Err(error),
        (offer, error) => Ok(offer.map(|offer| (offer, ClientReport { error, ..report }))),
    }
}

/// A session in a line.
fn line(Offer { session, seat, clients, via, file, .. }: &Offer, report: &ClientReport) -> String {
    let how = match (&report.error, &report.path) {
        (Some(error), _) => format!("{FAILED}{error}"),
        (None, path) => {
            let path = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            format!("{}: whole and verified", escape(&path))
        }
    };
    let (name, bytes) = (&file.name, file.bytes);
    format!("session {session}: {name}, {bytes} bytes, {via}, seat {seat} of {clients}: {how}\n")
}
