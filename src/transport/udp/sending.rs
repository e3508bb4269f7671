//! One guest's file on its way: the sending thread, and what is known of it.

use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender as Tell;

use crate::error::Error;
use crate::error::Result;
use crate::net::STACK;
use crate::net::clock;
use crate::proto::udp::control::Report;
use crate::proto::udp::control::window;
use crate::proto::udp::greet::Welcome;
use crate::proto::udp::packet::block_len;
use crate::proto::udp::receiver::block_count;
use crate::server::catalog::Source;
use crate::server::transport::Failure;
use crate::session::Via;
use crate::transfer::Outcome;
use crate::transfer::Transfer;
use crate::transport::udp::porter::SEAT;
use crate::transport::udp::pump;
use crate::transport::udp::pump::Job;
use crate::transport::udp::pump::Joined;
use crate::transport::udp::pump::Word;
use crate::transport::udp::socket::Outlet;
use crate::transport::udp::tally::Tally;
use crate::units::Moment;
use crate::units::Rate;

/// A guest that is sent to, or was until it had everything.
#[derive(Debug)]
pub(super) struct Sending {
    to: SocketAddr,
    from: Option<SocketAddr>,
    /// How many blocks the file has.
    pub(super) blocks: u32,
    /// Payload bytes that it lacks.
    pub(super) want: u64,
    offset: u64,
    /// How it is sent, in words.
    pub(super) sender: String,
    /// What was counted.
    pub(super) tally: Arc<Tally>,
    released: Moment,
    last: Option<Duration>,
    /// The sending thread, while there is one.
    thread: Option<(Tell<Word>, JoinHandle<()>)>,
}

/// How long the sending thread may take to hear that its client is gone.
const LET_GO: Duration = Duration::from_secs(2);

/// Reports that wait for the sending thread at most; more are dropped, for the next says it all.
const WORDS: usize = 256;

impl Sending {
    /// Sends a file from byte `offset` on.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(
        to: SocketAddr,
        welcome: &Welcome,
        source: &Arc<Source>,
        socket: UdpSocket,
        rate: Option<Rate>,
        buffer: u32,
        offset: u64,
    ) -> Result<Self> {
        let block_len = block_len(welcome.datagram, false);
        let blocks = block_count(source.info.bytes, block_len);
        let tally = Arc::new(Tally::default());
        let from = socket.local_addr().ok();
        let want = source.info.bytes - offset;
        let thread = match want {
            0 => None,
            _ => {
                let job = Job {
                    via: Via::Udp,
                    stream: welcome.session.0 as u32,
                    source: Arc::clone(source),
                    datagram: usize::from(welcome.datagram),
                    block_len,
                    blocks,
                    rate,
                    schedule: Arc::default(),
                    outlet: Outlet::over(socket),
                    group: None,
                };
                let first = u32::try_from(offset / block_len as u64).unwrap_or(u32::MAX);
                let joined = Joined {
                    seat: SEAT,
                    stream: welcome.session.0 as u32,
                    to,
                    blocks: first..blocks,
                    window: window(u64::from(buffer), welcome.datagram),
                    tally: Arc::clone(&tally),
                    admitted: 1,
                };
                let (tell, words) = crossbeam_channel::bounded(WORDS);
                let thread = thread::Builder::new()
                    .name(format!("send-{:04x}", welcome.session.0 >> 48))
                    .stack_size(STACK)
                    .spawn(move || pump::run(job, &words))
                    .map_err(Error::io("start the sending thread", to))?;
                tell.send(Word::Join(joined))
                    .map_err(|_| Error::refused("the system", "the sending thread is gone"))?;
                Some((tell, thread))
            }
        };
        let rate = rate.map_or_else(String::new, |rate| format!(", {} kbit/s", rate.0 / 1000));
        Ok(Self {
            to,
            from,
            blocks,
            want,
            offset,
            sender: format!(
                "datagrams of {}{rate}, no control connection",
                welcome.datagram
            ),
            tally,
            released: clock::now(),
            last: None,
            thread,
        })
    }

    /// Passes on what the guest has and lacks.
    pub(super) fn tell(&self, report: Report) {
        self.tally.tell_lost(&report);
        if let Some((tell, _)) = &self.thread {
            let _ = tell.try_send(Word::Report(SEAT, report));
        }
    }

    /// The guest says that it has all its `bytes`.
    ///
    /// # Errors
    /// It cannot have.
    pub(super) fn take_last(
        &mut self,
        bytes: u64,
        now: Moment,
    ) -> std::result::Result<(), Failure> {
        self.stop();
        let sent = self.tally.payload.load(Ordering::Relaxed);
        if bytes != self.want {
            let reason = format!("claims {bytes} bytes of the {} sent", self.want);
            return Err(Failure::new(Outcome::Cut, reason));
        }
        if sent < self.want {
            let reason = "said LAST before its last byte was sent";
            return Err(Failure::new(Outcome::Cut, reason));
        }
        self.last = Some(now.since(self.released));
        Ok(())
    }

    /// Ends the sending thread: nothing is counted any more once this returns.
    fn stop(&mut self) {
        if let Some((tell, thread)) = self.thread.take() {
            let (left, _gone) = crossbeam_channel::bounded(0);
            let _ = tell.send_timeout(Word::Leave(SEAT, left), LET_GO);
            drop(tell);
            if thread.join().is_err() {
                log::error!("a guest's sending thread panicked");
            }
        }
    }

    /// The guest's row, complete unless somebody says otherwise.
    pub(super) fn transfer(&mut self) -> Transfer {
        self.stop();
        let mut transfer = Transfer::new(SEAT, "guest", Outcome::Complete);
        transfer.client = Some(self.to);
        transfer.server = self.from;
        transfer.bytes_resumed = self.offset;
        transfer.bytes_server = Some(self.tally.payload.load(Ordering::Relaxed));
        transfer.bytes_client = self.last.map(|_| self.want);
        transfer.seconds_server = self.last;
        transfer.woke = Some(Duration::ZERO);
        let first = self.tally.first_us.load(Ordering::Relaxed);
        transfer.first_server = (first > 0).then(|| Moment(first).since(self.released));
        transfer
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.stop();
    }
}
