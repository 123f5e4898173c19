//! Consoles of the guest that listen on TCP ports: `-monitor`, `-qmp`, `-gdb`, `-s`, `-serial` and others
//! with their syntax, `-chardev socket`, `-vnc`, `-spice`.
//!
//! They name no file, and a port has no owner: every guest and every user of the host may connect to one,
//! also on 127.0.0.1. A monitor opens any file that QEMU may open, and a gdb stub writes the guest's memory.
//!
//! Pure. Facts: `qemu_chr_parse_compat` in chardev/char.c, `gdbserver_start` in gdbstub/system.c, ui/vnc.c,
//! ui/spice-core.c (QEMU 10).

use crate::qemu::parsed_option::{ParsedOption, merged};
use crate::qemu::requests::Requests;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::opts::Opts;

/// Options whose value is that of a character device in the older syntax.
const COMPAT_OPTIONS: [&str; 9] = [
    "serial",
    "parallel",
    "monitor",
    "qmp",
    "qmp-pretty",
    "debugcon",
    "gdb",
    "qtest",
    "virtioconsole",
];

/// Prefixes of such a value that is a TCP socket.
const TCP: [&str; 4] = ["tcp:", "telnet:", "websocket:", "tn3270:"];

/// What keeps strangers from a VNC server.
const VNC_AUTHENTICATION: [&str; 5] = [
    "password",
    "password-secret",
    "sasl",
    "tls-creds",
    "tls-authz",
];

const OPEN: &str = "listens on a TCP port without a password, to which every guest and user of this host may \
     connect; a Unix socket in the guest's own directory is closed to them: --runtime-dir and \
     unix:/run/svirt-exec/NAME/…";

/// Warns of everything of the line that listens so.
pub fn add_warnings(options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options {
        let is_open = match option.name {
            "s" => true,
            "chardev" => is_open_chardev(option),
            "vnc" => is_open_vnc(&option.opts),
            "display" => option
                .value
                .strip_prefix(b"vnc=")
                .is_some_and(|rest| is_open_vnc(&Opts::parse(rest, Some("vnc")))),
            name => COMPAT_OPTIONS.contains(&name) && is_open_compat(name, &option.value),
        };
        if is_open {
            requests.warn(&option.site, OPEN);
        }
    }
    warn_of_spice(options, requests);
}

/// Tells whether a value in the older syntax listens. The gdb stub always does.
fn is_open_compat(name: &str, value: &[u8]) -> bool {
    let value = value.strip_prefix(b"mon:").unwrap_or(value);
    let address = TCP
        .iter()
        .find_map(|prefix| value.strip_prefix(prefix.as_bytes()));
    address.is_some_and(|address| {
        let opts = Opts::parse(address, Some("address"));
        name == "gdb" || on(&opts, "server")
    })
}

fn is_open_chardev(option: &ParsedOption) -> bool {
    let tree = &option.tree;
    tree.text("backend") == Some(b"socket")
        && tree.text("port").is_some()
        && tree.text("tls-creds").is_none()
        && tree.boolean("server") == Some(true)
}

fn is_open_vnc(opts: &Opts) -> bool {
    let named = |key: &str| {
        let mut pairs = opts.pairs.iter();
        pairs.any(|pair| pair.key == key.as_bytes() && pair.value != b"off" && pair.value != b"no")
    };
    let listens = opts.pairs.iter().any(|pair| match pair.key.as_slice() {
        b"vnc" => !pair.value.starts_with(b"unix:") && pair.value != b"none",
        b"websocket" => !pair.value.starts_with(b"unix:") && pair.value != b"off",
        _ => false,
    });
    listens && !on(opts, "reverse") && !VNC_AUTHENTICATION.iter().any(|key| named(key))
}

/// Warns of a SPICE server that asks for no ticket. Its options are merged.
fn warn_of_spice(options: &[ParsedOption], requests: &mut Requests<'_>) {
    let is_on = |key: &str| {
        merged(options, "spice", key)
            .is_some_and(|(_, leaf)| bytes::boolean(leaf.text) == Some(true))
    };
    let port = ["port", "tls-port"]
        .iter()
        .filter_map(|key| merged(options, "spice", key))
        .find(|(_, leaf)| leaf.text != b"0");
    if let Some((option, _)) = port
        && is_on("disable-ticketing")
        && !is_on("unix")
        && !is_on("sasl")
    {
        requests.warn(&option.site, OPEN);
    }
}

fn on(opts: &Opts, key: &str) -> bool {
    opts.get(key).and_then(bytes::boolean) == Some(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::{OsStr, OsString};

    use crate::qemu::invocation::Environment;
    use crate::qemu::{Invocation, parse};

    use super::*;

    fn line(words: &str) -> Invocation {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let program = OsStr::new("qemu-system-x86_64");
        parse(program, &words, &BTreeMap::new(), &Environment::default())
    }

    #[test]
    fn a_console_on_a_tcp_port_is_warned_of_and_a_unix_socket_is_not() {
        for (words, warnings) in [
            ("-monitor tcp:127.0.0.1:4444,server,nowait", 1),
            ("-monitor telnet::4444,server=on,wait=off", 1),
            ("-monitor tcp:127.0.0.1:4444", 0),
            ("-monitor tcp::4444,server=off", 0),
            ("-monitor unix:/run/m,server,nowait", 0),
            ("-monitor stdio", 0),
            ("-qmp tcp:localhost:4444,server,wait=off", 1),
            ("-qmp-pretty tcp:localhost:4444,server=on", 1),
            ("-gdb tcp::1234", 1),
            ("-gdb tcp:127.0.0.1:1234", 1),
            ("-gdb unix:/run/g,server=on", 0),
            ("-gdb none", 0),
            ("-s", 1),
            ("-S", 0),
            ("-serial mon:telnet:127.0.0.1:4445,server", 1),
            ("-serial websocket::4445,server=on", 1),
            ("-serial pty", 0),
            ("-chardev socket,id=c,host=127.0.0.1,port=1,server=on", 1),
            ("-chardev socket,id=c,host=127.0.0.1,port=1", 0),
            ("-chardev socket,id=c,path=/run/c,server=on", 0),
            ("-vnc :0", 1),
            ("-vnc 127.0.0.1:0", 1),
            ("-vnc 127.0.0.1:0,password=on", 0),
            ("-vnc 127.0.0.1:0,password=off", 1),
            ("-vnc :0,sasl=on", 0),
            ("-vnc :0,tls-creds=t", 0),
            ("-vnc :0,reverse=on", 0),
            ("-vnc none", 0),
            ("-vnc unix:/run/v", 0),
            ("-vnc unix:/run/v,websocket=on", 1),
            ("-display vnc=:0", 1),
            ("-display vnc=unix:/run/v", 0),
            ("-spice port=5900,disable-ticketing=on", 1),
            ("-spice port=5900,password=x", 0),
            ("-spice unix=on,addr=/run/s,disable-ticketing=on", 0),
            ("-s -monitor telnet::1,server", 2),
        ] {
            let found = line(words).warnings;
            let of_ports = found.iter().filter(|warning| warning.message == OPEN);
            assert_eq!(of_ports.count(), warnings, "{words}: {found:?}");
        }
    }
}
