//! A session as a face shows it.

use std::{net::SocketAddr, time::Duration};

use crate::{
    net::{clock, primitives::atomic::Ordering},
    server::{
        gate::{
            Gate,
            pending::ClientKind,
            state::{GatePhase, SeatEnd, SeatPhase},
        },
        transport::SeatDetail,
    },
    session::{SeatId, SessionId, Via},
};

/// A seat as a face shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatView {
    /// The seat.
    pub seat: SeatId,
    /// Who sits there; not escaped.
    pub name: String,
    /// Its address.
    pub peer: SocketAddr,
    /// Its kind.
    pub kind: ClientKind,
    /// It has said that it is ready.
    pub ready: bool,
    /// Payload bytes moved so far.
    pub moved: u64,
    /// Bytes that it has of an earlier session.
    pub resumed: u64,
    /// How its transfer ended; `None` before.
    pub end: Option<SeatEnd>,
    /// What its way knows beyond bytes.
    pub detail: SeatDetail,
}

/// A session as a face shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateView {
    /// The session.
    pub session: SessionId,
    /// The way the bytes travel.
    pub via: Via,
    /// The file's name; holds nothing that moves a cursor.
    pub file: String,
    /// The file's size.
    pub bytes: u64,
    /// How many seats there are.
    pub clients: u16,
    /// The taken seats, in order.
    pub seats: Vec<SeatView>,
    /// Of a session with a roster, the seats that are not taken, and whose they are; not escaped.
    pub missing: Vec<(SeatId, String)>,
    /// The time left until the muster's deadline; `None` once it is over.
    pub left: Option<Duration>,
    /// How long ago the gate opened; `None` before.
    pub released: Option<Duration>,
}

impl Gate {
    /// What a face shows.
    pub fn view(&self) -> GateView {
        let state = self.lock();
        let seats = state.seats.iter().map(|(&id, seat)| SeatView {
            seat: id,
            name: seat.client.name.clone(),
            peer: seat.client.peer,
            kind: seat.client.kind,
            ready: matches!(
                seat.phase,
                SeatPhase::Ready
                    | SeatPhase::Settling
                    | SeatPhase::Released
                    | SeatPhase::Finished(_)
            ),
            moved: seat.moved.load(Ordering::Relaxed),
            resumed: seat.resumed,
            end: match &seat.phase {
                SeatPhase::Finished(end) => Some(end.clone()),
                _ => None,
            },
            detail: self.send_session().detail(id),
        });
        GateView {
            session: self.session.id,
            via: self.session.via(),
            file: self.session.source.info.name.as_str().to_owned(),
            bytes: self.session.source.info.bytes,
            clients: self.session.clients,
            seats: seats.collect(),
            missing: self
                .missing(&state, |_| true)
                .map(|(id, host)| (id, host.name.as_str().to_owned()))
                .collect(),
            left: matches!(state.phase, GatePhase::Mustering)
                .then(|| state.deadline.since(clock::now())),
            released: match &state.phase {
                GatePhase::Released(release) => Some(clock::now().since(release.released())),
                _ => None,
            },
        }
    }
}
