//! Following image headers: which further files QEMU will open because of them.
//!
//! A header is followed only where the command line, or the header above, states the
//! image's format. Where nobody does, it is read to refuse: what it names may have been
//! written by a guest (CVE-2008-2004, CVE-2010-2237).

use crate::host::Host;
use crate::host::pinned::{Kind, Pinned};
use crate::host::policy;
use crate::image::ImageFormat;
use crate::model::resource::{Access, Backing, Class, Format, Image, Origin, Request, Target};
use crate::plan::resource::DeferredHeader;
use crate::plan::resource::{Collected, QueuedRequest, Resource};
use crate::qemu;
use crate::selinux::Mode;
use crate::text::escape::{escaped, quoted, shell_word};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Longest chain of backing files that is followed; libvirt's limit.
const CHAIN_LIMIT: usize = 200;

/// Says what the header of an image makes QEMU open.
pub fn follow(
    host: &dyn Host,
    pending: QueuedRequest,
    image: Image,
    resource: &Resource,
    pinned: &Pinned,
    out: &mut Collected,
) -> Vec<QueuedRequest> {
    let stated = matches!(image.format, Format::Stated(_));
    match pinned.kind {
        _ if image.format == Format::Stated("raw".to_owned()) => Vec::new(),
        Kind::File => read(host, &pending, &image, resource, pinned, out),
        // What nobody states of a device is not looked at: it is there to be written by guests.
        Kind::Block if stated && may_read(host, resource) && host.open(pinned).is_ok() => {
            read(host, &pending, &image, resource, pinned, out)
        }
        Kind::Block if stated => {
            out.unread.push(DeferredHeader {
                pending,
                image,
                identity: pinned.identity,
            });
            Vec::new()
        }
        Kind::Block | Kind::Char | Kind::Dir | Kind::Socket | Kind::Fifo | Kind::Missing => {
            Vec::new()
        }
    }
}

/// The same for an image that the caller hands down open: QEMU reads the header of what is behind
/// the descriptor, and opens what that names by its path.
pub fn follow_descriptor(
    host: &dyn Host,
    pending: QueuedRequest,
    image: Image,
    resource: &Resource,
    fd: i32,
    out: &mut Collected,
) -> Vec<QueuedRequest> {
    let Ok(mut pinned) = host.pin(Path::new(&format!("/proc/self/fd/{fd}"))) else {
        // What is not handed down stops the launch elsewhere.
        return Vec::new();
    };
    pinned.path = pinned.real_path();
    // Raw bytes have no header, and nothing but a regular file is opened again to be read.
    if image.format == Format::Stated("raw".to_owned()) || pinned.kind != Kind::File {
        return Vec::new();
    }
    match host.open(&pinned) {
        Ok(_) => follow(host, pending, image, resource, &pinned, out),
        Err(error) => {
            out.warnings.push(format!(
                "cannot read the header of {} ({}): {error}; files that it names keep the labels \
                 they have",
                resource.name(),
                resource.origin
            ));
            Vec::new()
        }
    }
}

/// Whether the policy lets this program read a device with the label that it has: what it does not
/// is not even tried, and leaves nothing in the audit log.
fn may_read(host: &dyn Host, resource: &Resource) -> bool {
    if host.mode() == Mode::Disabled {
        return true;
    }
    let (Ok(own), Some(current)) = (host.own_context(), &resource.current) else {
        return false;
    };
    let class = resource.kind.class();
    host.denied(&own, current, class, &["open", "read"])
        .is_ok_and(|denied| denied.is_empty())
}

/// Reads the header of an image and says what it makes QEMU open.
pub fn read(
    host: &dyn Host,
    pending: &QueuedRequest,
    image: &Image,
    resource: &Resource,
    pinned: &Pinned,
    out: &mut Collected,
) -> Vec<QueuedRequest> {
    let name = resource.name();
    let origin = &resource.origin;
    let stated = match &image.format {
        Format::Stated(format) => Some(ImageFormat::from_name(format.as_bytes())),
        Format::Unstated { .. } | Format::CannotState { .. } => None,
    };
    let file = match host.open(pinned) {
        Ok(file) => file,
        Err(error) => {
            let why = match policy::reader_refused(host, resource.current.as_ref(), pinned) {
                Ok(Some(refused)) => refused.to_string(),
                Ok(None) | Err(_) => format!(
                    "{error}; the user who runs svirt-exec must be able to read an image to label it"
                ),
            };
            out.obstacles.push(format!(
                "cannot read the header of {name} ({origin}): {why}"
            ));
            return Vec::new();
        }
    };
    let (format, references) = match host.header(file, stated, pinned.path.as_os_str()) {
        Ok(header) => header,
        Err(error) => {
            out.obstacles.push(format!(
                "cannot read the header of {name} ({origin}): {error}"
            ));
            return Vec::new();
        }
    };
    let unstated = !matches!(image.format, Format::Stated(_));
    let from_header = match &image.backing {
        Backing::FromHeader {
            format,
            writable,
            below,
        } => Some((format, *writable, below)),
        Backing::NotFromHeader => None,
    };
    let backing = references
        .backing
        .filter(|backing| from_header.is_some() && !backing.name.is_empty());
    let data_file = references.data_file.filter(|_| !image.data_file_given);
    if unstated && (backing.is_some() || data_file.is_some() || !references.extents.is_empty()) {
        out.errors
            .push(refusal(image, resource, &format, &pinned.path));
        return Vec::new();
    }

    let depth = pending.depth.saturating_add(1);
    if depth > CHAIN_LIMIT {
        out.errors.push(format!(
            "cannot follow the backing files of {name} ({origin}): more than {CHAIN_LIMIT} in a chain"
        ));
        return Vec::new();
    }
    if pending.above.contains(&pinned.identity) {
        out.errors.push(format!(
            "cannot follow the backing files of {name} ({origin}): the chain comes back to itself"
        ));
        return Vec::new();
    }
    let mut above = pending.above.clone();
    above.push(pinned.identity);

    let opened_as = match &pending.request.target {
        Target::Path(path) => path.as_os_str(),
        // A name next to which nothing can be.
        Target::Fd(_) => OsStr::new("/dev/fdset/0"),
        _ => pinned.path.as_os_str(),
    };
    // Whether a descriptor is written to is not known; its image's data is nobody else's.
    let (class, access) = match resource.fd {
        Some(_) => (Class::Exclusive, Access::Write),
        None => (resource.class, resource.access),
    };
    let as_image = |target: OsString, origin: Origin| Request {
        target: Target::Path(target),
        class,
        access,
        origin,
        reason: if access == Access::Write {
            "data of a writable disk"
        } else {
            "data of a read-only disk"
        },
        mapped: false,
        may_be_directory: false,
        image: None,
        required: true,
    };
    let mut found: Vec<Request> = Vec::new();
    if let Some(data_file) = data_file {
        found.push(as_image(
            OsString::from_vec(data_file),
            Origin::DataFileOf {
                data_file_of: pinned.path.clone(),
            },
        ));
    }
    for extent in references.extents {
        let directory = Path::new(opened_as).parent().unwrap_or(Path::new(""));
        found.push(as_image(
            directory.join(OsStr::from_bytes(&extent)).into_os_string(),
            Origin::ExtentOf {
                extent_of: pinned.path.clone(),
            },
        ));
    }
    if let (Some(backing), Some((format, writable, below))) = (backing, from_header) {
        let format = format
            .as_ref()
            .map(|format| format.clone().into_bytes())
            .or(backing.format);
        let access = if writable {
            Access::Write
        } else {
            Access::Read
        };
        let origin = Origin::BackingOf {
            backing_of: pinned.path.clone(),
        };
        match qemu::backing_requests(opened_as, &backing.name, format.as_deref(), access, origin) {
            Ok(requests) => found.extend(requests.into_iter().map(|mut request| {
                if let (Some(image), Some(below)) = (&mut request.image, below)
                    && image.backing != Backing::NotFromHeader
                {
                    image.backing = (**below).clone();
                }
                request
            })),
            Err(error) => out
                .errors
                .push(format!("cannot follow the backing file of {name}: {error}")),
        }
    }
    found
        .into_iter()
        .map(|request| QueuedRequest {
            request,
            depth,
            above: above.clone(),
        })
        .collect()
}

/// An image of unstated format names another file: the bytes that do so may be
/// a guest's (CVE-2010-2237), so they are not followed, and QEMU must not either.
fn refusal(image: &Image, resource: &Resource, format: &ImageFormat, path: &Path) -> String {
    let name = resource.name();
    let format = escaped(format.name());
    let remedy = match (&image.format, &resource.origin) {
        (_, Origin::BackingOf { backing_of }) => format!(
            "if that is so, say it in the image above: qemu-img rebase -u -F {format} -b {} {}",
            quoted(path),
            quoted(backing_of)
        ),
        (Format::CannotState { instead }, _) => format!(
            "{} cannot state a format; if that is so, replace it with: -drive {}",
            option_of(&resource.origin),
            shell_word(OsStr::from_bytes(&drive(path, &format, instead))),
        ),
        (Format::Unstated { add }, _) => format!("if that is so, add: {add}{format}"),
        (Format::Stated(_), _) => String::new(),
    };
    format!(
        "cannot trust the format of {name} ({}): nothing states it, it looks like {format}, and its \
         header names another file, which a guest may have written there; {remedy}",
        resource.origin
    )
}

/// The value of a `-drive` that states the format.
fn drive(path: &Path, format: &str, further: &str) -> Vec<u8> {
    let mut word = b"file=".to_vec();
    for byte in path.as_os_str().as_bytes() {
        word.extend(std::iter::repeat_n(
            *byte,
            if *byte == b',' { 2 } else { 1 },
        ));
    }
    word.extend_from_slice(format!(",format={format},{further}").as_bytes());
    word
}

fn option_of(origin: &Origin) -> &str {
    match origin {
        Origin::Word { option, .. } => option,
        Origin::BackingOf { .. }
        | Origin::DataFileOf { .. }
        | Origin::ExtentOf { .. }
        | Origin::TreeOf { .. } => "it",
    }
}
