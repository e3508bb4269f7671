//! The `gatecast` program: words on a command line, an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    gatecast::main()
}
