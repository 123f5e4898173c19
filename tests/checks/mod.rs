//! What must hold for whatever bytes come: one function for each target of tests/fuzz, which runs
//! it under libFuzzer, while tests/fuzz_corpus.rs runs it over the corpus that was found so.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "each test takes a part of it, and stops at the first surprise"
)]

pub mod image;
pub mod line;
pub mod syntax;

/// Panics where something does not hold.
type Check = fn(&[u8]);

/// Every target by the name that its file in tests/fuzz/targets and its corpus have.
pub const TARGETS: &[(&str, Check)] = &[
    ("line", line::line),
    ("filename", line::filename),
    ("json", syntax::json),
    ("keyval", syntax::keyval),
    ("opts", syntax::opts),
    ("readconfig", syntax::readconfig),
    ("qcow", image::qcow),
    ("qcow2", image::qcow2),
    ("qed", image::qed),
    ("vmdk", image::vmdk),
    ("vhdx", image::vhdx),
    ("nameless", image::nameless),
    ("probe", image::probe),
];
