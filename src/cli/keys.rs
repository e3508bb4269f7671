//! What a person says while a command runs: keys of a terminal as they are pressed, lines of
//! anything else.
//!
//! With feature `sockopt` on Unix a terminal gives single keys, without an echo, and Ctrl-C stays
//! the signal that it is. Whatever ends the command, the terminal is then as it was before. In the
//! background (`gatecast watch ... &`) the terminal is the shell's and is not touched: who does so
//! is stopped by the system. Without that feature a terminal is read in lines, too.

use std::io::BufRead;
#[cfg(all(unix, feature = "sockopt"))]
use std::io::IsTerminal;
use std::thread;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;

use crate::error::Error;
use crate::error::Result;

/// Somebody who listens to the keyboard; dropped, it gives the terminal back.
#[derive(Debug)]
pub(super) struct Keys {
    words: Receiver<String>,
    #[cfg(all(unix, feature = "sockopt"))]
    _terminal: Option<terminal::Terminal>,
}

/// What the key Escape is called.
pub(super) const ESCAPE: &str = "\u{1b}";

impl Keys {
    /// Listens until dropped.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn listen() -> Result<Self> {
        let (tell, words) = crossbeam_channel::unbounded();
        #[cfg(all(unix, feature = "sockopt"))]
        if std::io::stdin().is_terminal() {
            let terminal = terminal::Terminal::default();
            let reading = terminal.clone();
            spawn(tell, move |tell| reading.read(tell))?;
            return Ok(Self {
                words,
                _terminal: Some(terminal),
            });
        }
        spawn(tell, lines)?;
        Ok(Self {
            words,
            #[cfg(all(unix, feature = "sockopt"))]
            _terminal: None,
        })
    }

    /// Keys and lines, in their order. Never closed: the end of the input says nothing.
    pub(super) fn input(&self) -> &Receiver<String> {
        &self.words
    }
}

fn spawn(tell: Sender<String>, read: impl FnOnce(&Sender<String>) + Send + 'static) -> Result<()> {
    let body = move || {
        read(&tell);
        // Holds the channel open.
        loop {
            thread::park();
        }
    };
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(body)
        .map(drop)
        .map_err(Error::io("start the keyboard's thread", "this process"))
}

fn lines(tell: &Sender<String>) {
    for line in std::io::stdin().lock().lines().map_while(|line| line.ok()) {
        if tell.send(line.trim().to_owned()).is_err() {
            return;
        }
    }
}

#[cfg(all(unix, feature = "sockopt"))]
mod terminal {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::MutexGuard;
    use std::sync::PoisonError;
    use std::thread;
    use std::time::Duration;

    use crossbeam_channel::Sender;
    use nix::poll::PollFd;
    use nix::poll::PollFlags;
    use nix::poll::poll;
    use nix::sys::termios::LocalFlags;
    use nix::sys::termios::SetArg;
    use nix::sys::termios::Termios;
    use nix::sys::termios::tcgetattr;
    use nix::sys::termios::tcsetattr;

    /// The terminal at standard input.
    #[derive(Clone, Debug, Default)]
    pub(super) struct Terminal(Arc<Mutex<TerminalState>>);

    #[derive(Debug, Default)]
    struct TerminalState {
        /// How it was, once it has been changed.
        before: Option<Termios>,
        over: bool,
    }

    /// How often it is looked whether the terminal is ours and whether we are to end.
    const LOOK_MS: u16 = 200;

    impl Terminal {
        /// Tells every key until the terminal is given back or gone.
        pub(super) fn read(&self, tell: &Sender<String>) {
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
                        thread::sleep(Duration::from_millis(LOOK_MS.into()));
                        continue;
                    }
                    Some(true) => {}
                }
                let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, LOOK_MS).is_ok_and(|ready| ready == 0) {
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
                    if tell.send(key.to_string()).is_err() {
                        return;
                    }
                }
            }
        }

        /// Makes the terminal give single keys, if it is ours just now; `None` when it is to be
        /// left alone for good.
        fn acquire(&self) -> Option<bool> {
            let mut state = self.lock();
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
                single
                    .local_flags
                    .remove(LocalFlags::ICANON | LocalFlags::ECHO);
                tcsetattr(std::io::stdin(), SetArg::TCSANOW, &single).ok()?;
                state.before = Some(now);
            }
            Some(true)
        }

        fn lock(&self) -> MutexGuard<'_, TerminalState> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            let mut state = self.lock();
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
