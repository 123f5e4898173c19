//! Headers of the formats that name no file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::image::nameless(bytes));
