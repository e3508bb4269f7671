//! What moves while one waits: on standard error, and drawn only on a terminal.

use std::{io::IsTerminal, sync::Mutex, thread, time::Duration};

use crossbeam_channel::RecvTimeoutError;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::output,
    client::{ClientStage, ClientView, FetchRun},
    net::{clock, lock},
    server::gate::GateView,
    text::{FileName, escape, some_of},
    transfer::Outcome,
    units::{Bytes, Moment, Rate, micros, total_saturating},
};

/// Up to so many clients have a line each; more share one.
const LINES_MAX: usize = 12;

/// How often the drawing is renewed while clients run.
const REFRESH: Duration = Duration::from_millis(100);

/// How often a muster that changes is printed where there is no terminal.
const PRINT_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes of the names of those who are missing: a few lines of a terminal.
pub(crate) const NAMES_ROOM: usize = 400;

/// Files smaller than this are hashed faster than a bar is read, bytes.
const BAR_FROM: u64 = 200_000_000;

/// Characters of a bar.
const BAR_WIDTH: usize = 24;

/// Lines at the bottom of the terminal that are replaced as things move, and removed on drop.
#[derive(Debug, Default)]
struct StatusText(Option<ProgressBar>);

impl StatusText {
    fn draw(&mut self, text: String) {
        if text.is_empty() {
            return self.clear();
        }
        let line = self.0.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg}");
            let style = style.expect("the template is a constant and right");
            ProgressBar::new_spinner().with_style(style)
        });
        line.set_message(text);
        line.tick();
    }

    fn clear(&mut self) {
        if let Some(line) = self.0.take() {
            line.finish_and_clear();
        }
    }
}

impl Drop for StatusText {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A bar and figures: `██████░░░░░░ 25 MB of 100 MB, 95.2 Mbit/s, 6 s left`. The rate is the mean
/// since the first byte, `elapsed` ago, in the unit and with the digits of the page; what is left
/// is expected at that rate. Both are left out until something has moved.
fn transfer_text(moved: u64, total: u64, elapsed: Duration) -> String {
    let filled = u128::from(moved.min(total)) * BAR_WIDTH as u128 / u128::from(total.max(1));
    let filled = usize::try_from(filled).unwrap_or(BAR_WIDTH);
    let bar = "█".repeat(filled) + &"░".repeat(BAR_WIDTH - filled);
    let mut text = format!("{bar} {} of {}", Bytes(moved), Bytes(total));
    let bits = u128::from(moved) * 8_000_000 / u128::from(micros(elapsed).max(1));
    let rate = Rate(u64::try_from(bits).unwrap_or(u64::MAX));
    if rate.0 > 0 && !elapsed.is_zero() {
        let left = rate.time_for(total.saturating_sub(moved)).as_secs();
        let mbit = rate.mbit();
        let digits = if mbit < 10.0 { 2 } else { 1 };
        text += &format!(", {mbit:.digits$} Mbit/s, {} left", seconds_text(left));
    }
    text
}

/// `7 s`, `2 min 7 s`, `3 h 2 min`.
fn seconds_text(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}

/// A line on the terminal while the digest of a large file is computed.
#[derive(Debug, Default)]
pub(crate) struct DigestBar(Mutex<Option<(FileName, Moment, StatusText)>>);

impl DigestBar {
    /// Shows that `done` of the `size` bytes of `name` are hashed.
    pub(crate) fn update(&self, name: &FileName, size: u64, done: u64) {
        if size < BAR_FROM || !std::io::stderr().is_terminal() {
            return;
        }
        let mut shown = lock(&self.0);
        let last = shown.take().filter(|(file, ..)| file == name && done < size);
        if done < size {
            let (_, begun, status) = shown.insert(
                last.unwrap_or_else(|| (name.clone(), clock::now(), StatusText::default())),
            );
            let text = transfer_text(done, size, clock::now().since(*begun));
            status.draw(format!("digest of {name}: {text}"));
        }
    }
}

/// Calls `poll` every `interval` until `work` is done, and returns what `work` returned. Where the
/// system has no thread for it, only the work is done.
pub(crate) fn poll_while<T>(
    interval: Duration,
    mut poll: impl FnMut() + Send,
    work: impl FnOnce() -> T,
) -> T {
    let (done, over) = crossbeam_channel::bounded::<()>(0);
    thread::scope(|scope| {
        let polling = move || {
            while over.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                poll();
            }
        };
        if let Err(error) = thread::Builder::new().spawn_scoped(scope, polling) {
            log::warn!("progress is not shown: no thread for it: {error}");
        }
        let result = work();
        drop(done);
        result
    })
}

/// Shows the clients of `fetch` until `work` is done.
pub(crate) fn watch<T>(fetch: &FetchRun, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let mut status = StatusText::default();
    let mut first_byte = None;
    let show = || {
        let (now, views) = (clock::now(), fetch.views());
        if views.iter().any(|view| view.moved > 0) {
            first_byte.get_or_insert(now);
        }
        let elapsed = first_byte.map_or(Duration::ZERO, |at| now.since(at));
        status.draw(clients_text(&views, elapsed));
    };
    poll_while(REFRESH, show, work)
}

/// A line for each client, or one for all where they are many.
fn clients_text(views: &[ClientView], elapsed: Duration) -> String {
    if views.len() > LINES_MAX {
        let moved = total_saturating(views.iter().map(|view| view.moved));
        let total = total_saturating(views.iter().map(|view| view.bytes));
        return format!("{}, {}", transfer_text(moved, total, elapsed), summary(views));
    }
    let line = |(number, view): (usize, &ClientView)| match view.stage {
        ClientStage::Receiving => {
            let text = transfer_text(view.moved, view.bytes, elapsed);
            format!("client {number}: {text}")
        }
        _ => format!("client {number}: {}", stage(view)),
    };
    let lines: Vec<String> = (1..).zip(views).map(line).collect();
    lines.join("\n")
}

fn stage(view: &ClientView) -> String {
    match (view.stage, view.muster) {
        (ClientStage::Connecting, _) => "looking for the server".to_owned(),
        (ClientStage::Waiting, Some((ready, clients))) => {
            format!("{}, {ready} of {clients} ready", doing(view.stage))
        }
        (stage, _) => doing(stage).to_owned(),
    }
}

fn doing(stage: ClientStage) -> &'static str {
    match stage {
        ClientStage::Waiting => "at the gate",
        ClientStage::Ended => "done",
        stage => stage.word(),
    }
}

/// How many clients are doing what, most advanced last: `3 receiving, 22 verifying`.
fn summary(views: &[ClientView]) -> String {
    let counted = ClientStage::ALL.into_iter().filter_map(|(stage, _)| {
        let count = views.iter().filter(|view| view.stage == stage).count();
        (count > 0).then(|| format!("{count} {}", doing(stage)))
    });
    counted.collect::<Vec<_>>().join(", ")
}

/// The sessions of a server: which clients are ready and which are missing, then how far the bytes
/// are.
#[derive(Debug, Default)]
pub(crate) struct MusterLine {
    status: StatusText,
    printed: Option<(Moment, String)>,
}

impl MusterLine {
    /// Shows `views` as they are now.
    pub(crate) fn show(&mut self, views: &[GateView]) {
        if std::io::stderr().is_terminal() {
            let sessions: Vec<String> = views.iter().map(session_text).collect();
            return self.status.draw(sessions.join("\n"));
        }
        // Without a terminal: a line when the muster has changed, and not too often.
        let musters = views.iter().filter(|view| view.left.is_some());
        let text = |view| match missing_names(view) {
            Some(names) => format!("{}, {names}", headline(view)),
            None => headline(view),
        };
        let text = musters.map(text).collect::<Vec<_>>().join("; ");
        let now = clock::now();
        let last = self.printed.as_ref();
        let is_due =
            last.is_none_or(|(at, last)| *last != text && now.since(*at) >= PRINT_INTERVAL);
        if is_due && !text.is_empty() {
            output::eprintln(&text);
            self.printed = Some((now, text));
        }
    }

    /// Takes the drawing off the terminal, before results are printed.
    pub(crate) fn clear(&mut self) {
        self.status.clear();
    }
}

fn headline(view: &GateView) -> String {
    let ready = view.seats.iter().filter(|seat| seat.ready).count();
    format!("{}: {ready} of {} clients ready", view.file, view.clients)
}

/// Who is missing, of a session with a roster.
fn missing_names(view: &GateView) -> Option<String> {
    let names = some_of(view.missing.iter().map(|(_, name)| name.as_str()), NAMES_ROOM);
    (!names.is_empty()).then(|| format!("missing: {names}"))
}

fn session_text(view: &GateView) -> String {
    match view.left {
        Some(left) => muster_text(view, left),
        None => sending_text(view),
    }
}

/// How far a session's bytes are. To a seat that has ended nothing more is sent, whatever it got.
fn sending_text(view: &GateView) -> String {
    let moved = total_saturating(view.seats.iter().map(|seat| seat.moved));
    let total = total_saturating(view.seats.iter().map(|seat| match seat.end {
        Some(_) => seat.moved,
        None => view.bytes.saturating_sub(seat.resumed),
    }));
    let ends = || view.seats.iter().filter_map(|seat| seat.end.as_ref());
    let done = ends().filter(|end| end.outcome == Outcome::Complete).count();
    let failed = match ends().count() - done {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    let text = transfer_text(moved, total, view.released.unwrap_or_default());
    format!("{}: {text}, {done} of {} seats done{failed}", view.file, view.seats.len())
}

/// Which clients of a session are not ready, and which seats are empty.
fn muster_text(view: &GateView, left: Duration) -> String {
    let mut text = headline(view);
    // The time counts from the first client on.
    if !view.seats.is_empty() {
        text += &format!(", {} s left (Enter releases those who are ready)", left.as_secs());
    }
    for seat in view.seats.iter().filter(|seat| !seat.ready).take(LINES_MAX) {
        let (number, peer, name) = (seat.seat, seat.peer, escape(&seat.name));
        text += &format!("\n  seat {number:>4}  joined, not ready yet  {peer} {name}");
    }
    let taken: Vec<u16> = view.seats.iter().map(|seat| seat.seat.0).collect();
    let empty: Vec<u16> = (1..=view.clients).filter(|seat| !taken.contains(seat)).collect();
    let seats = (!empty.is_empty()).then(|| format!("missing: {}", ranges(&empty)));
    if let Some(missing) = missing_names(view).or(seats) {
        text += &format!("\n  {missing}");
    }
    text
}

/// `seats 3, 7-25` of sorted numbers.
fn ranges(numbers: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let shown = runs.iter().map(|&(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    let seats = if numbers.len() == 1 { "seat" } else { "seats" };
    format!("{seats} {}", shown.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        server::gate::{ClientKind, SeatEnd, SeatView},
        session::{SeatId, SessionId, Via},
    };

    fn client(stage: ClientStage, moved: u64, bytes: u64) -> ClientView {
        ClientView { stage, moved, bytes, muster: None }
    }

    #[test]
    fn missing_seats_are_shown_as_ranges() {
        assert_eq!(ranges(&[3]), "seat 3");
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "seats 1-3, 7, 9-10");
    }

    #[test]
    fn stages_of_many_clients_are_counted() {
        let views = [
            client(ClientStage::Receiving, 0, 0),
            client(ClientStage::Ended, 0, 0),
            client(ClientStage::Receiving, 0, 0),
        ];
        assert_eq!(summary(&views), "2 receiving, 1 done");
    }

    #[test]
    fn transfer_shows_bar_bytes_rate_and_time_left() {
        let text = |moved, total, ms| transfer_text(moved, total, Duration::from_millis(ms));
        assert_eq!(
            text(25_000_000, 100_000_000, 2_000),
            "██████░░░░░░░░░░░░░░░░░░ 25 MB of 100 MB, 100.0 Mbit/s, 6 s left"
        );
        assert_eq!(
            text(1_000, 90_000_000, 1_000),
            "░░░░░░░░░░░░░░░░░░░░░░░░ 1 kB of 90 MB, 0.01 Mbit/s, 24 h 59 min left"
        );
        assert_eq!(
            text(4_000_000_000, 4_000_000_000, 8_000),
            "████████████████████████ 4 GB of 4 GB, 4000.0 Mbit/s, 0 s left"
        );
        for (moved, ms) in [(0, 0), (0, 500), (1_000, 0)] {
            assert!(!text(moved, 2_000, ms).contains("left"), "{moved} in {ms} ms");
        }
        // What a peer says does not break the drawing.
        assert!(text(u64::MAX, 0, 1).contains("0 s left"));
        assert_eq!(seconds_text(125), "2 min 5 s");
    }

    #[test]
    fn client_that_receives_has_a_bar() {
        let views = [
            client(ClientStage::Receiving, 500_000, 1_000_000),
            client(ClientStage::Verifying, 1_000_000, 1_000_000),
            ClientView { muster: Some((2, 4)), ..client(ClientStage::Waiting, 0, 100) },
        ];
        assert_eq!(
            clients_text(&views, Duration::from_secs(1)),
            "client 1: ████████████░░░░░░░░░░░░ 500 kB of 1 MB, 4.00 Mbit/s, 1 s left\n\
             client 2: verifying\n\
             client 3: at the gate, 2 of 4 ready"
        );
        assert_eq!(
            clients_text(&[views[0]; 13], Duration::from_secs(1)),
            "████████████░░░░░░░░░░░░ 6.5 MB of 13 MB, 52.0 Mbit/s, 1 s left, 13 receiving"
        );
    }

    fn session(seats: &[(u64, Option<Outcome>)]) -> GateView {
        let end = |outcome| SeatEnd { outcome, reason: None, verified: None };
        let seats = (1..).zip(seats).map(|(seat, &(moved, outcome))| SeatView {
            seat: SeatId(seat),
            name: format!("C{seat}"),
            peer: ([10, 0, 0, 4], 50_000).into(),
            kind: ClientKind::Native,
            ready: true,
            moved,
            resumed: 0,
            end: outcome.map(end),
            detail: Default::default(),
        });
        GateView {
            session: SessionId(1),
            via: Via::Tcp,
            file: "f.bin".to_owned(),
            bytes: 100_000_000,
            clients: 4,
            seats: seats.collect(),
            missing: Vec::new(),
            left: None,
            released: Some(Duration::from_secs(2)),
        }
    }

    #[test]
    fn session_that_sends_has_a_bar_and_counts_ended_seats() {
        let done = Some(Outcome::Complete);
        let mut view = session(&[(100_000_000, done), (50_000_000, None), (0, None)]);
        assert_eq!(
            session_text(&view),
            "f.bin: ████████████░░░░░░░░░░░░ 150 MB of 300 MB, 600.0 Mbit/s, 2 s left, \
             1 of 3 seats done"
        );
        // What the last one kept of an earlier session is not sent again.
        view.seats[2].resumed = 75_000_000;
        assert!(session_text(&view).contains("150 MB of 225 MB"), "{}", session_text(&view));
        // The first one left early; no more bytes are sent to it.
        let view = session(&[(20_000_000, Some(Outcome::Cut)), (20_000_000, None)]);
        assert_eq!(
            session_text(&view),
            "f.bin: ████████░░░░░░░░░░░░░░░░ 40 MB of 120 MB, 160.0 Mbit/s, 4 s left, \
             0 of 2 seats done, 1 failed"
        );
    }

    #[test]
    fn muster_shows_clients_that_are_not_ready_and_empty_seats() {
        let mut view = session(&[(0, None), (0, None)]);
        view.left = Some(Duration::from_secs(7));
        view.seats[1].ready = false;
        assert_eq!(
            session_text(&view),
            "f.bin: 1 of 4 clients ready, 7 s left (Enter releases those who are ready)\n\
             \x20 seat    2  joined, not ready yet  10.0.0.4:50000 C2\n\
             \x20 missing: seats 3-4"
        );
        view.missing = [(3, "pc-03"), (4, "\u{1b}[2J")]
            .map(|(seat, name)| (SeatId(seat), name.to_owned()))
            .to_vec();
        let text = session_text(&view);
        assert!(text.ends_with("C2\n  missing: pc-03, \\u{1b}[2J"), "{text}");
        view.missing.clear();
        view.seats.clear();
        assert_eq!(session_text(&view), "f.bin: 0 of 4 clients ready\n  missing: seats 1-4");
    }
}
