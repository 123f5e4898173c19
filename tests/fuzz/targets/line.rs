//! Words of a QEMU command line, separated by NULs.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::line::line(bytes));
