//! What a person types while a command runs: keys of a terminal as they are pressed, lines of
//! anything else.
//!
//! With feature `sockopt` on Unix a terminal gives single keys, without an echo, and Ctrl-C stays
//! a signal. Whatever ends the command, the terminal is then as it was before. In the background
//! (`gatecast watch ... &`) the terminal is the shell's and is not touched: the system stops a
//! process that does. Without that feature a terminal is read in lines, too.

#[cfg(all(unix, feature = "sockopt"))]
use std::io::IsTerminal;
use std::{
    io::{self, BufRead},
    thread,
};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    error::{Error, Result},
    net,
};

/// Reads the keyboard; dropped, it gives the terminal back.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) input: Receiver<String>,
    #[cfg(all(unix, feature = "sockopt"))]
    _terminal: Option<terminal::Terminal>,
}

/// What the key Escape is called.
pub(super) const ESCAPE: &str = "\u{1b}";

impl Keys {
    /// Reads until dropped.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn listen() -> Result<Self> {
        let failed = Error::io("start the keyboard's thread", "this process");
        let (sender, input) = crossbeam_channel::unbounded();
        #[cfg(all(unix, feature = "sockopt"))]
        if io::stdin().is_terminal() {
            let terminal = terminal::Terminal::default();
            let reading = terminal.clone();
            spawn(sender, move |sender| reading.read(sender)).map_err(failed)?;
            return Ok(Self { input, _terminal: Some(terminal) });
        }
        spawn(sender, lines).map_err(failed)?;
        Ok(Self {
            input,
            #[cfg(all(unix, feature = "sockopt"))]
            _terminal: None,
        })
    }
}

/// Starts the thread that reads what is typed.
pub(super) fn spawn(
    sender: Sender<String>,
    read: impl FnOnce(&Sender<String>) + Send + 'static,
) -> io::Result<()> {
    let body = move || {
        read(&sender);
        // Holds the channel open.
        loop {
            thread::park();
        }
    };
    net::spawn("keys", body).map(drop)
}

pub(super) fn lines(sender: &Sender<String>) {
    for line in io::stdin().lock().lines().map_while(|line| line.ok()) {
        if sender.send(line.trim().to_owned()).is_err() {
            return;
        }
    }
}

#[cfg(all(unix, feature = "sockopt"))]
mod terminal {
    use std::{
        fs::File,
        io::Read,
        os::fd::AsFd,
        sync::{Arc, Mutex},
        thread,
        time::Duration,
    };

    use crossbeam_channel::Sender;
    use nix::{
        poll::{PollFd, PollFlags, poll},
        sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr},
    };

    use crate::net::lock;

    /// The terminal at standard input.
    #[derive(Clone, Debug, Default)]
    pub(super) struct Terminal(Arc<Mutex<TerminalState>>);

    #[derive(Debug, Default)]
    struct TerminalState {
        /// How it was, once it has been changed.
        before: Option<Termios>,
        over: bool,
    }

    /// How often to check whether the terminal is ours and whether to end.
    const POLL_MS: u16 = 200;

    impl Terminal {
        /// Sends every key until the terminal is given back or gone.
        pub(super) fn read(&self, sender: &Sender<String>) {
            let stdin = std::io::stdin();
            let Ok(own) = stdin.as_fd().try_clone_to_owned() else {
                return;
            };
            // Unbuffered: what standard input holds back cannot be waited for.
            let mut keys = File::from(own);
            loop {
                match self.acquire() {
                    None => return,
                    Some(false) => {
                        thread::sleep(Duration::from_millis(POLL_MS.into()));
                        continue;
                    }
                    Some(true) => {}
                }
                let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, POLL_MS).is_ok_and(|ready| ready == 0) {
                    continue;
                }
                let mut bytes = [0; 16];
                let Ok(len @ 1..) = keys.read(&mut bytes) else {
                    return;
                };
                // An arrow and its like are Escape and more.
                let pressed = match &bytes[..len] {
                    [0x1B, _, ..] => continue,
                    pressed => String::from_utf8_lossy(pressed),
                };
                for key in pressed.chars() {
                    if sender.send(key.to_string()).is_err() {
                        return;
                    }
                }
            }
        }

        /// Makes the terminal give single keys, if it is ours just now; `None` when it is to be
        /// left alone for good.
        fn acquire(&self) -> Option<bool> {
            let mut state = lock(&self.0);
            if state.over {
                return None;
            }
            if !in_foreground() {
                return Some(false);
            }
            let Ok(now) = tcgetattr(std::io::stdin()) else {
                return None;
            };
            // Also after the shell had it for a while (Ctrl-Z, fg).
            if now.local_flags.contains(LocalFlags::ICANON) {
                let mut single = now.clone();
                single.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
                tcsetattr(std::io::stdin(), SetArg::TCSANOW, &single).ok()?;
                state.before = Some(now);
            }
            Some(true)
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            let mut state = lock(&self.0);
            state.over = true;
            if let Some(before) = state.before.take()
                && in_foreground()
                && let Err(error) = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &before)
            {
                log::debug!("the terminal stays as it is: {error}");
            }
        }
    }

    fn in_foreground() -> bool {
        nix::unistd::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
    }
}
