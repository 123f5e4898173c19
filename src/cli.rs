//! What can be typed: the only place that declares options.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::model::label::{Categories, Context, Level};

/// Runs QEMU confined by SELinux, with MCS categories of its own
///
/// Put it in front of any QEMU command line. svirt-exec reads that line as QEMU would, draws a pair
/// of MCS categories that nobody on the host has, labels what the guest will use with it, and
/// becomes QEMU in the guest's domain. Labels go back when the guest has ended.
#[derive(Debug, Parser)]
#[command(
    name = "svirt-exec",
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    subcommand_precedence_over_arg = true,
    override_usage = "svirt-exec [OPTIONS] QEMU [QEMU-ARGS…]\n       svirt-exec plan [--json] [OPTIONS] QEMU [QEMU-ARGS…]\n       svirt-exec attach [--read-only|--shared] GUEST PATH…\n       svirt-exec detach GUEST PATH…\n       svirt-exec restore [--all [--trust-user USER]] [GUEST|PATH…]\n       svirt-exec list|verify|denials|doctor …",
    after_help = "Options may stand in the environment, too: SVIRT_EXEC_MCS_RANGE=c512.c1023, SVIRT_EXEC_STRICT=1 \
        (directories of SVIRT_EXEC_LABEL_TREE separated by colons). The command line wins.\n\nExample: svirt-exec qemu-system-x86_64 -accel kvm -m 2G -drive file=disk.qcow2,format=qcow2,if=virtio"
)]
pub struct Cli {
    /// Print the version
    #[arg(short = 'V', long)]
    pub version: bool,
    /// What to do instead of launching.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The launch.
    #[command(flatten)]
    pub launch: Launch,
}

impl Cli {
    /// Reads the words that this program was called with, its name first.
    ///
    /// If the second word is a QEMU, by its path or its name, every word from there on is QEMU's. Such
    /// a line is read without clap: declaring every option takes longer than reading it.
    ///
    /// # Errors
    /// clap's error if the words are not valid, or if they ask for help.
    pub fn read(words: Vec<OsString>) -> Result<Self, clap::Error> {
        let is_qemu = |word: &OsString| {
            let word = word.as_bytes();
            !word.starts_with(b"-") && (word.contains(&b'/') || word.starts_with(b"qemu-"))
        };
        if words.get(1).is_some_and(is_qemu) {
            let mut qemu = words;
            qemu.remove(0);
            return Ok(Self {
                version: false,
                command: None,
                launch: Launch::of(qemu),
            });
        }
        Self::try_parse_from(words)
    }
}

/// What can be done besides launching.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print what a launch would do, changing nothing
    ///
    /// Works without SELinux, without root, and without the files being there.
    Plan {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        /// The launch.
        #[command(flatten)]
        launch: Box<Launch>,
    },
    /// Label further files or devices for a guest that runs (hot-plug)
    ///
    /// What is added is the guest's alone, unless said otherwise, and its label goes back at the
    /// guest's end. QEMU is told by its own monitor (blockdev-add, device_add).
    Attach {
        /// The guest only reads it: every guest may
        #[arg(long, conflicts_with = "shared")]
        read_only: bool,
        /// Every guest may write it, as with share-rw=on
        #[arg(long)]
        shared: bool,
        /// The guest, and the files or devices.
        #[command(flatten)]
        attached: Attached,
    },
    /// Put back the labels of files or devices of a guest that runs (hot-unplug)
    ///
    /// Refused while a process of the guest has one of them open or mapped. A guest that was taken over can
    /// keep a file where nothing shows it: pages of it in a pipe, a descriptor on its way through a socket,
    /// a file registered with io_uring. Only QEMU's end makes sure that it has none.
    Detach(Attached),
    /// Put back the labels of guests that have ended without it
    ///
    /// Exits with 0 when nothing is left to put back, with 1 and a line for each label that is not.
    Restore {
        /// As root: what the guests of all users left, too
        #[arg(long)]
        all: bool,
        /// With --all: believe what guests of USER left about files of anybody
        ///
        /// Else only about files of that user. libvirt gives the files of a guest to that guest's user
        /// and, when it has ended, back to their owner: its own users, libvirt-qemu and qemu, are
        /// believed without this.
        #[arg(long, value_name = "USER", requires = "all")]
        trust_user: Vec<String>,
        /// Say nothing of a guest or file that nothing is left of
        #[arg(short, long)]
        quiet: bool,
        /// Only what this guest left (its name or process ID), or only this file
        #[arg(value_name = "GUEST|PATH")]
        wanted: Vec<OsString>,
    },
    /// List the confined guests of this host, whoever started them
    ///
    /// With the pair, the processes, the user, the name, and what was labelled for them. Root sees
    /// what was labelled for everybody's guests, others for their own.
    List {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Prove that each guest is confined, with categories of its own
    ///
    /// Looks at the labels of its processes, of everything that they have open and of what was
    /// labelled for it, and asks the policy for every two guests what one may do to the other's.
    /// Exit status 0 when everything holds, 1 when something does not.
    Verify {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        /// Guests by name or process ID (default: all)
        #[arg(value_name = "GUEST")]
        guests: Vec<String>,
    },
    /// Say what SELinux refused guests, why, and what to do
    Denials {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        /// Only of this long ago and later, e.g. 10m, 2h, 3d
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        since: Option<u64>,
        /// Read this log, or - for standard input, e.g. from ausearch -m avc --raw
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
        /// A guest by name or process ID (default: all)
        #[arg(value_name = "GUEST")]
        guest: Option<String>,
    },
    /// Check whether this host can confine QEMU, and say what to do if not
    ///
    /// Exit status 0 when everything is well, 1 when something fails.
    Doctor {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        /// The QEMU to check (default: this machine's)
        #[arg(value_name = "QEMU")]
        qemu: Option<OsString>,
    },
}

/// Parses a length of time into seconds: a number, or one with s, m, h or d.
fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is no length of time (90s, 10m, 2h, 3d)");
    let (number, unit) = match text.strip_suffix(|c: char| c.is_ascii_alphabetic()) {
        Some(number) => (number, text.get(number.len()..).unwrap_or_default()),
        None => (text, "s"),
    };
    let factor: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(factor).ok_or_else(bad)
}

/// A guest that runs, and files or devices of it.
#[derive(Args, Clone, Debug)]
pub struct Attached {
    /// Say what was done as JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// GUEST is the process ID of any guest, also of one that svirt-exec did not start
    #[arg(long)]
    pub pid: bool,
    /// Its name or process ID
    #[arg(value_name = "GUEST")]
    pub guest: OsString,
    /// Files or devices
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// A launch.
#[derive(Args, Clone, Debug, Default)]
pub struct Launch {
    /// Read the rest of this line from FILE: options, QEMU and its arguments, quoted as in a shell
    ///
    /// Blanks and line ends separate words, # begins a comment. Options given here win over those in
    /// the file; further words are added to QEMU's arguments.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Call the guest NAME in messages (default: what -name says)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Draw the pair from these categories only, e.g. c512.c1023
    ///
    /// Hosts that share storage, or tools on one host that do not look at each other's guests,
    /// can split the categories between them. At least 8.
    #[arg(long, value_name = "RANGE")]
    pub mcs_range: Option<Categories>,
    /// Use this level instead of drawing one, e.g. s0:c1,c2
    #[arg(
        long,
        value_name = "LEVEL",
        group = "chosen",
        conflicts_with = "mcs_range"
    )]
    pub level: Option<Level>,
    /// Run the guest as exactly this, e.g. system_u:system_r:svirt_t:s0:c1,c2
    ///
    /// User, role, type and level, as libvirt's static labels. What the guest uses is labelled with
    /// the level, and with the type that suits the domain.
    #[arg(
        long,
        value_name = "LABEL",
        group = "chosen",
        conflicts_with = "mcs_range"
    )]
    pub label: Option<Context>,
    /// Run at the chosen level although a process has overlapping MCS categories
    ///
    /// Such guests may use each other's files. Their labels go back when the last of them has ended.
    #[arg(long, requires = "chosen")]
    pub share_level: bool,
    /// Label nothing: the guest gets a pair, and files keep the labels they have
    #[arg(long)]
    pub no_relabel: bool,
    /// Leave the labels as they are when the guest has ended
    ///
    /// No keeper waits for the guest. The labels stay until restorecon -F or chcon sets others.
    #[arg(long)]
    pub no_restore: bool,
    /// Hand a directory over to the guest, with all that is in it
    ///
    /// For a directory that QEMU passes on (9p, fat:, hugepages). Symbolic links are not followed,
    /// other file systems not entered. May be given several times.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub label_tree: Vec<PathBuf>,
    /// Accept what the header of DISK names now, and remember it
    ///
    /// The header of a disk is its guest's to write. One that names a backing file which it did not name
    /// when a guest had the disk last is refused, and so is a data file that nothing but a header names.
    /// May be given several times.
    #[arg(long, value_name = "DISK", value_hint = ValueHint::FilePath)]
    pub accept_chain: Vec<PathBuf>,
    /// Let no other guest read what only this one reads
    ///
    /// Read-only disks, kernels and the like that are the caller's own files and no guest can read
    /// yet get the guest's pair. Another guest of the same user, or of root, that names one of them
    /// has it shared from then on.
    #[arg(long)]
    pub private_content: bool,
    /// Make a directory of the guest's own: /run/svirt-exec/NAME
    ///
    /// For its sockets, pid files and logs, which no other guest can use there. Below
    /// /run/svirt-exec/users/UID for users other than root, or below /run/svirt-exec/users/LOGNAME if
    /// root has made that for the user (tmpfiles.d(5)). NAME is that of --name, or what -name says.
    /// It is removed with everything in it when the guest has ended.
    #[arg(long, conflicts_with = "no_restore")]
    pub runtime_dir: bool,
    /// What to do when the policy will refuse QEMU something (default: refuse)
    #[arg(long, value_name = "WHAT", value_enum)]
    pub preflight: Option<Preflight>,
    /// Refuse options and keys of QEMU that svirt-exec does not know
    ///
    /// Nothing is labelled for them. Without this they are warnings, unless a word is in doubt that
    /// looks like a file.
    #[arg(long)]
    pub strict: bool,
    /// Run QEMU unconfined if the host has no SELinux
    ///
    /// For CI runners without SELinux. Says so loudly; never applies where SELinux is on.
    #[arg(long)]
    pub allow_unconfined: bool,
    /// Tell every step
    #[arg(short, long)]
    pub verbose: bool,
    /// QEMU and its arguments
    #[arg(
        value_name = "QEMU",
        trailing_var_arg = true,
        num_args = 1..,
        value_hint = ValueHint::CommandWithArguments
    )]
    pub qemu: Vec<OsString>,
}

impl Launch {
    /// Returns a launch of this command line without options of svirt-exec.
    pub fn of(qemu: Vec<OsString>) -> Self {
        Self {
            qemu,
            ..Self::default()
        }
    }
}

/// What to do when the policy will refuse QEMU something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Preflight {
    /// Say it and do not launch
    #[default]
    Refuse,
    /// Say it and launch
    Warn,
    /// Do not ask
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Returns what a call means, or the error, as text.
    fn meaning(read: Result<Cli, clap::Error>) -> String {
        read.map_or_else(|error| error.to_string(), |cli| format!("{cli:?}"))
    }

    #[test]
    fn a_line_that_begins_with_a_qemu_is_read_as_clap_reads_it() {
        for line in [
            "/usr/bin/qemu-system-x86_64",
            "/usr/bin/qemu-system-x86_64 -version",
            "qemu-system-x86_64 -m 1G -- --help -V plan",
            "./x --json --strict -h",
            "plan/x -v",
            "qemu-",
            // And what is left to clap.
            "-v /usr/bin/qemu-system-x86_64 -v",
            "--name=a/b qemu-system-x86_64",
            "-- plan",
            "plan --json /usr/bin/qemu-system-x86_64 -m 1G",
            "restore /srv/disk",
            "kvm -m 1G",
            "--no-such/option qemu-system-x86_64",
            "",
        ] {
            let words: Vec<OsString> = std::iter::once("svirt-exec")
                .chain(line.split_whitespace())
                .map(OsString::from)
                .collect();
            let clap = meaning(Cli::try_parse_from(&words));
            assert_eq!(meaning(Cli::read(words)), clap, "{line}");
        }
    }

    #[test]
    fn no_command_is_called_like_a_qemu() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(!name.contains('/') && !name.starts_with("qemu-"), "{name}");
        }
    }
}
