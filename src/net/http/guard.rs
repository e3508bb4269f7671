//! Who may read, and who may change something.
//!
//! A web page elsewhere can make a browser send us any request, in two ways. It can point its own
//! name at our address (DNS rebinding) and read the answers: so the requested host must be an
//! address, `localhost` or a name of ours. And it can post without reading the answer: so a change
//! needs a header with the token, which no page elsewhere can read or send. Besides, changes are
//! accepted from loopback only, unless the server was started with other addresses. A proxy on
//! this machine is loopback to us, and so is everybody who comes through it; and every user of
//! this machine can read the token off the page, so whoever has an account here may release.

use std::net::{IpAddr, SocketAddr};

use crate::{
    net::{clock, http::host},
    proto::{
        http::{request::HttpRequest, response::HttpResponse},
        key::is_same,
    },
};

/// Who may read, and who may change something.
#[derive(Debug)]
pub struct AccessGuard {
    token: String,
    control_from: Vec<IpAddr>,
    /// Names of this server besides its own.
    hosts: Vec<String>,
}

/// The header field with the token.
pub const TOKEN: &str = "gatecast-token";

/// A token that cannot be guessed, 32 hexadecimal digits.
pub fn random_token() -> String {
    format!("{:016x}{:016x}", clock::random(), clock::random())
}

impl AccessGuard {
    /// By `token`, a random one if `None`, from loopback and `control_from`, asked for by `hosts` too.
    pub fn new(token: Option<String>, control_from: Vec<IpAddr>, hosts: Vec<String>) -> Self {
        Self { token: token.unwrap_or_else(random_token), control_from, hosts }
    }

    /// The refusal of a request for a host that this server is not.
    pub fn refuse_host(&self, request: &HttpRequest) -> Option<HttpResponse> {
        let host = request.host.as_deref().unwrap_or_default();
        let why = || format!("'{host}' is not a name of this server; --host allows it");
        (!host::is_ours(request, &self.hosts)).then(|| HttpResponse::text(403, why()))
    }

    /// The refusal of a change that `peer` asks for from the wrong place, or without the token.
    pub fn refuse_change(&self, peer: SocketAddr, request: &HttpRequest) -> Option<HttpResponse> {
        let why = if !self.may_change(peer) {
            "changes are accepted from this machine only; --dashboard allows others"
        } else if !self.has_token(request) {
            "the token is missing or wrong"
        } else {
            return None;
        };
        Some(HttpResponse::text(403, why))
    }

    /// True when `peer` may change something, with the token.
    fn may_change(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        let mut others = self.control_from.iter();
        ip.is_loopback() || others.any(|&other| other == ip || other.is_unspecified())
    }

    /// True when `peer` may read what is for the user of a server with a key: from this machine,
    /// or with the token, in its field or, since a page cannot set that, in the query.
    pub fn may_read(&self, peer: SocketAddr, request: &HttpRequest) -> bool {
        let query = request.query_pairs().unwrap_or_default();
        let asked = query.get("token").unwrap_or_default();
        peer.ip().to_canonical().is_loopback()
            || self.has_token(request)
            || is_same(asked.as_bytes(), self.token.as_bytes())
    }

    /// True when the request carries the token.
    fn has_token(&self, request: &HttpRequest) -> bool {
        let given = request.headers.get(TOKEN).unwrap_or_default();
        is_same(given.as_bytes(), self.token.as_bytes())
    }

    /// The token, for the page of a user on this machine.
    pub fn token_for(&self, peer: SocketAddr) -> Option<&str> {
        let is_here = peer.ip().to_canonical().is_loopback();
        is_here.then_some(&*self.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::request::RequestBuf;

    #[test]
    fn changes_are_allowed_from_loopback_and_named_addresses() {
        let guard = |from: &[[u8; 4]]| {
            let from = from.iter().map(|&ip| IpAddr::from(ip)).collect();
            AccessGuard::new(None, from, Vec::new())
        };
        let here = SocketAddr::from(([127, 0, 0, 1], 5));
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:5".parse().expect("an address");
        let (teacher, pupil) =
            (SocketAddr::from(([10, 0, 0, 5], 5)), SocketAddr::from(([10, 0, 0, 6], 5)));
        let who = |guard: AccessGuard| [here, mapped, teacher, pupil].map(|p| guard.may_change(p));
        assert_eq!(who(guard(&[])), [true, true, false, false]);
        assert_eq!(who(guard(&[[10, 0, 0, 5]])), [true, true, true, false]);
        assert_eq!(who(guard(&[[0, 0, 0, 0]])), [true; 4]);
        let guard = guard(&[[0, 0, 0, 0]]);
        assert!(guard.token_for(mapped).is_some());
        assert_eq!(guard.token_for(teacher), None, "the page gives the token to nobody else");
    }

    #[test]
    fn reading_is_for_this_machine_or_with_the_token() {
        let guard = AccessGuard::new(Some("a-long-token".to_owned()), Vec::new(), Vec::new());
        let asked = |target: &str, field: &str| {
            let mut buf = RequestBuf::default();
            buf.push(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{field}\r\n").as_bytes());
            buf.next_request().expect("valid").expect("whole")
        };
        let other = SocketAddr::from(([10, 0, 0, 6], 5));
        for (target, field, may) in [
            ("/", "", false),
            ("/?token=", "", false),
            ("/?token=a-long-toke", "", false),
            ("/?token=a-long-token", "", true),
            ("/events?x=1&token=a-long-token", "", true),
            ("/", "Gatecast-Token: a-long-token\r\n", true),
            ("/", "Gatecast-Token: A-long-token\r\n", false),
        ] {
            assert_eq!(guard.may_read(other, &asked(target, field)), may, "{target} {field}");
        }
        for here in ["127.0.0.1:5", "127.9.9.9:5", "[::1]:5", "[::ffff:127.0.0.1]:5"] {
            assert!(guard.may_read(here.parse().expect("valid"), &asked("/", "")), "{here}");
        }
    }

    #[test]
    fn token_is_long_and_random() {
        let token = random_token();
        assert_eq!(token.len(), 32);
        assert_ne!(token, random_token());
    }
}
