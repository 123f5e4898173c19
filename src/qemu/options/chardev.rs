//! Character devices: `-chardev`, and the older syntax of `-serial`, `-monitor`, `-qmp`, `-gdb` and
//! others, here "compat" as in `qemu_chr_parse_compat`.
//!
//! Pure. Facts: chardev/char-*.c, `qemu_chr_parse_compat` in chardev/char.c, qapi/char.json,
//! util/qemu-sockets.c (QEMU 10).

use crate::qemu::parsed_option::ParsedOption;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::opts::Opts;
use crate::qemu::syntax::tree::{Scalar, Tree};
use crate::qemu::usage::Usage;

/// Options whose value is in the compat syntax, and further values of each that open nothing.
const COMPAT_OPTIONS: &[(&str, &[&str])] = &[
    ("serial", &["none"]),
    ("parallel", &["none"]),
    ("monitor", &["none"]),
    ("qmp", &[]),
    ("qmp-pretty", &[]),
    ("debugcon", &[]),
    ("gdb", &["none"]),
    ("qtest", &["none"]),
    ("virtioconsole", &[]),
];

/// Compat values that open no file. `braille` reaches brltty by its own library.
const NO_FILE: &[&str] = &["null", "msmouse", "wctablet", "testdev", "braille", "vc"];

/// Prefixes of compat values that open no file.
const NO_FILE_PREFIXES: &[&str] = &[
    "vc:",
    "tcp:",
    "telnet:",
    "tn3270:",
    "websocket:",
    "udp:",
    "con:",
    "chardev:",
];

/// Keys that hold paths: backend, keys (with names that older QEMUs used), usage.
const PATHS: &[(&str, &[&str], Usage)] = &[
    (
        "file",
        &["path"],
        Usage::create("character device log").fdset(),
    ),
    (
        "file",
        &["input-path"],
        Usage::content("character device input").fdset(),
    ),
    (
        "serial",
        &["path", "tty"],
        Usage::write("host serial port").fdset(),
    ),
    (
        "parallel",
        &["path", "parport"],
        Usage::write("host parallel port"),
    ),
    ("tty", &["path"], Usage::write("host serial port").fdset()),
    ("parport", &["path"], Usage::write("host parallel port")),
    ("pty", &["path"], Usage::create("link to a pseudo terminal")),
];

/// Keys that name resources and are read in code: backend, key.
const KEYS_READ_IN_CODE: &[(&str, &str)] =
    &[("pipe", "path"), ("socket", "fd"), ("socket", "path")];

/// Returns whether a key of a backend names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    let is = |name: &str| name.as_bytes() == kind;
    key == "logfile"
        || PATHS.iter().any(|row| is(row.0) && row.1.contains(&key))
        || KEYS_READ_IN_CODE
            .iter()
            .any(|row| is(row.0) && row.1 == key)
}

/// Requests everything that this family names.
pub fn add_requests(options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options {
        if option.name == "chardev" {
            add_backend(&option.site, "", &option.tree, requests);
        } else if let Some((_, none)) = COMPAT_OPTIONS.iter().find(|(name, _)| *name == option.name)
        {
            let opens_nothing = none.iter().any(|none| match option.name {
                // strncmp(optarg, "none", 4)
                "monitor" => option.value.starts_with(none.as_bytes()),
                _ => option.value == none.as_bytes(),
            });
            if !opens_nothing {
                add_compat(&option.site, "", &option.value, requests);
            }
        }
    }
}

/// Requests what a compat value names (`qemu_chr_parse_compat`). `key` is the key that holds the
/// value, for the origin.
pub fn add_compat(site: &Site, key: &str, value: &[u8], requests: &mut Requests<'_>) {
    let value = value.strip_prefix(b"mon:").unwrap_or(value);
    let mut tree = Tree::default();
    let mut put = |key: &str, value: &[u8]| {
        // One fragment is never too deep.
        let _ = tree.insert(key.as_bytes(), Scalar::Text(value.to_vec()), None);
    };
    if value == b"stdio" {
        put("backend", b"stdio");
    } else if let Some(path) = value.strip_prefix(b"file:") {
        put("backend", b"file");
        put("path", path);
    } else if let Some(path) = value.strip_prefix(b"pipe:") {
        put("backend", b"pipe");
        put("path", path);
    } else if let Some(path) = value.strip_prefix(b"pty") {
        if !path.is_empty() && !path.starts_with(b":") {
            refuse(site, value, requests);
            return;
        }
        put("backend", b"pty");
        put("path", path.strip_prefix(b":").unwrap_or(path));
    } else if let Some(rest) = value.strip_prefix(b"unix:") {
        match Tree::from_opts(&Opts::parse(rest, Some("path"))) {
            Ok(opts) => tree = opts,
            Err(error) => requests.error(site, error.to_string()),
        }
        let _ = tree.insert(b"backend", Scalar::Text(b"socket".to_vec()), None);
    } else if value.starts_with(b"/dev/parport") || value.starts_with(b"/dev/ppi") {
        put("backend", b"parallel");
        put("path", value);
    } else if value.starts_with(b"/dev/") || value.starts_with(b"COM") {
        put("backend", b"serial");
        put("path", value);
    } else {
        let known = NO_FILE.iter().any(|name| name.as_bytes() == value)
            || NO_FILE_PREFIXES
                .iter()
                .any(|prefix| value.starts_with(prefix.as_bytes()));
        if !known {
            refuse(site, value, requests);
        }
        return;
    }
    // Everything comes from one value, and has the origin of that.
    let mut inner = site.clone();
    inner.prefix = String::new();
    let before = requests.list.len();
    add_backend(&inner, "", &tree, requests);
    for request in requests.list.iter_mut().skip(before) {
        request.origin = site.origin(key, None);
    }
}

fn refuse(site: &Site, value: &[u8], requests: &mut Requests<'_>) {
    let message = format!("'{}' is no character device", bytes::show(value));
    requests.error(site, message);
}

/// Requests what a backend names; the line writes `prefix` before its keys.
pub fn add_backend(site: &Site, prefix: &str, tree: &Tree, requests: &mut Requests<'_>) {
    let site = &Site {
        prefix: format!("{}{prefix}", site.prefix),
        ..site.clone()
    };
    let kind = tree.text("backend").unwrap_or_default();
    for (name, keys, how) in PATHS {
        if name.as_bytes() == kind {
            for key in *keys {
                requests.add_key(site, tree, key, *how);
            }
        }
    }
    match kind {
        b"socket" => {
            let server = tree.boolean("server").unwrap_or(false);
            if !requests.add_fds(site, tree, "fd", "socket of a character device") {
                add_unix_socket(site, "path", tree, "", server, requests);
            }
        }
        b"pipe" => add_pipe(site, tree, requests),
        b"stdio" => {
            for fd in [&b"0"[..], b"1"] {
                requests.add_fd(
                    site.origin("backend", None),
                    fd,
                    "standard input and output",
                );
            }
        }
        _ => {}
    }
    // Every backend can log (qapi/char.json, ChardevCommon).
    requests.add_key(
        site,
        tree,
        "logfile",
        Usage::create("character device log").fdset(),
    );
}

/// Requests the files of a pipe: QEMU tries `PATH.in` with `PATH.out`, then PATH for both
/// directions (chardev/char-pipe.c). Only the host can tell which exist.
fn add_pipe(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    let Some(leaf) = tree.leaf("path").filter(|leaf| !leaf.text.is_empty()) else {
        return;
    };
    let how = Usage::write("pipe of a character device")
        .optional()
        .fdset();
    let origin = site.origin("path", leaf.set_by);
    for end in [&b".in"[..], b".out", b""] {
        requests.add_path(origin.clone(), &[leaf.text, end].concat(), how);
    }
}

/// Requests the Unix socket that a key holds; `below` is the prefix of the key `abstract`.
pub fn add_unix_socket(
    site: &Site,
    key: &str,
    tree: &Tree,
    below: &str,
    server: bool,
    requests: &mut Requests<'_>,
) {
    let Some(leaf) = tree.leaf(key) else { return };
    if tree.boolean(&format!("{below}abstract")) == Some(true) {
        return;
    }
    let origin = site.origin(key, leaf.set_by);
    match (server, leaf.text.is_empty()) {
        (true, true) => {
            // unix_listen_saddr chooses a name.
            let start = bytes::join(&requests.tmp_dir(), b"qemu-socket-");
            requests.add_template(origin, &start, Usage::bind("socket of its own making"));
        }
        (true, false) => requests.add_path(origin, leaf.text, Usage::bind("socket to listen on")),
        (false, _) => requests.add_path(origin, leaf.text, Usage::connect("socket to connect to")),
    }
}

/// Requests what a `SocketAddress` in a key names (qapi/sockets.json).
pub fn add_socket_address(
    site: &Site,
    key: &str,
    tree: &Tree,
    server: bool,
    requests: &mut Requests<'_>,
) {
    match tree.text(&format!("{key}.type")) {
        Some(b"unix") => {
            let (path, below) = (format!("{key}.path"), format!("{key}."));
            add_unix_socket(site, &path, tree, &below, server, requests);
        }
        Some(b"fd") => {
            requests.add_fds(site, tree, &format!("{key}.str"), "inherited socket");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::Target;
    use crate::qemu::invocation::Environment;

    fn show(word: &str) -> Result<Vec<String>, String> {
        let env = Environment::default();
        let mut requests = Requests::new(&env);
        add_compat(&Site::new(2, "-serial"), "", word.as_bytes(), &mut requests);
        if let Some(error) = requests.errors.first() {
            return Err(error.message.clone());
        }
        Ok(requests
            .list
            .iter()
            .map(|request| {
                let target = match &request.target {
                    Target::Path(path) => path.display().to_string(),
                    Target::Template(path) => format!("{}…", path.display()),
                    Target::Fd(fd) => format!("fd {fd}"),
                    other => format!("{other:?}"),
                };
                format!("{target} {:?}", request.access)
            })
            .collect())
    }

    #[test]
    fn words() {
        let table: &[(&str, &[&str])] = &[
            ("null", &[]),
            ("vc:80Cx24C", &[]),
            ("tcp::4444,server", &[]),
            ("pty", &[]),
            ("pty:/run/p", &["/run/p Create"]),
            ("file:/a,b=c", &["/a,b=c Create"]),
            ("mon:file:/a", &["/a Create"]),
            ("pipe:/f", &["/f.in Write", "/f.out Write", "/f Write"]),
            ("unix:/s", &["/s Connect"]),
            ("unix:/s,server,nowait", &["/s Bind"]),
            ("unix:/s,server=off", &["/s Connect"]),
            ("unix:/s,server=on,abstract=on", &[]),
            (
                "unix:path=/s,,t,server=on,logfile=/l",
                &["/s,t Bind", "/l Create"],
            ),
            ("unix:,server=on", &["/tmp/qemu-socket-… Bind"]),
            ("stdio", &["fd 0 Write", "fd 1 Write"]),
            ("/dev/ttyS0", &["/dev/ttyS0 Write"]),
            ("/dev/parport0", &["/dev/parport0 Write"]),
        ];
        for (word, want) in table {
            assert_eq!(show(word).unwrap(), *want, "{word}");
        }
        for bad in ["/tmp/x", "", "ptyx", "stdiox"] {
            assert!(show(bad).is_err(), "{bad}");
        }
    }
}
