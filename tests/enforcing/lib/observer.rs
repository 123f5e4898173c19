//! A witness of which processes have which MCS categories: a thread that does nothing but read
//! `attr/exec` and `attr/current` of the processes in /proc. It knows no journal, and of the program's
//! own code it uses none: categories are read and compared here a second time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::run;

/// Pause between two looks at /proc. It is longer if a look takes longer, so that the others get to run.
const PAUSE: Duration = Duration::from_millis(2);

/// Time until what was announced must have been seen; under emulation a look takes long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Type of a keeper, which claims the context of the guest that it waits for.
const KEEPER: &str = "svirt_launcher_keeper_t";

type Categories = BTreeSet<u16>;

/// Returns the categories of a context's low level.
fn categories(context: &str) -> Categories {
    let range = context.splitn(4, ':').nth(3).unwrap_or_default();
    let low = range.split('-').next().unwrap();
    let Some((_, text)) = low.split_once(':') else {
        return Categories::new();
    };
    let number = |text: &str| -> u16 { text.strip_prefix('c').unwrap().parse().unwrap() };
    text.split(',')
        .flat_map(|part| match part.split_once('.') {
            Some((from, to)) => number(from)..=number(to),
            None => number(part)..=number(part),
        })
        .collect()
}

fn overlap(a: &Categories, b: &Categories) -> bool {
    !a.is_empty() && !b.is_empty() && (a.is_subset(b) || b.is_subset(a))
}

/// A process that is looked at again and again: its attributes stay open, and answer for that
/// process only.
struct Watched {
    pid: u32,
    pending: fs::File,
    current: fs::File,
}

impl Watched {
    fn open(pid: u32) -> Option<Self> {
        let open = |name: &str| fs::File::open(format!("/proc/{pid}/attr/{name}")).ok();
        Some(Self {
            pid,
            pending: open("exec")?,
            current: open("current")?,
        })
    }

    /// Reads both attributes. Returns None if the process has no categories.
    ///
    /// # Errors
    /// The process is gone. A zombie keeps its label.
    fn look(&self) -> io::Result<Option<Sighting>> {
        let read = |file: &fs::File| -> io::Result<String> {
            let mut text = [0; 512];
            let count = file.read_at(&mut text, 0)?;
            let text = std::str::from_utf8(&text[..count]).unwrap();
            Ok(text.trim_end_matches(['\0', '\n']).to_owned())
        };
        // The kernel clears `exec` when it changes `current`.
        let pending = read(&self.pending)?;
        let current = read(&self.current)?;
        let (role, context) = match current.contains(KEEPER) {
            true => (Role::Keeper, pending),
            false => (Role::Guest, current),
        };
        let pid = self.pid;
        Ok((!categories(&context).is_empty()).then_some(Sighting { pid, role, context }))
    }
}

/// What a process with categories is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    /// It runs with them.
    Guest,
    /// It is a keeper that claims them.
    Keeper,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    pid: u32,
    role: Role,
    /// The context that has the categories.
    context: String,
}

impl Sighting {
    /// Whether it is so still, and the process not a zombie, which keeps its label.
    fn holds(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
        !matches!(state.flatten(), None | Some('Z' | 'X'))
            && Watched::open(self.pid)
                .and_then(|process| process.look().ok()?)
                .as_ref()
                == Some(self)
    }

    /// Whether two that were seen in one look may not be at one time.
    fn contradicts(&self, other: &Self) -> bool {
        // A guest and a keeper with the same categories belong together: two keepers would not.
        let belong =
            self.role != other.role && categories(&self.context) == categories(&other.context);
        !belong && overlap(&categories(&self.context), &categories(&other.context))
    }
}

#[derive(Default)]
struct Seen {
    /// Every process that was seen with categories.
    guests: HashSet<u32>,
    /// Highest number of them in one look.
    most: usize,
    /// Pairs with overlapping categories at one time.
    overlaps: BTreeSet<String>,
    looks: u32,
    longest: Duration,
}

struct Shared {
    seen: Mutex<Seen>,
    looked: Condvar,
    stop: AtomicBool,
}

/// The witness.
pub struct Observer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    since: Instant,
}

/// What it saw.
pub struct Report {
    pub guests: usize,
    pub most: usize,
    pub overlaps: Vec<String>,
    pub text: String,
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The number that the kernel gave to the newest process or thread: the last field of
/// /proc/loadavg, proc(5). Asking for those that are new costs less than listing all.
fn newest() -> u32 {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    text.split_whitespace().last().unwrap().parse().unwrap()
}

/// Whether this number is that of a process, not of one of its further threads. None if it is
/// neither.
fn is_process(pid: u32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let own = ["Tgid:", &pid.to_string()];
    Some(status.lines().any(|line| line.split_whitespace().eq(own)))
}

/// Looks for a number that was given before it is that of a process that can be seen.
const TRIES: u32 = 100;

/// The processes that are not bystanders.
struct Watch {
    newest: u32,
    /// Numbers of no process yet, or of none any more, with the looks for it that are left.
    unborn: Vec<(u32, u32)>,
    processes: Vec<Watched>,
}

impl Watch {
    /// Kernel threads and services that have no categories now have none later.
    fn start() -> Self {
        let newest = newest();
        let has_some = |process: &Watched| process.look().is_ok_and(|seen| seen.is_some());
        Self {
            newest,
            unborn: Vec::new(),
            processes: processes()
                .filter_map(Watched::open)
                .filter(has_some)
                .collect(),
        }
    }

    fn look(&mut self) -> Vec<Sighting> {
        let newest = newest();
        assert!(newest >= self.newest, "process numbers have started again");
        self.unborn
            .extend((self.newest + 1..=newest).map(|pid| (pid, TRIES)));
        self.newest = newest;
        let processes = &mut self.processes;
        self.unborn.retain_mut(|(pid, tries)| {
            let found = is_process(*pid);
            if found == Some(true) {
                processes.extend(Watched::open(*pid));
            }
            *tries -= 1;
            found.is_none() && *tries > 0
        });
        let mut seen = Vec::new();
        processes.retain(|process| match process.look() {
            Ok(sighting) => {
                seen.extend(sighting);
                true
            }
            Err(_) => false,
        });
        seen
    }
}

impl Observer {
    pub fn start() -> Self {
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            looked: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut watch = Watch::start();
        let witness = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            // Ahead of everybody whom it watches, however many they are.
            let thread = nix::unistd::gettid().to_string();
            run(&["chrt", "--fifo", "--pid", "1", &thread]);
            while !witness.stop.load(Ordering::Relaxed) {
                let took = look(&witness, &mut watch);
                std::thread::sleep(PAUSE.max(took));
            }
        });
        Self {
            shared,
            thread,
            since: Instant::now(),
        }
    }

    /// Waits until it has seen all of these with categories.
    pub fn has_seen(&self, pids: &[u32]) {
        let missing = |seen: &Seen| -> Vec<u32> {
            let pids = pids.iter().copied();
            pids.filter(|pid| !seen.guests.contains(pid)).collect()
        };
        let seen = self.shared.seen.lock().unwrap();
        let (seen, _) = self
            .shared
            .looked
            .wait_timeout_while(seen, PATIENCE, |seen| !missing(seen).is_empty())
            .unwrap();
        let missing = missing(&seen);
        assert!(
            missing.is_empty(),
            "never seen with categories: {missing:?}"
        );
    }

    /// Returns the highest number of processes with categories in one look.
    pub fn most(&self) -> usize {
        self.shared.seen.lock().unwrap().most
    }

    pub fn end(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let seen = self.shared.seen.lock().unwrap();
        let time = self.since.elapsed();
        Report {
            guests: seen.guests.len(),
            most: seen.most,
            overlaps: seen.overlaps.iter().cloned().collect(),
            text: format!(
                "{} guests, {} at most at one time, {} overlaps; {} looks at /proc in {:.1} s, one \
                 in {:.1} ms, the longest {:.1} ms",
                seen.guests.len(),
                seen.most,
                seen.overlaps.len(),
                seen.looks,
                time.as_secs_f64(),
                time.as_secs_f64() * 1e3 / f64::from(seen.looks.max(1)),
                seen.longest.as_secs_f64() * 1e3,
            ),
        }
    }
}

fn look(shared: &Shared, watch: &mut Watch) -> Duration {
    let began = Instant::now();
    let all = watch.look();
    let took = began.elapsed();
    let mut overlaps = Vec::new();
    // Equal categories first, by way of a table: most of what may be wrong.
    let mut known: BTreeMap<Categories, Vec<&Sighting>> = BTreeMap::new();
    for one in &all {
        known.entry(categories(&one.context)).or_default().push(one);
    }
    let sets: Vec<(&Categories, &Vec<&Sighting>)> = known.iter().collect();
    for (index, (a_set, a_all)) in sets.iter().enumerate() {
        for (b_set, b_all) in &sets[index..] {
            if !overlap(a_set, b_set) {
                continue;
            }
            for a in *a_all {
                for b in *b_all {
                    // One after the other was looked at: proven is what holds of the one before
                    // and after it holds of the other.
                    if a.pid != b.pid && a.contradicts(b) && a.holds() && b.holds() && a.holds() {
                        overlaps.push(format!("{a:?} and {b:?}"));
                    }
                }
            }
        }
    }
    let guests = all.iter().filter(|one| one.role == Role::Guest);
    let mut seen = shared.seen.lock().unwrap();
    seen.most = seen.most.max(guests.clone().count());
    seen.guests.extend(guests.map(|one| one.pid));
    seen.overlaps.extend(overlaps);
    seen.looks += 1;
    seen.longest = seen.longest.max(took);
    shared.looked.notify_all();
    took
}
