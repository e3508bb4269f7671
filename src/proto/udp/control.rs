//! What the two ends say of their datagrams, as lines on the control connection.
//!
//! After OFFER the server says TERMS; the client opens its socket and says LISTEN before READY.
//! While datagrams come the client says REPORT, several lines where its list is long.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use crate::proto::{
    line::{DecodeError, Fields, LineWriter},
    udp::{
        packet::{DATAGRAM_MAX, DATAGRAM_MIN},
        ranges,
    },
};

/// How a session's datagrams are made, told by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Most bytes of a datagram.
    pub datagram: u16,
    /// The group that it sends to; `None` sends to each client.
    pub group: Option<SocketAddr>,
    /// Where the datagrams come from; `None` is the address of the control connection.
    pub from: Option<IpAddr>,
    /// The port that they come from; `None`, which older servers say, is that of the first block.
    pub port: Option<u16>,
}

/// Where a client listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Its UDP port; its address is that of the control connection.
    pub port: u16,
    /// Its socket's receive buffer, bytes as the kernel counts them.
    pub buffer: u64,
}

/// What a client has and lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The number after the highest datagram that it has seen or been told of.
    pub seen: u32,
    /// Different datagrams received.
    pub received: u32,
    /// The round that this answers; 0 answers none.
    pub round: u32,
    /// All blocks below are held.
    pub cum: u32,
    /// More of the same list follows.
    pub more: bool,
    /// Blocks that are missing, above `cum`.
    pub missing: Vec<Range<u32>>,
}

/// The window of datagrams that may be under way to a socket with `buffer` bytes: the kernel
/// charges a datagram with more than its bytes (measured: 92 of 1472 in 212,992).
pub fn window(buffer: u64, datagram: u16) -> u32 {
    let charged = u64::from(datagram) * 8 / 5 + 512;
    u32::try_from(buffer / charged).unwrap_or(u32::MAX).clamp(2, WINDOW_MAX)
}

/// The largest window, datagrams: what a client announces is not believed without a limit.
pub const WINDOW_MAX: u32 = 16_384;

impl Terms {
    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        LineWriter::new("TERMS")
            .field("datagram", self.datagram)
            .maybe("group", self.group)
            .maybe("from", self.from)
            .maybe("port", self.port)
            .finish()
    }

    /// Reads the line.
    ///
    /// # Errors
    /// Another word or a wrong field; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = expect(line, "TERMS")?;
        let datagram = fields.number("datagram")?;
        if !(DATAGRAM_MIN..=DATAGRAM_MAX).contains(&datagram) {
            return Err(DecodeError(format!("datagrams of {datagram} bytes")));
        }
        let (group, from) = (fields.group()?, fields.optional("from", str::parse)?);
        Ok(Self { datagram, group, from, port: fields.optional_number("port")? })
    }
}

impl Listen {
    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        LineWriter::new("LISTEN").field("port", self.port).field("buffer", self.buffer).finish()
    }

    /// Reads the line.
    ///
    /// # Errors
    /// Another word or a wrong field; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = expect(line, "LISTEN")?;
        let port = fields.number("port")?;
        if port < 1024 {
            return Err(DecodeError(format!("port {port} is not sent to")));
        }
        Ok(Self { port, buffer: fields.number("buffer")? })
    }
}

impl Report {
    /// The message as one line; a list that does not fit is cut, and `more` says so.
    /// Returns the line and how many ranges it holds.
    pub fn encode(&self) -> (Vec<u8>, usize) {
        let (list, count) = ranges::encode(self.cum, &self.missing);
        let more = self.more || count < self.missing.len();
        let line = LineWriter::new("REPORT")
            .field("seen", self.seen)
            .field("received", self.received)
            .field("round", self.round)
            .field("cum", self.cum)
            .maybe("more", more.then_some(1))
            .maybe("missing", (!list.is_empty()).then(|| hex(&list)))
            .finish();
        (line, count)
    }

    /// Reads the line, for a file of `blocks` blocks.
    ///
    /// # Errors
    /// Another word or a wrong field; the text names it.
    pub fn decode(line: &str, blocks: u32) -> Result<Self, DecodeError> {
        let fields = expect(line, "REPORT")?;
        let cum = fields.number("cum")?;
        if cum > blocks {
            return Err(DecodeError(format!("block {cum} of {blocks}")));
        }
        let list = match fields.get("missing") {
            None => Vec::new(),
            Some(text) => {
                unhex(text).ok_or_else(|| DecodeError::value("no hexadecimal list", text))?
            }
        };
        Ok(Self {
            seen: fields.number("seen")?,
            received: fields.number("received")?,
            round: fields.number("round")?,
            cum,
            more: fields.get("more").is_some(),
            missing: ranges::decode(cum, blocks, &list)
                .map_err(|why| DecodeError(why.to_owned()))?,
        })
    }

    /// True when `line` is a REPORT, well-formed or not.
    pub fn is_one(line: &str) -> bool {
        line.starts_with("REPORT ")
    }
}

fn expect<'a>(line: &'a str, word: &str) -> Result<Fields<'a>, DecodeError> {
    let fields = Fields::parse(line)?;
    if fields.word() == word {
        Ok(fields)
    } else {
        Err(DecodeError(format!("{} and not {word}", crate::text::escape(fields.word()))))
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() % 2 == 1 || text.len() > 2 * ranges::LIST_MAX {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests {
    use super::*;
    use crate::proto::line::LINE_MAX;

    fn text(line: Vec<u8>) -> String {
        let text = String::from_utf8(line).expect("text").trim_end().to_owned();
        // tests/dissector shows it to Wireshark's dissector.
        println!("wire-tcp {text}");
        text
    }

    #[test]
    fn messages_are_read_back() {
        let terms = Terms {
            datagram: 1472,
            group: "239.1.2.3:5000".parse().ok(),
            from: "10.0.0.9".parse().ok(),
            port: Some(40_000),
        };
        let line = "TERMS datagram=1472 group=239.1.2.3:5000 from=10.0.0.9 port=40000";
        assert_eq!(text(terms.encode()), line);
        assert_eq!(Terms::decode(line), Ok(terms));
        let older = Terms { port: None, ..terms };
        assert_eq!(Terms::decode(&text(older.encode())), Ok(older));
        let listen = Listen { port: 5000, buffer: 212_992 };
        assert_eq!(Listen::decode(&text(listen.encode())), Ok(listen));
        let report = Report {
            seen: u32::MAX,
            received: 3,
            round: 1,
            cum: 5,
            more: false,
            missing: vec![5..6, 9..12],
        };
        let (line, count) = report.encode();
        assert_eq!(count, 2);
        assert_eq!(Report::decode(&text(line), 12), Ok(report));
    }

    #[test]
    fn longest_report_fits_a_line_and_announces_more() {
        let report = Report {
            seen: u32::MAX,
            received: u32::MAX,
            round: u32::MAX,
            cum: 0,
            more: false,
            missing: (0..9000).map(|n| n * 400..n * 400 + 200).collect(),
        };
        let (line, count) = report.encode();
        assert!(line.len() < LINE_MAX, "{}", line.len());
        assert!(count < 9000);
        let read = Report::decode(&text(line), u32::MAX).expect("ours");
        assert!(read.more);
        assert_eq!(read.missing, report.missing[..count]);
    }

    #[test]
    fn impossible_messages_are_refused() {
        for line in [
            "TERMS datagram=65508",
            "TERMS datagram=100",
            "TERMS datagram=1472 group=10.0.0.1:5000",
            "TERMS datagram=1472 group=239.0.0.1:53",
            "TERMS datagram=1472 from=somewhere",
            "TERMS datagram=1472 port=65536",
            "LISTEN port=5000 buffer=1",
        ] {
            assert!(Terms::decode(line).is_err(), "{line}");
        }
        assert!(Listen::decode("LISTEN port=53 buffer=1").is_err());
        assert!(Listen::decode("LISTEN port=70000 buffer=1").is_err());
        for line in [
            "REPORT seen=1 received=1 round=0 cum=13",
            "REPORT seen=1 received=1 round=0 cum=12 missing=0000",
            "REPORT seen=1 received=1 round=0 cum=0 missing=0",
            "REPORT seen=1 received=1 round=0 cum=0 missing=zz",
            "REPORT seen=1 received=4294967296 round=0 cum=0",
            "REPORT seen=1",
        ] {
            assert!(Report::decode(line, 12).is_err(), "{line}");
        }
    }

    #[test]
    fn a_window_fits_the_buffer_that_was_announced() {
        assert_eq!(window(212_992, 1472), 74);
        assert_eq!(window(212_992, 65_507), 2);
        assert_eq!(window(0, 1472), 2);
        assert_eq!(window(u64::MAX, 1472), WINDOW_MAX);
    }
}
