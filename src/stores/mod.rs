//! Where objects lie: named stores and URLs, opened with OpenDAL, with errors classified once.
//!
//! In: a place, `store:prefix/` or a URL. Out: an operator rooted there, and `StepError`s whose class is decided here.
//! Never here: a decision about what is copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::secret::{Text, Vault};

/// The options of one store as the pipeline gives them: OpenDAL's own names, `scheme` among them.
pub type StoreOptions = BTreeMap<String, Text>;

/// The named stores of a run. Cheap to clone; operators are opened on demand and shared.
#[derive(Clone, Default)]
pub struct Stores {
    #[expect(dead_code, reason = "read by `open`, which the stores' own issue part brings")]
    definitions: Arc<BTreeMap<String, StoreOptions>>,
    #[expect(dead_code, reason = "read by `open`, which the stores' own issue part brings")]
    vault: Vault,
}

impl Stores {
    /// The stores of a pipeline, rendered, marks in place of secrets.
    pub fn new(definitions: BTreeMap<String, StoreOptions>, vault: Vault) -> Self {
        Self { definitions: Arc::new(definitions), vault }
    }
}
