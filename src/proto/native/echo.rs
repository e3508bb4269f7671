//! What a client and a server say to find out what reaches the one from the other: `gatecast doctor`.
//!
//! After ECHO the server says where it sends from and to which group. Each order of the client is
//! answered over UDP to the client's own address, once to the group, and by a connection that carries
//! nothing, then by a line.

use std::net::SocketAddr;

use crate::{
    proto::line::{DecodeError, Fields, LineWriter},
    session::Via,
    text::hexadecimal,
};

/// What a server does when it is asked for echoes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EchoTerms {
    /// The only way by which it sends files; `None` leaves it to the clients.
    pub via: Option<Via>,
    /// The UDP port that takes a client's datagrams.
    pub port: u16,
    /// The group that it sends to; `None` where it sends to none.
    pub group: Option<SocketAddr>,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoOrder {
    /// Its UDP port, 1024 and up.
    pub udp: u16,
    /// Its TCP port, 1024 and up.
    pub tcp: u16,
    /// A random number, by which both know each other's datagrams.
    pub random: u64,
}

/// What the server has seen when it has carried out an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoResult {
    /// A datagram of the client has arrived.
    pub heard: bool,
    /// The server's time of day, microseconds since 1970 (UTC).
    pub at_us: u64,
}

/// Bytes of each datagram: the random number in hexadecimal digits.
pub const ECHO_BYTES: usize = 16;

/// Most orders on one connection: as many datagrams may be lost, less one.
pub const ORDERS_MAX: usize = 4;

impl EchoTerms {
    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        LineWriter::new("ECHO")
            .maybe("via", self.via)
            .field("port", self.port)
            .maybe("group", self.group)
            .finish()
    }

    /// Reads the line.
    ///
    /// # Errors
    /// Another word or a wrong field; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = expect(line, "ECHO")?;
        let (group, via) = (fields.group()?, fields.optional("via", str::parse)?);
        Ok(Self { via, port: port(&fields, "port")?, group })
    }
}

impl EchoOrder {
    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        LineWriter::new("ECHO")
            .field("udp", self.udp)
            .field("tcp", self.tcp)
            .field("random", self.digits())
            .finish()
    }

    /// Reads the line.
    ///
    /// # Errors
    /// Another word or a wrong field, such as a port below 1024; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = expect(line, "ECHO")?;
        let (udp, tcp) = (port(&fields, "udp")?, port(&fields, "tcp")?);
        let text = fields.need("random")?;
        let random = hexadecimal(text, 16).and_then(|random| u64::try_from(random).ok());
        let wrong = || DecodeError::value("random is 16 hexadecimal digits, not", text);
        Ok(Self { udp, tcp, random: random.ok_or_else(wrong)? })
    }

    /// What each datagram holds.
    pub fn digits(&self) -> String {
        format!("{:016x}", self.random)
    }
}

impl EchoResult {
    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        LineWriter::new("ECHOED")
            .field("heard", u8::from(self.heard))
            .field("at_us", self.at_us)
            .finish()
    }

    /// Reads the line.
    ///
    /// # Errors
    /// Another word or a wrong field; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = expect(line, "ECHOED")?;
        Ok(Self { heard: fields.number::<u8>("heard")? == 1, at_us: fields.number("at_us")? })
    }
}

fn expect<'a>(line: &'a str, word: &str) -> Result<Fields<'a>, DecodeError> {
    let fields = Fields::parse(line)?;
    match fields.word() {
        found if found == word => Ok(fields),
        found => Err(DecodeError::value(&format!("{word} is expected, not"), found)),
    }
}

fn port(fields: &Fields<'_>, key: &str) -> Result<u16, DecodeError> {
    match fields.number(key)? {
        port @ 0..1024 => Err(DecodeError(format!("{key}={port}: no echo goes to such a port"))),
        port => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: Vec<u8>) -> String {
        let text = String::from_utf8(line).expect("text").trim_end().to_owned();
        // tests/dissector shows it to Wireshark's dissector.
        println!("wire-tcp {text}");
        text
    }

    #[test]
    fn echo_lines_are_read_back() {
        let group = "239.255.1.2:5000".parse().ok();
        for (via, group) in [(None, None), (Some(Via::Tcp), None), (Some(Via::Multicast), group)] {
            let terms = EchoTerms { via, port: 1024, group };
            assert_eq!(EchoTerms::decode(&text(terms.encode())), Ok(terms));
        }
        for (udp, tcp, random) in [(1024, 1024, 0), (65_535, 40_000, u64::MAX)] {
            let order = EchoOrder { udp, tcp, random };
            assert_eq!(EchoOrder::decode(&text(order.encode())), Ok(order));
        }
        for heard in [false, true] {
            let result = EchoResult { heard, at_us: u64::MAX };
            assert_eq!(EchoResult::decode(&text(result.encode())), Ok(result));
        }
    }

    #[test]
    fn echo_line_of_wrong_fields_is_refused() {
        for line in [
            "ECHO udp=1023 tcp=1024 random=0123456789abcdef",
            "ECHO udp=1024 tcp=80 random=0123456789abcdef",
            "ECHO udp=1024 tcp=70000 random=0123456789abcdef",
            "ECHO udp=1024 random=0123456789abcdef",
            "ECHO udp=1024 tcp=1024 random=f",
            "ECHO udp=1024 tcp=1024 random=+123456789abcdef",
            "ECHO udp=1024 tcp=1024 random=0123456789ABCDEF",
            "ECHO udp=1024 tcp=1024 random=0123456789abcdef0",
            "ECHOED udp=1024 tcp=1024 random=0123456789abcdef",
        ] {
            assert!(EchoOrder::decode(line).is_err(), "{line}");
        }
        for line in ["ECHO", "ECHO port=80", "ECHO port=2000 group=192.0.2.1:5000"] {
            assert!(EchoTerms::decode(line).is_err(), "{line}");
        }
        assert!(EchoResult::decode("ECHOED heard=1").is_err());
    }

    #[test]
    fn echo_is_never_larger_than_the_order_for_it() {
        let least = EchoOrder { udp: 1024, tcp: 1024, random: 0 };
        assert_eq!(least.digits().len(), ECHO_BYTES);
        // One datagram to the client and one to the group.
        assert!(2 * ECHO_BYTES < least.encode().len());
    }
}
