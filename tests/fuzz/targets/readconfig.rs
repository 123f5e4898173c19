//! Files of `-readconfig`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::syntax::readconfig(bytes));
