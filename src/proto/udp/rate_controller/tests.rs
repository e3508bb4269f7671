use std::{collections::VecDeque, fmt::Write, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::proto::udp::probe::INTERVAL;

/// A narrower link behind the sender's own: its rate, its queue, what it loses at random, and
/// how long everything is on its way.
#[derive(Clone, Copy, Debug)]
struct Link {
    own: f64,
    narrow: f64,
    loss: f64,
    delay_ms: u64,
}

/// A sender, the link and clients behind it, in steps of a millisecond.
struct World {
    watch: RateController,
    link: Link,
    now_ms: u64,
    random: u64,
    /// To all of them.
    sent: u32,
    /// What waits before the narrow link, by client and number.
    queue: VecDeque<(usize, u32)>,
    /// What has passed it, and when it arrives.
    under_way: VecDeque<(u64, usize, u32)>,
    clients: Vec<Client>,
    /// What the first client says instead of the truth.
    lie: Option<Lie>,
    /// By all of them.
    received: u32,
    /// Reports, and when they arrive.
    told: VecDeque<(u64, usize, u32, u32)>,
    credit: f64,
    narrow_credit: f64,
}

/// One client: what was sent to it, and what it has.
#[derive(Clone, Copy, Default)]
struct Client {
    sent: u32,
    seen: u32,
    received: u32,
}

/// What a client may say of itself.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Nothing ever arrives.
    Deaf,
    /// Everything has arrived, before it can have.
    Boast,
    /// Everything, and then nothing, in turn.
    Moody,
    /// Almost nothing, and a millisecond later everything at once.
    Sudden,
    /// Everything, little by little.
    Slow,
    /// More than was ever sent, between words that are possible.
    Impossible,
}

const SIZE: f64 = 1472.0 * 8.0;

/// How much the queue before the narrow link holds.
const QUEUE_MS: f64 = 50.0;

impl World {
    fn new(link: Link) -> Self {
        Self::of(link, 1, None)
    }

    /// With so many clients, to which it sends in turn.
    fn of(link: Link, clients: usize, lie: Option<Lie>) -> Self {
        Self {
            watch: RateController::new(1472, Moment(0)),
            link,
            now_ms: 0,
            random: 7,
            sent: 0,
            queue: VecDeque::new(),
            under_way: VecDeque::new(),
            clients: vec![Client::default(); clients],
            lie,
            received: 0,
            told: VecDeque::new(),
            credit: 0.0,
            narrow_credit: 0.0,
        }
    }

    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) as f64 / (1_u64 << 31) as f64
    }

    fn step(&mut self) {
        self.now_ms += 1;
        let (link, now_ms) = (self.link, self.now_ms);
        let now = Moment(0).after(Duration::from_millis(now_ms));
        let rate = self.watch.rate();
        self.credit += rate.map_or(link.own, |rate| (rate.0 as f64).min(link.own)) / 1000.0;
        while self.credit >= SIZE {
            self.credit -= SIZE;
            let to = self.sent as usize % self.clients.len();
            if (self.queue.len() as f64) * SIZE < link.narrow / 1000.0 * QUEUE_MS {
                self.queue.push_back((to, self.clients[to].sent));
            }
            self.clients[to].sent += 1;
            self.sent += 1;
            self.watch.sent(1472);
        }
        self.narrow_credit =
            (self.narrow_credit + link.narrow / 1000.0).min((link.narrow / 500.0).max(SIZE * 2.0));
        while self.narrow_credit >= SIZE {
            let Some((to, number)) = self.queue.pop_front() else {
                break;
            };
            self.narrow_credit -= SIZE;
            if self.chance() >= link.loss {
                self.under_way.push_back((now_ms + link.delay_ms, to, number));
            }
        }
        while let Some(&(_, to, number)) = self.under_way.front().filter(|(at, ..)| *at <= now_ms) {
            self.under_way.pop_front();
            self.received += 1;
            if to > 0 || self.lie.is_none() {
                self.clients[to].seen = number + 1;
                self.clients[to].received += 1;
            }
        }
        let at = now_ms + link.delay_ms;
        let lies = usize::from(self.lie.is_some());
        if let Some((seen, received)) = self.lie.and_then(|lie| self.lied(lie)) {
            self.told.push_back((at, 0, seen, received));
        }
        // A report each 20 ms.
        if now_ms.is_multiple_of(20) {
            for (number, client) in self.clients.iter().enumerate().skip(lies) {
                self.told.push_back((at, number, client.seen, client.received));
            }
        }
        while let Some(&(_, of, seen, received)) =
            self.told.front().filter(|(at, ..)| *at <= now_ms)
        {
            self.told.pop_front();
            let report =
                Report { seen, received, round: 0, cum: 0, more: false, missing: Vec::new() };
            let numbered = self.clients[of].sent;
            self.watch.handle_report(SeatId(of as u16), &report, numbered, now);
        }
        let clients = &self.clients;
        self.watch.update(false, now, |seat| Some(clients[usize::from(seat.0)].sent));
    }

    /// What the first client says now; `seen` and `received` of it are what it said last.
    fn lied(&mut self, lie: Lie) -> Option<(u32, u32)> {
        let now_ms = self.now_ms;
        let Client { sent, seen, received } = self.clients[0];
        let new = sent.saturating_sub(seen);
        let (seen, received) = match lie {
            Lie::Sudden if now_ms.is_multiple_of(100) => (seen + new.min(1), received + new.min(1)),
            Lie::Sudden if now_ms % 100 == 1 => (sent, received + new),
            Lie::Sudden => return None,
            _ if !now_ms.is_multiple_of(20) => return None,
            Lie::Deaf => (sent, 0),
            Lie::Boast => (sent, sent),
            Lie::Moody if (now_ms / 100).is_multiple_of(2) => (sent, received),
            Lie::Moody => (sent, received + new),
            Lie::Slow => (seen + new / 100, received + new / 100),
            Lie::Impossible if (now_ms / 20).is_multiple_of(2) => {
                return Some((sent + (now_ms as u32) * 1000, sent + (now_ms as u32) * 1000));
            }
            Lie::Impossible => (sent, sent),
        };
        (self.clients[0].seen, self.clients[0].received) = (seen, received);
        Some((seen, received))
    }

    /// Goes on for `ms`: how many datagrams reached the clients from the second on.
    fn honest(&mut self, ms: u64) -> f64 {
        let of =
            |world: &Self| world.clients[1..].iter().map(|c| f64::from(c.received)).sum::<f64>();
        let before = of(self);
        (0..ms).for_each(|_| self.step());
        of(self) - before
    }

    /// Goes on for `ms`: the share of what the link could have carried that arrived, and what was
    /// sent of each that arrived.
    fn run(&mut self, ms: u64) -> (f64, f64) {
        let before = (self.sent, self.received);
        (0..ms).for_each(|_| self.step());
        let (sent, arrived) = (self.sent - before.0, self.received - before.1);
        let link = self.link;
        let possible = link.narrow.min(link.own) * ms as f64 / 1000.0 / SIZE * (1.0 - link.loss);
        let arrived = f64::from(arrived);
        (arrived / possible, f64::from(sent) / arrived)
    }
}

fn link(own: f64, narrow: f64, loss: f64, delay_ms: u64) -> Link {
    Link { own, narrow, loss, delay_ms }
}

#[test]
fn senders_own_link_is_full_from_the_first_datagram() {
    for loss in [0.0, 0.01, 0.05] {
        let mut world = World::new(link(1e8, 1e8, loss, 1));
        let (used, _) = world.run(10_000);
        assert_eq!(world.watch.rate(), None, "{loss}: nothing is held back");
        assert!(used > 0.99, "{loss}: {used}");
    }
}

#[test]
fn rate_follows_what_arrives_behind_a_narrower_link() {
    let mut table = String::from("Mbit/s   loss  delay   4 s: used   sent   then: used   sent\n");
    for narrow in [5.0, 10.0, 30.0, 50.0, 80.0] {
        for loss in [0.0, 0.02, 0.05] {
            for delay_ms in [1, 40] {
                let mut world = World::new(link(1e8, narrow * 1e6, loss, delay_ms));
                let (used, cost) = world.run(4_000);
                let (then, cost_then) = world.run(16_000);
                let _ = writeln!(
                    table,
                    "{narrow:6}  {:4}%  {delay_ms:2} ms  {used:10.3}  {cost:5.3}  {then:11.3}  {cost_then:5.3}",
                    loss * 100.0
                );
            }
        }
    }
    insta::assert_snapshot!(table, @r#"
    Mbit/s   loss  delay   4 s: used   sent   then: used   sent
         5     0%   1 ms       0.999  1.969        1.000  1.000
         5     0%  40 ms       0.990  2.158        1.000  1.001
         5     2%   1 ms       1.001  2.014        0.998  1.020
         5     2%  40 ms       0.992  2.197        1.000  1.020
         5     5%   1 ms       1.002  2.048        1.000  1.063
         5     5%  40 ms       0.970  2.293        1.000  1.050
        10     0%   1 ms       0.999  1.458        1.000  1.034
        10     0%  40 ms       0.990  1.569        1.000  1.082
        10     2%   1 ms       1.002  1.484        1.001  1.028
        10     2%  40 ms       0.992  1.545        1.002  1.022
        10     5%   1 ms       0.998  1.524        1.003  1.054
        10     5%  40 ms       0.993  1.588        1.004  1.051
        30     0%   1 ms       1.000  1.127        1.000  1.006
        30     0%  40 ms       0.990  1.139        1.000  1.005
        30     2%   1 ms       1.000  1.155        1.000  1.030
        30     2%  40 ms       0.990  1.158        1.000  1.025
        30     5%   1 ms       1.003  1.173        1.001  1.058
        30     5%  40 ms       0.993  1.186        1.001  1.057
        50     0%   1 ms       1.000  1.085        1.000  1.006
        50     0%  40 ms       0.990  1.071        1.000  1.005
        50     2%   1 ms       1.002  1.098        0.999  1.027
        50     2%  40 ms       0.992  1.086        0.999  1.026
        50     5%   1 ms       1.004  1.123        1.000  1.059
        50     5%  40 ms       0.994  1.108        1.000  1.058
        80     0%   1 ms       1.000  1.043        1.000  1.006
        80     0%  40 ms       0.990  1.047        1.000  1.006
        80     2%   1 ms       1.001  1.061        1.000  1.027
        80     2%  40 ms       0.991  1.060        1.000  1.026
        80     5%   1 ms       1.003  1.078        1.000  1.073
        80     5%  40 ms       0.991  1.084        1.000  1.058
    "#);
}

#[test]
fn random_loss_does_not_lower_the_rate() {
    for loss in [0.2, 0.3, 0.5] {
        let mut world = World::new(link(1e8, 1e8, loss, 1));
        let (used, _) = world.run(20_000);
        assert!(used > 0.85, "{loss}: {used}");
    }
}

#[test]
fn rate_follows_a_link_that_changes_both_ways() {
    let mut world = World::new(link(1e8, 2e7, 0.01, 1));
    world.run(10_000);
    world.link.narrow = 6e7;
    world.run(10_000);
    let (used, _) = world.run(10_000);
    assert!(used > 0.9, "wider: {used}");
    world.link.narrow = 1e7;
    world.run(5_000);
    let (used, cost) = world.run(10_000);
    assert!(used > 0.88 && cost < 1.2, "narrower: {used} {cost}");
}

/// Their datagrams reach the others as fast as without a lie, give or take a tenth, and cost no more.
#[test]
fn liar_among_many_does_not_set_their_rate() {
    let lies = [Lie::Deaf, Lie::Boast, Lie::Moody, Lie::Sudden, Lie::Slow, Lie::Impossible];
    for (narrow, loss) in [(5e7, 0.02), (2e8, 0.01)] {
        for clients in [5, 25] {
            let run = |lie| {
                let mut world = World::of(link(1e8, narrow, loss, 5), clients, lie);
                world.honest(5_000);
                let before = world.sent;
                (world.honest(15_000), f64::from(world.sent - before))
            };
            let (control, cost) = run(None);
            for lie in lies {
                let (arrived, sent) = run(Some(lie));
                let ratio = arrived / control;
                let what = format!("{lie:?} among {clients}, {narrow} bit/s, {loss}");
                assert!((0.9..1.1).contains(&ratio), "{what}: {ratio}");
                assert!(sent < cost * 1.1, "{what}: {sent} sent, not {cost}");
            }
        }
    }
}

/// It says that all is lost, or that it hears of few: by its seat it is the one that a quarter is
/// worse than where all say the same share.
#[test]
fn liar_in_a_group_does_not_set_its_rate() {
    for (heard, arrives) in [(1000, 0), (40, 1)] {
        let mut watch = RateController::new(1472, Moment(0));
        for round in 1..100_u32 {
            let now = Moment(0).after(INTERVAL * round);
            let sent = round * 1000;
            watch.sent(1472 * 1000);
            for seat in 0..4 {
                let liar = seat == 1;
                let seen = if liar { round * heard } else { sent };
                let received = if liar { seen * arrives } else { seen };
                let report =
                    Report { seen, received, round: 0, cum: 0, more: false, missing: Vec::new() };
                watch.handle_report(SeatId(seat), &report, sent, now);
            }
            watch.update(true, now, |_| Some(sent));
        }
        assert_eq!(watch.rate(), None, "{heard} {arrives}");
    }
}

fn said() -> impl Strategy<Value = (u16, u32, u32, u32)> {
    let number = || prop_oneof![any::<u32>(), 0_u32..5000, (1_u32 << 31) - 2..=1 << 31];
    (0_u16..25, number(), number(), 0_u32..400)
}

proptest! {
    /// Whatever they say, and however little of it can be true.
    #[test]
    fn rate_survives_any_reports(
        group: bool,
        numbered: u32,
        words in prop::collection::vec(said(), 0..400),
    ) {
        let mut watch = RateController::new(1472, Moment(0));
        let mut now = Moment(0);
        for (seat, seen, received, ms) in words {
            now = now.after(Duration::from_millis(u64::from(ms)));
            watch.sent(u64::from(seen) % 1_000_000);
            let report =
                Report { seen, received, round: 0, cum: 0, more: false, missing: Vec::new() };
            watch.handle_report(SeatId(seat), &report, numbered, now);
            watch.update(group, now, |seat| (seat.0 % 7 != 3).then_some(numbered));
            prop_assert!(watch.rate().is_none_or(|rate| rate.0 >= 2_000_000));
        }
    }
}
