//! Man pages in the macros of man(7): made, and taken apart.

use clap::{Args, CommandFactory};
use clap_mangen::Man;
use svirt_exec::cli::{Cli, Launch};
use svirt_exec::launch::settings;

/// What can be typed.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The page, with what is made in the place of its marks.
pub fn whole(frame: &str) -> String {
    let mut command = command();
    command.build();
    let made = [
        ("SYNOPSIS", synopsis(&command)),
        ("OPTIONS", options(&command)),
        ("COMMANDS", commands(&command)),
        ("ENVIRONMENT", environment()),
    ];
    let mut page = String::from(
        ".\\\" Made from man/svirt-exec.1.in, src/cli.rs and src/launch/settings.rs by make manual.\n",
    );
    page.push_str(frame);
    for (name, text) in made {
        let mark = format!(".\\\" @{name}@\n");
        assert_eq!(page.matches(&mark).count(), 1, "{mark}");
        page = page.replace(&mark, &text);
    }
    page
}

/// Every form of the usage, one a line.
fn synopsis(command: &clap::Command) -> String {
    let usage = command.get_overridden_usage().unwrap().to_string();
    let forms: Vec<String> = usage.lines().map(|form| usage_of(form.trim())).collect();
    format!("{}\n", forms.join("\n.br\n"))
}

/// A usage with fonts: what is typed as it stands bold, what stands for something else in italics.
fn usage_of(form: &str) -> String {
    let mut out = String::new();
    for word in form.split_inclusive(|c: char| " []|<>…".contains(c)) {
        let end = word.trim_end_matches(|c: char| " []|<>…".contains(c));
        let (name, mark) = (roff(end), &word[end.len()..]);
        if end.is_empty() {
        } else if end.chars().all(|c| c.is_ascii_uppercase() || c == '-') && !end.starts_with('-') {
            out.push_str(&format!("\\fI{name}\\fR"));
        } else {
            out.push_str(&format!("\\fB{name}\\fR"));
        }
        out.push_str(&mark.replace('…', " .\\|.\\|.").replace(['<', '>'], ""));
    }
    out
}

/// Text with roff's own characters escaped.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('…', ".\\|.\\|.")
}

/// The list of options, as clap_mangen makes it, without what is no option.
fn options(command: &clap::Command) -> String {
    let command = command.clone().mut_args(|arg| {
        if arg.is_positional() {
            arg.hide(true)
        } else {
            arg
        }
    });
    let mut made = Vec::new();
    Man::new(command).render_options_section(&mut made).unwrap();
    let made = String::from_utf8(made).unwrap();
    let made = made.split_once(".SH OPTIONS\n").unwrap().1;
    let mut out: Vec<String> = Vec::new();
    for line in made.lines() {
        match line {
            // A further paragraph of the same entry.
            "" => out.push(".IP".to_owned()),
            // Values that can be given are a list, which says enough.
            ".br" | "\\fIPossible values:\\fR" => {}
            ".RS 14" => {
                while out.last().is_some_and(|line| line == ".IP") {
                    out.pop();
                }
                out.push(".RS".to_owned());
            }
            line => {
                let line = line.replace("\\*(Aq", "\\(aq");
                // What stands for something else is in italics, which say enough.
                let line = line.replace("\\fI<", "\\fI").replace(">\\fR", "\\fR");
                let helps = out.len().checked_sub(2).is_some_and(|at| out[at] == ".TP");
                out.push(if helps { sentence(&line) } else { line });
            }
        }
    }
    out.join("\n") + "\n"
}

/// A line of help, which has no full stop in clap's list.
fn sentence(line: &str) -> String {
    format!("{}.", line.trim_end_matches('.'))
}

/// Every command: how it is called, what it does, and its own options.
fn commands(command: &clap::Command) -> String {
    let launch = Launch::augment_args(clap::Command::new("launch"));
    let mut out = String::new();
    for sub in command.get_subcommands() {
        let shared = sub
            .get_arguments()
            .any(|arg| arg.get_id().as_str() == "config");
        let own = sub.clone().mut_args(|arg| {
            let elsewhere = arg.get_id() == "help"
                || launch.get_arguments().any(|it| it.get_id() == arg.get_id());
            if elsewhere && !arg.is_positional() {
                arg.hide(true)
            } else {
                arg
            }
        });
        let usage = own.clone().render_usage().to_string();
        let usage = usage.strip_prefix("Usage: ").unwrap();
        out.push_str(&format!(
            ".SS {}\n{}\n.PP\n",
            roff(sub.get_name()),
            usage_of(usage)
        ));
        let about = sub.get_long_about().or(sub.get_about()).unwrap();
        for line in about.to_string().lines() {
            match line {
                "" => out.push_str(".PP\n"),
                line => out.push_str(&format!("{}\n", sentence(&roff(line)))),
            }
        }
        if sub.get_name() == "help" {
            continue;
        }
        if shared {
            out.push_str("It takes the options of a launch, too.\n");
        }
        if own
            .get_arguments()
            .any(|arg| !arg.is_positional() && !arg.is_hide_set())
        {
            out.push_str(&options(&own));
        }
    }
    out
}

/// Every variable that stands for an option of a launch.
fn environment() -> String {
    let mut out = String::new();
    let launch = Launch::augment_args(clap::Command::new("launch"));
    for option in launch.get_arguments() {
        let (Some(variable), Some(long)) = (settings::variable_of(option), option.get_long())
        else {
            continue;
        };
        let value = match option.get_value_names() {
            Some([name]) if option.get_action().takes_values() => {
                format!("\\fR=\\fI{name}\\fR")
            }
            _ => String::new(),
        };
        out.push_str(&format!(
            ".TP\n.B {variable}\n\\fB\\-\\-{}{value}\\fR: {}.\n",
            roff(long),
            roff(&option.get_help().unwrap().to_string())
        ));
    }
    out
}

/// A page without escapes, and without changes of font in its lines.
pub fn plain(page: &str) -> String {
    let mut out = page.to_owned();
    for (escape, text) in [
        ("\\fB", ""),
        ("\\fI", ""),
        ("\\fR", ""),
        ("\\-", "-"),
        ("\\(aq", "'"),
        ("\\[u2026]", "…"),
        ("\\&", ""),
        ("\\|", ""),
        ("\\e", "\\"),
    ] {
        out = out.replace(escape, text);
    }
    out
}

/// A section of a page, from behind its head.
pub fn section(page: &str, name: &str) -> String {
    let heads = [format!(".SH {name}\n"), format!(".SH \"{name}\"\n")];
    let from = heads
        .iter()
        .find_map(|head| Some(page.split_once(head)?.1))
        .unwrap_or_else(|| panic!("no section {name}"));
    from.split("\n.SH").next().unwrap().to_owned()
}

/// The text of a line, without its macro and quotation marks.
pub fn words(line: &str) -> String {
    match line.strip_prefix('.') {
        Some(macro_) => arguments(macro_.split_once(' ').map_or("", |(_, rest)| rest)).concat(),
        None => line.to_owned(),
    }
}

/// The arguments of a macro.
pub fn arguments(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        out.push(word.to_owned());
        rest = after.trim_start();
    }
    out
}
