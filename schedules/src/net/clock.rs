//! Time that passes only when the clock's thread is run. It may be run at any step, and lets time
//! jump to the next timer or to any later one: so a deadline may pass at any step.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use shuttle::{
    rand::{Rng, RngCore, thread_rng},
    sync::{Condvar, Mutex},
    thread,
};
use time::OffsetDateTime;

use crate::{transfer::ClockId, units::Moment};

#[derive(Default)]
struct Time {
    now: u64,
    next_id: u64,
    timers: BTreeMap<u64, (u64, Arc<Condvar>)>,
    /// What the clock's thread sleeps on while there is no timer.
    alarm: Arc<(Mutex<()>, Option<Condvar>)>,
    is_asleep: bool,
    is_over: bool,
}

thread_local! {
    static TIME: RefCell<Time> = RefCell::default();
}

/// Wakes a condition's waiters from a moment on, until it is dropped.
pub struct Timer(u64);

impl Timer {
    pub fn set(at: Moment, wakes: Arc<Condvar>) -> Self {
        let id = TIME.with_borrow_mut(|time| {
            time.next_id += 1;
            time.timers.insert(time.next_id, (at.0, wakes));
            time.next_id
        });
        rouse();
        Self(id)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        TIME.with_borrow_mut(|time| time.timers.remove(&self.0));
    }
}

fn rouse() {
    let (asleep, alarm) = TIME.with_borrow(|time| (time.is_asleep, Arc::clone(&time.alarm)));
    if asleep {
        let _held = alarm.0.lock().expect("nobody panics with it");
        alarm.1.as_ref().expect("begun").notify_all();
    }
}

/// Starts the clock of an execution; it rests for `pause` steps after each tick.
pub fn begin(pause: u32) -> thread::JoinHandle<()> {
    let alarm = Arc::new((Mutex::new(()), Some(Condvar::new())));
    TIME.set(Time { now: 1_000_000, alarm, ..Time::default() });
    thread::spawn(move || run(pause))
}

/// Ends the clock: no thread waits with a limit any more.
pub fn end() {
    TIME.with_borrow_mut(|time| time.is_over = true);
    rouse();
}

fn run(pause: u32) {
    let alarm = TIME.with_borrow(|time| Arc::clone(&time.alarm));
    loop {
        let mut held = alarm.0.lock().expect("nobody panics with it");
        while TIME.with_borrow_mut(|time| {
            time.is_asleep = time.timers.is_empty() && !time.is_over;
            time.is_asleep
        }) {
            held = alarm.1.as_ref().expect("begun").wait(held).expect("nobody panics with it");
        }
        drop(held);
        if TIME.with_borrow(|time| time.is_over) {
            return;
        }
        tick();
        for _ in 0..pause {
            thread::yield_now();
        }
        thread::yield_now();
    }
}

/// Lets time pass unless a timer is due already, and wakes those that are.
fn tick() {
    let (jumps, which) = (thread_rng().gen_range(0..4) == 0, thread_rng().next_u32() as usize);
    let due: Vec<_> = TIME.with_borrow_mut(|time| {
        let at: Vec<u64> = time.timers.values().map(|timer| timer.0).collect();
        if let Some(&earliest) = at.iter().min()
            && earliest > time.now
        {
            time.now = if jumps { at[which % at.len()] } else { earliest };
        }
        let now = time.now;
        time.timers
            .values()
            .filter(|timer| timer.0 <= now)
            .map(|timer| Arc::clone(&timer.1))
            .collect()
    });
    for condition in due {
        condition.notify_all();
    }
}

/// As [`std::thread::sleep`].
pub fn sleep(span: Duration) {
    let until = now().after(span);
    let (mutex, condition) = (Mutex::new(()), Arc::new(Condvar::new()));
    let timer = Timer::set(until, Arc::clone(&condition));
    let mut held = mutex.lock().expect("its own");
    while left(until).is_some() {
        held = condition.wait(held).expect("its own");
    }
    drop((held, timer));
}

pub fn now() -> Moment {
    Moment(TIME.with_borrow(|time| time.now))
}

pub fn left(deadline: Moment) -> Option<Duration> {
    Some(deadline.since(now())).filter(|left| !left.is_zero())
}

pub fn wall() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_micros(now().0)
}

pub fn id() -> ClockId {
    ClockId(1)
}

pub fn random() -> u64 {
    thread_rng().next_u64()
}
