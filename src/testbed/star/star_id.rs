//! The names of stars and of their network namespaces.
//!
//! A name says whose star it is: the owner's process number and the time at which that process
//! started, which together no other process ever has while the system is up. So what is left of a
//! dead owner can be told from a star in use, and from namespaces that are not ours, without any
//! file of records.

use std::{
    fmt, fs,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
};

/// A star's name: `gatecast-<process>-<start>-<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StarId {
    /// The owner's process number.
    pub process: u32,
    /// When the owner started, in the kernel's clock ticks since boot.
    pub start: u64,
    /// Which of the owner's stars.
    pub number: u32,
}

/// A place of a star that is a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StarNode {
    /// The switch or router.
    Center,
    /// A host, from 0.
    Host(usize),
}

/// What is said of text that is no star's name.
const NOT_OURS: &str = "not the name of a star, such as gatecast-4711-180500-0";

/// The beginning of the name of each of our namespaces.
pub const PREFIX: &str = "gatecast-";

impl StarId {
    /// A name for a new star of this process.
    pub fn next() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let process = std::process::id();
        Self {
            process,
            start: start_of(process).unwrap_or(0),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The namespace of `place`.
    pub fn namespace(&self, place: StarNode) -> String {
        match place {
            StarNode::Center => format!("{self}-switch"),
            StarNode::Host(host) => format!("{self}-h{host}"),
        }
    }

    /// Takes a namespace's name apart; `None` where it is not exactly a name that
    /// [`namespace`](Self::namespace) makes.
    pub fn of_namespace(name: &str) -> Option<(Self, StarNode)> {
        let (star, place) = name.rsplit_once('-')?;
        let id: Self = star.parse().ok()?;
        let place = match place.strip_prefix('h') {
            Some(host) => StarNode::Host(host.parse().ok()?),
            None => StarNode::Center,
        };
        // Leading zeros, signs, other words: not ours.
        (id.namespace(place) == name).then_some((id, place))
    }

    /// True while the process that built the star runs.
    pub fn owner_lives(&self) -> bool {
        start_of(self.process) == Some(self.start)
    }
}

/// When a process started; `None` when there is none, or it is dead and only not yet reaped.
fn start_of(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let start = fields.nth(18)?;
    match state {
        "Z" | "X" => None,
        _ => start.parse().ok(),
    }
}

impl fmt::Display for StarId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.process, self.start, self.number)
    }
}

impl FromStr for StarId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let read = || {
            let mut parts = text.strip_prefix(PREFIX)?.split('-');
            Some(Self {
                process: parts.next()?.parse().ok()?,
                start: parts.next()?.parse().ok()?,
                number: parts.next()?.parse().ok()?,
            })
        };
        read().filter(|id| id.to_string() == text).ok_or(NOT_OURS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_id_names_its_owner() {
        let id = StarId::next();
        assert_eq!(id.process, std::process::id());
        assert_ne!(id, StarId::next());
        for place in [StarNode::Center, StarNode::Host(0), StarNode::Host(999)] {
            assert_eq!(StarId::of_namespace(&id.namespace(place)), Some((id, place)));
        }
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_namespaces_are_not_ours() {
        for name in [
            "",
            "gatecast",
            "gatecast-",
            "gatecast-1-2-3",
            "gatecast-1-2-3-",
            "gatecast-1-2-3-h",
            "gatecast-1-2-3-h-1",
            "gatecast-1-2-3-h01",
            "gatecast-01-2-3-h1",
            "gatecast-+1-2-3-h1",
            "gatecast-1-2-h1",
            "gatecast-1-2-3-4-h1",
            "gatecast-1-2-3-switch2",
            "gatecast-lab-h1",
            "mygatecast-1-2-3-h1",
            "blue",
        ] {
            assert_eq!(StarId::of_namespace(name), None, "{name}");
        }
    }

    #[test]
    fn owner_lives_until_its_process_ends() {
        assert!(StarId::next().owner_lives());
        let mut other = StarId::next();
        other.start += 1;
        assert!(!other.owner_lives(), "a later process of the same number");
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let id =
            StarId { process: child.id(), start: start_of(child.id()).unwrap_or(0), number: 0 };
        child.wait().expect("ends");
        assert!(!id.owner_lives());
    }
}
