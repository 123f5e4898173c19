//! The old `key=value` syntax.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::syntax::opts(bytes));
