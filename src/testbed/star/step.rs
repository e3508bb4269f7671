//! One command of a plan, as data: shown as a line for a shell, or run.
//!
//! A plan that is shown and one that is run are the same list. Running joins commands of one
//! program in one namespace into one batch of it, which is what makes a star come up in tenths
//! of a second.

use std::{fmt, path::PathBuf};

use crate::{
    error::{Error, Result},
    testbed::star::{namespace, tool, tool::Tool},
};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupStep {
    /// The namespace in which it acts; `None` is the one that we are in.
    pub inside: Option<String>,
    /// What it does.
    pub act: SetupAction,
}

/// What a command does. Every text is made of our own names, numbers and key words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupAction {
    /// A program with these words; of `nft`, a line.
    Run(Tool, String),
    /// Sets a kernel variable: `net.ipv4.ip_forward` and its value.
    Sysctl(&'static str, &'static str),
}

impl SetupStep {
    /// A command in the namespace that we are in.
    pub fn here(tool: Tool, words: String) -> Self {
        Self { inside: None, act: SetupAction::Run(tool, words) }
    }

    /// A command in `namespace`.
    pub fn inside(namespace: &str, tool: Tool, words: String) -> Self {
        Self { inside: Some(namespace.to_owned()), act: SetupAction::Run(tool, words) }
    }

    /// Sets a kernel variable in `namespace`.
    pub fn set(namespace: &str, name: &'static str, value: &'static str) -> Self {
        Self { inside: Some(namespace.to_owned()), act: SetupAction::Sysctl(name, value) }
    }

    /// The program that it needs; `None` for one that is a write to a file.
    pub fn tool(&self) -> Option<Tool> {
        match self.act {
            SetupAction::Run(tool, _) => Some(tool),
            SetupAction::Sysctl(..) => None,
        }
    }

    /// True when both can be lines of one batch.
    fn joins(&self, other: &Self) -> bool {
        self.tool().is_some_and(|tool| tool != Tool::Ethtool)
            && self.tool() == other.tool()
            && self.inside == other.inside
    }
}

/// Runs `steps` in their order.
///
/// # Errors
/// The first step that failed, and the program's own words.
pub fn run(steps: &[SetupStep]) -> Result<()> {
    for batch in steps.chunk_by(SetupStep::joins) {
        let stderr = match &batch[0].inside {
            None => carry_out(batch)?,
            Some(name) => namespace::enter(&namespace::path_of(name), || carry_out(batch))??,
        };
        if let Some(stderr) = stderr {
            let line = failed_line(&stderr).unwrap_or(1).clamp(1, batch.len());
            return Err(Error::refused(format!("`{}`", batch[line - 1]), reason(&stderr)));
        }
    }
    Ok(())
}

/// Runs the batch in the namespace that this thread is in; returns what the program complained of
/// if it failed.
fn carry_out(batch: &[SetupStep]) -> Result<Option<String>> {
    let words = |step: &SetupStep| match &step.act {
        SetupAction::Run(_, words) => words.clone() + "\n",
        SetupAction::Sysctl(..) => String::new(),
    };
    let text: String = batch.iter().map(words).collect();
    let output = match &batch[0].act {
        SetupAction::Run(Tool::Ethtool, words) => {
            let words: Vec<&str> = words.split(' ').collect();
            tool::run(Tool::Ethtool, &words, "")
        }
        SetupAction::Run(Tool::Nft, _) => tool::run(Tool::Nft, &["-f", "-"], &text),
        SetupAction::Run(tool, _) => tool::run(*tool, &["-batch", "-"], &text),
        SetupAction::Sysctl(name, value) => {
            let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
            // A kernel without IPv6, or without `br_netfilter`, has no switch to turn it off.
            if !path.exists() && !name.starts_with("net.ipv4.") {
                if name.starts_with("net.bridge.") {
                    log::warn!("no br_netfilter: a full queue of the switch stops its sender");
                }
                return Ok(None);
            }
            let written = std::fs::write(&path, value);
            return Ok(written.err().map(|error| error.to_string()));
        }
    };
    Ok(output?.err())
}

/// The line that `ip` and `tc` name when a batch fails: `Command failed -:3`.
fn failed_line(said: &str) -> Option<usize> {
    let (_, after) = said.rsplit_once("Command failed -:")?;
    let digits = after.split(|ch: char| !ch.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The program's words as one clause.
fn reason(said: &str) -> String {
    let lines = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Command failed"));
    let words = lines.collect::<Vec<_>>().join("; ");
    if words.is_empty() { "it failed and printed no reason".to_owned() } else { words }
}

impl fmt::Display for SetupStep {
    /// A line for a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.inside, &self.act) {
            (Some(namespace), SetupAction::Run(tool @ (Tool::Ip | Tool::Tc), words)) => {
                return write!(f, "{tool} -n {namespace} {words}");
            }
            (Some(namespace), _) => write!(f, "ip netns exec {namespace} ")?,
            (None, _) => {}
        }
        match &self.act {
            // Braces and semicolons are the shell's too.
            SetupAction::Run(Tool::Nft, line) => write!(f, "nft '{line}'"),
            SetupAction::Run(tool, words) => write!(f, "{tool} {words}"),
            SetupAction::Sysctl(name, value) => write!(f, "sysctl -qw {name}={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_is_a_line_for_a_shell() {
        let shown = |tool, words: &str| SetupStep::inside("n", tool, words.to_owned()).to_string();
        assert_eq!(
            SetupStep::here(Tool::Ip, "netns add n".to_owned()).to_string(),
            "ip netns add n"
        );
        assert_eq!(shown(Tool::Tc, "qdisc show"), "tc -n n qdisc show");
        assert_eq!(
            shown(Tool::Nft, "add chain ip t c { type filter; }"),
            "ip netns exec n nft 'add chain ip t c { type filter; }'"
        );
        assert_eq!(
            SetupStep::set("n", "net.ipv4.ip_forward", "1").to_string(),
            "ip netns exec n sysctl -qw net.ipv4.ip_forward=1"
        );
    }

    #[test]
    fn the_failed_line_of_a_batch_is_found() {
        assert_eq!(failed_line("RTNETLINK answers: x\nCommand failed -:12\n"), Some(12));
        assert_eq!(failed_line("Error: x"), None);
        assert_eq!(reason("Cannot do it: x\nCommand failed -:12\n"), "Cannot do it: x");
        assert_eq!(reason("\n"), "it failed and printed no reason");
    }
}
