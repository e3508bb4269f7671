//! `gatecast watch` on a terminal: single keys, the status line, and that the terminal is restored.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    common::{
        have, installed,
        program::{GATECAST, Program},
        turn::in_turn,
        until,
    },
    live::{LIMIT, relay},
};

/// A source that sends until it is dropped.
struct Pouring {
    going: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pouring {
    fn to(input: SocketAddr) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let sends = Arc::clone(&going);
        let source = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let thread = thread::spawn(move || {
            while sends.load(Ordering::SeqCst) {
                source.send_to(&[0x47; 1316], input).expect("sent");
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { going, thread: Some(thread) }
    }
}

impl Drop for Pouring {
    fn drop(&mut self) {
        self.going.store(false, Ordering::SeqCst);
        let thread = self.thread.take().expect("dropped once");
        assert!(thread.join().is_ok() || thread::panicking());
    }
}

/// `gatecast watch` at `at` on a terminal of its own.
fn on_a_terminal(folder: &Path, options: &[&str], at: SocketAddr, words: &[&str]) -> Program {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/terminal.py");
    Program::interactive(
        Command::new("python3")
            .arg(script)
            .args(options)
            .args([GATECAST, "watch", &at.to_string()])
            .args(words)
            .current_dir(folder),
    )
}

/// Waits until a line with `text` appears.
fn appears(terminal: &Program, text: &str) {
    appears_after(terminal, 0, text);
}

/// Gives an order and waits until a line with `text` appears that was not there before.
fn ask(terminal: &mut Program, order: &str, text: &str) {
    let before = terminal.stdout().len();
    terminal.type_line(order);
    appears_after(terminal, before, text);
}

fn appears_after(terminal: &Program, before: usize, text: &str) {
    until(text, || {
        let printed = terminal.stdout();
        printed[before..].iter().any(|line| line.contains(text))
    });
}

#[test]
fn keys_work_and_terminal_is_restored() {
    if !have("python3", cfg!(feature = "sockopt") && installed("python3")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        let (_relay, input, at) = relay(place);
        let _source = Pouring::to(input);
        for last in ["q", "\u{1b}", "\u{3}"] {
            let words = ["--record", "key.ts", "--loss-report"];
            let mut terminal = on_a_terminal(place, &[], at, &words);
            until("it watches", || {
                let printed = terminal.stdout();
                printed.iter().any(|line| line.contains("p pauses"))
            });
            appears(&terminal, "playing");
            ask(&mut terminal, "key p", "paused");
            ask(&mut terminal, "key p", "interrupted already");
            ask(&mut terminal, "key x", "c continues");
            ask(&mut terminal, "key c", "playing");
            terminal.type_line(&format!("key {last}"));
            ask(&mut terminal, "wait", "ended ");
            let printed = terminal.stdout().join("\n");
            // Ctrl-C interrupts the program; the other keys end it as usual.
            let code = if last == "\u{3}" { 130 } else { 0 };
            let ended = format!("ended {code} terminal kept");
            assert!(printed.contains(&ended), "{printed}");
            for row in ["passed in pauses", "lost by the network", "dropped by this host"] {
                assert!(printed.contains(row), "{printed}");
            }
            let recorded = std::fs::metadata(place.join("key.ts")).expect("recorded");
            assert!(recorded.len() > 0 && recorded.len().is_multiple_of(188));
        }
    });
}

#[test]
fn watch_reads_keys_when_its_output_is_a_pipe() {
    if !have("python3", cfg!(feature = "sockopt") && installed("python3")) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (_relay, input, at) = relay(folder.path());
        let _source = Pouring::to(input);
        let options = ["--pipe-output"];
        let mut terminal = on_a_terminal(folder.path(), &options, at, &["--events"]);
        appears(&terminal, "gatecast.watch/1");
        let mut cpu = || {
            let before = terminal.stdout().len();
            terminal.type_line("cpu");
            let answer = |line: &String| line.strip_prefix("cpu ").map(|n| n.parse::<u64>());
            until("an answer", || {
                terminal.stdout()[before..].iter().any(|line| answer(line).is_some())
            });
            let found = terminal.stdout()[before..].iter().find_map(answer);
            found.expect("an answer").expect("a number")
        };
        let before = cpu();
        thread::sleep(Duration::from_secs(2));
        let used = cpu() - before;
        assert!(used < 100, "half a core: {used} ticks in 2 s");
        terminal.type_line("key q");
        ask(&mut terminal, "wait", "ended 0 terminal kept");
    });
}

#[test]
fn watch_in_the_background_is_not_stopped() {
    let there = cfg!(feature = "sockopt") && installed("python3") && installed("bash");
    if !have("python3 and bash", there) {
        return;
    }
    in_turn("live", LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (relay, input, at) = relay(folder.path());
        let _source = Pouring::to(input);
        let words = ["--for", "3s", "--events"];
        let mut terminal = on_a_terminal(folder.path(), &["--background"], at, &words);
        appears(&terminal, "watching");
        terminal.type_line("key q");
        ask(&mut terminal, "wait", "ended 0 terminal kept");
        // It did not read the key, which was for the shell, and watched for its 3 s.
        assert!(relay.stderr().contains("left after 3."), "{}", relay.stderr());
    });
}
