//! Completions for three shells: clap_complete's, and what QEMU's words need beside that. It takes a
//! command line for a command or a list of words, and here the list is another program's.

use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate};

use super::page;

/// Every file, by its path in the source tree.
pub fn all() -> Vec<(&'static str, String)> {
    vec![
        ("man/completions/svirt-exec.bash", bash()),
        ("man/completions/_svirt-exec", zsh()),
        ("man/completions/svirt-exec.fish", fish()),
    ]
}

fn made(shell: Shell) -> String {
    let whole = page::command();
    // QEMU's words are the frames' business.
    let mut command = Command::new("svirt-exec")
        .about(whole.get_about().unwrap().clone())
        .disable_version_flag(true)
        .args(
            whole
                .get_arguments()
                .filter(|arg| !arg.is_positional())
                .cloned(),
        )
        .subcommands(whole.get_subcommands().cloned());
    let mut out = Vec::new();
    generate(shell, &mut command, "svirt-exec", &mut out);
    let text = String::from_utf8(out).unwrap();
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!(
        "{}\n",
        text.join("\n")
            .trim_end_matches('\n')
            .trim_start_matches('\n')
    )
}

fn frame(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/completions");
    fs::read_to_string(path.join(name)).unwrap()
}

/// Puts one text in the place of another, which stands there once.
fn put(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old}");
    text.replace(old, new)
}

fn bash() -> String {
    let mut command = page::command();
    command.build();
    let commands: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let mut values: Vec<String> = std::iter::once(&command)
        .chain(command.get_subcommands())
        .flat_map(Command::get_opts)
        .map(|option| format!("--{}", option.get_long().unwrap()))
        .collect();
    values.sort();
    values.dedup();
    let words = put(
        &frame("svirt-exec.bash.in"),
        "@VALUES@",
        &values.join(" | "),
    );
    let words = put(&words, "@COMMANDS@", &commands.join(" | "));
    // clap_complete 4.6 sets a command to one spelling of a name with a dash, and looks for another.
    let text = made(Shell::Bash).replace("svirt__subcmd__exec", "svirt__exec");
    let end = text.rfind("if [[ \"${BASH_VERSINFO[0]}\"").unwrap();
    let (functions, complete) = text.split_at(end);
    let complete = complete.replace("-F _svirt__exec ", "-F _svirt_exec_words ");
    format!(
        "{}{words}{complete}",
        functions.trim_end_matches('\n').to_owned() + "\n"
    )
}

fn zsh() -> String {
    let text = made(Shell::Zsh);
    // What is no command is QEMU, with the completion of its own.
    let text = put(
        &text,
        "        esac\n    ;;\nesac\n}",
        "(*)\n_normal\n;;\n        esac\n    ;;\nesac\n}",
    );
    // `commands` is also zsh's table of programs, until it is hidden by a local one.
    put(
        &text,
        "_svirt-exec_commands() {\n    local commands; commands=(\n",
        &format!(
            "_svirt-exec_commands() {{\n{}    local commands; commands=(\n",
            frame("qemu.zsh.in")
        ),
    )
    .replace(
        "    _describe -t commands 'svirt-exec commands' commands \"$@\"\n",
        "    _describe -t commands 'svirt-exec commands' commands \"$@\" && ret=0\n    return ret\n",
    )
}

fn fish() -> String {
    // An option whose value is being typed is an error to argparse, and no command is there yet.
    let text = put(
        &made(Shell::Fish),
        "-- $cmd 2>/dev/null\n    or return\n",
        "-- $cmd 2>/dev/null\n    or return 0\n",
    );
    text + &frame("svirt-exec.fish.in")
}
