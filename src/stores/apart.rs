//! Whether two places are apart, however they are spelled: endpoints, links and mounts have many names for one place.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::bucket::BucketError;
use super::classify::{classify, is_missing};
use super::store::{Facts, Store};
use crate::error::StepError;

/// Where a place lies as far as its options tell, without secrets: two spellings of one place give the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// Scheme, host and port. The account only where it has a tree of its own.
    pub service: String,
    /// Bucket and prefix: empty, or ends with `/`.
    pub path: String,
}

impl Spot {
    /// From the options of a store and the prefix in it.
    pub fn new(scheme: &str, get: &dyn Fn(&str) -> Option<String>, prefix: &str) -> Self {
        let bucket = get("bucket").or_else(|| get("container")).unwrap_or_default();
        let (host, base) = get("endpoint").map(|endpoint| server(&endpoint, &bucket)).unwrap_or_default();
        let host = if scheme == "s3" && host.is_empty() { AWS.to_owned() } else { host };
        // Servers of files may show each account another tree.
        let user = match scheme {
            "sftp" => get("user"),
            "webdav" => get("username"),
            _ => None,
        };
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let path = [base.as_str(), bucket.as_str(), prefix].map(|part| part.trim_matches('/'));
        let path: String = path.iter().filter(|part| !part.is_empty()).flat_map(|part| [part, "/"]).collect();
        Self { service: format!("{scheme} {user}{host}").trim_end().to_owned(), path }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.service == other.service && (self.path.starts_with(&other.path) || other.path.starts_with(&self.path))
    }
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} /{}", self.service, self.path)
    }
}

const AWS: &str = "aws";

/// The host with its port, and the path, of an endpoint.
pub(super) fn server(endpoint: &str, bucket: &str) -> (String, String) {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    // Only hosts of the web's own schemes are read as numbers: `127.1`.
    let Ok(url) = Url::parse(&format!("http://{rest}")) else { return (endpoint.to_owned(), String::new()) };
    let host = match url.host() {
        Some(Host::Domain(name)) => domain(name.trim_end_matches('.'), bucket),
        Some(Host::Ipv4(address)) if address.is_unspecified() => LOOPBACK.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) if address.is_loopback() || address.is_unspecified() => LOOPBACK.to_owned(),
        Some(Host::Ipv6(address)) => address.to_ipv4_mapped().map_or_else(|| address.to_string(), |address| address.to_string()),
        None => String::new(),
    };
    let is_default = |port: &u16| matches!((scheme, *port), ("https", 443) | ("ssh", 22));
    let port = url.port().filter(|port| !is_default(port)).map(|port| format!(":{port}")).unwrap_or_default();
    (format!("{host}{port}"), url.path().to_owned())
}

const LOOPBACK: &str = "127.0.0.1";

fn domain(name: &str, bucket: &str) -> String {
    // A bucket may stand in the host as well.
    let name = name.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('.')).filter(|_| !bucket.is_empty()).unwrap_or(name);
    match name {
        "localhost" => LOOPBACK.to_owned(),
        // A bucket has one name in all regions.
        _ if name.ends_with(".amazonaws.com") => AWS.to_owned(),
        _ => name.to_owned(),
    }
}

impl Store {
    /// Whether one place lies inside the other, or is the other: then a copy would read what it writes.
    pub async fn overlaps(&self, other: &Self) -> bool {
        self.spot().overlaps(other.spot()) || self.both_folders(other, |a, b| a.is_within(b) || b.is_within(a)).await
    }

    /// Whether both are one place.
    pub async fn is_same_place(&self, other: &Self) -> bool {
        self.spot() == other.spot() || self.both_folders(other, |a, b| a.is_within(b) && b.is_within(a)).await
    }

    /// What this store tells of an object of another place by its whole name, where that could be one and the same: stores
    /// of one kind, prefixes that lie within one another.
    pub async fn seen_from(&self, other: &Self, key: &str) -> Result<Option<Facts>, StepError> {
        if !self.may_see(other) {
            return Ok(None);
        }
        let whole = other.whole_key(key);
        let doing = format!("cannot see whether `{}` is the store of `{}`", self.label(), other.label());
        if let Some(bucket) = self.bucket() {
            return match bucket.head(&whole).await {
                Ok(head) => Ok(Some(head.facts)),
                Err(BucketError::Missing) => Ok(None),
                Err(error) => {
                    let error = error.into_step(&doing);
                    let message = format!("{doing}: {}", error.message);
                    Err(StepError { message, ..error })
                }
            };
        }
        match self.operator().stat(&whole).await {
            Ok(metadata) => Ok(Some(Facts::of(&metadata))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(classify(&doing, error)),
        }
    }

    /// Whether an object of the other place could be one of this: stores of one kind, prefixes that lie within one another.
    pub fn may_see(&self, other: &Self) -> bool {
        let (a, b) = (self.prefix(), other.prefix());
        self.scheme() == other.scheme() && (a.starts_with(b) || b.starts_with(a))
    }

    async fn both_folders(&self, other: &Self, question: fn(&Folder, &Folder) -> bool) -> bool {
        if self.scheme() != "fs" || other.scheme() != "fs" {
            return false;
        }
        let (a, b) = (format!("/{}", self.prefix()), format!("/{}", other.prefix()));
        let look = tokio::task::spawn_blocking(move || {
            let mounts = mounts();
            question(&Folder::look(Path::new(&a), &mounts), &Folder::look(Path::new(&b), &mounts))
        });
        look.await.unwrap_or(true)
    }
}

/// A folder as the kernel knows it.
struct Folder {
    /// Device and inode; `None` when it is not there.
    id: Option<(u64, u64)>,
    /// Those of all folders around it, itself among them, as far as they are there.
    around: BTreeSet<(u64, u64)>,
    /// Its path in the file system that it lies in: mounts may show a part of it elsewhere.
    inside: Option<(OsString, PathBuf)>,
}

impl Folder {
    fn look(path: &Path, mounts: &[Mount]) -> Self {
        let there = path.ancestors().find_map(|folder| Some((folder, folder.canonicalize().ok()?)));
        let (folder, real) = there.unwrap_or((path, path.to_path_buf()));
        let missing = path.strip_prefix(folder).unwrap_or(Path::new(""));
        let id = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let around = real.ancestors().filter_map(id).collect();
        // Of several mounts at one point the last covers the others.
        let mount = mounts.iter().filter(|mount| real.starts_with(&mount.at)).max_by_key(|mount| mount.at.as_os_str().len());
        let inside = mount.and_then(|mount| {
            let below = real.strip_prefix(&mount.at).ok()?;
            Some((mount.device.clone(), mount.root.join(below).join(missing)))
        });
        Self { id: if missing.as_os_str().is_empty() { id(&real) } else { None }, around, inside }
    }

    fn is_within(&self, outer: &Self) -> bool {
        let by_path = self.inside.as_ref().zip(outer.inside.as_ref());
        outer.id.is_some_and(|id| self.around.contains(&id))
            || by_path.is_some_and(|(inner, outer)| inner.0 == outer.0 && inner.1.starts_with(&outer.1))
    }
}

/// A mount: which part of which file system is seen where.
struct Mount {
    device: OsString,
    root: PathBuf,
    at: PathBuf,
}

/// As `proc(5)` describes `mountinfo`; nothing where there is none.
fn mounts() -> Vec<Mount> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let read = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let (device, root, at) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mount { device: OsStr::from_bytes(device).to_owned(), root: unescaped(root), at: unescaped(at) })
    };
    text.split(|byte| *byte == b'\n').filter_map(read).collect()
}

/// White space and backslashes are written as `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 8).ok()).filter(|_| byte == b'\\');
        if let Some(code) = code {
            bytes.push(code);
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(endpoint: Option<&str>, prefix: &str) -> Spot {
        let get = |name: &str| match name {
            "endpoint" => endpoint.map(str::to_owned),
            "bucket" => Some("box".to_owned()),
            _ => None,
        };
        Spot::new("s3", &get, prefix)
    }

    #[test]
    fn one_server_has_many_spellings() {
        let one = spot(Some("http://127.0.0.1:9000"), "a/");
        for same in
            ["http://127.0.0.1:9000/", "http://localhost:9000", "localhost:9000", "http://127.1:9000", "http://[::1]:9000/"]
        {
            assert_eq!(spot(Some(same), "a/"), one, "{same}");
        }
        for other in ["http://127.0.0.1:9001", "http://127.0.0.2:9000", "http://127.0.0.1:9000/other"] {
            assert_ne!(spot(Some(other), "a/"), one, "{other}");
        }
        assert_eq!(spot(Some("https://s3.example.com:443/"), ""), spot(Some("box.S3.example.com."), ""));
        assert_eq!(spot(None, "a/"), spot(Some("https://s3.eu-west-1.amazonaws.com"), "a/"));
        assert_eq!(one.to_string(), "s3 127.0.0.1:9000 /box/a/");
        assert!(
            one.overlaps(&spot(Some("http://localhost:9000"), "a/b/")) && one.overlaps(&spot(Some("http://localhost:9000"), ""))
        );
        assert!(!one.overlaps(&spot(Some("http://localhost:9000"), "ab/")));
    }

    #[test]
    fn a_mount_point_with_a_space_is_read() {
        assert_eq!(unescaped(br"/a\040b\134c"), Path::new("/a b\\c"));
    }
}
