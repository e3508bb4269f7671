//! How much memory a parser holds while it reads: an allocator that counts.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// Counts what this thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn more(bytes: usize) {
    // A thread that is ending has no thread-local values any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get().saturating_add(bytes));
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

fn less(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting
// touches two cells that need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        less(layout.size());
        // SAFETY: `at` came from `alloc` above with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        less(layout.size());
        more(size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a parser may hold for each byte of its input: a list of two-byte items of bencode is the
/// worst, an item is a hundred bytes, in a vector that doubles.
pub const PER_BYTE: usize = 256;

/// What it may hold beside that.
pub const AND: usize = 16 << 10;

/// Runs `work`, which reads `bytes` of outside bytes, and holds it to [`PER_BYTE`] and [`AND`].
pub fn bounded<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    at_most(PER_BYTE * bytes + AND, work)
}

/// Runs `work`, which may hold `limit` bytes at a time.
pub fn at_most<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    MOST.set(before);
    let done = work();
    let held = MOST.get().saturating_sub(before);
    assert!(held <= limit, "{held} bytes held, of {limit} at most");
    done
}
