#![no_main]

const NAME: &str = "chain";

libfuzzer_sys::fuzz_target!(
    init: gatecast_fuzz::write_seeds(NAME),
    |data: &[u8]| gatecast_fuzz::check(NAME, data)
);
