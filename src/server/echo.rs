//! The server's answer to a client that asks what reaches it: `gatecast doctor HOST`.
//!
//! Everything goes to the address of the control connection, and into the server's own group. An
//! order makes us send fewer bytes than it has. A datagram makes us send nothing: it is only counted.
//! Whether a port of the client can be connected to, the client is not told; it sees it itself.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::{address, clock, line_stream::LineStream, lock},
    proto::native::echo::{ECHO_BYTES, EchoOrder, EchoResult, EchoTerms, ORDERS_MAX},
    server::{
        budget::{Budget, BudgetLimit},
        lobby::Lobby,
        places::Origin,
        transport::GroupRoute,
    },
    units::Moment,
};

/// Who may ask for echoes.
#[derive(Debug, Default)]
pub struct EchoLimits {
    state: Mutex<EchoState>,
    /// Wakes who waits for a place.
    left: Condvar,
}

#[derive(Debug, Default)]
struct EchoState {
    conversations: usize,
    spent: HashMap<Origin, Budget>,
}

/// A conversation's place, until this is dropped.
#[derive(Debug)]
struct EchoPlace<'a>(&'a EchoLimits);

/// How long a conversation may take in all: [`ORDERS_MAX`] connections in vain, and the waiting of
/// the client for each order.
const ECHO_LIMIT: Duration = Duration::from_secs(12);

/// Conversations at once. Each opens three sockets at most, and so many descriptors are spare.
const CONVERSATIONS_MAX: usize = 16;

/// How long one more waits for a place: a room of machines asks at one moment.
const PLACE_LIMIT: Duration = Duration::from_secs(4);

/// Orders of one address: a room of 64 machines behind one, and then four a second.
const ORDERS: BudgetLimit =
    BudgetLimit { most: 64 * ORDERS_MAX as u32, each: Duration::from_millis(250) };

/// Addresses whose orders are counted; above it, one that has not asked yet is refused.
const ADDRESSES_MAX: usize = 1024;

/// How long a connection to the client may take. A whole network answers in less.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Most datagrams that are read for one order.
const DATAGRAMS_MAX: usize = 64;

impl EchoState {
    /// Whether `peer`'s address may give one more order at `now`.
    fn spend(&mut self, peer: SocketAddr, now: Moment) -> bool {
        let origin = Origin::of(peer);
        if self.spent.len() >= ADDRESSES_MAX && !self.spent.contains_key(&origin) {
            self.spent.retain(|_, budget| !budget.is_whole(now));
            if self.spent.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        self.spent.entry(origin).or_default().spend(ORDERS, now)
    }
}

impl EchoLimits {
    /// Waits for a place, for [`PLACE_LIMIT`] at most.
    fn begin(&self) -> Result<EchoPlace<'_>> {
        let full = |state: &mut EchoState| state.conversations >= CONVERSATIONS_MAX;
        let waited = self.left.wait_timeout_while(lock(&self.state), PLACE_LIMIT, full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if full(&mut state) {
            let reason = format!("{CONVERSATIONS_MAX} others ask for echoes; try later");
            return Err(Error::refused("the server", reason));
        }
        state.conversations += 1;
        Ok(EchoPlace(self))
    }
}

impl Drop for EchoPlace<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).conversations -= 1;
        self.0.left.notify_one();
    }
}

/// Answers the orders of one client, until it closes the connection.
///
/// # Errors
/// An order that is malformed or one too many, or a socket that cannot be opened.
pub(super) fn serve(lines: &mut LineStream<'_>, lobby: &Lobby, limits: &EchoLimits) -> Result<()> {
    let peer = address::canonical(lines.peer);
    let _place = limits.begin()?;
    let deadline = clock::now().after(ECHO_LIMIT);
    let mut here = address::canonical(lines.local()?);
    here.set_port(0);
    let failed = || Error::io("open a UDP socket", here);
    let udp = UdpSocket::bind(here).map_err(failed())?;
    udp.set_nonblocking(true).map_err(failed())?;
    let group = lobby.group_route().and_then(|route| Some((open_group(route, here)?, route.group)));
    let terms = EchoTerms {
        via: lobby.settings.via,
        port: udp.local_addr().map_err(failed())?.port(),
        group: group.as_ref().map(|(_, group)| *group),
    };
    lines.write_line(&terms.encode())?;
    for _ in 0..ORDERS_MAX {
        let line = match lines.read_line(deadline, Phase::Greet) {
            Err(Error::Io { .. }) => return Ok(()),
            line => line?,
        };
        let order = EchoOrder::decode(&line);
        let order = order.map_err(|error| Error::protocol(peer, error.to_string()))?;
        if !lock(&limits.state).spend(peer, clock::now()) {
            let reason = format!("too many echoes were asked for by {}; try later", peer.ip());
            return Err(Error::refused("the server", reason));
        }
        let digits = order.digits();
        let send = |socket: &UdpSocket, to: SocketAddr| {
            if let Err(error) = socket.send_to(digits.as_bytes(), to) {
                log::debug!("no echo to {to}: {error}");
            }
        };
        let at = |port| {
            let mut at = peer;
            at.set_port(port);
            at
        };
        send(&udp, at(order.udp));
        if let Some((socket, group)) = &group {
            send(socket, *group);
        }
        let limit = clock::left(deadline).unwrap_or_default().min(CONNECT_LIMIT);
        if !limit.is_zero() {
            // Nothing is said on it; the client sees that it came.
            drop(TcpStream::connect_timeout(&at(order.tcp), limit));
        }
        let at_us = clock::wall().unix_timestamp_nanos() / 1000;
        let result = EchoResult {
            heard: has_come(&udp, peer.ip(), &digits),
            at_us: u64::try_from(at_us).unwrap_or_default(),
        };
        lines.write_line(&result.encode())?;
    }
    Ok(())
}

/// A socket that sends to the group; `None` where this host cannot.
fn open_group(route: GroupRoute, here: SocketAddr) -> Option<UdpSocket> {
    let from = route.interface.or_else(|| address::ipv4(here.ip()))?;
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.set_multicast_ttl_v4(route.ttl).ok()?;
    Some(socket)
}

/// Whether a datagram of `digits` has come from `ip`.
fn has_come(socket: &UdpSocket, ip: IpAddr, digits: &str) -> bool {
    let mut bytes = [0; ECHO_BYTES + 1];
    for _ in 0..DATAGRAMS_MAX {
        match socket.recv_from(&mut bytes) {
            Ok((len, from)) if from.ip() == ip && bytes[..len] == *digits.as_bytes() => {
                return true;
            }
            // An answer to what was sent is an error of the socket; more may have come.
            Err(error) if Error::is_timeout(&error) => return false,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u32) -> SocketAddr {
        (Ipv4Addr::from(0x0a00_0000 + number), 40_000).into()
    }

    #[test]
    fn room_of_machines_behind_one_address_is_answered() {
        let mut state = EchoState::default();
        let now = Moment(5_000_000);
        for _ in 0..64 * ORDERS_MAX {
            assert!(state.spend(peer(1), now));
        }
        assert!(!state.spend(peer(1), now));
        assert!(state.spend(peer(2), now), "another address owes nothing");
    }

    #[test]
    fn flood_of_orders_gets_four_a_second() {
        let mut state = EchoState::default();
        let mut answered = 0;
        for ms in 0..60_000 {
            answered += u32::from(state.spend(peer(1), Moment(5_000_000 + ms * 1000)));
        }
        assert!((ORDERS.most + 239..=ORDERS.most + 240).contains(&answered), "{answered}");
    }

    #[test]
    fn flood_of_addresses_takes_a_bounded_table() {
        let mut state = EchoState::default();
        let now = Moment(5_000_000);
        let answered = (0..100_000).filter(|&number| state.spend(peer(number), now)).count();
        assert_eq!((answered, state.spent.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert!(state.spend(peer(7), now), "one that is known");
        let later = now.after(ORDERS.each * 2);
        assert!(state.spend(peer(200_000), later), "those that owe nothing are forgotten");
    }

    #[test]
    fn place_is_given_back_and_waited_for() {
        let limits = EchoLimits::default();
        let mut places: Vec<_> =
            (0..CONVERSATIONS_MAX).map(|_| limits.begin().expect("a place")).collect();
        let error = limits.begin().expect_err("full").to_string();
        assert!(error.contains("16 others"), "{error}");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| limits.begin().map(drop));
            places.pop();
            waiting.join().expect("no panic").expect("a place that was given back");
        });
    }
}
