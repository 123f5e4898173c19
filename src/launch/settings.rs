//! Options that do not stand on the command line: in the environment (`SVIRT_EXEC_MCS_RANGE` for
//! `--mcs-range`), and in the file of `--config`, which holds QEMU and its arguments, too.
//!
//! The command line wins over the environment, and that over the file.

use std::ffi::{CString, OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::builder::{BoolishValueParser, TypedValueParser};
use clap::{Arg, ArgAction, Args, Parser};

use crate::cli::Launch;
use crate::host::Files;
use crate::launch::config_text::read_text;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse, say};

/// What the names of variables begin with.
const PREFIX: &str = "SVIRT_EXEC_";

/// Variables that stand for no option: the QEMU behind a link of that name, and a longer way to say
/// `--allow-unconfined`.
pub const FURTHER: [&str; 2] = ["SVIRT_EXEC_QEMU", "SVIRT_EXEC_UNCONFINED"];

/// Bytes of the largest file that is read.
const LARGEST: u64 = 1 << 20;

/// Returns a launch with everything that the environment and the file of `--config` add to it.
///
/// # Errors
/// A file that cannot be read, and values that the options do not take.
pub fn complete(
    launch: &Launch,
    host: &dyn Files,
    environment: &[CString],
) -> Result<Launch, Refusal> {
    let mut whole = over(launch.clone(), from_environment(environment)?);
    if let Some(path) = launch.config.as_deref() {
        whole = over(whole, from_file(host, path)?);
    }
    if whole.runtime_dir && whole.no_restore {
        return Err(refuse(
            "--runtime-dir cannot be used with --no-restore: nobody would remove the directory; one \
             of them stands in the environment (SVIRT_EXEC_…) or in the file of --config",
        ));
    }
    Ok(whole)
}

/// Merges two launches: what `above` says wins.
fn over(above: Launch, below: Launch) -> Launch {
    // The options that choose a level count together, from one place.
    let level = |it: &Launch| {
        let Launch {
            mcs_range,
            level,
            label,
            share_level,
            ..
        } = it;
        mcs_range.is_some() || level.is_some() || label.is_some() || *share_level
    };
    let chosen = if level(&above) {
        above.clone()
    } else {
        below.clone()
    };
    Launch {
        config: above.config,
        name: above.name.or(below.name),
        mcs_range: chosen.mcs_range,
        level: chosen.level,
        label: chosen.label,
        share_level: chosen.share_level,
        no_relabel: above.no_relabel || below.no_relabel,
        no_restore: above.no_restore || below.no_restore,
        label_tree: [above.label_tree, below.label_tree].concat(),
        accept_chain: [above.accept_chain, below.accept_chain].concat(),
        private_content: above.private_content || below.private_content,
        runtime_dir: above.runtime_dir || below.runtime_dir,
        preflight: above.preflight.or(below.preflight),
        strict: above.strict || below.strict,
        allow_unconfined: above.allow_unconfined || below.allow_unconfined,
        verbose: above.verbose || below.verbose,
        // What the command line has beside a file comes after what the file has.
        qemu: [below.qemu, above.qemu].concat(),
    }
}

/// Returns the variable that stands for an option of a launch. None does for `--config`.
pub fn variable_of(option: &Arg) -> Option<String> {
    let long = option.get_long().filter(|long| *long != "config")?;
    Some(format!("{PREFIX}{}", long.to_uppercase().replace('-', "_")))
}

/// Reads what variables say, as the options that they stand for.
fn from_environment(environment: &[CString]) -> Result<Launch, Refusal> {
    if !environment
        .iter()
        .any(|entry| entry.as_bytes().starts_with(PREFIX.as_bytes()))
    {
        return Ok(Launch::default());
    }
    let options = Launch::augment_args(clap::Command::new("svirt-exec"));
    let mut words = vec![OsString::from("svirt-exec")];
    let mut known = Vec::from(FURTHER.map(OsString::from));
    for option in options.get_arguments() {
        let (Some(long), Some(variable)) = (option.get_long(), variable_of(option)) else {
            continue;
        };
        let value = sys::variable(environment, &variable);
        known.push(variable.clone().into());
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            continue;
        };
        let word = |value: &OsStr| {
            let mut word = OsString::from(format!("--{long}="));
            word.push(value);
            word
        };
        match option.get_action() {
            ArgAction::SetTrue => {
                let on = BoolishValueParser::new()
                    .parse_ref(&options, None, &value)
                    .map_err(|_| {
                        refuse(format!(
                            "{variable} is {}, which is neither 1 nor 0",
                            quoted(&value)
                        ))
                    })?;
                words.extend(on.then(|| format!("--{long}").into()));
            }
            ArgAction::Append => {
                words.extend(std::env::split_paths(&value).map(|path| word(path.as_os_str())))
            }
            _ => words.push(word(&value)),
        }
    }
    for name in environment.iter().filter_map(|entry| {
        let entry = entry.as_bytes();
        let end = entry.iter().position(|byte| *byte == b'=')?;
        entry
            .get(..end)
            .filter(|name| name.starts_with(PREFIX.as_bytes()))
    }) {
        let name = OsStr::from_bytes(name);
        if !known.iter().any(|known| known == name) {
            say(format_args!(
                "warning: the environment has {}, which stands for no option",
                quoted(name)
            ));
        }
    }
    parse(words, "the environment (SVIRT_EXEC_…)")
}

/// Reads what a file says.
fn from_file(host: &dyn Files, path: &Path) -> Result<Launch, Refusal> {
    let cannot =
        |why: &dyn Display| refuse(format!("cannot read {} (--config): {why}", quoted(path)));
    let text = read_text(host, path, LARGEST).map_err(|error| cannot(&error))?;
    let text = String::from_utf8(text).map_err(|_| cannot(&"it is not UTF-8"))?;
    let split = shell_words::split(&text).map_err(|_| cannot(&"a quotation mark is not closed"))?;
    let mut words = vec![OsString::from("svirt-exec")];
    words.extend(split.into_iter().map(OsString::from));
    let launch = parse(words, &quoted(path).to_string())?;
    if launch.config.is_some() {
        return Err(refuse(format!(
            "{} names another file with --config; write its words here",
            quoted(path)
        )));
    }
    Ok(launch)
}

/// Parses words of a launch that do not stand on the command line.
fn parse(words: Vec<OsString>, from: &str) -> Result<Launch, Refusal> {
    /// A launch and nothing else: no other command.
    #[derive(Parser)]
    #[command(name = "svirt-exec", disable_help_flag = true)]
    struct Only {
        #[command(flatten)]
        launch: Launch,
    }
    Only::try_parse_from(words)
        .map(|only| only.launch)
        .map_err(|error| {
            let said = error.to_string();
            let first = said.lines().next().unwrap_or_default();
            refuse(format!(
                "{from}: {}",
                first.strip_prefix("error: ").unwrap_or(first)
            ))
        })
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
