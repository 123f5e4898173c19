//! The `svirt-exec` program: everything is in the library.
#![no_main]

svirt_exec::c_main!(svirt_exec::run);
