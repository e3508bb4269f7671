//! What a client hears of the train to the group before the release (`--via auto`).

use std::{
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use crate::{
    error::Result,
    net::{
        address, clock,
        datagrams::{BatchSocket, DatagramBatch},
        line_stream::LineStream,
    },
    proto::native::{
        FromClient,
        probe::{GroupProbe, STEPS_MAX, TrainHead},
    },
    transfer::auto::HeardStep,
    units::{Moment, micros},
};

/// The group of a measurement, joined.
#[derive(Debug)]
pub(super) struct TrainListener {
    socket: BatchSocket,
    batch: DatagramBatch,
    random: u64,
    /// All datagrams of the train so far.
    pub(super) total: u32,
    /// The step that is coming, with when its first datagram and the first of its tail came.
    present: Option<(HeardStep, Moment, Option<Moment>)>,
    /// The steps before this one have been told.
    told: u16,
}

/// A step is over when nothing has come for so long.
const SILENCE: Duration = Duration::from_millis(8);

/// How long a client listens at most, whatever its server does.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);

/// Datagrams taken at a time.
const BATCH: usize = 64;

impl TrainListener {
    /// Joins the group; `None` where there is none, or this machine cannot.
    pub(super) fn join(
        probe: &GroupProbe,
        interface: Option<Ipv4Addr>,
        lines: &LineStream<'_>,
    ) -> Option<Self> {
        let interface = interface.or_else(|| address::ipv4(lines.local().ok()?.ip()));
        let socket = BatchSocket::bind(probe.group?, interface);
        let socket = socket.inspect_err(|error| log::warn!("{error}")).ok()?;
        let batch = DatagramBatch::new(BATCH);
        Some(Self { socket, batch, random: probe.random, total: 0, present: None, told: 0 })
    }

    /// Says what comes of each step, until the server speaks.
    ///
    /// # Errors
    /// The server is gone.
    pub(super) fn listen(&mut self, stream: &TcpStream, lines: &LineStream<'_>) -> Result<()> {
        let deadline = clock::now().after(LISTEN_LIMIT);
        while clock::left(deadline).is_some() && !lines.has_buffered() {
            self.batch.clear();
            let came = self.socket.receive(&mut self.batch, SILENCE);
            if let Err(error) = &came {
                log::debug!("the group: {error}");
            }
            let came: Vec<_> = self
                .batch
                .iter()
                .filter_map(|datagram| {
                    Some((TrainHead::decode(datagram.bytes, self.random)?, datagram.at))
                })
                .collect();
            for &(head, at) in &came {
                if let Some(heard) = self.add(head, at) {
                    lines.write_line(&FromClient::Heard(heard).encode())?;
                }
            }
            if came.is_empty() {
                if let Some(heard) = self.end_step() {
                    lines.write_line(&FromClient::Heard(heard).encode())?;
                }
                let wait = stream.set_read_timeout(Some(Duration::from_millis(1)));
                if wait.is_ok() && stream.peek(&mut [0]).is_ok() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Counts a datagram; returns the step that is over with it.
    fn add(&mut self, head: TrainHead, at: Moment) -> Option<HeardStep> {
        self.total = self.total.saturating_add(1);
        if head.step < self.told {
            return None;
        }
        let before = match &self.present {
            Some((heard, ..)) if heard.step != head.step => self.end_step(),
            _ => None,
        };
        let begun = HeardStep { step: head.step, ..HeardStep::default() };
        let (heard, first, tail) = self.present.get_or_insert((begun, at, None));
        heard.datagrams = heard.datagrams.saturating_add(1);
        heard.span_us = micros(at.since(*first));
        if head.number >= head.of / 2 {
            heard.tail += 1;
            heard.tail_us = micros(at.since(*tail.get_or_insert(at)));
        }
        let is_last = head.number + 1 == head.of;
        if is_last && before.is_none() { self.end_step() } else { before }
    }

    fn end_step(&mut self) -> Option<HeardStep> {
        let (heard, ..) = self.present.take()?;
        self.told = (heard.step + 1).min(STEPS_MAX);
        Some(heard)
    }
}
