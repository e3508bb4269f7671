//! What the system says of itself in the small files of `/proc` and `/sys`; nothing elsewhere.

use std::{fs, sync::LazyLock, thread};

/// The operating system and its release.
pub fn kernel() -> Option<String> {
    line("/proc/sys/kernel/osrelease").map(|release| format!("Linux {release}"))
}

/// The processor.
pub fn processor() -> Option<String> {
    named("/proc/cpuinfo", "model name")
}

/// Where the system says what its clock is read from.
pub const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// What figures depend on, in words: our version, the system, the processor, its cores and the clock.
pub fn stamp() -> &'static str {
    static STAMP: LazyLock<String> = LazyLock::new(|| {
        let version = format!("gatecast {}", env!("CARGO_PKG_VERSION"));
        let commit = option_env!("GATECAST_COMMIT").map(str::to_owned);
        let cores = thread::available_parallelism().ok().map(|count| format!("{count} cores"));
        let words = [Some(version), commit, kernel(), processor(), cores, line(CLOCK_SOURCE)];
        words.into_iter().flatten().collect::<Vec<_>>().join("; ")
    });
    &STAMP
}

/// The first line of a file.
pub fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

/// The value of the first line `name : value` of a file.
pub fn named(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}
