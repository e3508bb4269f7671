//! Offers `testdata/`, and two generated files of 100 and 250 MB in it, on port 8080.
//!
//! ```text
//! cargo run --example server [ADDRESS]
//! curl -O 'http://127.0.0.1:8080/files/100MB.bin?gate=1'      # a client that everybody has
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use gatecast::internals::http;
use gatecast::internals::report::sheet;
use gatecast::internals::server::builder::ServerCoreBuilder;
use gatecast::internals::server::catalog::Catalog;
use gatecast::internals::server::config::ServerConfig;
use gatecast::internals::server::sample;
use gatecast::internals::transport::tcp;

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "0.0.0.0:8080".to_owned());
    let address: SocketAddr = address
        .parse()
        .map_err(|_| format!("'{address}' is not ADDRESS:PORT"))?;

    let folder = testdata();
    sample::make(&folder.join("100MB.bin"), 100_000_000)?;
    sample::make(&folder.join("250MB.bin"), 250_000_000)?;

    let host =
        ServerCoreBuilder::new(Catalog::offer([&folder])?, ServerConfig::default()).log_to("logs");
    eprintln!("computing the digests of {} ...", folder.display());
    host.digest(&|_, _, _| {})?;
    let host = http::serve(tcp::serve(host)?, http::Options::default())?;
    let server = host.start(address)?;
    eprintln!("listening on {}; stop with Ctrl-C", server.addr());
    for file in server.lobby().files()? {
        eprintln!("  {:>11} bytes  {}  {}", file.bytes, file.sha1, file.name);
    }
    for record in server.records() {
        println!("{}", sheet::session(&record, sheet::Rows::Failures));
    }
    Ok(())
}

/// The folder beside the working directory's sources, or the one that this example came with.
fn testdata() -> PathBuf {
    let here = Path::new("testdata");
    match here.is_dir() {
        true => here.to_owned(),
        false => Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"),
    }
}
