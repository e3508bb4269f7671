//! Fields that several messages have.

use std::{net::IpAddr, time::Duration};

use crate::{
    proto::line::{DecodeError, Fields, LineWriter},
    session::{FileInfo, MAX_SEATS},
    text::FileName,
    transfer::Outcome,
};

/// What a server says of itself after the last file of a LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListEnd {
    /// Its run; `None` of one that does not say it.
    pub run: Option<u64>,
    /// How many seats a session has; `None` leaves it to the clients.
    pub clients: Option<u16>,
    /// The file for clients that name none; `None` where they have to.
    pub file: Option<FileName>,
}

/// Longest reason in a message, bytes.
pub const REASON_MAX: usize = 300;

/// Most addresses in a line: so many of the longest fit.
pub const ADDRESSES_MAX: usize = 40;

/// Most files offered, so that a folder given by mistake is an error and not an hour of hashing.
pub const FILES_MAX: usize = 10_000;

/// Most that `Ready::offset` or a size may be: what a signed file offset holds.
pub const SIZE_MAX: u64 = i64::MAX as u64;

pub(super) fn file_fields(line: LineWriter, file: &FileInfo) -> LineWriter {
    line.field("file", file.name.as_str()).field("bytes", file.bytes).field("sha1", file.sha1)
}

pub(super) fn file(fields: &Fields<'_>) -> Result<FileInfo, DecodeError> {
    let bytes = fields.number("bytes")?;
    if bytes > SIZE_MAX {
        return Err(DecodeError(format!("{} with a size of {bytes} bytes", fields.word())));
    }
    Ok(FileInfo {
        name: fields.parsed("file", FileName::new)?,
        bytes,
        sha1: fields.parsed("sha1", str::parse)?,
    })
}

pub(super) fn list_end_fields(line: LineWriter, end: &ListEnd) -> LineWriter {
    let file = end.file.as_ref().map(FileName::as_str);
    line.maybe("run", end.run).maybe("clients", end.clients).maybe("file", file)
}

pub(super) fn list_end(fields: &Fields<'_>) -> Result<ListEnd, DecodeError> {
    Ok(ListEnd {
        run: fields.optional_number("run")?,
        clients: fields.optional_number("clients")?,
        file: fields.optional("file", FileName::new)?,
    })
}

pub(super) fn seats(fields: &Fields<'_>, key: &str) -> Result<u16, DecodeError> {
    let number: u16 = fields.number(key)?;
    if !(1..=MAX_SEATS).contains(&number) {
        return Err(DecodeError(format!("{key}={number} is not 1 to {MAX_SEATS}")));
    }
    Ok(number)
}

pub(super) fn span(fields: &Fields<'_>, key: &str) -> Result<Duration, DecodeError> {
    fields.number(key).map(Duration::from_micros)
}

pub(super) fn optional_span(
    fields: &Fields<'_>,
    key: &str,
) -> Result<Option<Duration>, DecodeError> {
    Ok(fields.optional_number(key)?.map(Duration::from_micros))
}

impl LineWriter {
    /// Those of the figures that are known.
    pub(super) fn figures<const N: usize>(
        self,
        names: [&str; N],
        values: [Option<u64>; N],
    ) -> Self {
        names.into_iter().zip(values).fold(self, |line, (name, value)| line.maybe(name, value))
    }
}

pub(super) fn figures<const N: usize>(
    fields: &Fields<'_>,
    names: [&str; N],
) -> Result<[Option<u64>; N], DecodeError> {
    let mut values = [None; N];
    for (name, value) in names.into_iter().zip(&mut values) {
        *value = fields.optional_number(name)?;
    }
    Ok(values)
}

pub(super) fn outcome(fields: &Fields<'_>) -> Result<Outcome, DecodeError> {
    let text = fields.need("outcome")?;
    text.parse().map_err(|_| DecodeError::value("an unknown outcome", text))
}

pub(super) fn comma_separated(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn addresses(fields: &Fields<'_>) -> Result<Vec<IpAddr>, DecodeError> {
    let text = fields.need("at")?;
    let wrong = |text: &str| DecodeError::value("PEERS with a wrong address", text);
    let all = text.splitn(ADDRESSES_MAX + 1, ',');
    let all: Vec<_> =
        all.map(|text| text.parse().map_err(|_| wrong(text))).collect::<Result<_, _>>()?;
    if all.len() > ADDRESSES_MAX {
        return Err(DecodeError(format!("PEERS with more than {ADDRESSES_MAX} addresses")));
    }
    Ok(all)
}

/// The first [`REASON_MAX`] bytes of a reason, whole characters only.
pub(super) fn clip(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_MAX)]
}
