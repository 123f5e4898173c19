//! Names that somebody changes while a launch or a restore looks at them: symbolic links and
//! directories swapped, hard links and mounts put in the place of files. A label goes to what was
//! checked, or nowhere.
//!
//! The victims are files that a launch refuses, one by its type (`/etc/shadow`), one that the policy
//! would let it label and that only its own check protects: it has a second hard link.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::lib::*;

/// What stands where a launch names `DIRECTORY/disk.img`, and what is swapped for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attack {
    /// A symbolic link to the victim in the place of the file.
    Link,
    /// A hard link of the victim in the place of the file.
    HardLink,
    /// A directory with such a file in the place of the file's directory.
    Directory,
    /// The victim mounted over the file.
    Mount,
}

const ATTACKS: [Attack; 4] = [
    Attack::Link,
    Attack::HardLink,
    Attack::Directory,
    Attack::Mount,
];

pub struct Arena {
    pub top: tempfile::TempDir,
    attack: Attack,
    shadow: bool,
    /// The real file, however it is called at the moment.
    disk: fs::File,
    /// Its label before.
    pub disk_label: String,
    victim: PathBuf,
    victim_label: String,
}

impl Arena {
    pub fn new(attack: Attack, shadow: bool) -> Self {
        let top = directory();
        let at = |name: &str| top.path().join(name);
        for name in ["a", "b", "victims"] {
            fs::create_dir(at(name)).unwrap();
        }
        let disk = image(&at("a"), "disk.img");
        let victim = if shadow {
            PathBuf::from("/etc/shadow")
        } else {
            let victim = image(&at("victims"), "victim.img");
            fs::hard_link(&victim, at("victims/second.img")).unwrap();
            victim
        };
        match attack {
            Attack::Link => symlink(&victim, at("a/other")).unwrap(),
            Attack::HardLink => fs::hard_link(&victim, at("a/other")).unwrap(),
            Attack::Directory => symlink(&victim, at("b/disk.img")).unwrap(),
            Attack::Mount => {}
        }
        Self {
            attack,
            shadow,
            disk_label: label(&disk),
            disk: fs::File::open(&disk).unwrap(),
            victim_label: label(&victim),
            victim,
            top,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.top.path().join("a/disk.img")
    }

    /// Once to the attack's names, once back.
    pub fn swap(&self, back: bool) {
        let at = |name: &str| self.top.path().join(name);
        let exchange = |one: PathBuf, other: PathBuf| {
            renameat2(
                AT_FDCWD,
                &one,
                AT_FDCWD,
                &other,
                RenameFlags::RENAME_EXCHANGE,
            )
            .unwrap();
        };
        match self.attack {
            Attack::Link | Attack::HardLink => exchange(at("a/disk.img"), at("a/other")),
            Attack::Directory => exchange(at("a"), at("b")),
            Attack::Mount if back => unmount(&self.path()),
            Attack::Mount => mount_over(&self.victim, &self.path()),
        }
    }

    /// Whether the victim is as it was. Its label is read on every call.
    pub fn unharmed(&self) {
        let now = svirt_exec::selinux::label_of_path(&self.victim).unwrap();
        let now = now.unwrap().to_string();
        assert_eq!(now, self.victim_label, "{:?}", self.attack);
    }

    pub fn disk_label(&self) -> String {
        use std::os::fd::AsFd;
        let label = svirt_exec::selinux::label_of_fd(self.disk.as_fd()).unwrap();
        label.unwrap().to_string()
    }

    /// The command that is raced against.
    pub fn words(&self) -> Vec<String> {
        vec![
            STUB.to_owned(),
            "-drive".to_owned(),
            format!("file={},format=raw", self.path().display()),
        ]
    }

    pub fn nothing_is_left(&self) {
        let left = entries_naming(self.top.path());
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(self.disk_label(), self.disk_label, "{:?}", self.attack);
        self.unharmed();
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.attack == Attack::Mount {
            unmount(&self.path());
        }
        if self.shadow && self.attack == Attack::HardLink {
            for name in ["a/other", "a/disk.img"] {
                let _ = fs::remove_file(self.top.path().join(name));
            }
        }
    }
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn mount_over(what: &Path, path: &Path) {
    let (what, path) = (text(what), text(path));
    // SAFETY: both strings end with NUL and live through the call; the others may be null.
    let done = unsafe {
        libc::mount(
            what.as_ptr(),
            path.as_ptr(),
            std::ptr::null(),
            libc::MS_BIND,
            std::ptr::null(),
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn unmount(path: &Path) {
    let path = text(path);
    // SAFETY: the string ends with NUL and lives through the call.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

/// What a storm of swaps came to.
#[derive(Debug, Default)]
struct Tally {
    launches: usize,
    refused: usize,
    ran: usize,
    swaps: usize,
}

/// Swaps without a pause while launches run one after the other.
fn storm(attack: Attack, shadow: bool, launches: usize) -> Tally {
    let arena = Arena::new(attack, shadow);
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let racer = scope.spawn(|| {
            let mut back = false;
            while !stop.load(Ordering::Relaxed) || back {
                arena.swap(back);
                back = !back;
                // Reading a label each time would slow the racer down to half.
                if swaps.fetch_add(1, Ordering::Relaxed) % 8 == 0 {
                    arena.unharmed();
                }
            }
        });
        for _ in 0..launches {
            let output = svirt_exec(arena.words()).env("STUB", "exit 0").output();
            let output = output.unwrap();
            arena.unharmed();
            tally.launches += 1;
            match output.status.code() {
                Some(0) => tally.ran += 1,
                Some(125) => tally.refused += 1,
                _ => panic!("{output:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        racer.join().unwrap();
    });
    tally.swaps = swaps.into_inner();
    keepers_done();
    wait_until("the label of the disk is back", || {
        arena.disk_label() == arena.disk_label
    });
    arena.nothing_is_left();
    tally
}

fn storms(launches: usize) {
    for attack in ATTACKS {
        let tally = storm(attack, false, launches);
        println!("{attack:?}: {tally:?}");
        assert!(tally.swaps > launches, "{tally:?}");
        assert!(tally.refused > 0, "{attack:?} was never met: {tally:?}");
    }
    println!(
        "Link to /etc/shadow: {:?}",
        storm(Attack::Link, true, launches)
    );
    println!(
        "Hard link to /etc/shadow: {:?}",
        storm(Attack::HardLink, true, launches)
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn names_that_are_swapped_all_the_time_harm_nobody() {
    storms(12);
}

#[test]
#[ignore = "needs the bed, and half an hour there: filter 'exhaustive'"]
fn exhaustive_ten_thousand_races_harm_nobody() {
    storms(1700);
}
