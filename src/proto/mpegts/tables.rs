//! The latest program association and program maps of a stream, as packets to send again.
//!
//! A player that joins in mid-stream cannot begin before it has both; it is given these at once
//! instead of at their next turn. They are the very packets of the source, counters included, so
//! that the next ones of the source follow them without a gap.

use super::{PACKET, TsPacket};

/// Tables seen so far.
#[derive(Debug, Default)]
pub struct ProgramTables {
    association: TableAssembler,
    maps: Vec<(u16, TableAssembler)>,
    /// Each with the PID of the map that names it.
    streams: Vec<(u16, ElementaryStream)>,
    video: Vec<u16>,
}

/// A stream of pictures, of sound or of other data, as a map names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementaryStream {
    /// Its packets' PID.
    pub pid: u16,
    /// Its stream type (2.4.4.10, table 2-34).
    pub kind: u8,
}

/// One table: the packets of its last whole section, and of the section that is coming in.
#[derive(Debug, Default)]
struct TableAssembler {
    whole: Vec<[u8; PACKET]>,
    coming: Vec<[u8; PACKET]>,
    section: Vec<u8>,
}

/// Most programs whose maps are kept: a satellite multiplex has about 30.
pub const PROGRAMS_MAX: usize = 64;

/// Longest section, bytes: 12 bits of length, of which these tables may use 1021 (2.4.4.3).
const SECTION_MAX: usize = 3 + 1021;

/// Most packets of one section: its bytes at 184 a packet take six, a pointer and small adaptation
/// fields a few more.
const SECTION_PACKETS_MAX: usize = 16;

/// Most streams that are known: pictures and three sounds of each program of a multiplex.
pub const STREAMS_MAX: usize = 4 * PROGRAMS_MAX;

/// The stream types of pictures (2.4.4.10, table 2-34, and those in use beside it): MPEG-1, 2 and 4,
/// H.264 and its layers, JPEG 2000, HEVC, VVC, AVS, Dirac, VC-1.
const VIDEO_TYPES: [u8; 12] =
    [0x01, 0x02, 0x10, 0x1B, 0x1F, 0x20, 0x21, 0x24, 0x33, 0x42, 0xD1, 0xEA];

const TABLE_ASSOCIATION: u8 = 0;
const TABLE_MAP: u8 = 2;

impl ProgramTables {
    /// Keeps the packet if it is part of a table.
    pub fn handle(&mut self, packet: TsPacket<'_>) {
        if packet.transport_error() || !packet.has_payload() {
            return;
        }
        let pid = packet.pid();
        if pid == 0 {
            if let Some(section) = self.association.handle(packet, TABLE_ASSOCIATION) {
                let pids = map_pids(section);
                self.maps.retain(|(pid, _)| pids.contains(pid));
                self.streams.retain(|(map, _)| pids.contains(map));
                for pid in pids {
                    if self.maps.iter().all(|&(known, _)| known != pid) {
                        self.maps.push((pid, TableAssembler::default()));
                    }
                }
            }
        } else if let Some((_, map)) = self.maps.iter_mut().find(|(known, _)| *known == pid)
            && let Some(section) = map.handle(packet, TABLE_MAP)
        {
            self.streams.retain(|&(map, _)| map != pid);
            self.streams.extend(streams(section).into_iter().map(|stream| (pid, stream)));
            self.streams.truncate(STREAMS_MAX);
            let video = self.streams.iter().filter(|(_, of)| VIDEO_TYPES.contains(&of.kind));
            self.video = video.map(|(_, stream)| stream.pid).collect();
        }
    }

    /// The PIDs that carry pictures, of all programs.
    pub fn video(&self) -> &[u16] {
        &self.video
    }

    /// The streams of all programs.
    pub fn streams(&self) -> impl Iterator<Item = ElementaryStream> {
        self.streams.iter().map(|&(_, stream)| stream)
    }

    /// The packets to send to a player that joins, the association first; none until one was seen
    /// whole.
    pub fn packets(&self) -> impl Iterator<Item = &[u8; PACKET]> {
        let maps = self.maps.iter().flat_map(|(_, map)| &map.whole);
        self.association.whole.iter().chain(maps)
    }

    /// Forgets everything: the stream that goes on may be another one.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl TableAssembler {
    /// The section that `packet` completes, if it does, is of `kind`, and is sound.
    fn handle(&mut self, packet: TsPacket<'_>, kind: u8) -> Option<&[u8]> {
        let payload = packet.payload();
        if packet.starts_unit() {
            self.coming.clear();
            self.section.clear();
            // A pointer to the section's first byte stands before it (2.4.4.1).
            let pointer = usize::from(*payload.first()?);
            self.section.extend_from_slice(payload.get(1 + pointer..)?);
        } else if self.coming.is_empty() {
            return None; // The middle of a section whose beginning was not seen.
        } else {
            self.section.extend_from_slice(payload);
        }
        self.coming.push(*packet.0);
        if self.coming.len() > SECTION_PACKETS_MAX {
            // Packets with next to no payload: this never becomes a section.
            self.coming.clear();
            return None;
        }
        let &[id, high, low] = self.section.first_chunk()?;
        let length = 3 + usize::from(u16::from_be_bytes([high, low]) & 0x0FFF);
        if self.section.len() < length && length <= SECTION_MAX {
            return None;
        }
        let coming = std::mem::take(&mut self.coming);
        let section = self.section.get(..length)?;
        // Over a section with its checksum at the end the remainder is 0.
        let sound = length <= SECTION_MAX && id == kind && crc(section) == 0;
        sound.then(|| self.whole = coming)?;
        Some(section)
    }
}

/// The PIDs of the program maps that an association names, at most [`PROGRAMS_MAX`].
fn map_pids(section: &[u8]) -> Vec<u16> {
    let programs = section.get(8..section.len().saturating_sub(4)).unwrap_or_default();
    let (programs, _) = programs.as_chunks::<4>();
    let pid = |&[number_high, number_low, high, low]: &[u8; 4]| {
        let pid = u16::from_be_bytes([high, low]) & 0x1FFF;
        // Program 0 is the network's own table.
        ((number_high, number_low) != (0, 0) && pid != 0).then_some(pid)
    };
    programs.iter().filter_map(pid).take(PROGRAMS_MAX).collect()
}

/// The streams that a program map names.
fn streams(section: &[u8]) -> Vec<ElementaryStream> {
    let length = |high: u8, low: u8| usize::from(u16::from_be_bytes([high, low]) & 0x0FFF);
    let mut streams = Vec::new();
    let mut rest = section.get(..section.len().saturating_sub(4)).unwrap_or_default();
    let program_info = rest.get(10..12).map_or(0, |info| length(info[0], info[1]));
    rest = rest.get(12 + program_info..).unwrap_or_default();
    while let Some(&[kind, high, low, info_high, info_low]) = rest.first_chunk() {
        streams.push(ElementaryStream { pid: u16::from_be_bytes([high, low]) & 0x1FFF, kind });
        rest = rest.get(5 + length(info_high, info_low)..).unwrap_or_default();
    }
    streams
}

/// The CRC of sections (2.4.4, annex A): polynomial 0x04C11DB7, from ones, nothing reflected.
pub(super) fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04C1_1DB7 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::{PID_NULL, sample};

    fn fed(packets: &[[u8; PACKET]]) -> ProgramTables {
        let mut tables = ProgramTables::default();
        for bytes in packets {
            tables.handle(TsPacket(bytes));
        }
        tables
    }

    #[test]
    fn latest_tables_are_kept_unchanged() {
        let last = [sample::pat(4, 0x1000), sample::pmt(8, 0x1000)];
        let mut packets = vec![sample::pmt(7, 0x1000), sample::pat(3, 0x1000)];
        packets.extend([sample::packet(0x100, 1, 0), last[1], last[0]]);
        let tables = fed(&packets);
        assert!(tables.packets().eq(&last));
        // The check value of this CRC in its usual catalogues.
        assert_eq!(crc(b"123456789"), 0x0376_E6E7);
    }

    #[test]
    fn maps_are_kept_of_associated_programs_only() {
        let mut tables = fed(&[sample::pat(0, 0x1000), sample::pmt(0, 0x1000)]);
        assert_eq!(tables.packets().count(), 2);
        tables.handle(TsPacket(&sample::pat(1, 0x1001)));
        assert_eq!(tables.packets().count(), 1, "the old program is gone");
        tables.handle(TsPacket(&sample::pmt(0, 0x1001)));
        assert_eq!(tables.packets().count(), 2);
        tables.clear();
        assert_eq!(tables.packets().count(), 0);
    }

    #[test]
    fn map_of_several_packets_is_kept_whole() {
        let mut section = vec![2, 0xB0 | 1, 0x2C, 0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 0];
        section.resize(3 + 0x12C - 4, 0x55);
        let sum = crc(&section);
        section.extend(sum.to_be_bytes());
        let mut first = sample::packet(0x1000, 0, 0xFF);
        first[1] |= 0x40;
        first[4] = 0;
        first[5..].copy_from_slice(&section[..183]);
        let mut second = sample::packet(0x1000, 1, 0xFF);
        second[4..4 + section.len() - 183].copy_from_slice(&section[183..]);
        let tables = fed(&[sample::pat(0, 0x1000), second, first, second]);
        assert!(tables.packets().eq(&[sample::pat(0, 0x1000), first, second]));
        // Without its second packet the first is nothing.
        assert_eq!(fed(&[sample::pat(0, 0x1000), first]).packets().count(), 1);
    }

    #[test]
    fn hostile_tables_are_not_kept() {
        let mut wrong_sum = sample::pat(0, 0x1000);
        wrong_sum[12] ^= 1;
        let mut other_table = [2, 0xB0, 13, 0, 1, 0xC1, 0, 0, 0, 1, 0xF0, 0].to_vec();
        let other_table = sample::section(0, 0, &std::mem::take(&mut other_table));
        let mut pointer = sample::pat(0, 0x1000);
        pointer[4] = 255;
        let mut long = sample::pat(0, 0x1000);
        long[6..8].copy_from_slice(&[0xBF, 0xFF]);
        for packet in [wrong_sum, other_table, pointer, long] {
            assert_eq!(fed(&[packet; 9]).packets().count(), 0);
        }
        // A section of 4095 bytes that goes on for ever is given up, not collected.
        let mut tables = fed(&[long]);
        for n in 0..10_000 {
            tables.handle(TsPacket(&sample::packet(0, n as u8, 0)));
        }
        assert!(tables.association.section.len() <= SECTION_MAX);
        // Nor are packets collected that bring nothing.
        let mut short = sample::pat(0, 0x1000);
        short[4..].fill(182);
        let mut empty = sample::packet(0, 0, 0);
        empty[3] |= 0x20;
        empty[4] = 183;
        let mut tables = fed(&[short]);
        for _ in 0..1_000 {
            tables.handle(TsPacket(&empty));
            assert!(tables.association.coming.len() <= SECTION_PACKETS_MAX);
        }
        let flood: Vec<_> = (0..200).map(|n| sample::packet(PID_NULL, n, n)).collect();
        assert_eq!(fed(&flood).packets().count(), 0);
    }

    #[test]
    fn pids_of_pictures_are_those_of_the_maps() {
        assert_eq!(fed(&[sample::pat(0, 0x1000), sample::pmt(0, 0x1000)]).video(), [0x100]);
        // Sound on 0x101 with a descriptor of two bytes, H.264 on 0x102, then what is cut.
        let mut section = vec![2, 0xB0, 0, 0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 1, 9];
        section.extend([0x0F, 0xE1, 1, 0xF0, 2, 1, 2, 0x1B, 0xE1, 2, 0xF0, 0, 0x1B, 0xE1]);
        section.extend([0; 4]);
        let named =
            [(0x101, 0x0F), (0x102, 0x1B)].map(|(pid, kind)| ElementaryStream { pid, kind });
        assert_eq!(streams(&section), named);
        for cut in 0..section.len() {
            assert!(named.starts_with(&streams(&section[..cut])));
        }
        assert_eq!(streams(&[0xFF; 1024]).len(), 0);
    }

    #[test]
    fn streams_are_those_of_the_newest_maps_up_to_a_limit() {
        let map = |streams: &[(u16, u8)]| {
            let mut body = vec![2, 0xB0, 0, 0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 0];
            for (pid, kind) in streams {
                body.push(*kind);
                body.extend((0xE000 | pid).to_be_bytes());
                body.extend([0xF0, 0]);
            }
            body[2] = u8::try_from(body.len() - 3 + 4).expect("short");
            body
        };
        let mut tables = fed(&[sample::pat(0, 0x1000)]);
        let feed = |tables: &mut ProgramTables, counter, streams: &[(u16, u8)]| {
            let packet = sample::section(0x1000, counter, &map(streams));
            tables.handle(TsPacket(&packet));
            tables.streams().map(|stream| (stream.pid, stream.kind)).collect::<Vec<_>>()
        };
        let first = [(0x100, 0x1B), (0x101, 0x0F)];
        assert_eq!(feed(&mut tables, 0, &first), first);
        // Another encoder: the old pictures are none any more.
        assert_eq!(feed(&mut tables, 1, &[(0x200, 0x24)]), [(0x200, 0x24)]);
        assert_eq!(tables.video(), [0x200]);
        tables.handle(TsPacket(&sample::pat(1, 0x1001)));
        assert_eq!(tables.streams().count(), 0, "the program is gone");
        let mut tables = ProgramTables {
            streams: vec![(1, ElementaryStream { pid: 1, kind: 2 }); STREAMS_MAX],
            maps: vec![(0x1000, TableAssembler::default())],
            ..ProgramTables::default()
        };
        assert_eq!(feed(&mut tables, 0, &first).len(), STREAMS_MAX);
    }

    #[test]
    fn programs_are_kept_up_to_the_limit() {
        let programs = |count: usize| {
            let mut section = vec![0, 0xB0, 0, 0, 1, 0xC1, 0, 0];
            for n in 0..u16::try_from(count).expect("few") {
                section.extend((n + 1).to_be_bytes());
                section.extend((0xE000 | (0x20 + n)).to_be_bytes());
            }
            section.extend([0; 4]);
            map_pids(&section).len()
        };
        assert_eq!(programs(PROGRAMS_MAX), PROGRAMS_MAX);
        assert_eq!(programs(250), PROGRAMS_MAX);
        assert_eq!(map_pids(&[0; 5]).len(), 0);
    }
}
