//! What a place says: `store:prefix/`, a URL such as `s3://bucket/prefix/`, or a directory.

use std::fmt;

use url::Url;

use super::StoreOptions;
use crate::error::StepError;
use crate::secret::Text;

/// A place as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A named store of the pipeline and a prefix in it.
    Named {
        /// The store's name.
        store: String,
        /// Empty, or ends with `/`.
        prefix: String,
    },
    /// A URL or a directory: the options that it spells, and a prefix.
    Elsewhere {
        /// OpenDAL's names, `scheme` among them.
        options: StoreOptions,
        /// Empty, or ends with `/`.
        prefix: String,
    },
}

/// A path in a store as the prefix of what lies below it.
pub(super) fn folder(text: &str) -> String {
    let text = text.trim_start_matches('/');
    if text.is_empty() || text.ends_with('/') { text.to_owned() } else { format!("{text}/") }
}

impl Place {
    /// Reads a place. A prefix always names a folder: `store:a` is `store:a/`.
    pub fn parse(text: &str) -> Result<Self, StepError> {
        if text.contains("://") {
            return Self::url(text);
        }
        if text.starts_with(['/', '.', '~']) {
            let root = match text.strip_prefix("~/").zip(std::env::var_os("HOME")) {
                Some((rest, home)) => format!("{}/{rest}", home.to_string_lossy()),
                None => text.to_owned(),
            };
            return Ok(Self::Elsewhere { options: spell([("scheme", "fs"), ("root", &root)]), prefix: String::new() });
        }
        match text.split_once(':') {
            Some((store, prefix)) if !store.is_empty() && store.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) => {
                Ok(Self::Named { store: store.to_owned(), prefix: folder(prefix) })
            }
            _ => Err(StepError::permanent(format!("`{text}` is not a place")).help(match meant(text) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write `store:prefix/`, a URL such as `s3://bucket/prefix/`, or a directory such as `./data/`".to_owned(),
            })),
        }
    }

    fn url(text: &str) -> Result<Self, StepError> {
        let wrong = |why: String| {
            StepError::permanent(format!("`{text}` is not the URL of a store: {why}"))
                .help("write one such as `s3://bucket/prefix/`, `azblob://container/`, `gs://bucket/`, `file:///path/`, `sftp://user@host/path/` or `webdavs://host/path/`")
        };
        // A prefix is taken as it is written, not decoded or tidied: `%2F` and `..` in an object's name are its own.
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut options: StoreOptions =
            url::form_urlencoded::parse(query.as_bytes()).map(|(k, v)| (k.into_owned(), Text::new(v.into_owned()))).collect();
        let mut set = |name: &str, value: &str| {
            options.insert(name.to_owned(), Text::new(value));
        };
        let prefix = match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => {
                set("scheme", "s3");
                set("bucket", authority);
                folder(path)
            }
            "gs" | "gcs" => {
                set("scheme", "gcs");
                set("bucket", authority);
                folder(path)
            }
            "azblob" | "az" => {
                set("scheme", "azblob");
                set("container", authority);
                folder(path)
            }
            "memory" => {
                set("scheme", "memory");
                set("root", authority);
                folder(path)
            }
            "file" | "fs" => {
                if !authority.is_empty() && authority != "localhost" {
                    return Err(wrong(format!("a directory on the machine `{authority}` cannot be reached this way")));
                }
                set("scheme", "fs");
                set("root", &format!("/{path}"));
                String::new()
            }
            "sftp" => {
                let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
                set("scheme", "sftp");
                set("endpoint", &if host.contains(':') { format!("ssh://{host}") } else { host.to_owned() });
                if let Some(user) = user {
                    set("user", user);
                }
                set("root", &format!("/{path}"));
                String::new()
            }
            web @ ("webdav" | "webdavs") => {
                let scheme = if web == "webdav" { "http" } else { "https" };
                let parsed = Url::parse(&format!("{scheme}://{authority}")).map_err(|error| wrong(error.to_string()))?;
                set("scheme", "webdav");
                set("endpoint", &format!("{scheme}://{}", authority.rsplit_once('@').map_or(authority, |(_, host)| host)));
                if !parsed.username().is_empty() {
                    set("username", parsed.username());
                }
                if let Some(password) = parsed.password() {
                    set("password", password);
                }
                folder(path)
            }
            other => {
                let error = wrong(format!("`{other}` is no scheme of a store"));
                return Err(match other {
                    "http" | "https" => error.help(format!(
                        "write `webdav{}://{rest}` for a WebDAV server, or `s3://bucket/prefix/?endpoint={other}://{authority}` for one that speaks S3",
                        other.trim_start_matches("http")
                    )),
                    "ssh" | "scp" => error.help(format!("write `sftp://{rest}`")),
                    _ => match nearest_scheme(other) {
                        Some(near) => error.help(format!("did you mean `{near}://{rest}`?")),
                        None => error,
                    },
                });
            }
        };
        // Only a service as a whole has neither: what can be done there is to list its buckets.
        let is_service = path.is_empty() && options.get("scheme").is_some_and(|scheme| is_bucketed(&scheme.to_string()));
        if authority.is_empty() && !is_service && !matches!(scheme, "file" | "fs") {
            return Err(wrong("the part behind `://` is empty".to_owned()));
        }
        if authority.is_empty() && is_service {
            options.remove("bucket");
            options.remove("container");
        }
        Ok(Self::Elsewhere { options, prefix })
    }
}

/// The schemes as they stand in URLs.
const URLS: [&str; 10] = ["s3", "s3a", "gs", "gcs", "azblob", "az", "file", "sftp", "webdav", "webdavs"];

/// Whether a store of this scheme is one bucket or container of a service that may have many.
pub(super) fn is_bucketed(scheme: &str) -> bool {
    matches!(scheme, "s3" | "gcs" | "azblob")
}

fn nearest_scheme(scheme: &str) -> Option<&'static str> {
    let near = URLS.iter().map(|known| (strsim::damerau_levenshtein(known, scheme), *known)).min()?;
    (near.0 <= 1 + near.1.len() / 4).then_some(near.1)
}

/// The URL that a text with too few or too many signs behind its scheme was meant to be: `s3:/bucket`, `s3//bucket`.
pub(super) fn meant(text: &str) -> Option<String> {
    let end = text.find([':', '/'])?;
    let (scheme, rest) = text.split_at(end);
    let signs = rest.len() - rest.trim_start_matches([':', '/']).len();
    let is_known = URLS.contains(&scheme) && matches!(&rest[..signs], ":/" | "//" | ":" | ":///" | "/" | "/:/");
    (is_known && signs < rest.len()).then(|| format!("{scheme}://{}", &rest[signs..]))
}

fn spell<const N: usize>(options: [(&str, &str); N]) -> StoreOptions {
    options.into_iter().map(|(name, value)| (name.to_owned(), Text::new(value))).collect()
}

impl fmt::Display for Place {
    /// For people: never an option that may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { store, prefix } => write!(f, "{store}:{prefix}"),
            Self::Elsewhere { options, prefix } => {
                let get = |name: &str| options.get(name).map(ToString::to_string).unwrap_or_default();
                match get("scheme").as_str() {
                    "fs" => write!(f, "{}", get("root")),
                    "sftp" => write!(f, "sftp://{}{}", get("endpoint").trim_start_matches("ssh://"), get("root")),
                    "webdav" => write!(f, "{}/{prefix}", get("endpoint")),
                    "gcs" if get("bucket").is_empty() => write!(f, "gs://"),
                    "gcs" => write!(f, "gs://{}/{prefix}", get("bucket")),
                    scheme if is_bucketed(scheme) && get("bucket").is_empty() && get("container").is_empty() => {
                        write!(f, "{scheme}://")
                    }
                    scheme => write!(
                        f,
                        "{scheme}://{}{}{}/{prefix}",
                        get("bucket"),
                        get("container"),
                        match scheme {
                            "memory" => get("root"),
                            _ => String::new(),
                        }
                    ),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        for (text, shown) in [
            ("old:uploads/", "old:uploads/"),
            ("old:uploads", "old:uploads/"),
            ("old:", "old:"),
            ("s3://bucket/a/b", "s3://bucket/a/b/"),
            ("s3://bucket?region=eu-west-1&endpoint=http://127.0.0.1:9", "s3://bucket/"),
            ("gs://bucket/x/", "gs://bucket/x/"),
            ("azblob://box/", "azblob://box/"),
            ("file:///tmp/x", "/tmp/x"),
            ("./data", "./data"),
            ("sftp://me@host:2222/srv/data/", "sftp://host:2222/srv/data/"),
            ("webdavs://me:word@host/dav/", "https://host/dav/"),
            ("s3://", "s3://"),
            ("azblob://?account_name=acme", "azblob://"),
        ] {
            assert_eq!(Place::parse(text).expect(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_help() {
        for text in ["", "data", "ftp://host/x", "s3:///x", "file://host/x", ":x"] {
            let error = Place::parse(text).expect_err(text);
            assert!(error.help.is_some(), "{text}");
        }
    }

    #[test]
    fn a_slip_in_a_place_is_told_with_what_was_meant() {
        for (text, help) in [
            ("s3//bucket/a", "did you mean `s3://bucket/a`?"),
            ("s4://bucket/a", "did you mean `s3://bucket/a`?"),
            ("webdev://host/a", "did you mean `webdav://host/a`?"),
            ("https://host/dav", "write `webdavs://host/dav` for"),
            ("ssh://me@host/a", "write `sftp://me@host/a`"),
        ] {
            let error = Place::parse(text).expect_err(text);
            assert!(error.help.as_deref().is_some_and(|told| told.starts_with(help)), "{text}: {error:?}");
        }
        assert_eq!(meant("s3:/bucket").as_deref(), Some("s3://bucket"));
        assert_eq!(meant("old:bucket"), None);
    }
}
