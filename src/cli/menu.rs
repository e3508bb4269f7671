//! The menu of `gatecast fetch --lab`: what a server of the lab's UDP protocol can do.

use std::{io::BufRead, net::SocketAddr, path::Path};

use crate::{
    cli::{options, output},
    client,
    error::{Error, Result},
    net::clock,
    report::{table::or_dash, verdict::Verdict},
    session::{FileInfo, SeatId, SessionId, Via},
    text::{FileName, escape},
    transfer::{Outcome, Record, Transfer},
    transport::udp::lab_client::{LabClient, LabDownload},
    units::mbit_per_second,
};

/// What the next transfer is of.
struct LabChoice {
    name: FileName,
    clients: u16,
    /// What a gatecast server tells of it beside the lab's protocol.
    file: Option<FileInfo>,
}

/// Reads choices from standard input until it ends or the user is done. Each transfer of a file whose
/// size is known is then in a log in `log_dir`.
///
/// # Errors
/// The server cannot be reached at all, or the log cannot be written.
pub(super) fn run(servers: &[SocketAddr], out: &Path, log_dir: Option<&Path>) -> Result<Verdict> {
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
                configure(&client, server, rest).map(|config| chosen = Some(config))
            }
            ("3" | "start" | "START", _) => match &chosen {
                Some(config) => {
                    let released = clock::wall();
                    let all = client.transfer(&config.name, config.clients, out);
                    verdict = verdict.min(show(config, &all)?);
                    if let Some(mut record) = record(config, server, &all) {
                        record.released_at = Some(released);
                        client::log(&[record], log_dir.map(Path::to_owned))?;
                    }
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

fn configure(client: &LabClient, server: SocketAddr, rest: &str) -> Result<LabChoice> {
    let wrong = || Error::usage(format_args!("'{}' is not FILE N", escape(rest)));
    let (name, number) = rest.rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
    let name = FileName::new(name.trim().trim_start_matches(':'))
        .and_then(FileName::for_file_here)
        .map_err(Error::usage)?;
    let clients = options::clients(number.trim_start_matches(':')).map_err(Error::usage)?;
    client.configure(name.as_str(), clients)?;
    let listed = client::list(&[server], None).map(|(files, _)| files).unwrap_or_default();
    let file = listed.into_iter().map(|(file, _)| file).find(|file| file.name == name);
    let size = or_dash(file.as_ref().map(|file| file.bytes));
    output::eprintln(format_args!("configured: {name} ({size} bytes) to {clients}"));
    Ok(LabChoice { name, clients, file })
}

const HEADER: &str =
    "client       bytes  datagrams  lost bytes  lost datagrams  dropped here   seconds    Mbit/s";

/// Prints what came, and what was lost.
fn show(config: &LabChoice, all: &[Result<LabDownload>]) -> Result<Verdict> {
    let mut lines = vec![HEADER.to_owned()];
    let size = config.file.as_ref().map(|file| file.bytes);
    let mut verdict = Verdict::AllVerified;
    for (number, got) in (1_u16..).zip(all) {
        match got {
            Ok(got) => {
                // The protocol has no digest: nothing that it brings is proven.
                verdict = verdict.min(Verdict::SomeFailed);
                lines.push(row(number, got, size));
            }
            Err(error) => {
                verdict = verdict.min(Verdict::of_error(error));
                output::eprintln(format_args!("gatecast: client {number}: {error}"));
            }
        }
    }
    output::print(&format!("{}\n", lines.join("\n")))?;
    Ok(verdict)
}

fn row(number: u16, got: &LabDownload, size: Option<u64>) -> String {
    let (bytes, datagrams, seconds) = (got.bytes, got.datagrams, got.duration.as_secs_f64());
    let (lost_bytes, lost) = size.map_or((None, None), |size| got.lost(size));
    let (lost_bytes, lost, dropped) = (or_dash(lost_bytes), or_dash(lost), or_dash(got.dropped));
    let rate = or_dash(mbit_per_second(bytes, got.duration).map(|rate| format!("{rate:.3}")));
    format!(
        "{number:>6}  {bytes:>10}  {datagrams:>9}  {lost_bytes:>10}  {lost:>14}  {dropped:>12}  \
         {seconds:>8.6}  {rate:>8}"
    )
}

/// The session of one `start`, as its clients know it; `None` where the file's size is not known.
fn record(config: &LabChoice, server: SocketAddr, all: &[Result<LabDownload>]) -> Option<Record> {
    let file = config.file.clone()?;
    let size = file.bytes;
    let mut record = Record::new(SessionId(clock::random()), Via::Raw, file, config.clients);
    for (seat, got) in (1..).map(SeatId).zip(all) {
        let mut failed = Transfer::new(seat, "lab", Outcome::Cut);
        failed.reason = got.as_ref().err().map(ToString::to_string);
        let row = |got: &LabDownload| got.transfer(seat, server, size);
        record.transfers.push(got.as_ref().map_or(failed, row));
    }
    Some(record)
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
