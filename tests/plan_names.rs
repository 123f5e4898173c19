//! A plan never lists a path that the line, a header or a config file does not name, and it lists
//! all that a chain of headers leads to: random images and lines against a model of a dozen lines.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use proptest::prelude::*;
use svirt_exec::cli::Cli;
use svirt_exec::launch::dry_run;

/// How a header or a word spells the name of another image.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    Absolute,
    /// Next to the image that names it.
    Relative,
    /// `file:` in front.
    Prefix,
    Json,
}

/// One image: what its header says.
#[derive(Clone, Debug)]
struct Content {
    qcow2: bool,
    /// How many images further the backing file is, how it is spelt, whether its format is stated.
    backing: Option<(usize, Spelling, bool)>,
    /// An external data file of its own.
    data: bool,
}

/// One use of an image by the line.
#[derive(Clone, Debug)]
struct Use {
    image: usize,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// `-drive` with the format stated, or left to probing.
    Drive {
        stated: bool,
    },
    /// `-blockdev` with or without a node for the file.
    Blockdev {
        apart: bool,
    },
    Hda,
    /// `[drive]` in a file of `-readconfig`.
    Config,
}

const IMAGES: usize = 6;

fn spelling() -> impl Strategy<Value = Spelling> {
    prop::sample::select(vec![
        Spelling::Absolute,
        Spelling::Relative,
        Spelling::Prefix,
        Spelling::Json,
    ])
}

fn contents() -> impl Strategy<Value = Vec<Content>> {
    let content = (
        prop::bool::weighted(0.7),
        prop::option::of((1..3_usize, spelling(), prop::bool::weighted(0.8))),
        prop::bool::weighted(0.2),
    );
    let content = content.prop_map(|(qcow2, backing, data)| Content {
        qcow2,
        backing: backing.filter(|_| qcow2),
        data: data && qcow2,
    });
    prop::collection::vec(content, IMAGES)
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let how = prop::sample::select(vec![
        How::Drive { stated: true },
        How::Drive { stated: false },
        How::Blockdev { apart: true },
        How::Blockdev { apart: false },
        How::Hda,
        How::Config,
    ]);
    let one = (0..IMAGES, how).prop_map(|(image, how)| Use { image, how });
    prop::collection::vec(one, 1..4)
}

fn name(directory: &Path, image: usize) -> PathBuf {
    directory.join(format!("i{image}.img"))
}

fn data_name(directory: &Path, image: usize) -> PathBuf {
    directory.join(format!("i{image}.data"))
}

fn format(content: &Content) -> &'static str {
    if content.qcow2 { "qcow2" } else { "raw" }
}

/// A version 3 header as docs/interop/qcow2 has it, of 64 KiB clusters.
fn header(directory: &Path, contents: &[Content], at: usize) -> Vec<u8> {
    let content = &contents[at];
    let mut bytes = Vec::new();
    if !content.qcow2 {
        return bytes;
    }
    let mut extensions: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut backing = Vec::new();
    if let Some((further, spelling, stated)) = content.backing {
        let target = (at + further).min(IMAGES);
        let path = name(directory, target);
        let text = path.to_str().unwrap();
        backing = match spelling {
            Spelling::Absolute => text.to_owned(),
            Spelling::Relative => path.file_name().unwrap().to_str().unwrap().to_owned(),
            Spelling::Prefix => format!("file:{text}"),
            Spelling::Json => {
                let format = contents.get(target).map_or("raw", format);
                format!(
                    r#"json:{{"driver":"{format}","file":{{"driver":"file","filename":"{text}"}}}}"#
                )
            }
        }
        .into_bytes();
        if stated {
            let format = contents.get(target).map_or("raw", format);
            extensions.push((0xe279_2aca, format.into()));
        }
    }
    if content.data {
        let path = data_name(directory, at);
        extensions.push((0x4441_5441, path.to_str().unwrap().into()));
    }
    extensions.push((0, Vec::new()));
    let mut area = Vec::new();
    for (kind, text) in extensions {
        area.extend_from_slice(&kind.to_be_bytes());
        area.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        area.extend_from_slice(&text);
        area.resize(area.len().next_multiple_of(8), 0);
    }
    let mut put32 = |value: u32| bytes.extend_from_slice(&value.to_be_bytes());
    let backing_at = if backing.is_empty() {
        0
    } else {
        104 + area.len()
    };
    for word in [
        0x5146_49fb,
        3,
        0,
        u32::try_from(backing_at).unwrap(),
        u32::try_from(backing.len()).unwrap(),
        16,
        // virtual size, encryption, L1 entries and offset, reference counts, snapshots
        0,
        1 << 20,
        0,
        1,
        0,
        0x3_0000,
        0,
        0x1_0000,
        1,
        0,
        0,
        0,
        // incompatible (external data file), compatible, autoclear; width of counts, length
        0,
        if content.data { 4 } else { 0 },
        0,
        0,
        0,
        0,
        4,
        104,
    ] {
        put32(word);
    }
    assert_eq!(bytes.len(), 104);
    bytes.extend(area);
    bytes.extend(backing);
    bytes
}

/// The words, and the text of the config file.
fn line(directory: &Path, contents: &[Content], uses: &[Use]) -> (Vec<OsString>, String) {
    let mut words: Vec<String> = ["svirt-exec", "--", "qemu-system-x86_64", "-S"]
        .map(String::from)
        .to_vec();
    let mut config = String::new();
    for (number, Use { image, how }) in uses.iter().enumerate() {
        let path = name(directory, *image);
        let path = path.to_str().unwrap();
        let format = format(&contents[*image]);
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        match how {
            How::Drive { stated: true } => add("-drive", format!("file={path},format={format}")),
            How::Drive { stated: false } => add("-drive", format!("file={path}")),
            How::Blockdev { apart: true } => {
                let node = format!("node{number}");
                add(
                    "-blockdev",
                    format!("driver=file,filename={path},node-name={node}"),
                );
                add(
                    "-blockdev",
                    format!(r#"{{"driver":"{format}","file":"{node}"}}"#),
                );
            }
            How::Blockdev { apart: false } => add(
                "-blockdev",
                format!("driver={format},file.driver=file,file.filename={path}"),
            ),
            How::Hda => add("-hda", path.to_owned()),
            How::Config => {
                config += &format!("[drive]\nfile = \"{path}\"\nformat = \"{format}\"\n");
            }
        }
    }
    let file = directory.join("guest.cfg");
    words.extend(["-readconfig".to_owned(), file.to_str().unwrap().to_owned()]);
    (words.into_iter().map(OsString::from).collect(), config)
}

/// What QEMU may open, following a chain for as long as formats are stated. False when a format is
/// not stated and the bytes name another file.
fn chain(
    directory: &Path,
    contents: &[Content],
    image: usize,
    stated: bool,
    into: &mut BTreeSet<PathBuf>,
) -> bool {
    into.insert(name(directory, image));
    let Some(content) = contents.get(image) else {
        return true;
    };
    let names_files = content.data || content.backing.is_some();
    if !stated {
        return !names_files;
    }
    if content.data {
        into.insert(data_name(directory, image));
    }
    match content.backing {
        None => true,
        // json: states the format itself.
        Some((further, spelling, stated)) => {
            let stated = stated || matches!(spelling, Spelling::Json);
            let target = (image + further).min(IMAGES);
            chain(directory, contents, target, stated, into)
        }
    }
}

proptest! {
    #[test]
    fn a_plan_lists_what_the_line_and_its_headers_name(contents in contents(), uses in uses()) {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        for image in 0..=IMAGES {
            let bytes = if image < IMAGES { header(directory, &contents, image) } else { Vec::new() };
            fs::write(name(directory, image), bytes).unwrap();
            fs::write(data_name(directory, image), b"").unwrap();
        }
        let (words, config) = line(directory, &contents, &uses);
        fs::write(directory.join("guest.cfg"), config).unwrap();

        let mut expected = BTreeSet::from([directory.join("guest.cfg")]);
        let mut trusted = true;
        for Use { image, how } in &uses {
            let stated = !matches!(how, How::Hda | How::Drive { stated: false });
            trusted &= chain(directory, &contents, *image, stated, &mut expected);
        }

        let options = Cli::try_parse_from(words).unwrap().launch;
        let plan = dry_run::plan(&options, &[]).unwrap();
        let listed: BTreeSet<PathBuf> = plan
            .steps
            .iter()
            .filter_map(|step| step.resource.path.clone())
            .filter(|path| path.starts_with(directory))
            .collect();
        prop_assert_eq!(&listed, &expected);
        let strangers = plan.steps.iter().filter_map(|step| step.resource.path.as_ref());
        for path in strangers.filter(|path| !path.starts_with(directory)) {
            prop_assert!(path.starts_with("/dev") || path.starts_with("/etc/qemu"), "{}", path.display());
        }
        let distrusts = plan.errors.iter().any(|error| error.problem.contains("cannot trust the format"));
        prop_assert_eq!(distrusts, !trusted, "{:?}", plan.errors);
    }
}
