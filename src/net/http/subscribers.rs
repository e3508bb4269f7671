//! Who subscribes to the events: so many places, so many of one address, some for this machine.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Mutex,
};

use crate::net::lock;

/// Most subscribers at once.
pub const SUBSCRIBERS_MAX: usize = 64;

/// Most of them with one address (of IPv6: from one network of 64 bits) other than loopback: a
/// room behind one address has its dashboards, and leaves places for others.
const ADDRESS_MAX: usize = 16;

/// Places that only this machine may take: nobody else shuts its dashboard out.
const LOOPBACK_PLACES: usize = 16;

/// The subscribers of a server, counted by address.
#[derive(Debug, Default)]
pub struct Subscribers(Mutex<BTreeMap<IpAddr, usize>>);

/// One subscriber's place; dropping it gives it back.
#[derive(Debug)]
pub struct SubscriberPlace<'a> {
    subscribers: &'a Subscribers,
    address: IpAddr,
}

impl Subscribers {
    /// Takes a place for `ip`, if there is one.
    pub fn take(&self, ip: IpAddr) -> Option<SubscriberPlace<'_>> {
        let address = counted_as(ip);
        let mut places = lock(&self.0);
        let of = |address: &IpAddr| places.get(address).copied().unwrap_or(0);
        let all: usize = places.values().sum();
        let others = all - of(&LOOPBACK);
        let is_free = all < SUBSCRIBERS_MAX
            && (address == LOOPBACK
                || others < SUBSCRIBERS_MAX - LOOPBACK_PLACES && of(&address) < ADDRESS_MAX);
        is_free.then(|| {
            *places.entry(address).or_default() += 1;
            SubscriberPlace { subscribers: self, address }
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0).values().sum()
    }
}

impl Drop for SubscriberPlace<'_> {
    fn drop(&mut self) {
        lock(&self.subscribers.0).retain(|address, count| {
            *count -= usize::from(*address == self.address);
            *count > 0
        });
    }
}

/// Every address of this machine to itself counts as this one.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The address as which `ip` is counted: one host may have all of a network of 64 bits.
fn counted_as(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        ip if ip.is_loopback() => LOOPBACK,
        // On a link every host is in the same network.
        IpAddr::V6(ip) if !ip.is_unicast_link_local() => {
            Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let subscribers = Subscribers::default();
        let take = |text: &str| subscribers.take(ip(text));
        let crowd: Vec<_> = (0..SUBSCRIBERS_MAX).map_while(|_| take("192.0.2.1")).collect();
        assert_eq!(crowd.len(), ADDRESS_MAX);
        assert!(take("::ffff:192.0.2.1").is_none(), "the same in other clothes");
        let other = take("192.0.2.2").expect("another address has a place");
        let network: Vec<_> =
            (0..99).map_while(|host| take(&format!("2001:db8::{host:x}"))).collect();
        assert_eq!(network.len(), ADDRESS_MAX, "a network of IPv6 is one address");
        assert_eq!(subscribers.count(), 2 * ADDRESS_MAX + 1);
        drop((crowd, other, network));
        assert_eq!(subscribers.count(), 0);
        assert!(lock(&subscribers.0).is_empty());
    }

    #[test]
    fn loopback_has_places_that_nobody_else_can_take() {
        let subscribers = Subscribers::default();
        let take = |ip: IpAddr| subscribers.take(ip);
        let crowd: Vec<_> =
            (0..255).filter_map(|host| take(IpAddr::from([192, 0, 2, host]))).collect();
        assert_eq!(crowd.len(), SUBSCRIBERS_MAX - LOOPBACK_PLACES);
        let here: Vec<_> =
            (0..99).map_while(|n| take(ip(["127.0.0.1", "127.0.0.9", "::1"][n % 3]))).collect();
        assert_eq!(here.len(), LOOPBACK_PLACES);
        drop(crowd);
        let more: Vec<_> = (0..99).map_while(|_| take(ip("127.0.0.1"))).collect();
        assert_eq!(here.len() + more.len(), SUBSCRIBERS_MAX, "all, where nobody else wants one");
        assert!(take(ip("192.0.2.1")).is_none());
    }
}
