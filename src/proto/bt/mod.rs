//! BitTorrent v1 (BEP 3, 6, 7, 10, 20, 23, 27, 48) without sockets, files, threads or clocks.
//!
//! - [`bencode`]: the encoding of torrents and trackers
//! - [`metainfo`]: a `.torrent` of one file
//! - [`tracker`]: what peers ask a tracker, and what it answers
//! - [`wire`]: the messages between two peers
//! - [`bits`]: sets of pieces
//! - [`flow`]: how fast a connection's bytes come
//! - [`layout`]: how a file falls into pieces and blocks; [`random`]: choices that repeat
//! - [`table`]: the pieces of one copy, and which block is asked of whom next
//! - [`inject`]: which pieces a seeder shows to whom, so that it gives none away twice
//!
//! It is no general client: one file to a torrent, one tracker, no DHT, no choking by merit. Every
//! number that arrives is held to a limit before anything is stored for it:
//!
//! | limit | value |
//! |---|---|
//! | bencode | depth [`bencode::DEPTH_MAX`], items [`bencode::ITEMS_MAX`], strings inside the input |
//! | a `.torrent` | [`metainfo::METAINFO_MAX`] bytes, [`metainfo::PIECES_MAX`] pieces of 16 KiB to 16 MiB |
//! | a tracker's answer | [`tracker::ANSWER_MAX`] bytes, [`tracker::PEERS_MAX`] peers |
//! | a message | [`wire::Limits::longest`]: a bitfield, a block, or 64 KiB |
//! | a block | [`wire::BLOCK`] bytes asked for, [`wire::REQUEST_MAX`] served |
//! | requests that wait | [`wire::REQUESTS_MAX`] a connection |

pub mod bencode;
pub mod bits;
pub mod flow;
pub mod inject;
pub mod layout;
pub mod metainfo;
pub mod random;
pub mod table;
pub mod tracker;
pub mod wire;
