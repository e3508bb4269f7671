//! Several inputs, best first: which of them each viewer is to have, and how it comes to another.
//!
//! Each input has a thread of its own, and each viewer one input, whose thread sends to it. Another
//! input's thread takes a viewer over that is to have that input, at a picture that needs no earlier
//! one; until then it gets what it had.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{net::clock, proto::relay::ViewerState, relay::hub::Hub, units::Moment};

/// An input of which nothing came for so long is silent.
const SILENT: Duration = Duration::from_secs(2);

impl Hub {
    /// Says of each viewer which input it is to have.
    pub(super) fn choose_inputs(&self) {
        let now = clock::now();
        let is_alive = |last: &AtomicU64| now.since(Moment(last.load(Ordering::SeqCst))) < SILENT;
        let alive: Vec<bool> = self.inputs.iter().map(|input| is_alive(&input.last)).collect();
        let viewers = self.viewers();
        for viewer in viewers.iter().filter(|viewer| viewer.state() == ViewerState::Running) {
            // Nobody takes it over meanwhile.
            let (before, input, chosen) = self.round(|| viewer.choose_input(now, &alive));
            let number = viewer.number;
            if before != input {
                log::info!("viewer {number}: gets input {}", input + 1);
            }
            let Some(chosen) = chosen else { continue };
            let why = match (alive[input], chosen > input) {
                _ if chosen == input => "it stays there",
                (false, _) => "its own is silent",
                (true, true) => "it loses",
                (true, false) => "it has lost nothing for long",
            };
            log::info!("viewer {number}: is to have input {}: {why}", chosen + 1);
        }
    }
}
