//! Headers of qcow images.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::image::qcow(bytes));
