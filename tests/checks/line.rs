//! Whole command lines, and the names in headers of images: reading is deterministic, in the order
//! of the words, and names nothing that the words do not name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use svirt_exec::model::resource::{Access, Origin, Request, Target};
use svirt_exec::qemu::{self, Environment, RunMode};

/// Starts of paths that QEMU has built in.
const BUILT_IN: &[&str] = &[
    "/bin/sh",
    "/dev/bus/usb/",
    "/dev/dsp",
    "/dev/iommu",
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/netmap",
    "/dev/sev",
    "/dev/sgx_vepc",
    "/dev/shm/qemu-",
    "/dev/snd",
    "/dev/tpm0",
    "/dev/udmabuf",
    "/dev/vfio/vfio",
    "/dev/vhost-net",
    "/dev/vhost-scsi",
    "/dev/vhost-vsock",
    "/etc/pki/nssdb",
    "/etc/qemu-ifdown",
    "/etc/qemu-ifup",
    "/sys/class/tpm/tpm0/",
    "/tmp/.",
    "/tmp/perf-",
    "/tmp/qemu-smb.",
    "/tmp/qemu-socket-",
    "/usr/lib/qemu/qemu-bridge-helper",
    "/var/run/qemu-vmsr-helper.sock",
    "/var/tmp/vl.",
    "./",
    "jit-",
    "qemu.wav",
];

/// Directories of QEMU's own in which the line names a file.
const STARTS: &[&str] = &["/etc/pam.d/", "/sys/class/tpm/", "keymaps/"];

/// Ends that QEMU puts behind a path or a directory that the line names.
const ENDS: &[&str] = &[
    ".",
    ".in",
    ".out",
    "/device/cancel",
    "ca-cert.pem",
    "ca-crl.pem",
    "client-cert.pem",
    "client-key.pem",
    "ctl",
    "dh-params.pem",
    "keys.psk",
    "server-cert.pem",
    "server-key.pem",
];

/// The words are separated by NULs; the last one is also the text of every config file.
pub fn line(bytes: &[u8]) {
    let words: Vec<OsString> = bytes
        .split(|byte| *byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    words_alone_name(&words);
}

/// What must hold for every line.
pub fn words_alone_name(words: &[OsString]) {
    let text = words.last().map(|word| word.as_bytes().to_vec());
    let configs: BTreeMap<OsString, Vec<u8>> = qemu::config_files(words)
        .into_iter()
        .filter(|file| file.required)
        .map(|file| (file.path, text.clone().unwrap_or_default()))
        .collect();
    let env = Environment::default();
    let read = || qemu::parse("qemu-system-x86_64".as_ref(), words, &configs, &env);
    let line = read();
    assert_eq!(line, read());

    let numbers: Vec<usize> = line
        .requests
        .iter()
        .map(|request| match request.origin {
            Origin::Word { word, .. } => word,
            _ => 0,
        })
        .collect();
    assert!(numbers.is_sorted());
    // QEMU itself is word 1.
    assert!(
        numbers
            .iter()
            .all(|word| (1..=words.len() + 1).contains(word))
    );
    if line.run_mode == RunMode::Information {
        assert_eq!(line.requests, []);
    }
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    assert_named(&line.requests, &words);
}

/// The name of the image above, a name in its header, and the format that the header states, in
/// that order with NULs between them.
pub fn filename(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let overlay = OsString::from_vec(parts.next().unwrap_or_default().to_vec());
    let name = parts.next().unwrap_or_default();
    let format = parts.next();
    for access in [Access::Read, Access::Write] {
        let read = || {
            let origin = Origin::BackingOf {
                backing_of: "/a".into(),
            };
            qemu::backing_requests(&overlay, name, format, access, origin)
        };
        let found = read();
        assert_eq!(found, read());
        if let Ok(requests) = found {
            // A relative name goes behind the directory of the image above, or behind its protocol.
            let overlay = overlay.as_bytes();
            let behind = |at: Option<usize>| {
                let start = at.map_or(&b""[..], |at| &overlay[..=at]);
                [start, name].concat()
            };
            let slash = behind(overlay.iter().rposition(|byte| *byte == b'/'));
            let colon = behind(overlay.iter().position(|byte| *byte == b':'));
            assert_named(&requests, &[name, &slash, &colon]);
        }
    }
}

/// Every path stands in a word, or is one of QEMU's own.
fn assert_named(requests: &[Request], words: &[&[u8]]) {
    // Escapes of JSON and rbd, and percent signs in URIs, hide names.
    if words
        .iter()
        .any(|word| word.contains(&b'\\') || word.contains(&b'%'))
    {
        return;
    }
    let words: Vec<Vec<u8>> = words.iter().map(|word| without_commas(word)).collect();
    for request in requests {
        let path = match &request.target {
            Target::Path(path) | Target::DataFile(path) | Target::Template(path) => path.as_bytes(),
            Target::Fd(_) | Target::Device(_) => continue,
        };
        assert!(!path.contains(&0), "{request:?}");
        let is_built_in = BUILT_IN
            .iter()
            .any(|known| path.starts_with(known.as_bytes()));
        // The parts of an enclave image go into /tmp/ itself.
        if is_built_in || path == b"/tmp/" {
            continue;
        }
        let stem = STARTS
            .iter()
            .find_map(|start| path.strip_prefix(start.as_bytes()))
            .unwrap_or(path);
        let stem = ENDS
            .iter()
            .find_map(|end| stem.strip_suffix(end.as_bytes()))
            .unwrap_or(stem);
        let stem = without_commas(stem.strip_suffix(b"/").unwrap_or(stem));
        // A bare key is a flag, whatever it names: "file," is file=on.
        if stem.is_empty() || stem == b"on" || stem == b"off" {
            continue;
        }
        let is_named = |word: &Vec<u8>| word.windows(stem.len()).any(|part| part == stem);
        assert!(
            words.iter().any(is_named),
            "{request:?} from {}",
            words.join(&0).escape_ascii()
        );
    }
}

/// However often a comma is doubled on its way, what stands around it stays.
fn without_commas(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| *byte != b',').collect()
}
