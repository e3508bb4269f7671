//! The query of an announce (BEP 3).

use std::fmt::Write;

use crate::{
    digest::Digest,
    proto::{
        bt::{
            tracker::{invalid, missing, parameter, response::PEERS_MAX},
            wire::PeerId,
        },
        line,
        line::DecodeError,
        percent,
    },
    units::total_saturating,
};

/// What a peer tells its tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub info_hash: Digest,
    /// The peer's id.
    pub peer_id: PeerId,
    /// The port on which it listens.
    pub port: u16,
    /// Bytes that it lacks; `None` when it does not say.
    pub left: Option<u64>,
    /// Why it announces itself.
    pub event: AnnounceEvent,
    /// How many peers it wants to know.
    pub wanted: usize,
    /// Payload bytes that it has sent so far.
    pub uploaded: u64,
    /// Payload bytes that it has received, by the member that sent them, at most [`SHARES_MAX`].
    /// Only gatecast peers report this, and only to gatecast trackers.
    pub received_from: Vec<Share>,
}

/// Why a peer announces itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// It begins.
    Started,
    /// It has just become complete.
    Completed,
    /// It leaves.
    Stopped,
    /// It is still there.
    #[default]
    Regular,
}

/// A member's id, and how many payload bytes came from it.
pub type Share = (PeerId, u64);

/// Most shares in an announce: more than a peer may have connections.
pub const SHARES_MAX: usize = 128;

/// How many peers are named to a peer that does not say how many it wants.
pub(super) const PEERS_DEFAULT: usize = 50;

/// The key of [`Announce::received_from`]: for each member its id, a colon and the bytes, with a
/// comma between two. An id may hold a comma, so its twenty bytes are read before the next comma.
const SHARES: &str = "x_from";

impl Announce {
    /// Reads the query of `/announce`.
    ///
    /// # Errors
    /// A parameter is missing or invalid.
    pub fn decode(query: &str) -> Result<Self, DecodeError> {
        let number = |key: &str| -> Result<Option<i64>, DecodeError> {
            let Some(value) = parameter(query, key)? else {
                return Ok(None);
            };
            let text = std::str::from_utf8(&value).ok();
            let parsed = text.and_then(|text| text.parse().ok());
            parsed.map(Some).ok_or_else(|| invalid(key, "a number"))
        };
        let port = number("port")?.ok_or_else(|| missing("port"))?;
        let port = u16::try_from(port).ok().filter(|&port| port >= 1024);
        let wanted = number("numwant")?.and_then(|wanted| usize::try_from(wanted).ok());
        let uploaded = number("uploaded")?.and_then(|sent| u64::try_from(sent).ok());
        Ok(Self {
            info_hash: Digest::from_bytes(twenty_bytes(query, "info_hash")?),
            peer_id: twenty_bytes(query, "peer_id")?,
            port: port.ok_or_else(|| invalid("port", "1024 to 65535"))?,
            left: number("left")?.and_then(|left| u64::try_from(left).ok()),
            event: match parameter(query, "event")?.as_deref() {
                Some(b"started") => AnnounceEvent::Started,
                Some(b"completed") => AnnounceEvent::Completed,
                Some(b"stopped") => AnnounceEvent::Stopped,
                _ => AnnounceEvent::Regular,
            },
            wanted: wanted.unwrap_or(PEERS_DEFAULT).min(PEERS_MAX),
            uploaded: uploaded.unwrap_or(0),
            received_from: match parameter(query, SHARES)? {
                Some(bytes) => decode_shares(&bytes)
                    .ok_or_else(|| invalid(SHARES, "a list of ids and bytes"))?,
                None => Vec::new(),
            },
        })
    }

    /// The query.
    pub fn encode(&self) -> String {
        let mut query = format!(
            "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&compact=1&numwant={}",
            percent::encode(self.info_hash.as_bytes(), b""),
            percent::encode(&self.peer_id, b""),
            self.port,
            self.uploaded,
            total_saturating(self.received_from.iter().map(|share| share.1)),
            self.left.unwrap_or(0),
            self.wanted,
        );
        query.push_str(match self.event {
            AnnounceEvent::Started => "&event=started",
            AnnounceEvent::Completed => "&event=completed",
            AnnounceEvent::Stopped => "&event=stopped",
            AnnounceEvent::Regular => "",
        });
        for (number, (id, bytes)) in (self.received_from.iter().take(SHARES_MAX)).enumerate() {
            let mark = if number == 0 { "&x_from=" } else { "," };
            let _ = write!(query, "{mark}{}:{bytes}", percent::encode(id, b""));
        }
        query
    }
}

fn decode_shares(bytes: &[u8]) -> Option<Vec<Share>> {
    let mut all = Vec::new();
    let mut rest = bytes;
    loop {
        let (id, after) = rest.split_first_chunk::<20>()?;
        let after = after.strip_prefix(b":")?;
        let comma = after.iter().position(|&byte| byte == b',');
        let (digits, after) = after.split_at(comma.unwrap_or(after.len()));
        if all.len() == SHARES_MAX {
            return None;
        }
        all.push((*id, line::decimal(std::str::from_utf8(digits).ok()?)?));
        match after.strip_prefix(b",") {
            Some(more) => rest = more,
            None => return Some(all),
        }
    }
}

fn twenty_bytes(query: &str, key: &str) -> Result<[u8; 20], DecodeError> {
    let bytes = parameter(query, key)?.ok_or_else(|| missing(key))?;
    bytes.try_into().map_err(|_| invalid(key, "20 bytes"))
}
