//! Images for the benchmarks.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Overlays on each other; the last one.
pub fn chain(directory: &Path, length: usize) -> PathBuf {
    let image = |number: usize| directory.join(format!("{length}-{number:03}.qcow2"));
    for number in 0..length {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]);
        if number > 0 {
            command
                .args(["-u", "-F", "qcow2", "-b"])
                .arg(image(number - 1));
        }
        let made = command.arg(image(number)).arg("1M").status();
        assert!(made.is_ok_and(|status| status.success()), "needs qemu-img");
    }
    image(length - 1)
}
