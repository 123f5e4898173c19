//! Following image headers: which further files QEMU will open because of them.
//!
//! A header is followed only if the command line, or the header above, states the image's format. If
//! nobody does, it is read to refuse: what it names may have been written by a guest (CVE-2008-2004,
//! CVE-2010-2237).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::host::pinned::{Identity, Kind, Pinned};
use crate::host::policy;
use crate::image::{BackingName, ImageFormat, References};
use crate::model::resource::{Access, Backing, Class, Format, Image, Origin, Request, Target};
use crate::plan::disk_key;
use crate::plan::resource::{CollectContext, Collected, DeferredHeader, QueuedRequest, Resource};
use crate::qemu;
use crate::selinux::Mode;
use crate::text::escape::{escaped, quoted, shell_word};
use crate::text::message::Message;

/// Longest chain of backing files that is followed; libvirt's limit.
const CHAIN_LIMIT: usize = 200;

/// Returns what the header of an image makes QEMU open.
pub fn follow(
    host: &dyn Host,
    pending: QueuedRequest,
    image: Image,
    resource: &Resource,
    pinned: &Pinned,
    context: &CollectContext<'_>,
    out: &mut Collected,
) -> Vec<QueuedRequest> {
    let stated = matches!(image.format, Format::Stated(_));
    match pinned.kind {
        // No header today; what a guest writes there may be one tomorrow.
        Kind::File | Kind::Block if image.format == Format::Stated("raw".to_owned()) => {
            let header = disk_key::followed(context.system, resource, pinned);
            out.headers.push(header);
            Vec::new()
        }
        Kind::File => read(host, &pending, &image, resource, pinned, context, out),
        // A device whose format nobody states is not looked at: it is there to be written by guests.
        Kind::Block if stated && may_read(host, resource) && host.open(pinned).is_ok() => {
            read(host, &pending, &image, resource, pinned, context, out)
        }
        Kind::Block if stated => {
            out.deferred.push(DeferredHeader {
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

/// Returns the same for an image that the caller hands down open: QEMU reads the header of what the
/// descriptor stands for, and opens what that names by its path.
pub fn follow_descriptor(
    host: &dyn Host,
    pending: QueuedRequest,
    image: Image,
    resource: &Resource,
    fd: i32,
    context: &CollectContext<'_>,
    out: &mut Collected,
) -> Vec<QueuedRequest> {
    let Ok(mut pinned) = host.pin(Path::new(&format!("/proc/self/fd/{fd}"))) else {
        // What is not handed down stops the launch elsewhere.
        return Vec::new();
    };
    pinned.path = pinned.real_path();
    // Nothing but a regular file is opened again to be read.
    if pinned.kind != Kind::File {
        return Vec::new();
    }
    if image.format == Format::Stated("raw".to_owned()) {
        return follow(host, pending, image, resource, &pinned, context, out);
    }
    match host.open(&pinned) {
        Ok(_) => follow(host, pending, image, resource, &pinned, context, out),
        Err(error) => {
            out.warnings.push(Message::new(
                format!(
                    "cannot read the header of {} ({}): {error}",
                    resource.name(),
                    resource.origin
                ),
                "files that it names keep the labels they have",
            ));
            Vec::new()
        }
    }
}

/// Tells whether the policy lets this program read a device with the label that it has. What it does not
/// let it read is not even tried, and leaves nothing in the audit log.
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

/// Reads the header of an image, and returns what it makes QEMU open.
pub fn read(
    host: &dyn Host,
    pending: &QueuedRequest,
    image: &Image,
    resource: &Resource,
    pinned: &Pinned,
    context: &CollectContext<'_>,
    out: &mut Collected,
) -> Vec<QueuedRequest> {
    let (format, references) = match header(host, image, resource, pinned) {
        Ok(header) => header,
        Err(why) => {
            out.obstacles.push(why);
            return Vec::new();
        }
    };
    let (references, replaced) = split(image, references);
    let names_nothing = references.backing.is_none()
        && references.data_file.is_none()
        && references.extents.is_empty();
    if !matches!(image.format, Format::Stated(_)) && !names_nothing {
        out.errors
            .push(untrusted_format(image, resource, &format, &pinned.path));
        return Vec::new();
    }
    let (depth, above) = match one_deeper(pending, resource, pinned) {
        Ok(deeper) => deeper,
        Err(why) => {
            out.errors.push(why);
            return Vec::new();
        }
    };
    let chain = Chain {
        pending,
        image,
        resource,
        pinned,
    };
    let mut header = disk_key::followed(context.system, resource, pinned);
    header.replaced = chain.names(replaced, context.cwd);
    out.headers.push(header);
    chain
        .requests(references, out)
        .into_iter()
        .map(|request| QueuedRequest {
            request,
            depth,
            above: above.clone(),
        })
        .collect()
}

/// Splits what a header names into what QEMU opens for it and what the line has something in the place of.
fn split(image: &Image, mut named: References) -> (References, References) {
    let mut replaced = References::default();
    named.backing = named.backing.filter(|backing| !backing.name.is_empty());
    if !matches!(image.backing, Backing::FromHeader { .. }) {
        replaced.backing = named.backing.take();
    }
    if image.data_file_given {
        replaced.data_file = named.data_file.take();
    }
    (named, replaced)
}

/// Reads a header, or says why it cannot be read.
fn header(
    host: &dyn Host,
    image: &Image,
    resource: &Resource,
    pinned: &Pinned,
) -> Result<(ImageFormat, References), Message> {
    let cannot = |why: &dyn std::fmt::Display| {
        let (name, origin) = (resource.name(), &resource.origin);
        format!("cannot read the header of {name} ({origin}): {why}")
    };
    let file = host.open(pinned).map_err(|error| {
        match policy::reader_refused(host, resource.current.as_ref(), pinned) {
            Ok(Some(refused)) => Message {
                problem: cannot(&refused.problem),
                remedy: refused.remedy,
            },
            Ok(None) | Err(_) => Message::new(
                cannot(&error),
                "the user who runs svirt-exec must be able to read an image to label it",
            ),
        }
    })?;
    let stated = match &image.format {
        Format::Stated(format) => Some(ImageFormat::from_name(format.as_bytes())),
        Format::Unstated { .. } | Format::CannotState { .. } => None,
    };
    host.header(file, stated, pinned.path.as_os_str())
        .map_err(|error| cannot(&error).into())
}

/// Returns how deep in the chain the files are that a header names, and which images are above them.
fn one_deeper(
    pending: &QueuedRequest,
    resource: &Resource,
    pinned: &Pinned,
) -> Result<(usize, Vec<Identity>), Message> {
    let cannot = |why: &str| {
        let (name, origin) = (resource.name(), &resource.origin);
        format!("cannot follow the backing files of {name} ({origin}): {why}").into()
    };
    let depth = pending.depth.saturating_add(1);
    if depth > CHAIN_LIMIT {
        return Err(cannot(&format!("more than {CHAIN_LIMIT} in a chain")));
    }
    if pending.above.contains(&pinned.identity) {
        return Err(cannot("the chain comes back to itself"));
    }
    let mut above = pending.above.clone();
    above.push(pinned.identity);
    Ok((depth, above))
}

/// An image whose header is followed.
struct Chain<'a> {
    pending: &'a QueuedRequest,
    image: &'a Image,
    resource: &'a Resource,
    pinned: &'a Pinned,
}

impl Chain<'_> {
    /// Returns a request for each file that the header names.
    fn requests(&self, references: References, out: &mut Collected) -> Vec<Request> {
        let path = || self.pinned.path.clone();
        let mut found: Vec<Request> = Vec::new();
        if let Some(data_file) = references.data_file {
            let origin = Origin::DataFileOf {
                data_file_of: path(),
            };
            found.push(self.data(OsString::from_vec(data_file), origin));
        }
        for extent in references.extents {
            let directory = Path::new(self.opened_as())
                .parent()
                .unwrap_or(Path::new(""));
            let target = directory.join(OsStr::from_bytes(&extent)).into_os_string();
            found.push(self.data(target, Origin::ExtentOf { extent_of: path() }));
        }
        if let Some(backing) = references.backing {
            match self.backing(&backing) {
                Ok(requests) => found.extend(requests),
                Err(error) => out.errors.push(
                    format!(
                        "cannot follow the backing file of {}: {error}",
                        self.resource.name()
                    )
                    .into(),
                ),
            }
        }
        found
    }

    /// Returns the paths that a header names, as far as it names some, without looking at them.
    fn names(&self, references: References, cwd: &Path) -> Vec<PathBuf> {
        let data_file = references.data_file.map(OsString::from_vec);
        let backing = references.backing.and_then(|backing| {
            let origin = self.resource.origin.clone();
            let format = backing.format.as_deref();
            qemu::backing_requests(
                self.opened_as(),
                &backing.name,
                format,
                Access::Read,
                origin,
            )
            .ok()
        });
        let targets = backing.into_iter().flatten().map(|request| request.target);
        targets
            .filter_map(|target| match target {
                Target::Path(path) => Some(path),
                _ => None,
            })
            .chain(data_file)
            .map(|path| cwd.join(path))
            .collect()
    }

    /// Returns the name by which QEMU has opened the image.
    fn opened_as(&self) -> &OsStr {
        match &self.pending.request.target {
            Target::Path(path) => path.as_os_str(),
            // A name next to which nothing can be.
            Target::Fd(_) => OsStr::new("/dev/fdset/0"),
            _ => self.pinned.path.as_os_str(),
        }
    }

    /// Returns the request for a file with data of the image: used as the image is.
    fn data(&self, target: OsString, origin: Origin) -> Request {
        // Whether a descriptor is written to is not known; its image's data is nobody else's.
        let (class, access) = match self.resource.fd {
            Some(_) => (Class::Exclusive, Access::Write),
            None => (self.resource.class, self.resource.access),
        };
        Request {
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
        }
    }

    /// Returns the requests for the backing file.
    fn backing(&self, backing: &BackingName) -> Result<Vec<Request>, qemu::BackingError> {
        let Backing::FromHeader {
            format,
            writable,
            below,
        } = &self.image.backing
        else {
            return Ok(Vec::new());
        };
        let format = match format {
            Some(format) => Some(format.as_bytes()),
            None => backing.format.as_deref(),
        };
        let access = if *writable {
            Access::Write
        } else {
            Access::Read
        };
        let origin = Origin::BackingOf {
            backing_of: self.pinned.path.clone(),
        };
        let mut requests =
            qemu::backing_requests(self.opened_as(), &backing.name, format, access, origin)?;
        for request in &mut requests {
            if let (Some(image), Some(below)) = (&mut request.image, below)
                && image.backing != Backing::NotFromHeader
            {
                image.backing = (**below).clone();
            }
        }
        Ok(requests)
    }
}

/// Refuses an image of unstated format that names another file. The bytes that do so may be a guest's
/// (CVE-2010-2237), so they are not followed, and QEMU must not either.
fn untrusted_format(
    image: &Image,
    resource: &Resource,
    format: &ImageFormat,
    path: &Path,
) -> Message {
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
    Message::new(
        format!(
            "cannot trust the format of {name} ({}): nothing states it, it looks like {format}, and its \
             header names another file, which a guest may have written there",
            resource.origin
        ),
        remedy,
    )
}

/// Returns the value of a `-drive` that states the format.
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
