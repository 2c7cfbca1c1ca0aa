//! From options to an operator: defaults that people expect, secrets revealed here and only here, layers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use opendal::Operator;
use opendal::layers::{ConcurrentLimitLayer, RetryLayer, TimeoutLayer};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest, Sha256};

use super::apart::{Spot, server};
use super::bucket::{self, Bucket};
use super::place::is_bucketed;
use super::profile::Profile;
use super::{Patience, StoreOptions, azure, classify, options};
use crate::error::StepError;
use crate::secret::Vault;

/// The folder in a directory store where files lie until they are whole. Never listed.
pub(super) const UNFINISHED: &str = ".ferry-unfinished";

/// The options that say who asks.
const WHO: &[&str] = &[
    "profile",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "role_arn",
    "external_id",
    "disable_config_load",
    "skip_signature",
    "server_side_encryption_customer_algorithm",
    "server_side_encryption_customer_key",
    "server_side_encryption_customer_key_md5",
    "account_name",
    "account_key",
    "sas_token",
];

/// An operator and what has been learned about the store behind it. Cloning shares both.
#[derive(Clone)]
pub(super) struct Opened {
    pub operator: Operator,
    /// Whether a flat listing has been seen to come in byte order of the names. Set to false once it has not.
    pub is_ordered: Arc<AtomicBool>,
    /// Whether user metadata can be kept. Set to false once a file system has refused it.
    pub keeps_metadata: Arc<AtomicBool>,
    /// The bucket behind it, asked directly.
    pub bucket: Option<Arc<dyn Bucket>>,
}

/// What is to be opened: options with values in place of marks, and the whole prefix.
pub(super) struct Wanted {
    pub scheme: String,
    pub place: String,
    /// In the operator: empty, or ends with `/`. Options' `root` and the place's prefix together.
    pub prefix: String,
    options: Vec<(String, SecretString)>,
}

impl Wanted {
    /// Reads options, fills defaults in and reveals secrets.
    pub fn resolve(place: &str, given: &StoreOptions, prefix: &str, base: &Path, vault: &Vault) -> Result<Self, StepError> {
        let scheme = options::check(place, given)?;
        let mut options = Vec::with_capacity(given.len());
        let mut root = String::new();
        for (name, value) in given {
            let value = vault.reveal(value.marked()).map_err(|unknown| {
                StepError::permanent(format!(
                    "the option `{name}` of `{place}` needs the secret `{}`, which is not at hand",
                    unknown.0
                ))
                .help("list it under `secrets:` in the pipeline")
            })?;
            match name.as_str() {
                "scheme" => {}
                "root" => value.expose_secret().clone_into(&mut root),
                _ => options.push((name.clone(), value)),
            }
        }
        let mut wanted = Self { scheme, place: place.to_owned(), prefix: String::new(), options };
        let root = match wanted.scheme.as_str() {
            // Everything is opened at the top, so that looking at a directory which is not there does not create it,
            // and so that two places in one bucket share an operator.
            "fs" => {
                let root = if root.is_empty() { base.to_path_buf() } else { base.join(&root) };
                absolute(&root).to_string_lossy().into_owned()
            }
            _ => root,
        };
        let root = root.trim_matches('/');
        wanted.prefix = match (root.is_empty(), prefix.is_empty()) {
            (true, _) => prefix.to_owned(),
            (false, true) => format!("{root}/"),
            (false, false) => format!("{root}/{prefix}"),
        };
        if let Some(wrong) = wanted.prefix.trim_end_matches('/').split('/').find(|part| matches!(*part, "." | "..")) {
            return Err(StepError::permanent(format!("`{place}` has `{wrong}` in its path")).help("write the path without it"));
        }
        wanted.defaults()?;
        wanted.take_bucket();
        Ok(wanted)
    }

    /// A store without a bucket is a whole service: the bucket is the first part of the path then.
    fn take_bucket(&mut self) {
        let Some(option) = self.bucket_option().filter(|_| self.is_service()) else { return };
        let Some((bucket, prefix)) = self.prefix.split_once('/').filter(|(bucket, _)| !bucket.is_empty()) else { return };
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        self.options.retain(|(name, _)| name != option);
        self.options.push((option.to_owned(), SecretString::from(bucket)));
        self.prefix = prefix;
    }

    fn bucket_option(&self) -> Option<&'static str> {
        let name = if self.scheme == "azblob" { "container" } else { "bucket" };
        is_bucketed(&self.scheme).then_some(name)
    }

    /// Whether it is a service, and not one bucket of it.
    pub fn is_service(&self) -> bool {
        self.bucket_option().is_some_and(|option| self.value(option).is_none_or(|bucket| bucket.is_empty()))
    }

    /// Fails when it is a service.
    pub fn must_have_bucket(&self) -> Result<(), StepError> {
        let Some(option) = self.bucket_option().filter(|_| self.is_service()) else { return Ok(()) };
        let place = self.place.split('?').next().unwrap_or_default();
        Err(StepError::permanent(format!("`{place}` names no {option}"))
            .help(format!("write `{place}{option}/prefix/`; `ferry ls {place}` lists the {option}s")))
    }

    /// The buckets of the service.
    pub async fn buckets(&self, patience: &Patience) -> Result<Vec<super::Bucket>, StepError> {
        bucket::buckets(&self.scheme, &self.revealed(), patience).await
    }

    fn revealed(&self) -> Vec<(String, String)> {
        self.options.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(known, _)| known == name)
    }

    fn default(&mut self, name: &str, value: impl Into<String>) {
        if !self.has(name) {
            self.options.push((name.to_owned(), SecretString::from(value.into())));
        }
    }

    /// What is not said is taken from where the provider's own tools look.
    fn defaults(&mut self) -> Result<(), StepError> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match self.scheme.as_str() {
            "s3" => {
                let looks = self.value("disable_config_load").is_none_or(|value| value != "true");
                let named = self.value("profile");
                let mut profile = if looks { Profile::read(named) } else { Profile::default() };
                let from_env = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(set).or(profile.region.take());
                let elsewhere = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(set).or(profile.endpoint.take());
                if let Some(endpoint) = elsewhere {
                    self.default("endpoint", endpoint);
                }
                match from_env {
                    Some(region) => self.default("region", region),
                    // Servers that speak S3 take any region or none; the signature needs one.
                    None if self.has("endpoint") => self.default("region", "us-east-1"),
                    None => {}
                }
            }
            "azblob" => {
                let given = self.value("connection_string");
                self.options.retain(|(name, _)| name != "connection_string");
                let has_account = self.has("account_name") || self.has("endpoint");
                let from_env = || set("AZURE_STORAGE_CONNECTION_STRING").filter(|_| !has_account);
                if let Some(connection) = given.or_else(from_env) {
                    for (name, value) in azure::of_connection(&connection)? {
                        self.default(name, value);
                    }
                    return Ok(());
                }
                let account = self.value("account_name").or_else(|| set("AZURE_STORAGE_ACCOUNT"));
                if let Some(account) = account {
                    self.default("endpoint", format!("https://{account}.blob.core.windows.net"));
                    self.default("account_name", account);
                }
                if let Some(key) = set("AZURE_STORAGE_KEY") {
                    self.default("account_key", key);
                }
                if let Some(token) = set("AZURE_STORAGE_SAS_TOKEN") {
                    self.default("sas_token", token);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn value(&self, name: &str) -> Option<String> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.expose_secret().to_owned())
    }

    /// Where it lies, however it is spelled.
    pub fn spot(&self) -> Spot {
        Spot::new(&self.scheme, &|name| self.value(name), &self.prefix)
    }

    /// Who asks which service, as a digest: places with the same one can be read with one key.
    pub fn account(&self) -> String {
        let mut digest = Sha256::new();
        let mut add = |name: &str, value: &str| {
            for text in [name, value] {
                digest.update(text.as_bytes());
                digest.update([0]);
            }
        };
        let (host, base) = self.value("endpoint").map(|endpoint| server(&endpoint, "")).unwrap_or_default();
        match self.scheme.as_str() {
            // The host is in the spot, with all its names; a bucket may stand in it.
            "s3" => {}
            _ => add(&host, &base),
        }
        // Every key of an Azure account opens all of it.
        let has_key = self.scheme == "azblob" && self.has("account_key");
        for name in WHO.iter().filter(|name| !has_key || !matches!(**name, "account_key" | "sas_token")) {
            if let Some(value) = self.value(name) {
                add(name, &value);
            }
        }
        format!("{} {has_key} {:x}", self.scheme, digest.finalize())
    }

    /// Whether objects are encrypted with a key of one's own that the service cannot be given for the source of a copy.
    pub fn has_own_key(&self) -> bool {
        self.scheme == "azblob" && self.has("encryption_key")
    }

    /// The same for places that can share an operator. A digest: options may be secrets.
    pub fn key(&self, owner: Option<&str>) -> String {
        let mut digest = Sha256::new();
        let mut options: Vec<_> = self.options.iter().collect();
        options.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in options {
            digest.update(name.as_bytes());
            digest.update([0]);
            digest.update(value.expose_secret().as_bytes());
            digest.update([0]);
        }
        match (self.scheme.as_str(), owner) {
            ("fs", Some(owner)) => {
                digest.update(self.prefix.as_bytes());
                digest.update([0]);
                digest.update(owner.as_bytes());
            }
            // Whoever writes holds a place among the operations of its operator, and looks at the source meanwhile: with one
            // operator for both ends of a copy, writers would wait for the places that they hold themselves.
            ("memory" | "s3" | "azblob", _) | (_, None) => {}
            (_, Some(_)) => digest.update(b"writes"),
        }
        format!("{} {:x}", self.scheme, digest.finalize())
    }

    /// Opens it. No request is made.
    pub fn open(&self, owner: Option<&str>, patience: &Patience) -> Result<Opened, StepError> {
        let mut options = self.revealed();
        match self.scheme.as_str() {
            "fs" => {
                options.push(("root".to_owned(), "/".to_owned()));
                if let Some(owner) = owner {
                    let unfinished = format!("/{}{UNFINISHED}/{owner}", self.prefix);
                    options.push(("atomic_write_dir".to_owned(), unfinished));
                }
            }
            "sftp" => options.push(("root".to_owned(), "/".to_owned())),
            _ => {}
        }
        let bucket = bucket::open(&self.scheme, &options, patience)?;
        opendal::install_default();
        let operator = Operator::via_iter(&self.scheme, options)
            .map_err(|error| classify(&format!("cannot open `{}`", self.place), error))?
            .layer(TimeoutLayer::new().with_timeout(patience.request).with_io_timeout(patience.transfer))
            .layer(
                RetryLayer::new()
                    .with_jitter()
                    .with_min_delay(patience.wait)
                    .with_max_delay(patience.wait * 20)
                    .with_max_times(patience.repeats)
                    .with_notify(|event: opendal::layers::RetryEvent<'_>| {
                        tracing::debug!(operation = ?event.op, repeat = event.attempt, "a request to a store is repeated");
                    }),
            )
            // Each operation by SFTP holds a connection of its own, and servers take few.
            .layer(ConcurrentLimitLayer::new(if self.scheme == "sftp" { patience.at_once.min(8) } else { patience.at_once }));
        let (is_ordered, keeps_metadata) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        Ok(Opened { operator, is_ordered, keeps_metadata, bucket })
    }
}

/// The path without `.` and `..`, by its text: what is not there has no other form.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
