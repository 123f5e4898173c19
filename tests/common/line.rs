//! Command lines of QEMU, parsed, and what they ask for as text.

#![allow(dead_code, reason = "each test takes a part of it")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use svirt_exec::model::resource::{Origin, Target};
use svirt_exec::qemu::{self, Environment, Invocation};

/// Parses the arguments of a program, without config files.
pub fn parse<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Invocation {
    let args: Vec<OsString> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
    let environment = Environment::default();
    qemu::parse(program.as_ref(), &args, &BTreeMap::new(), &environment)
}

/// Returns the requests of a line without errors as `word option key: target access class`, sorted.
pub fn requests(line: &Invocation, target: impl Fn(&Target) -> String) -> Vec<String> {
    assert!(line.errors.is_empty(), "{:?}", line.errors);
    let mut requests: Vec<String> = line
        .requests
        .iter()
        .map(|request| {
            let origin = match &request.origin {
                Origin::Word { word, option, key } => format!("{word} {option} {key}"),
                other => format!("{other:?}"),
            };
            let (access, class) = (word(&request.access), word(&request.class));
            format!("{origin}: {} {access} {class}", target(&request.target))
        })
        .collect();
    requests.sort();
    requests
}

/// Checks the requests of a line, in any order.
pub fn check(words: &[&str], seen: &[String], want: &[&str]) {
    let mut want = want.to_vec();
    want.sort_unstable();
    assert_eq!(seen, want, "{words:?}");
}

/// Returns the word that a plan has for a value.
pub fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value)
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}
