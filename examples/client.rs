//! Fetches one file with many clients: `cargo run --example client -- CLIENTS [FILE] [ADDRESS]`

use std::process::ExitCode;

fn main() -> ExitCode {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |n: usize, default| arguments.get(n).map_or(default, String::as_str);
    let usage = "usage: client CLIENTS [FILE] [ADDRESS]";
    let Ok(clients) = argument(0, "1").parse() else {
        eprintln!("invalid number of clients '{}'\n{usage}", arguments[0]);
        return ExitCode::from(2);
    };
    let fetch = gatecast::Fetch::host(argument(2, "127.0.0.1:8080"));
    match fetch.file(argument(1, "100MB.bin")).clients(clients).run() {
        Ok(report) => {
            report.print_failures();
            print!("{report}");
            ExitCode::from(report.exit_code())
        }
        Err(error) => {
            eprintln!("{error}");
            if error.exit_code() == 2 {
                eprintln!("{usage}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
