#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dnsblock_fuzz::list::list(data));
