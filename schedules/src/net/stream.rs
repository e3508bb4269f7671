//! A connection of two ends in memory, whose reads, writes and closes a scheduler can put in any
//! order. It behaves as a loopback TCP connection does where the gate can tell: what was sent before a
//! close is read first, a close with unread input is a reset, the first write to a closed end is lost.

use std::{
    collections::VecDeque,
    io,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    judge,
    net::{
        clock,
        primitives::{Condvar, Mutex, MutexGuard},
    },
};

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// The writer has closed it.
    is_ended: bool,
    /// The reader takes nothing more.
    is_deaf: bool,
    /// What the reader has not read is lost, and the next write fails.
    is_reset: bool,
}

#[derive(Debug)]
struct Connection {
    /// What each end reads.
    pipes: Mutex<[Pipe; 2]>,
    changed: Condvar,
    port: u16,
}

/// As [`std::net::TcpStream`].
#[derive(Debug)]
pub struct TcpStream {
    connection: Arc<Connection>,
    /// 0 is the server's end.
    end: usize,
    is_nonblocking: AtomicBool,
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

/// How much a pipe holds: a first block with its preface, and not a whole file.
const PIPE: usize = 2048;

const SERVER: u16 = 1;

impl TcpStream {
    /// A server's end and a client's, whose port is `port`.
    pub fn pair(port: u16) -> (Self, Self) {
        let pipes = Mutex::new(<[Pipe; 2]>::default());
        let connection = Arc::new(Connection { pipes, changed: Condvar::new(), port });
        let end = |end| Self {
            connection: Arc::clone(&connection),
            end,
            is_nonblocking: AtomicBool::new(false),
            read_timeout: AtomicU64::new(u64::MAX),
            write_timeout: AtomicU64::new(u64::MAX),
        };
        (end(0), end(1))
    }

    pub fn connect(_: SocketAddr) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(address(if self.end == 0 { self.connection.port } else { SERVER }))
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address(if self.end == 0 { SERVER } else { self.connection.port }))
    }

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.is_nonblocking.store(nonblocking, Ordering::SeqCst);
        Ok(())
    }

    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.read_timeout.store(micros(limit), Ordering::SeqCst);
        Ok(())
    }

    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.write_timeout.store(micros(limit), Ordering::SeqCst);
        Ok(())
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut pipes = self.lock();
        if how != Shutdown::Write {
            pipes[self.end].is_ended = true;
            pipes[self.end].is_deaf |= how == Shutdown::Both;
        }
        if how != Shutdown::Read {
            pipes[1 - self.end].is_ended = true;
        }
        drop(pipes);
        self.connection.changed.notify_all();
        Ok(())
    }

    /// The process of this end dies: `hard` loses what the other end has not read.
    pub fn kill(&self, hard: bool) {
        let mut pipes = self.lock();
        let reset = hard || !pipes[self.end].bytes.is_empty();
        pipes[self.end].is_ended = true;
        pipes[self.end].is_deaf = true;
        let theirs = &mut pipes[1 - self.end];
        theirs.is_ended = true;
        if reset {
            theirs.bytes.clear();
            theirs.is_reset = true;
        }
        drop(pipes);
        self.connection.changed.notify_all();
    }

    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer, false)
    }

    fn receive(&self, buffer: &mut [u8], consume: bool) -> io::Result<usize> {
        let mut pipes = self.lock();
        let deadline = deadline(&self.read_timeout);
        loop {
            let pipe = &mut pipes[self.end];
            if !pipe.bytes.is_empty() {
                let len = pipe.bytes.len().min(buffer.len());
                for (to, from) in buffer.iter_mut().zip(&pipe.bytes) {
                    *to = *from;
                }
                if consume {
                    pipe.bytes.drain(..len);
                    drop(pipes);
                    self.connection.changed.notify_all();
                }
                return Ok(len);
            }
            if pipe.is_reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if pipe.is_ended {
                return Ok(0);
            }
            pipes = self.wait(pipes, deadline)?;
        }
    }

    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipes = self.lock();
        let deadline = deadline(&self.write_timeout);
        loop {
            if pipes[1 - self.end].is_ended || pipes[self.end].is_reset {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let theirs = &mut pipes[1 - self.end];
            if theirs.is_deaf {
                theirs.is_ended = true;
                return Ok(bytes.len());
            }
            let room = PIPE.saturating_sub(theirs.bytes.len()).min(bytes.len());
            if room > 0 {
                theirs.bytes.extend(&bytes[..room]);
                drop(pipes);
                self.connection.changed.notify_all();
                return Ok(room);
            }
            pipes = self.wait(pipes, deadline)?;
        }
    }

    /// Waits until the other end has done something, if this end may.
    fn wait<'a>(
        &'a self,
        pipes: MutexGuard<'a, [Pipe; 2]>,
        deadline: Option<crate::units::Moment>,
    ) -> io::Result<MutexGuard<'a, [Pipe; 2]>> {
        if self.is_nonblocking.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let changed = &self.connection.changed;
        let Some(deadline) = deadline else {
            return Ok(changed.wait(pipes).expect("nobody panics with it"));
        };
        let left = clock::left(deadline).ok_or(io::ErrorKind::WouldBlock)?;
        Ok(changed.wait_timeout(pipes, left).expect("nobody panics with it").0)
    }

    fn lock(&self) -> MutexGuard<'_, [Pipe; 2]> {
        self.connection.pipes.lock().expect("nobody panics with it")
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer, true)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.end == 0 {
            judge::before_write(self.connection.port, bytes);
        }
        let written = self.put(bytes);
        if self.end == 0 {
            judge::after_write(self.connection.port, written.as_ref().ok().copied());
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.kill(false);
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn micros(limit: Option<Duration>) -> u64 {
    limit.map_or(u64::MAX, crate::units::micros)
}

fn deadline(limit: &AtomicU64) -> Option<crate::units::Moment> {
    let limit = limit.load(Ordering::SeqCst);
    (limit != u64::MAX).then(|| clock::now().after(Duration::from_micros(limit)))
}
