//! What `gatecast serve` asks who sits at its terminal and has named no file.

use std::{
    env,
    ffi::OsString,
    io::{self, BufRead, IsTerminal, Read},
    path::Path,
    time::Duration,
};

use clap::error::{ContextKind, ContextValue};

use crate::{cli::output, net, server::sample};

const FILE_QUESTION: &str =
    "which file? 1 is 100MB.bin and 2 is 250MB.bin, made here if missing; or a path";
const CLIENTS_QUESTION: &str = "how many clients? Enter is as the options say, or the clients";

/// How long the answers are waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Longest answer, bytes: what a terminal has for a line.
const ANSWER_MAX: u64 = 4096;

/// The words that a command line lacks, where that is a file and somebody is there to be asked.
///
/// # Errors
/// Why there are none.
pub(super) fn missing_words(missing: &clap::Error) -> Option<Result<Vec<OsString>, &'static str>> {
    let lacks = matches!(missing.get(ContextKind::InvalidArg),
        Some(ContextValue::Strings(lacks)) if lacks[..] == ["<PATH>..."]);
    if !lacks || !io::stdin().is_terminal() {
        return None;
    }
    let asks_clients = !env::args_os().any(|word| word.to_string_lossy().starts_with("--clients"));
    let (sender, answered) = crossbeam_channel::bounded(1);
    let dialog = move || drop(sender.send(ask(&mut io::stdin().lock(), asks_clients)));
    let answers = net::spawn("ask", dialog).ok().and_then(|_| answered.recv_timeout(PATIENCE).ok());
    Some(answers.flatten().ok_or("no file was named: gatecast serve PATH"))
}

/// Asks for a file, and for how many clients; `None` when the input ends before.
fn ask(input: &mut impl BufRead, asks_clients: bool) -> Option<Vec<OsString>> {
    let mut answer = |question| {
        output::eprintln(question);
        let mut line = String::new();
        let len = input.by_ref().take(ANSWER_MAX).read_line(&mut line).ok()?;
        (len > 0).then(|| line.trim().to_owned())
    };
    let file = answer(FILE_QUESTION)?;
    let clients = if asks_clients { answer(CLIENTS_QUESTION)? } else { String::new() };
    let named = match &*file {
        "1" => lab_file("100MB.bin", 100_000_000),
        "2" => lab_file("250MB.bin", 250_000_000),
        path => path.into(),
    };
    let clients = (!clients.is_empty()).then(|| format!("--clients={clients}"));
    Some([named].into_iter().chain(clients.map(OsString::from)).collect())
}

/// One of the lab's files, made if nothing has its name.
fn lab_file(name: &str, bytes: u64) -> OsString {
    if !Path::new(name).exists()
        && let Err(error) = sample::make(Path::new(name), bytes)
    {
        output::print_error(&error);
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_words_of_the_command_line() {
        for (typed, asks_clients, words) in [
            ("a b.bin\n3\n", true, &["a b.bin", "--clients=3"][..]),
            (" f.bin \n\n", true, &["f.bin"]),
            ("f.bin\n3\n", false, &["f.bin"]),
            ("f.bin\nmany", true, &["f.bin", "--clients=many"]),
        ] {
            let words = Some(words.iter().map(OsString::from).collect());
            assert_eq!(ask(&mut typed.as_bytes(), asks_clients), words, "{typed:?}");
        }
        for end in ["", "f.bin\n"] {
            assert_eq!(ask(&mut end.as_bytes(), true), None, "{end:?}");
        }
        assert_eq!(ask(&mut &b"\xff\n1\n"[..], true), None, "not text");
        let long = "x".repeat(10_000);
        let words = ask(&mut long.as_bytes(), false).expect("the first of it");
        assert_eq!(words[0].len(), 4096);
    }
}
