//! One option of the command line with its parsed value.
//!
//! Pure.

use crate::qemu::site::Site;
use crate::qemu::syntax::opts::Opts;
use crate::qemu::syntax::tree::{Leaf, Tree};
use crate::qemu::syntax::value::{self, ValueError};
use crate::qemu::syntax::{bytes, keyval};

/// The last value of a key among all words of an option whose words add up (`merge_lists`).
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

/// Whether no later word gives the same option: of those whose word is kept as it is, QEMU keeps
/// one.
pub fn is_last(options: &[ParsedOption], option: &ParsedOption) -> bool {
    options
        .iter()
        .rfind(|other| other.name == option.name)
        .is_some_and(|last| std::ptr::eq(last, option))
}

/// The name under which positional images are listed.
pub const IMAGE: &str = "image";

/// One option with its parsed value.
#[derive(Clone, Debug)]
pub struct ParsedOption {
    /// The option's name without dashes, or [`IMAGE`].
    pub name: &'static str,
    /// Where it stands.
    pub site: Site,
    /// The word as it is; empty in config files.
    pub value: Vec<u8>,
    /// The pairs of a QemuOpts value.
    pub opts: Opts,
    /// The same as a tree, or what keyval and JSON say.
    pub tree: Tree,
    /// `help` stood where it asks for help.
    pub help: bool,
    /// QemuOpts: `-set` can change it, and repeated keys are kept.
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

/// `netdev_is_modern` (net/net.c): the type decides the parser.
pub fn is_modern_netdev(value: &[u8]) -> bool {
    matches!(
        Opts::parse(value, Some("type")).get("type"),
        Some(b"stream" | b"dgram")
    )
}
