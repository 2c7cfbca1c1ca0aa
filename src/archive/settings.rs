//! The file that says where an archive is: written by a step onto the database's host, or by hand.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::depot::Depot;
use crate::error::StepError;
use crate::secret::{Text, Vault};
use crate::stores::{StoreOptions, Stores};

/// The options of a store that are no secrets.
const OPEN: &[&str] =
    &["scheme", "bucket", "container", "endpoint", "region", "root", "profile", "account_name", "enable_virtual_host_style"];

/// Where an archive is, and how it is worked with. A YAML file that only its owner may read: it may hold keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it is: `store:prefix/` or a URL.
    pub place: String,
    /// The stores that `place` may name, as in a pipeline.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stores: BTreeMap<String, BTreeMap<String, String>>,
    /// Where what was pushed ahead is noted and what was fetched ahead lies. Unless given, a folder inside `pg_wal`: base
    /// backups leave that out, and files move from there without being copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<PathBuf>,
    /// How many objects are sent or fetched at once.
    #[serde(default = "at_once")]
    pub at_once: usize,
    /// How many segments are pushed or fetched before they are asked for. 0: none.
    #[serde(default = "ahead")]
    pub ahead: usize,
    /// How hard zstd tries: 1 to 19.
    #[serde(default = "level")]
    pub level: i32,
}

fn at_once() -> usize {
    4
}

fn ahead() -> usize {
    16
}

fn level() -> i32 {
    3
}

impl Settings {
    /// With what is usual.
    pub fn at(place: impl Into<String>) -> Self {
        Self { place: place.into(), stores: BTreeMap::new(), spool: None, at_once: at_once(), ahead: ahead(), level: level() }
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, StepError> {
        let shown = path.display();
        let failed = |cause: std::io::Error| {
            StepError::permanent(format!("cannot read the archive's settings `{shown}`"))
                .cause(cause)
                .help("see that the path is right and that the server's user may read it")
        };
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(StepError::permanent(format!("the archive's settings `{shown}` may be read or written by others"))
                .help(format!("it may hold keys: `chmod 600 {shown}`")));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let settings: Self = serde_yaml::from_str(&text).map_err(|error| {
            StepError::permanent(format!("the archive's settings `{shown}` are wrong: {error}"))
                .help("`place` says where it is, `stores` what its store is; docs/postgres-backup.md has the rest")
        })?;
        if !(1..=256).contains(&settings.at_once) || settings.ahead > 1024 || !(1..=19).contains(&settings.level) {
            return Err(StepError::permanent(format!("a number in the archive's settings `{shown}` is out of its range"))
                .help("`at_once`: 1 to 256, `ahead`: 0 to 1024, `level`: 1 to 19"));
        }
        Ok(settings)
    }

    /// Opens the archive. Contacts nothing. Relative directories start at `base`.
    pub fn open(self, base: &Path) -> Result<Archive, StepError> {
        let vault = Vault::default();
        let hide = |store: &str, name: &str, value: &String| {
            if OPEN.contains(&name) {
                return Text::new(value.clone());
            }
            Text::new(vault.insert(&format!("{store}.{name}"), SecretString::from(value.clone())))
        };
        let stores = self.stores.iter().map(|(store, options)| {
            let options: StoreOptions = options.iter().map(|(name, value)| (name.clone(), hide(store, name, value))).collect();
            (store.clone(), options)
        });
        let store = Stores::new(stores.collect(), vault.clone()).open(&self.place, base)?;
        Ok(Archive { settings: self, depot: Depot::new(store), vault })
    }
}

/// An opened archive.
#[derive(Debug, Clone)]
pub struct Archive {
    /// What it was opened with.
    pub settings: Settings,
    /// What must not be shown.
    pub vault: Vault,
    pub(super) depot: Depot,
}

impl Archive {
    /// The archive for people.
    pub fn label(&self) -> &str {
        self.depot.label()
    }
}
