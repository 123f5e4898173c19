//! Headers and descriptors of VMDK images.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::image::vmdk(bytes));
