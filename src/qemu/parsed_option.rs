//! One option of the command line, with its parsed value.
//!
//! Pure.

use crate::qemu::site::Site;
use crate::qemu::syntax::opts::Opts;
use crate::qemu::syntax::tree::{Leaf, Tree};
use crate::qemu::syntax::value::{self, ValueError};
use crate::qemu::syntax::{bytes, keyval};

/// Returns the last value of a key among all options of that name, for options whose repetitions
/// QEMU merges (`merge_lists`).
pub fn merged<'a>(
    options: &'a [ParsedOption],
    name: &str,
    key: &str,
) -> Option<(&'a ParsedOption, Leaf<'a>)> {
    options
        .iter()
        .filter(|option| option.name == name)
        .filter_map(|option| Some((option, option.tree.leaf(key)?)))
        .next_back()
}

/// Returns whether the option is not repeated later; of options whose value is kept verbatim QEMU
/// keeps the last.
pub fn is_last(options: &[ParsedOption], option: &ParsedOption) -> bool {
    options
        .iter()
        .rfind(|other| other.name == option.name)
        .is_some_and(|last| std::ptr::eq(last, option))
}

/// The option name of a positional image.
pub const IMAGE: &str = "image";

/// One option with its parsed value.
#[derive(Clone, Debug)]
pub struct ParsedOption {
    /// The option's name without dashes, or [`IMAGE`].
    pub name: &'static str,
    /// The place in the line.
    pub site: Site,
    /// The value as written; empty in config files.
    pub value: Vec<u8>,
    /// The pairs of a QemuOpts value; empty for other syntaxes.
    pub opts: Opts,
    /// The parsed value in any syntax.
    pub tree: Tree,
    /// True if the value asks for help.
    pub help: bool,
    /// True for QemuOpts, which `-set` can change and which keep repeated keys.
    pub is_opts: bool,
}

impl ParsedOption {
    /// Returns an option whose value is not parsed yet.
    pub fn new(name: &'static str, site: Site, value: Vec<u8>) -> Self {
        Self {
            name,
            site,
            value,
            opts: Opts::default(),
            tree: Tree::default(),
            help: false,
            is_opts: false,
        }
    }

    /// Returns the text of a key.
    pub fn text(&self, key: &str) -> Option<&[u8]> {
        self.tree.text(key)
    }

    /// Reads a QemuOpts value.
    ///
    /// # Errors
    /// [`ValueError::TooDeep`].
    pub fn read_opts(&mut self, value: &[u8], implied: Option<&str>) -> Result<(), ValueError> {
        let opts = Opts::parse(value, implied);
        self.is_opts = true;
        self.help =
            opts.help || implied.is_some_and(|key| opts.get(key).is_some_and(bytes::is_help));
        self.take_opts(opts)
    }

    /// Takes parsed QemuOpts.
    ///
    /// # Errors
    /// [`ValueError::TooDeep`].
    pub fn take_opts(&mut self, opts: Opts) -> Result<(), ValueError> {
        self.tree = Tree::from_opts(&opts)?;
        self.opts = opts;
        Ok(())
    }

    /// Reads a keyval value.
    ///
    /// # Errors
    /// [`ValueError::Keyval`].
    pub fn read_keyval(&mut self, value: &[u8], implied: Option<&str>) -> Result<(), ValueError> {
        let keyval = keyval::parse(value, implied)?;
        self.tree = keyval.tree;
        self.help = keyval.help;
        Ok(())
    }

    /// Reads a JSON value.
    ///
    /// # Errors
    /// [`ValueError::Json`] and [`ValueError::TooDeep`].
    pub fn read_json(&mut self, value: &[u8]) -> Result<(), ValueError> {
        self.tree = value::parse_json(value)?;
        Ok(())
    }
}

/// Returns whether the value of `-netdev` is keyval, as its type decides (`netdev_is_modern`,
/// net/net.c).
pub fn is_modern_netdev(value: &[u8]) -> bool {
    matches!(
        Opts::parse(value, Some("type")).get("type"),
        Some(b"stream" | b"dgram")
    )
}
