//! What moves while one waits: on standard error, and drawn only on a terminal.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::cli::output;
use crate::client::ClientStage;
use crate::client::ClientView;
use crate::client::FetchRun;
use crate::net::clock;
use crate::server::gate::GateView;
use crate::text::FileName;
use crate::text::escape;
use crate::units::Bytes;
use crate::units::Moment;
use crate::units::total_saturating;

/// Up to so many clients have a line each; more share one.
const LINES_MAX: usize = 12;

/// How often the screen is looked at.
const REFRESH: Duration = Duration::from_millis(100);

/// How often a muster that changes is told where there is no terminal.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// Files smaller than this are hashed faster than a bar is read, bytes.
const BAR_FROM: u64 = 200_000_000;

/// A line on the terminal for each file whose digest takes a while.
#[derive(Debug, Default)]
pub(crate) struct Hashing {
    bar: Mutex<Option<(FileName, ProgressBar)>>,
}

impl Hashing {
    /// For `Catalog::open`: how far a digest has come.
    pub(crate) fn tell(&self, name: &FileName, size: u64, done: u64) {
        if size < BAR_FROM || !std::io::stderr().is_terminal() {
            return;
        }
        let mut shown = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, bar) = match shown.take() {
            Some((file, bar)) if file == *name => shown.insert((file, bar)),
            _ => shown.insert((name.clone(), bar(size, &format!("digest of {name}")))),
        };
        bar.set_position(done);
        if done == size {
            bar.finish_and_clear();
            *shown = None;
        }
    }
}

/// Shows `fetch` until `work` is done.
pub(crate) fn watch<T: Send>(fetch: &FetchRun, work: impl FnOnce() -> T + Send) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, over) = crossbeam_channel::bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut bars = Bars::default();
            while over.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                bars.show(&fetch.views());
            }
            bars.clear();
        });
        let result = work();
        drop(done);
        result
    })
}

#[derive(Default)]
struct Bars {
    multi: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Bars {
    fn show(&mut self, views: &[ClientView]) {
        if self.bars.is_empty() {
            let lines = if views.len() <= LINES_MAX {
                views.len()
            } else {
                1
            };
            self.bars = (0..lines).map(|_| self.multi.add(bar(0, ""))).collect();
        }
        if self.bars.len() == views.len() {
            for (number, (bar, view)) in (1..).zip(self.bars.iter().zip(views)) {
                bar.set_length(view.bytes);
                bar.set_position(view.moved);
                bar.set_message(format!("client {number} {}", stage(view)));
            }
            return;
        }
        let bar = &self.bars[0];
        bar.set_length(total_saturating(views.iter().map(|view| view.bytes)));
        bar.set_position(total_saturating(views.iter().map(|view| view.moved)));
        bar.set_message(summary(views));
    }

    fn clear(&self) {
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn stage(view: &ClientView) -> String {
    match (view.stage, view.muster) {
        (ClientStage::Connecting, _) => "looking for the server".to_owned(),
        (ClientStage::Joining, _) => "joining".to_owned(),
        (ClientStage::Waiting, Some((ready, clients))) => {
            format!("at the gate, {ready} of {clients} ready")
        }
        (ClientStage::Waiting, None) => "at the gate".to_owned(),
        (ClientStage::Receiving, _) => "receiving".to_owned(),
        (ClientStage::Verifying, _) => "verifying".to_owned(),
        (ClientStage::Ended, _) => "done".to_owned(),
    }
}

/// How many clients are doing what, most advanced last: `3 receiving, 22 verifying`.
fn summary(views: &[ClientView]) -> String {
    let stages = [
        (ClientStage::Connecting, "connecting"),
        (ClientStage::Joining, "joining"),
        (ClientStage::Waiting, "at the gate"),
        (ClientStage::Receiving, "receiving"),
        (ClientStage::Verifying, "verifying"),
        (ClientStage::Ended, "done"),
    ];
    let counted = stages.into_iter().filter_map(|(stage, word)| {
        let count = views.iter().filter(|view| view.stage == stage).count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn bar(length: u64, message: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:24} {decimal_bytes:>9}/{decimal_total_bytes:<9} {decimal_bytes_per_sec:>11} {msg}",
    )
    .expect("the template is a constant and right");
    ProgressBar::new(length)
        .with_style(style)
        .with_message(message.to_owned())
}

/// The sessions of a server: who is here and who is missing, then how far the bytes are.
#[derive(Debug, Default)]
pub(crate) struct Room {
    line: Option<ProgressBar>,
    told: Option<(Moment, String)>,
}

impl Room {
    /// Shows `views` as they are now.
    pub(crate) fn show(&mut self, views: &[GateView]) {
        let text = views.iter().map(describe).collect::<Vec<_>>().join("\n");
        if std::io::stderr().is_terminal() {
            return self.draw(text);
        }
        // Without a terminal: a line when the muster has changed, and not too often.
        let muster: Vec<String> = views
            .iter()
            .filter(|view| view.left.is_some())
            .map(headline)
            .collect();
        let muster = muster.join("; ");
        let due = self
            .told
            .as_ref()
            .is_none_or(|(at, last)| *last != muster && clock::now().since(*at) >= TOLD_EVERY);
        if due && !muster.is_empty() {
            output::say(&muster);
            self.told = Some((clock::now(), muster));
        }
    }

    /// Takes the drawing off the terminal, before results are printed.
    pub(crate) fn clear(&mut self) {
        if let Some(line) = self.line.take() {
            line.finish_and_clear();
        }
    }

    fn draw(&mut self, text: String) {
        if text.is_empty() {
            return self.clear();
        }
        let line = self.line.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg}")
                .expect("the template is a constant and right");
            ProgressBar::new_spinner().with_style(style)
        });
        line.set_message(text);
        line.tick();
    }
}

fn headline(view: &GateView) -> String {
    let ready = view.seats.iter().filter(|seat| seat.ready).count();
    format!("{}: {ready} of {} clients ready", view.file, view.clients)
}

fn describe(view: &GateView) -> String {
    let Some(left) = view.left else {
        let moved = total_saturating(view.seats.iter().map(|seat| seat.moved));
        let done = view.seats.iter().filter(|seat| seat.finished).count();
        let of = view.bytes.saturating_mul(view.seats.len() as u64);
        return format!(
            "{}: {} of {} sent, {done} of {} seats done",
            view.file,
            Bytes(moved),
            Bytes(of),
            view.seats.len()
        );
    };
    let mut text = format!(
        "{}, {} s left (Enter releases those who are ready)",
        headline(view),
        left.as_secs()
    );
    for seat in view.seats.iter().filter(|seat| !seat.ready).take(LINES_MAX) {
        text.push_str(&format!(
            "\n  seat {:>4}  joined, not ready yet  {} {}",
            seat.seat,
            seat.peer,
            escape(&seat.name)
        ));
    }
    let taken: Vec<u16> = view.seats.iter().map(|seat| seat.seat.0).collect();
    let empty: Vec<u16> = (1..=view.clients)
        .filter(|seat| !taken.contains(seat))
        .collect();
    if !empty.is_empty() {
        text.push_str(&format!("\n  missing: {}", ranges(&empty)));
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
    let shown = runs.iter().map(|&(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    format!(
        "{} {}",
        if numbers.len() == 1 { "seat" } else { "seats" },
        shown.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_seats_are_told_as_ranges() {
        assert_eq!(ranges(&[3]), "seat 3");
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "seats 1-3, 7, 9-10");
    }

    #[test]
    fn the_stages_of_many_clients_are_counted() {
        let view = |stage| ClientView {
            stage,
            moved: 0,
            bytes: 0,
            muster: None,
        };
        let views = [
            view(ClientStage::Receiving),
            view(ClientStage::Ended),
            view(ClientStage::Receiving),
        ];
        assert_eq!(summary(&views), "2 receiving, 1 done");
    }
}
