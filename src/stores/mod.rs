//! Where objects lie: named stores and URLs, opened with OpenDAL, with errors classified once.
//!
//! In: a place, `store:prefix/`, a URL or a directory. Out: a [`Store`] rooted there, and `StepError`s whose class is
//! decided here. Never here: a decision about what is copied, a directory or bucket that looking at a place creates.

mod apart;
mod azure;
pub mod bucket;
mod classify;
mod directory;
mod folders;
mod ini;
mod listing;
mod look;
mod open;
mod options;
mod place;
mod profile;
mod rclone;
mod removal;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use classify::{classify, is_changed, is_missing};
pub use listing::{Kind, Listed, Listing};
pub use look::{Look, Seen};
pub use options::{known_options, schemes};
pub use place::Place;
pub use rclone::Remotes;
pub use removal::Removed;
pub(crate) use store::is_at_once;
pub use store::{Abilities, Facts, Store};

use crate::error::StepError;
use crate::secret::{Text, Vault};

/// The options of one store as the pipeline gives them: OpenDAL's own names, `scheme` among them.
pub type StoreOptions = BTreeMap<String, Text>;

/// One bucket or container of a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// When it was created or last changed, as the service tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<jiff::Timestamp>,
}

/// How long a single request may take and how often it is tried again. Whole steps are retried by the engine; this is
/// only about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A request without a body: a stat, a page of a listing.
    pub request: Duration,
    /// One piece of a body, up or down.
    pub transfer: Duration,
    /// How often a request is repeated when its failure may pass.
    pub repeats: usize,
    /// The first wait before a repeat; it doubles.
    pub wait: Duration,
    /// How many operations may be open on one store at once.
    pub at_once: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            transfer: Duration::from_mins(1),
            repeats: 4,
            wait: Duration::from_millis(200),
            at_once: 256,
        }
    }
}

/// The named stores of a run. Cheap to clone; operators are opened on demand and shared.
#[derive(Clone, Default)]
pub struct Stores {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    definitions: BTreeMap<String, StoreOptions>,
    vault: Vault,
    patience: Patience,
    opened: Mutex<HashMap<String, open::Opened>>,
}

impl Stores {
    /// The stores of a pipeline, rendered, marks in place of secrets.
    pub fn new(definitions: BTreeMap<String, StoreOptions>, vault: Vault) -> Self {
        Self::with_patience(definitions, vault, Patience::default())
    }

    /// The same with other limits of single requests.
    pub fn with_patience(definitions: BTreeMap<String, StoreOptions>, vault: Vault, patience: Patience) -> Self {
        Self { inner: Arc::new(Inner { definitions, vault, patience, opened: Mutex::default() }) }
    }

    /// Opens a place to look at it. Contacts nothing and creates nothing. Relative directories start at `base`.
    pub fn open(&self, place: &str, base: &Path) -> Result<Store, StepError> {
        self.open_as(place, base, None)
    }

    /// Opens a place to write to it: a directory gets a hidden folder for unfinished files. `owner` names whoever writes,
    /// the same after a restart and never shared, so that it may clear away what it left unfinished.
    pub fn open_to_write(&self, place: &str, base: &Path, owner: &str) -> Result<Store, StepError> {
        self.open_as(place, base, Some(owner))
    }

    /// What another program needs to open a place: the place, and the options of the store that it names, marks in place of
    /// secrets. What this machine's environment adds is not among them.
    pub fn told(&self, place: &str) -> Result<(String, BTreeMap<String, StoreOptions>), StepError> {
        let Place::Named { store, prefix } = Place::parse(place)? else { return Ok((place.to_owned(), BTreeMap::new())) };
        let options = self.inner.definitions.get(&store).ok_or_else(|| self.unknown(&store, place))?;
        if options.get("scheme").is_none_or(|scheme| scheme.to_string() != rclone::SCHEME) {
            return Ok((format!("{store}:{prefix}"), [(store, options.clone())].into()));
        }
        let path = place.split_once(':').map_or("", |(_, path)| path);
        let (options, prefix) = rclone::expand(options, path, &self.inner.vault)?;
        Ok((format!("{store}:{prefix}"), [(store, options)].into()))
    }

    /// The buckets of the service that a place stands for: `s3://`, or a store without a bucket. `None` when the place
    /// lies in one already.
    pub async fn buckets(&self, place: &str, base: &Path) -> Result<Option<Vec<Bucket>>, StepError> {
        let (_, wanted) = self.wanted(place, base)?;
        if !wanted.is_service() {
            return Ok(None);
        }
        wanted.buckets(&self.inner.patience).await.map(Some)
    }

    fn wanted(&self, place: &str, base: &Path) -> Result<(Place, open::Wanted), StepError> {
        let parsed = Place::parse(place)?;
        let vault = &self.inner.vault;
        let (options, prefix) = match &parsed {
            Place::Named { store, prefix } => {
                let options = self.inner.definitions.get(store).ok_or_else(|| self.unknown(store, place))?;
                if options.get("scheme").is_some_and(|scheme| scheme.to_string() == rclone::SCHEME) {
                    let path = place.split_once(':').map_or("", |(_, path)| path);
                    rclone::expand(options, path, vault)?
                } else {
                    (options.clone(), prefix.clone())
                }
            }
            Place::Elsewhere { options, prefix } => (options.clone(), prefix.clone()),
        };
        let wanted = open::Wanted::resolve(place, &options, &prefix, base, vault)?;
        Ok((parsed, wanted))
    }

    fn open_as(&self, place: &str, base: &Path, owner: Option<&str>) -> Result<Store, StepError> {
        let (parsed, wanted) = self.wanted(place, base)?;
        wanted.must_have_bucket()?;
        let key = wanted.key(owner);
        let mut opened = self.inner.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let found = if let Some(found) = opened.get(&key) {
            found.clone()
        } else {
            let fresh = wanted.open(owner, &self.inner.patience)?;
            opened.insert(key, fresh.clone());
            fresh
        };
        Ok(Store::new(parsed.to_string(), wanted, found))
    }

    fn unknown(&self, name: &str, place: &str) -> StepError {
        if let Some(meant) = place::meant(place) {
            return StepError::permanent(format!("`{place}` is not a place")).help(format!("did you mean `{meant}`?"));
        }
        let near = self.inner.definitions.keys().map(|known| (strsim::osa_distance(known, name), known)).min();
        let help = match near {
            Some((distance, near)) if distance <= 2 && distance < name.chars().count() => format!("did you mean `{near}`?"),
            _ => "list it under `stores:`, or write a URL such as `s3://bucket/prefix/`".to_owned(),
        };
        StepError::permanent(format!("there is no store `{name}`")).help(help)
    }
}
