//! The menu of `gatecast fetch --lab`: what a server of the lab's UDP protocol can do.

use std::{io::BufRead, net::SocketAddr, path::Path};

use crate::{
    cli::{options, output},
    error::{Error, Result},
    report::{table::or_dash, verdict::Verdict},
    text::{FileName, escape},
    transport::udp::lab_client::{LabClient, LabDownload},
    units::mbit_per_second,
};

/// What the next transfer is of.
struct LabChoice {
    name: FileName,
    clients: u16,
}

/// Reads choices from standard input until it ends or the user is done.
///
/// # Errors
/// The server cannot be reached at all.
pub(super) fn run(servers: &[SocketAddr], out: &Path) -> Result<Verdict> {
    let server =
        servers.first().copied().ok_or_else(|| Error::usage("this host has no address"))?;
    let client = LabClient::open(server)?;
    let mut chosen = None;
    let mut verdict = Verdict::AllVerified;
    help();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Error::io("read the menu's input", "standard input"))?;
        let done = match choice(&line) {
            ("1" | "list" | "LIST", _) => list(&client),
            ("2" | "config" | "CONFIG", rest) => {
                configure(&client, rest).map(|config| chosen = Some(config))
            }
            ("3" | "start" | "START", _) => match &chosen {
                Some(config) => {
                    // The protocol has no digest: nothing that it brings is proven.
                    verdict = verdict.min(start(&client, config, out)?);
                    Ok(())
                }
                None => Err(Error::usage("choose a file first: config FILE N")),
            },
            ("4" | "disconnect" | "DISCONNECT" | "quit", _) => break,
            ("", _) => Ok(()),
            (word, _) => Err(Error::usage(format_args!("'{}' is not on the menu", escape(word)))),
        };
        if let Err(error) = done {
            output::print_error(&error);
            verdict = verdict.min(Verdict::of_error(&error));
            help();
        }
    }
    client.disconnect()?;
    Ok(verdict)
}

fn help() {
    output::eprintln(format_args!("1 list | 2 config FILE N | 3 start | 4 disconnect"));
}

/// The first word, without the handout's `!`, and the rest.
fn choice(line: &str) -> (&str, &str) {
    let line = line.trim().trim_start_matches('!');
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim())
}

fn list(client: &LabClient) -> Result<()> {
    let names = client.list()?;
    let lines: Vec<String> = names.iter().map(|name| escape(name)).collect();
    output::print(&format!("{}\n", lines.join("\n")))
}

fn configure(client: &LabClient, rest: &str) -> Result<LabChoice> {
    let wrong = || Error::usage(format_args!("'{}' is not FILE N", escape(rest)));
    let (name, number) = rest.rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
    let name = FileName::new(name.trim().trim_start_matches(':'))
        .and_then(FileName::for_file_here)
        .map_err(Error::usage)?;
    let clients = options::clients(number.trim_start_matches(':')).map_err(Error::usage)?;
    client.configure(name.as_str(), clients)?;
    output::eprintln(format_args!("configured: {name} to {clients}"));
    Ok(LabChoice { name, clients })
}

fn start(client: &LabClient, config: &LabChoice, out: &Path) -> Result<Verdict> {
    let mut lines =
        vec!["client       bytes  datagrams  dropped here   seconds    Mbit/s".to_owned()];
    let mut verdict = Verdict::AllVerified;
    for (number, got) in (1_u16..).zip(client.transfer(&config.name, config.clients, out)) {
        match got {
            Ok(got) => {
                verdict = verdict.min(Verdict::SomeFailed);
                lines.push(row(number, &got));
            }
            Err(error) => {
                verdict = verdict.min(Verdict::of_error(&error));
                output::eprintln(format_args!("gatecast: client {number}: {error}"));
            }
        }
    }
    output::print(&format!("{}\n", lines.join("\n")))?;
    Ok(verdict)
}

fn row(number: u16, got: &LabDownload) -> String {
    let (bytes, datagrams, seconds) = (got.bytes, got.datagrams, got.duration.as_secs_f64());
    let dropped = or_dash(got.dropped);
    let rate = or_dash(mbit_per_second(bytes, got.duration).map(|rate| format!("{rate:.3}")));
    format!("{number:>6}  {bytes:>10}  {datagrams:>9}  {dropped:>12}  {seconds:>8.6}  {rate:>8}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_is_a_word_and_the_rest() {
        assert_eq!(choice(" config  a b.bin 5 "), ("config", "a b.bin 5"));
        assert_eq!(choice("!CONFIG :a.bin :5"), ("CONFIG", ":a.bin :5"));
        assert_eq!(choice("4"), ("4", ""));
        assert_eq!(choice(""), ("", ""));
    }
}
