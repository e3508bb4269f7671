//! Offers `testdata/`, with two generated files in it: `cargo run --example server -- [ADDRESS]`

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let address = std::env::args().nth(1);
    // The folder in the working directory, or the one that this example came with.
    let mut folder = Path::new("testdata");
    if !folder.is_dir() {
        folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata"));
    }
    gatecast::make_sample(&folder.join("100MB.bin"), 100_000_000)?;
    gatecast::make_sample(&folder.join("250MB.bin"), 250_000_000)?;
    eprintln!("computing the digests of {} ...", folder.display());
    let server = gatecast::Server::builder()
        .offer(folder)
        .log_dir("logs")
        .bind(address.as_deref().unwrap_or("0.0.0.0:8080"))?;
    eprintln!("listening on {}; stop with Ctrl-C", server.local_addr());
    for file in server.files()? {
        let (bytes, sha1) = (file.bytes(), file.sha1());
        eprintln!("  {bytes:>11} bytes  {sha1}  {}", file.name());
    }
    for session in server.sessions() {
        println!("{session}");
    }
    Ok(())
}
