//! Headers and tables of VHDX images.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::image::vhdx(bytes));
