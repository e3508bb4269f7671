//! What a server's response says of a file.

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::http::client::IncomingResponse,
    proto::{
        http::{head::reason, range::decode_content_range, text},
        native::SIZE_MAX,
    },
};

/// A file as its server describes it.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    /// Where it is, percent-encoded.
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) sha1: Option<Digest>,
    /// A tag by which two versions of the file can be told apart for certain.
    pub(super) strong_tag: Option<String>,
    /// The server is a gatecast, so it has a gate.
    pub(super) has_gate: bool,
}

impl RemoteFile {
    /// Reads the response to a HEAD of `path`.
    ///
    /// # Errors
    /// A status other than 200, or no valid length.
    pub(super) fn new(path: &str, response: &IncomingResponse<'_>) -> Result<Self> {
        let (peer, status) = (response.peer, response.head.status);
        if status != 200 {
            return Err(Error::refused(peer, format!("{status} {}", reason(status))));
        }
        let bytes = response
            .content_length()?
            .ok_or_else(|| Error::refused(peer, "it does not say how long the file is"))?;
        if bytes > SIZE_MAX {
            return Err(Error::protocol(peer, format!("a file of {bytes} bytes")));
        }
        let headers = &response.head.headers;
        let tag = headers.get("etag").filter(|tag| tag.starts_with('"'));
        Ok(Self {
            path: path.to_owned(),
            bytes,
            sha1: digest(response),
            strong_tag: tag.map(str::to_owned),
            has_gate: headers.get("gatecast").is_some(),
        })
    }

    /// Checks the response to a GET of this file from `start` on; returns where its body begins in
    /// the file, which is 0 where the server sends the whole file.
    ///
    /// # Errors
    /// The server refuses, sends another part, or has another file by now.
    pub(super) fn check(&self, response: &IncomingResponse<'_>, start: u64) -> Result<u64> {
        let (peer, headers) = (response.peer, &response.head.headers);
        let length = response.content_length()?;
        let (begin, size) = match response.head.status {
            200 => (0, length),
            206 => match headers.get("content-range").and_then(decode_content_range) {
                Some((range, size)) if range.start == start && range.end == size => {
                    (start, Some(size))
                }
                _ => {
                    let what = "a part of the file that was not asked for";
                    return Err(Error::protocol(peer, what));
                }
            },
            503 => return Err(Error::NotEnough { reason: response.refusal() }),
            _ => return Err(refused(response)),
        };
        response.require_plain_body()?;
        let other_digest = matches!((self.sha1, digest(response)), (Some(a), Some(b)) if a != b);
        if size != Some(self.bytes) || length != Some(self.bytes - begin) || other_digest {
            return Err(Error::SourceChanged {
                at: peer.to_string(),
                what: "the file changed between HEAD and GET".to_owned(),
            });
        }
        Ok(begin)
    }
}

/// The error of a response that is no success, and what it says.
pub(super) fn refused(response: &IncomingResponse<'_>) -> Error {
    let reason = format!("{}: {}", response.head.status, response.refusal());
    Error::refused(response.peer, reason)
}

fn digest(response: &IncomingResponse<'_>) -> Option<Digest> {
    ["repr-digest", "digest"]
        .iter()
        .flat_map(|name| response.head.headers.all(name))
        .find_map(text::digest_of_field)
}

/// The value of a field that holds a number from 1 on.
pub(super) fn number(response: &IncomingResponse<'_>, name: &str) -> Option<u16> {
    let number = text::digits(response.head.headers.get(name)?)?;
    u16::try_from(number).ok().filter(|&number| number > 0)
}
