//! Relays a live stream to every viewer that connects, and says each second how it goes.
//!
//! ```text
//! cargo run --example relay -- [INPUT] [LISTEN]
//! ffmpeg -re -f lavfi -i testsrc2=size=1280x720 -c:v mpeg2video -b:v 8M -f mpegts udp://127.0.0.1:65534
//! printf 'CONECTAR 1234\n' | nc 127.0.0.1 7000        and a player at udp://@:1234
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use gatecast::internals::relay::Relay;
use gatecast::internals::relay::RelayConfig;

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let relay = Relay::start(
        &RelayConfig {
            log_dir: Some("logs".into()),
            ..RelayConfig::new(address(1, "127.0.0.1:65534")?)
        },
        address(2, "0.0.0.0:7000")?,
    )?;
    eprintln!(
        "relaying {} to viewers at {}; stop with Ctrl-C",
        relay.input(),
        relay.local_addr()
    );
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = relay.snapshot();
        let (input, p99) = (now.input, now.delay.p99_us);
        if let Some(p99) = p99 {
            let errors = input.ts.errors;
            println!("{} in, {errors} CC errors; p99 {p99} us", input.datagrams);
        }
        for viewer in now.viewers {
            let (to, sent) = (viewer.to, viewer.sent);
            println!(
                "  {to}: {:?}, {} sent, {} dropped",
                viewer.state, sent.sent, sent.dropped
            );
        }
    }
}

fn address(place: usize, default: &str) -> Result<SocketAddr, String> {
    let text = std::env::args()
        .nth(place)
        .unwrap_or_else(|| default.to_owned());
    text.parse()
        .map_err(|_| format!("'{text}' is not ADDRESS:PORT"))
}
