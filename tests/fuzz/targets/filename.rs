//! Names with a protocol in front, as headers of images may have them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::line::filename(bytes));
