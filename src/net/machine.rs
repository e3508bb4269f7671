//! What the system says of itself in the small files of `/proc` and `/sys`; nothing elsewhere.

use std::fs;

/// The operating system and its release.
pub fn kernel() -> Option<String> {
    line("/proc/sys/kernel/osrelease").map(|release| format!("Linux {release}"))
}

/// The processor.
pub fn processor() -> Option<String> {
    named("/proc/cpuinfo", "model name")
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
