//! The strict `a.b=value` syntax.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::syntax::keyval(bytes));
