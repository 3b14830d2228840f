#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| loyalty_codes_fuzz::answer(loyalty_codes_fuzz::input::event(
    input
)));
