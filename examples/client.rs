//! Starts clients that fetch one file together into `./received`.
//!
//! ```text
//! cargo run --example client -- 25 [FILE] [ADDRESS]
//! ```

use std::process::ExitCode;

use gatecast::internals::client;
use gatecast::internals::client::FetchConfig;
use gatecast::internals::error::Error;
use gatecast::internals::net::socket;
use gatecast::internals::report::session_table;
use gatecast::internals::report::verdict::Verdict;
use gatecast::internals::text::FileName;
use gatecast::internals::transport::tcp;

fn main() -> ExitCode {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let order = match order(&arguments) {
        Ok(order) => order,
        Err(why) => {
            eprintln!("{why}\nusage: client CLIENTS [FILE] [ADDRESS]");
            return ExitCode::from(2);
        }
    };
    let ends = match tcp::fetch(&order) {
        Ok(ends) => ends,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(Verdict::of_error(&error).exit_code());
        }
    };
    for record in client::records(&ends) {
        println!(
            "{}",
            session_table::session(&record, session_table::Rows::Failures)
        );
    }
    for (number, error) in (1..)
        .zip(&ends)
        .filter_map(|(n, end)| Some((n, end.error.as_ref()?)))
    {
        eprintln!("client {number}: {error}");
    }
    ExitCode::from(Verdict::of_ends(&ends).exit_code())
}

fn order(arguments: &[String]) -> Result<FetchConfig, String> {
    let clients = arguments.first().map_or("1", String::as_str);
    let file = arguments.get(1).map_or("100MB.bin", String::as_str);
    let address = arguments.get(2).map_or("127.0.0.1:8080", String::as_str);
    let server = socket::resolve(address, 8080).map_err(|error: Error| error.to_string())?;
    let mut order = FetchConfig::new(server);
    order.clients = clients
        .parse()
        .map_err(|_| format!("'{clients}' is no number of clients"))?;
    order.file = Some(FileName::new(file).map_err(|error| error.to_string())?);
    Ok(order)
}
