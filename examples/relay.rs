//! Relays a live stream to every viewer that connects, and says each second how it goes.
//!
//! ```text
//! cargo run --example relay -- [INPUT] [LISTEN]
//! ffmpeg -re -f lavfi -i testsrc2=size=1280x720 -c:v mpeg2video -b:v 8M -f mpegts udp://127.0.0.1:65534
//! printf 'CONECTAR 1234\n' | nc 127.0.0.1 7000        and a player at udp://@:1234
//! ```

use std::time::Duration;

use gatecast::Relay;

fn main() -> gatecast::Result<()> {
    env_logger::init();
    let argument = |at, or: &str| std::env::args().nth(at).unwrap_or_else(|| or.to_owned());
    let relay = Relay::builder()
        .input(argument(1, "127.0.0.1:65534"))
        .listen(argument(2, "0.0.0.0:7000"))
        .log_dir("logs")
        .start()?;
    let (input, listen) = (relay.input(), relay.local_addr());
    eprintln!("relaying {input} to viewers at {listen}; stop with Ctrl-C");
    loop {
        std::thread::sleep(Duration::from_secs(1));
        print!("{}", relay.status());
    }
}
