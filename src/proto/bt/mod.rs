//! BitTorrent v1 (BEP 3, 6, 7, 10, 20, 23, 27, 48) without sockets, files, threads or clocks.
//!
//! - [`bencode`]: the encoding of torrents and trackers
//! - [`metainfo`]: a `.torrent` of one file
//! - [`tracker`]: what peers ask a tracker, and what it answers
//! - [`wire`]: the messages between two peers
//! - [`bitfield`]: sets of pieces
//! - [`layout`]: how a file is divided into pieces and blocks; [`random`]: choices that repeat
//! - [`piece_picker`]: the pieces of one copy, and which block is requested of whom next
//! - [`super_seeder`]: which pieces a seeder reveals to whom, so that it sends none twice
//! - [`receive_rate`]: how fast the bytes of a connection come
//!
//! This is not a general client: a torrent has one file and one tracker, and there is no DHT and
//! no choking by merit. Every number that arrives is checked against a limit before anything is
//! stored for it:
//!
//! | limit | value |
//! |---|---|
//! | bencode | depth [`bencode::DEPTH_MAX`], items [`bencode::ITEMS_MAX`], strings inside the input |
//! | a `.torrent` | [`metainfo::METAINFO_MAX`] bytes, [`metainfo::PIECES_MAX`] pieces of 16 KiB to 16 MiB |
//! | a tracker's response | [`tracker::response::RESPONSE_MAX`] bytes, [`tracker::response::PEERS_MAX`] peers |
//! | a message | [`wire::MessageLimits::max_len`]: a bitfield, a block, or 64 KiB |
//! | a block | [`wire::BLOCK_LEN`] bytes requested, [`wire::REQUEST_MAX`] served |
//! | requests that wait | [`wire::REQUESTS_MAX`] a connection |

pub mod bencode;
pub mod bitfield;
pub mod layout;
pub mod metainfo;
pub mod piece_picker;
pub mod random;
pub mod receive_rate;
pub mod super_seeder;
pub mod tracker;
pub mod wire;
