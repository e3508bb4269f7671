//! What the fuzz targets hold, as plain functions over bytes. A target of `fuzz_targets/` calls one
//! of them; the tests here call each with its seeds and with changed seeds, on any compiler.
//!
//! A function panics when its property is broken, also when more memory was held than its input
//! can explain ([`heap::bounded`]).

pub mod chain;
pub mod group_sender;
pub mod heap;
pub mod http;
pub mod input;
pub mod logs;
pub mod manifest;
pub mod native;
pub mod relay;
pub mod swarm;
pub mod swarm_machines;
pub mod udp;
pub mod udp_machines;
pub mod values;

use std::{env, fs, path::Path};

/// One target: its name, what it holds, and inputs to begin with.
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident: $check:path, $seeds:path;)+) => {
        /// All targets. Each has a file of its name in `fuzz_targets/` and an entry in `Cargo.toml`.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), check: $check, seeds: $seeds }),+];
    };
}

targets! {
    native: native::native, native::seeds;
    chain: chain::chain, chain::seeds;
    udp_control: udp::control, udp::control_seeds;
    udp_packet: udp::packet, udp::packet_seeds;
    http_request: http::request, http::request_seeds;
    http_response: http::response, http::response_seeds;
    lab: native::lab, native::lab_seeds;
    bencode: swarm::bencode, swarm::bencode_seeds;
    metainfo: swarm::metainfo, swarm::metainfo_seeds;
    peer_wire: swarm::peer_wire, swarm::peer_wire_seeds;
    manifest: manifest::manifest, manifest::seeds;
    tracker: swarm::tracker, swarm::tracker_seeds;
    live_stream: relay::live_stream, relay::live_stream_seeds;
    relay_control: relay::control, relay::control_seeds;
    relay_log: logs::relay_log, logs::relay_log_seeds;
    session_log: logs::session_log, logs::session_log_seeds;
    documents: logs::documents, logs::document_seeds;
    values: values::values, values::seeds;
    udp_sender: udp_machines::sender, input::noise;
    udp_receiver: udp_machines::receiver, input::noise;
    rate_controller: udp_machines::rate_controller, input::noise;
    group_sender: group_sender::group_sender, input::noise;
    piece_picker: swarm_machines::piece_picker, input::noise;
    super_seeder: swarm_machines::super_seeder, input::noise;
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of TARGETS")
}

/// Checks `data` with the target `name`.
pub fn check(name: &str, data: &[u8]) {
    (target(name).check)(data);
}

/// Writes the seeds of the target `name` into the folder that the variable `GATECAST_SEEDS` names,
/// if it does.
pub fn write_seeds(name: &str) {
    let Some(folder) = env::var_os("GATECAST_SEEDS") else {
        return;
    };
    fs::create_dir_all(&folder).expect("a folder for the seeds");
    for (number, seed) in (target(name).seeds)().into_iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number}"));
        fs::write(path, seed).expect("a seed is written");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use gatecast::internals::proto::bt::random::Random;

    use super::*;

    #[test]
    fn every_seed_and_some_changes_of_it_keep_the_property() {
        let mut random = Random::new(13);
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seed", target.name);
            for seed in seeds {
                println!("{}: {} bytes", target.name, seed.len());
                (target.check)(&seed);
                for _ in 0..50 {
                    (target.check)(&changed(&seed, &mut random));
                }
            }
            (target.check)(&[]);
        }
    }

    fn changed(seed: &[u8], random: &mut Random) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len().max(1));
            match random.below(4) {
                _ if bytes.is_empty() => {}
                0 => bytes.truncate(at),
                1 => bytes[at] = random.next_u64() as u8,
                2 => bytes[at] = b'0' + random.below(10) as u8,
                _ => {
                    let part = bytes[at..].to_vec();
                    bytes.extend(part);
                }
            }
        }
        bytes
    }

    #[test]
    fn every_target_has_its_file_and_its_entry() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = fs::read_to_string(here.join("Cargo.toml")).expect("Cargo.toml");
        let files = fs::read_dir(here.join("fuzz_targets")).expect("fuzz_targets");
        let files: BTreeSet<String> = files
            .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
            .collect();
        let names: BTreeSet<String> =
            TARGETS.iter().map(|target| format!("{}.rs", target.name)).collect();
        assert_eq!(files, names);
        for Target { name, .. } in TARGETS {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            let text = fs::read_to_string(here.join(format!("fuzz_targets/{name}.rs")));
            assert!(text.expect("text").contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
