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
    /// `ip` with these words.
    Ip(String),
    /// `tc` with these words.
    Tc(String),
    /// A line for `nft`.
    Nft(String),
    /// `ethtool` with these words.
    Ethtool(String),
    /// Sets a kernel variable: `net.ipv4.ip_forward` and its value.
    Sysctl(&'static str, &'static str),
}

impl SetupStep {
    /// A command in the namespace that we are in.
    pub fn here(act: SetupAction) -> Self {
        Self { inside: None, act }
    }

    /// A command in `namespace`.
    pub fn inside(namespace: &str, act: SetupAction) -> Self {
        Self { inside: Some(namespace.to_owned()), act }
    }

    /// The program that it needs; `None` for one that is a write to a file.
    pub fn tool(&self) -> Option<Tool> {
        match self.act {
            SetupAction::Ip(_) => Some(Tool::Ip),
            SetupAction::Tc(_) => Some(Tool::Tc),
            SetupAction::Nft(_) => Some(Tool::Nft),
            SetupAction::Ethtool(_) => Some(Tool::Ethtool),
            SetupAction::Sysctl(..) => None,
        }
    }

    /// Its words, without program and namespace.
    fn words(&self) -> &str {
        match &self.act {
            SetupAction::Ip(words)
            | SetupAction::Tc(words)
            | SetupAction::Nft(words)
            | SetupAction::Ethtool(words) => words,
            SetupAction::Sysctl(..) => "",
        }
    }

    /// True when both can be lines of one batch.
    fn joins(&self, other: &Self) -> bool {
        let batches =
            matches!(self.act, SetupAction::Ip(_) | SetupAction::Tc(_) | SetupAction::Nft(_));
        batches && self.tool() == other.tool() && self.inside == other.inside
    }
}

/// Why steps were not all run.
#[derive(Debug)]
pub struct FailedStep {
    /// How many steps certainly were done before.
    pub done: usize,
    /// The step that failed, and the program's own words.
    pub error: Error,
}

impl From<FailedStep> for Error {
    fn from(failed: FailedStep) -> Self {
        failed.error
    }
}

/// Runs `steps` in their order.
///
/// # Errors
/// The first step that failed.
pub fn run(steps: &[SetupStep]) -> Result<(), FailedStep> {
    let mut done = 0;
    for batch in steps.chunk_by(SetupStep::joins) {
        run_batch(batch).map_err(|failed| FailedStep { done: done + failed.done, ..failed })?;
        done += batch.len();
    }
    Ok(())
}

fn run_batch(batch: &[SetupStep]) -> Result<(), FailedStep> {
    let Some(first) = batch.first() else {
        return Ok(());
    };
    let ended = match &first.inside {
        None => carry_out(batch),
        Some(name) => {
            namespace::enter(&namespace::path_of(name), || carry_out(batch)).and_then(|done| done)
        }
    };
    let failure = ended.map_err(|error| FailedStep { done: 0, error })?;
    let Some(stderr) = failure else {
        return Ok(());
    };
    let line = failed_line(&stderr).unwrap_or(1).clamp(1, batch.len());
    let step = &batch[line - 1];
    Err(FailedStep {
        done: if step.joins(first) { line - 1 } else { 0 },
        error: Error::refused(format!("`{step}`"), reason(&stderr)),
    })
}

/// Runs the batch in the namespace that this thread is in; returns what the program complained of
/// if it failed.
fn carry_out(batch: &[SetupStep]) -> Result<Option<String>> {
    let lines: Vec<&str> = batch.iter().map(SetupStep::words).collect();
    let text = lines.join("\n") + "\n";
    let output = match &batch[0].act {
        SetupAction::Ip(_) => tool::run(Tool::Ip, &["-batch", "-"], &text),
        SetupAction::Tc(_) => tool::run(Tool::Tc, &["-batch", "-"], &text),
        SetupAction::Nft(_) => tool::run(Tool::Nft, &["-f", "-"], &text),
        SetupAction::Ethtool(words) => {
            let words: Vec<&str> = words.split(' ').collect();
            tool::run(Tool::Ethtool, &words, "")
        }
        SetupAction::Sysctl(name, value) => {
            let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
            // A kernel without IPv6 has no switch to turn it off.
            if !path.exists() && name.contains("ipv6") {
                return Ok(None);
            }
            let written = std::fs::write(&path, value);
            return Ok(written.err().map(|error| error.to_string()));
        }
    };
    Ok(output?.failure())
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
    match lines.collect::<Vec<_>>().join("; ") {
        nothing if nothing.is_empty() => "it failed and printed no reason".to_owned(),
        words => words,
    }
}

impl fmt::Display for SetupStep {
    /// A line for a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = match (&self.inside, &self.act) {
            (None, SetupAction::Ip(_)) => "ip".to_owned(),
            (None, SetupAction::Tc(_)) => "tc".to_owned(),
            (Some(namespace), SetupAction::Ip(_)) => format!("ip -n {namespace}"),
            (Some(namespace), SetupAction::Tc(_)) => format!("tc -n {namespace}"),
            (None, _) => String::new(),
            (Some(namespace), _) => format!("ip netns exec {namespace}"),
        };
        match &self.act {
            SetupAction::Ip(words) | SetupAction::Tc(words) => write!(f, "{program} {words}"),
            // Braces and semicolons are the shell's too.
            SetupAction::Nft(line) => write!(f, "{program} nft '{line}'"),
            SetupAction::Ethtool(words) => write!(f, "{program} ethtool {words}"),
            SetupAction::Sysctl(name, value) => write!(f, "{program} sysctl -qw {name}={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_is_a_line_for_a_shell() {
        let shown = |act| SetupStep::inside("n", act).to_string();
        assert_eq!(
            SetupStep::here(SetupAction::Ip("netns add n".to_owned())).to_string(),
            "ip netns add n"
        );
        assert_eq!(shown(SetupAction::Tc("qdisc show".to_owned())), "tc -n n qdisc show");
        assert_eq!(
            shown(SetupAction::Nft("add chain ip t c { type filter; }".to_owned())),
            "ip netns exec n nft 'add chain ip t c { type filter; }'"
        );
        assert_eq!(
            shown(SetupAction::Sysctl("net.ipv4.ip_forward", "1")),
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
