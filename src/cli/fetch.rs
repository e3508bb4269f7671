//! `gatecast fetch`: one or more clients in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::cli::options;
use crate::cli::output;
use crate::cli::progress;
use crate::cli::services;
use crate::cli::signals;
use crate::cli::signals::Request;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::report::json::SessionDocument;
use crate::report::sheet;
use crate::report::verdict::Verdict;
use crate::runtime::control::client;
use crate::runtime::control::client::End;
use crate::runtime::control::client::Fetch;
use crate::runtime::control::client::Order;
use crate::runtime::copy;
use crate::session::Via;
use crate::text::FileName;

/// `gatecast fetch HOST[:PORT] [FILE]`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast fetch 192.168.1.10 image.iso --group 25 --out /srv")]
pub struct Args {
    /// The server, port 8080 unless given
    #[arg(value_name = "HOST[:PORT]")]
    pub server: String,
    /// The file; the server's choice unless given
    #[arg(value_parser = options::file_name)]
    pub file: Option<FileName>,
    /// How many clients to start here
    #[arg(long, default_value = "1", value_parser = options::clients, value_name = "N")]
    pub clients: u16,
    /// How many clients the whole group has; as many as are started here unless given
    #[arg(long, value_parser = options::clients, value_name = "N")]
    pub group: Option<u16>,
    /// The way: tcp, udp, raw, multicast, swarm or http; the server's choice unless given
    #[arg(long, value_parser = options::via)]
    pub via: Option<Via>,
    /// The folder for the copies
    #[arg(long, default_value = "received", value_name = "DIR")]
    pub out: PathBuf,
    /// What the client calls itself; this machine's name unless given
    #[arg(long)]
    pub name: Option<String>,
    /// Take up what an earlier, interrupted fetch left
    #[arg(long)]
    pub resume: bool,
    /// Wait so long for a server that is not there yet
    #[arg(long, default_value = "0s", value_parser = options::span, value_name = "TIME")]
    pub retry: Duration,
    /// Refuse any file but the one of this SHA-1
    #[arg(long, value_name = "HEX")]
    pub sha1: Option<Digest>,
    /// How bytes are copied: auto, buffered or sendfile
    #[arg(long, default_value = "auto", value_name = "HOW")]
    pub copy: copy::Method,
    /// Give the server up when it makes no progress for so long
    #[arg(long, default_value = "30s", value_parser = options::wait, value_name = "TIME")]
    pub stall_limit: Duration,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Fetches.
///
/// # Errors
/// It could not be begun; what happens to a client after that is in its row and the verdict.
pub fn run(args: &Args) -> Result<Verdict> {
    let order = Order {
        file: args.file.clone(),
        clients: args.clients,
        group: args.group,
        via: args.via,
        name: args.name.clone().unwrap_or_else(host_name),
        out: args.out.clone(),
        resume: args.resume,
        retry: args.retry,
        sha1: args.sha1,
        copy: args.copy,
        stall: args.stall_limit,
        ..Order::new(options::server(&args.server)?)
    };
    let fetch = Arc::new(Fetch::new(&order));
    stop_on_signal(&fetch)?;
    let ends = progress::watch(&fetch, || fetch.run(&order, &services::intakes()))?;
    show(&ends, args.json)?;
    Ok(Verdict::of_ends(&ends))
}

/// Lets the first Ctrl-C end every client.
fn stop_on_signal(fetch: &Arc<Fetch>) -> Result<()> {
    let requests = signals::listen()?;
    let fetch = Arc::clone(fetch);
    thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            if requests.iter().any(|request| request == Request::Stop) {
                fetch.stop();
            }
        })
        .map(|_| ())
        .map_err(Error::io("start the signal thread", "this process"))
}

/// Prints the tables or the document, and each client's failure once.
fn show(ends: &[End], json: bool) -> Result<()> {
    let records = client::records(ends);
    if json {
        if let Some(document) = SessionDocument::of(&records) {
            output::print(&document.to_text())?;
        }
    } else {
        for record in &records {
            output::print(&sheet::session(record, sheet::Rows::Failures))?;
        }
    }
    complain(ends);
    Ok(())
}

/// One line for each kind of failure, with the clients that it struck.
fn complain(ends: &[End]) {
    let mut failures: Vec<(String, Vec<usize>)> = Vec::new();
    for (number, error) in (1..)
        .zip(ends)
        .filter_map(|(number, end)| Some((number, end.error.as_ref()?)))
    {
        let text = error.to_string();
        match failures.iter_mut().find(|(known, _)| *known == text) {
            Some((_, clients)) => clients.push(number),
            None => failures.push((text, vec![number])),
        }
    }
    for (text, clients) in failures {
        match &clients[..] {
            _ if ends.len() == 1 => output::say(format_args!("gatecast: {text}")),
            [one] => output::say(format_args!("gatecast: client {one}: {text}")),
            [first, .., last] => {
                output::say(format_args!(
                    "gatecast: {} clients ({first} to {last}): {text}",
                    clients.len()
                ));
            }
            [] => {}
        }
    }
}

/// This machine's name, cut to what a client may call itself.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    match name.is_empty() {
        true => "client".to_owned(),
        false => name.chars().take(40).collect(),
    }
}
