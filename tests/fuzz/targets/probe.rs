//! Bytes of which nobody says what they are.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::image::probe(bytes));
